"""Which engines and which models go together for a refit; the command's walk, with a refitter that stands in."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from farm.builders import Form, Limits, Watch
from farm.builds import Engine
from farm.errors import BadInput
from farm.identify import facts
from farm.programs import open_program
from farm.refits import Refits, check
from farm.toolchains import Toolchain

VECTORS = Path(__file__).parents[1] / "vectors"


def engine_of(model: Path, **changes: Any) -> Engine:
    """A refittable engine of ``model``."""
    program = open_program(model)
    weights = {
        "policy": "metadata",
        "digest": program.weights.metadata_digest(),
        "constants": facts(program).constants(),
    }
    parts = {"graph": program.structure_digest, "settings": {"immutable_weights": False}, "weights": weights}
    manifest = {"key": "sha256:" + "1" * 64, "toolchain": "tensorrt==10.14.1.48", "parts": parts, **changes}
    return Engine("sha256:" + "2" * 64, "sha256:" + "3" * 64, 4, manifest, 0.0, 1.0)


def parts_of(engine: Engine, **changes: Any) -> Mapping[str, Any]:
    return {**engine.manifest["parts"], **changes}


def test_an_engine_takes_the_weights_of_its_own_graph_alone() -> None:
    model = VECTORS / "conv.pt2"
    engine = engine_of(model)
    check(engine, open_program(model))
    with pytest.raises(BadInput, match="another graph"):
        check(engine, open_program(VECTORS / "gemm.pt2"))
    for changes, words in (
        ({"parts": parts_of(engine, settings={"immutable_weights": True})}, "baked in for good"),
        ({"parts": parts_of(engine, settings={})}, "baked in for good"),
        ({"parts": parts_of(engine, weights={"policy": "content"})}, "weights' values"),
        ({"parts": parts_of(engine, weights={"policy": "metadata", "constants": "other"})}, "other constants"),
        ({"toolchain": "torch_tensorrt==2.13.0+rtx1.7.1.116"}, "which Torch-TensorRT refits"),
        ({"parts": None}, "baked in for good"),
    ):
        with pytest.raises(BadInput, match=words):
            check(engine_of(model, **changes), open_program(model))


class Things:
    """The cache, the forms and the refitter of one refit."""

    def fetch(self, engine: Engine, dest: Path) -> None:
        dest.write_bytes(b"plan")

    def get(self, program: Any, digest: str, format: str, watch: Watch) -> Form:
        return Form(program(), None, (), ())

    def refit(self, toolchain: Toolchain, plan: Path, form: Form, folder: Path, limits: Limits, watch: Watch) -> Path:
        made = folder / "made"
        made.write_bytes(plan.read_bytes() + b" with weights")
        return made


def test_the_refitted_engine_is_written_and_nothing_stays_behind(tmp_path: Path) -> None:
    model = Path(shutil.copy(VECTORS / "conv.pt2", tmp_path))
    things: Any = Things()
    done = Refits(things, things, things, tmp_path / "scratch", Limits()).refit(
        engine_of(model), model, tmp_path / "out" / "e.plan"
    )
    data = (tmp_path / "out" / "e.plan").read_bytes()
    assert data == b"plan with weights"
    assert (done.digest, done.size) == ("sha256:" + hashlib.sha256(data).hexdigest(), len(data))
    assert list((tmp_path / "scratch").iterdir()) == [] and [one.name for one in (tmp_path / "out").iterdir()] == [
        "e.plan"
    ]
