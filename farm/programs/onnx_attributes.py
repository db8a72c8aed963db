"""Attributes that say what would be so without them. ONNX states these defaults in words, so no schema has them.

Exporters differ in what they spell out (torch writes a convolution's strides, pads and dilations, others leave them
to their defaults): both mean one program, so what is spelt out is taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Message = dict[str, Any]


def _all(value: int) -> Callable[[Message], bool]:
    return lambda attribute: all(one == value for one in attribute.get("ints", []))


def _reversed(attribute: Message) -> bool:
    given = list(attribute.get("ints", []))
    return given == list(reversed(range(len(given))))


_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv"})
_WINDOW = {"strides": _all(1), "dilations": _all(1), "pads": _all(0)}
_IMPLIED: Mapping[str, Mapping[str, Callable[[Message], bool]]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool"), _WINDOW),
    "ConvTranspose": {**_WINDOW, "output_padding": _all(0)},
    "Transpose": {"perm": _reversed},
    "Scan": {
        f"scan_{side}_{what}": _all(0) for side in ("input", "output") for what in ("directions", "axes")
    },
}  # fmt: skip
_KERNEL_OF_WEIGHT = frozenset({"Conv", "ConvTranspose"})


_AXIS = frozenset(
    (
        "Softmax", "LogSoftmax", "Hardmax", "Concat", "Gather", "GatherElements", "ScatterElements", "Split", "ArgMax",
        "ArgMin", "TopK", "LayerNormalization", "Flatten",
    )
)  # fmt: skip
_AXES = frozenset(f"Reduce{kind}" for kind in (
    "L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"
))  # fmt: skip


def from_the_front(op: str, attributes: Mapping[str, Message], rank: int | None, default: int) -> Mapping[str, Message]:
    """``attributes`` with an axis that is counted from the back counted from the front, where the operand's rank is
    known ("negative value means counting dimensions from the back"); ``default`` is the axis that is none given."""
    if rank is None or (op not in _AXIS and op not in _AXES):
        return attributes
    if op in _AXIS:
        axis = attributes.get("axis", {}).get("i", default)
        return (
            {**attributes, "axis": {"name": "axis", "i": axis + rank, "type": 2}} if -rank <= axis < 0 else attributes
        )
    axes = attributes.get("axes", {}).get("ints", [])
    if not any(-rank <= axis < 0 for axis in axes):
        return attributes
    counted = [axis + rank if -rank <= axis < 0 else axis for axis in axes]
    return {**attributes, "axes": {"name": "axes", "ints": counted, "type": 7}}


def without_implied(
    op: str, attributes: Mapping[str, Message], outputs: int, weight: Sequence[Any] | None
) -> Mapping[str, Message]:
    """``attributes`` of an ONNX operator, less those that change nothing. ``weight`` is the shape of the second
    operand, where that is stored."""
    implied = _IMPLIED.get(op)
    if implied is not None:
        found = {name: one for name, one in attributes.items() if name not in implied or not implied[name](one)}
        return _without_kernel(op, _padded(op, attributes, found), weight)
    if op == "BatchNormalization" and outputs == 1 and not attributes.get("training_mode", {}).get("i", 0):
        # The running mean is only ever moved in training.
        return {name: one for name, one in attributes.items() if name != "momentum"}
    return attributes


_FLOAT8 = frozenset({17, 18, 19, 20, 24})


def older(op: str, attributes: Mapping[str, Message]) -> tuple[int | None, Sequence[str]]:
    """The version of an operator in which these attributes mean what they mean in newer ones, and those of them that it
    does not have: what is newer is only about what they do not ask for.

    A cast: since 19 for float8 ("only applies for float 8 conversion"), which the versions before 19 do not cast from
    either. Pooling: version 22 adds that windows which would start in the padding on the right are ignored; only where
    sizes are rounded up can any. A batch normalisation: version 15 adds how the statistics are computed in training.
    """
    if op == "Cast" and attributes.get("to", {}).get("i", 17) not in _FLOAT8:
        return 18, ("saturate", "round_mode")
    if op in ("MaxPool", "AveragePool") and _rounds_down(attributes):
        return 21, ()
    if op == "BatchNormalization" and not attributes.get("training_mode", {}).get("i", 0):
        return 14, ()
    return None, ()


def _rounds_down(attributes: Mapping[str, Message]) -> bool:
    kernel, pads = (attributes.get(name, {}).get("ints", []) for name in ("kernel_shape", "pads"))
    plain = not attributes.get("ceil_mode", {}).get("i", 0) and "auto_pad" not in attributes
    return bool(plain and kernel and (not pads or max(pads) < min(kernel)))


def _padded(op: str, given: Mapping[str, Message], found: dict[str, Message]) -> dict[str, Message]:
    """``found`` without an ``auto_pad`` that means no pads; with its pads where they stand beside another, since no
    program should have both."""
    auto = given.get("auto_pad", {}).get("s", b"NOTSET")
    if auto == b"VALID" and op in _CONVOLUTIONS and "pads" not in given:
        return {name: one for name, one in found.items() if name != "auto_pad"}
    return {**found, "pads": given["pads"]} if "pads" in given and auto != b"NOTSET" else found


def _without_kernel(op: str, found: dict[str, Message], weight: Sequence[Any] | None) -> dict[str, Message]:
    """The kernel's shape is that of the weight."""
    kernel = found.get("kernel_shape", {}).get("ints")
    if op in _KERNEL_OF_WEIGHT and weight is not None and kernel == list(weight[2:]):
        del found["kernel_shape"]
    return found
