"""Entries of Torch-TensorRT's engine cache, of every release from 2.9 to 2.14, as containers and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from farm.asks import Identity
from farm.container import unpack
from farm.errors import BadInput

pytest.importorskip("torch")
from farm.integrations.entries import container_of, entry_of, fields_of
from farm.integrations.subgraphs import Asked

pytestmark = pytest.mark.torch

FIRST = ("serialized_engine", "input_names", "output_names", "input_specs", "compilation_settings")
RELEASES = {
    "2.9 to 2.11": (*FIRST, "weight_name_map", "requires_output_allocator"),
    "2.12, 2.13": (*FIRST, "requires_output_allocator", "requires_native_multidevice"),
    "2.14": (*FIRST, "requires_output_allocator", "requires_native_multidevice", "aliased_io"),
}
VALUES: dict[str, Any] = {
    "serialized_engine": b"a plan",
    "input_names": ["x", "mask"],
    "output_names": ["output0"],
    "input_specs": ["another's"],
    "compilation_settings": "another's",
    "weight_name_map": {"conv KERNEL": ["conv.weight", object()]},
    "requires_output_allocator": True,
    "requires_native_multidevice": False,
    "aliased_io": {"output0": ("x", "copy")},
}


@dataclass
class Spec:
    shape: Any
    dtype: str = "dtype.f32"


def asked() -> Asked:
    names = {name: f"sha256:{digit * 64}" for name, digit in (("key", "1"), ("recipe", "2"))}
    told: dict[str, Any] = {"graph": "", "weights": "", "settings": {}, "told": {}, "profiles": (), "parts": {}}
    identity = Identity("m", Path(), "l4", "torch_tensorrt==2.13.0+rtx1.7.1", capability="", format="", **names, **told)
    specs = [Spec({"min_shape": (1, 4), "opt_shape": (2, 4), "max_shape": (8, 4)}), Spec((4,), "dtype.b")]
    return Asked(identity, "sha256:" + "3" * 64, specs, "my settings", ({"dtype": "float32", "shape": [-1, 2]},))


@pytest.mark.parametrize("fields", RELEASES.values(), ids=RELEASES)
def test_an_entry_comes_back_with_the_asker_s_own_specs_and_settings(fields: tuple[str, ...]) -> None:
    mine = asked()
    header, plan = unpack(container_of(mine, tuple(VALUES[name] for name in fields), fields))
    assert entry_of(header, plan, mine, fields) == tuple(
        {**VALUES, "input_specs": mine.specs, "compilation_settings": "my settings", "weight_name_map": None}[name]
        for name in fields
    )
    assert header.bindings["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": [-1, 4]},
        {"name": "mask", "dtype": "bool", "shape": [4]},
    ]
    assert header.bindings["outputs"] == [{"name": "output0", "dtype": "float32", "shape": [-1, 2]}]


def test_an_entry_of_other_fields_is_not_kept() -> None:
    with pytest.raises(BadInput, match="has 8 fields"):
        container_of(asked(), tuple(VALUES[name] for name in RELEASES["2.14"]), RELEASES["2.12, 2.13"])
    newer = (*FIRST, "requires_output_allocator", "something_new")
    with pytest.raises(BadInput, match="something_new"):
        container_of(asked(), (*(VALUES[name] for name in FIRST), True, True), newer)


def test_fields_are_the_parameters_of_pack() -> None:
    def pack(serialized_engine: bytes, input_names: list[str], aliased_io: dict[str, str]) -> bytes: ...

    assert fields_of(pack) == ("serialized_engine", "input_names", "aliased_io")
