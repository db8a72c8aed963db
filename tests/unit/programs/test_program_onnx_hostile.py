"""ONNX models made to exhaust whoever reads them: bounded time and memory, and a clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_program_hostile import read_in_a_child

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")
from onnx import helper, numpy_helper  # noqa: E402
from test_program_onnx import N, model, value  # noqa: E402

pytestmark = pytest.mark.torch
RANGES = "pkg.torch.export.ExportedProgram.range_constraints"


def _number(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + _number(value >> 7) if value > 0x7F else bytes([value])


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def _with(found: Any, of_graph: bytes = b"", of_model: bytes = b"") -> bytes:
    """``found`` with more in it than onnx would make."""
    graph = of_graph + found.graph.SerializeToString()
    found.ClearField("graph")
    return bytes(found.SerializeToString() + _field(7, graph) + of_model)


def _spelt_out(claimed: int) -> bytes:
    """A tensor of 100 million numbers in a typed field, a byte each."""
    dims = _number(1 << 3) + _number(claimed) + _number(2 << 3) + _number(7)
    tensor = _field(8, b"w") + dims + _field(7, b"\x01" * 100_000_000)
    return _with(model([N("Gather", ["x", "w"], ["y"])]), of_graph=_field(5, tensor))


def _many_floats() -> bytes:
    attribute = _field(1, b"alpha") + _number(20 << 3) + _number(6) + _field(7, bytes(400_000_000))
    node = _field(1, b"x") + _field(2, b"z") + _field(4, b"LeakyRelu") + _field(5, attribute)
    return _with(model([N("Relu", ["x"], ["y"])]), of_graph=_field(1, node))


def _long_ranges() -> bytes:
    told = _field(1, RANGES.encode()) + _field(2, b"a" * 19_000_000)
    return _with(model([N("Relu", ["x"], ["y"])]), of_model=_field(14, told))


def _called(times: int, body: list[Any]) -> bytes:
    """A function whose body holds much, called again and again."""
    function = helper.make_function("mine", "Much", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    calls = [N("Much", ["x"], [f"y{n}"], domain="mine") for n in range(times)]
    outputs = [value(f"y{n}", None) for n in range(times)]
    found = model(calls, outputs=outputs, imports=[helper.make_opsetid("mine", 1)], functions=[function])
    return bytes(found.SerializeToString())


def _typed_constant() -> bytes:
    held = helper.make_tensor("c", 7, [1_000_000], [1] * 1_000_000)
    return _called(1000, [N("Constant", [], ["c"], value=held), N("Gather", ["a", "c"], ["b"])])


def _raw_constant() -> bytes:
    held = numpy_helper.from_array(np.zeros(8_000_000, np.float32))
    return _called(2000, [N("ConstantOfShape", ["a"], ["b"], value=held)])


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "more numbers than the tensor has": (lambda: _spelt_out(3), "has 32 bytes of data, not 24"),
    "as many numbers as it has": (lambda: _spelt_out(100_000_000), "more than 32,000,000 numbers one by one"),
    "an attribute of floats": (_many_floats, "too many parts for a program"),
    "ranges without end": (_long_ranges, "19,000,000 characters long"),
    "long attributes of a function": (
        lambda: _called(1000, [N("Transpose", ["a"], ["b"], perm=[0] * 1_000_000)]),
        "too many parts for a program once its functions are expanded",
    ),
    "many operands in a function": (
        lambda: _called(1000, [N("Sum", ["a"] * 100_000, ["b"])]),
        "too many parts for a program once its functions are expanded",
    ),
    "dims without end": (
        lambda: model([N("Relu", ["x"], ["y"])], [value("x", *["*".join(["(n+m)"] * 2000)] * 500)]).SerializeToString(),
        "too many parts for a program",
    ),
    "a constant of a function, spelt out": (_typed_constant, "read 1000"),
    "a constant of a function": (_raw_constant, "read 2000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_read_or_refused_within_bounds(tmp_path: Path, name: str) -> None:
    make, told = HOSTILE[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(make())
    assert told in read_in_a_child(path, seconds=30)
