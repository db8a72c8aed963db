"""A sanitised archive is the same program: graph, signature, ranges, weights, and the ONNX model made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile.forge import NAMES, SAMPLE, Archive

from farm.programs import open_program
from farm.programs.sanitise import sanitise_pt2

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_as_the_same_program(torch_child: Any, exported: Path, tmp_path: Path, name: str) -> None:
    sanitise_pt2(exported / f"{name}.pt2", tmp_path / "safe.pt2")
    original = torch_child.ask(exported / f"{name}.pt2", describe=True)
    assert original["loaded"]
    assert torch_child.ask(tmp_path / "safe.pt2", describe=True) == original


@pytest.mark.parametrize("name", ["conv", "batch", "keywords", "branches"])
def test_it_exports_to_the_same_onnx_model(torch_child: Any, exported: Path, tmp_path: Path, name: str) -> None:
    sanitise_pt2(exported / f"{name}.pt2", tmp_path / "safe.pt2")
    original = torch_child.ask(exported / f"{name}.pt2", export=True)
    assert original["onnx"]
    assert torch_child.ask(tmp_path / "safe.pt2", export=True) == original


def test_derived_dimensions_export_to_the_same_model_but_for_the_names_of_values(
    torch_child: Any, exported: Path, archives: dict[str, Archive], tmp_path: Path
) -> None:
    """Torch traces guards such as ``2*L['x'].size()[0] == …`` where a file has sample inputs, which uses up names
    (``mul_6``). A sanitised archive has neither."""
    sanitise_pt2(exported / "derived.pt2", tmp_path / "safe.pt2")
    unguarded = archives["derived"].forge(tmp_path / "unguarded.pt2", members={SAMPLE: b""})
    safe = torch_child.ask(tmp_path / "safe.pt2", export=True)
    assert safe["onnx"]
    assert torch_child.ask(unguarded, export=True) == safe
    assert torch_child.ask(exported / "derived.pt2", export=True)["structure"] == safe["structure"]


@pytest.mark.parametrize("name", NAMES)
def test_its_key_does_not_change(exported: Path, tmp_path: Path, name: str) -> None:
    sanitise_pt2(exported / f"{name}.pt2", tmp_path / "safe.pt2")
    one, other = open_program(exported / f"{name}.pt2"), open_program(tmp_path / "safe.pt2")
    assert one.graph_digest == other.graph_digest
    assert one.weights.content_digest() == other.weights.content_digest()


@pytest.mark.parametrize("name", NAMES)
def test_sanitising_twice_changes_nothing_more(exported: Path, tmp_path: Path, name: str) -> None:
    sanitise_pt2(exported / f"{name}.pt2", tmp_path / "once.pt2")
    sanitise_pt2(tmp_path / "once.pt2", tmp_path / "twice.pt2")
    assert (tmp_path / "once.pt2").read_bytes() == (tmp_path / "twice.pt2").read_bytes()


def test_containers_of_every_kind_can_be_loaded(torch_child: Any, archives: dict[str, Archive], tmp_path: Path) -> None:
    factory = {"default_factory_module": "builtins", "default_factory_name": "list", "dict_context": ["a"]}
    contexts = {
        "builtins.list": "null",
        "builtins.dict": '["k", 3, null, 0.5]',
        "collections.OrderedDict": '["a b"]',
        "collections.deque": "null",
        "collections.defaultdict": factory,
        "collections.namedtuple": "mine.Point",
        "torch.Size": "null",
        "torch.fx.immutable_collections.immutable_dict": "[]",
    }
    kinds = [{"type": kind, "context": context, "children_spec": []} for kind, context in contexts.items()]
    leaf = {"type": None, "context": None, "children_spec": []}
    tree = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [leaf, *kinds]}])

    def change(model: dict[str, Any]) -> None:
        model["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = tree

    sanitise_pt2(archives["conv"].forge(tmp_path / "forged.pt2", change), tmp_path / "safe.pt2")
    told = torch_child.ask(tmp_path / "safe.pt2", describe=True)
    assert told["loaded"], told
    assert "defaultdict" in told["calls"]


def test_a_program_from_a_gpu_comes_to_the_cpu(
    torch_child: Any, exported: Path, archives: dict[str, Archive], tmp_path: Path
) -> None:
    """Torch alone cannot load one where there is no GPU; the ONNX model says nothing of devices."""

    def move(content: Any) -> None:
        for value in content.values() if isinstance(content, dict) else content:
            if isinstance(value, dict) and value.get("type") == "cpu":
                value.update(type="cuda", index=0)
            elif isinstance(value, dict | list):
                move(value)

    moved = archives["conv"].forge(tmp_path / "cuda.pt2", move, weights=move, constants=move)
    sanitise_pt2(moved, tmp_path / "safe.pt2")
    original = torch_child.ask(exported / "conv.pt2", describe=True)
    assert original["loaded"]
    assert torch_child.ask(tmp_path / "safe.pt2", describe=True) == original
