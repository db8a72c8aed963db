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
