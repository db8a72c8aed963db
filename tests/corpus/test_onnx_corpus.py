"""The ONNX corpus is true: pairs that are one program share an identity, others do not; onnx's own evaluator agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx.reference import ReferenceEvaluator  # noqa: E402

from farm.programs import open_program  # noqa: E402

from .cases import identity  # noqa: E402
from .onnx_cases import PAIRS, Pair  # noqa: E402

pytestmark = pytest.mark.torch


def test_the_names_are_unique() -> None:
    assert len({pair.name for pair in PAIRS}) == len(PAIRS) >= 60


@pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])
def test_pair(tmp_path: Path, pair: Pair) -> None:
    found = []
    for name, make in (("first", pair.first), ("second", pair.second)):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(make().SerializeToString())
        found.append(identity(open_program(path), pair.policy))
    assert (found[0] == found[1]) is pair.same


@pytest.mark.parametrize("pair", [one for one in PAIRS if one.runs], ids=[one.name for one in PAIRS if one.runs])
def test_the_evaluator_agrees(pair: Pair) -> None:
    same = all(_equal(_run(pair.first(), seed), _run(pair.second(), seed)) for seed in range(3))
    assert same is pair.same or not pair.differs


def _run(model: Any, seed: int) -> list[Any]:
    drawn = np.random.default_rng(seed)
    feeds = {}
    for one in model.graph.input:
        tensor = one.type.tensor_type
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).type
        shape = [dim.dim_value for dim in tensor.shape.dim]
        feeds[one.name] = np.asarray(drawn.integers(0, 2) if kind is np.bool_ else drawn.standard_normal(shape)).astype(
            kind
        )
    return list(ReferenceEvaluator(model).run(None, feeds))


def _equal(first: list[Any], second: list[Any]) -> bool:
    if [one.shape for one in first] != [one.shape for one in second]:
        return False
    return all(np.allclose(one, other, equal_nan=True) for one, other in zip(first, second, strict=True))
