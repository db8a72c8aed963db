"""What keys need to know of ONNX operators (the generated ``onnx_operators.json``), and rules it does not tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from blake3 import blake3

from farm.canonical import encode
from farm.errors import BadProgram

RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)
_IN_WORDS = {":ConstantOfShape": {"value": [4, ["float32", [1], blake3(bytes(4)).digest()]]}}
"""Defaults that ONNX states in words, as ``OnnxValues`` reads the same when it is given."""
WEIGHT_SLOTS: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), frozenset({1, 2})),
    "Gemm": frozenset({0, 1, 2}),
    **dict.fromkeys(("MatMul", "Add", "Sub", "Mul", "Div"), frozenset({0, 1})),
    "BatchNormalization": frozenset({1, 2, 3, 4}),
    **dict.fromkeys(
        ("LayerNormalization", "InstanceNormalization", "GroupNormalization"),
        frozenset({1, 2}),
    ),
    "RMSNormalization": frozenset({1}),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), frozenset({1, 2, 3})),
    "Gather": frozenset({0}),
    "PRelu": frozenset({1}),
}
"""Operands that a refit can replace. An initializer that is used anywhere else is a constant: its values may
shape the engine (sizes, scales, pads, exponents)."""


OPTIONAL_OUTPUTS: Mapping[str, int] = {
    **dict.fromkeys(("LayerNormalization", "MaxPool", "Dropout", "Unique"), 1),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), 0),
}
"""Operators whose further results are optional, and compute nothing else when they are left out. (A batch
normalisation's say that it trains, a split's how often it splits.)"""


def meaning(
    op: str, domain: str, opsets: Mapping[str, int], custom_ops: Mapping[str, str], since: int | None = None
) -> tuple[list[Any], Mapping[str, bytes]]:
    """What identifies an operator, and its attributes' defaults, encoded.

    Its identity is the version that introduced its present meaning, so models of different operator sets agree
    on what did not change between them. ``since`` is an older version that means the same with the attributes given.
    ``BadProgram`` for a custom operator without a declared digest.
    """
    versions, opset = _table().get(f"{domain}:{op}"), opsets.get(domain)
    if versions is not None and opset is not None:
        opset = opset if since is None else min(opset, since)
        known = [meaning for version, _, meaning in versions if version <= opset]
        if known:
            return ["onnx", domain, op, known[-1]], _defaults(f"{domain}:{op}", len(known) - 1)
    for spelling in (f"{domain or 'ai.onnx'}::{op}", f"{domain}::{op}"):
        if spelling in custom_ops:
            return ["custom", domain, op, custom_ops[spelling]], {}
    shown = f"{domain or 'ai.onnx'}::{op}"
    raise BadProgram(
        f"{shown} is no operator of ONNX (operator set {opset}): nothing in the model says what it computes",
        f"Declare its implementation: custom_ops={{'{shown}': 'sha256:<digest of its plug-in>'}}.",
    )


def default_axis(op: str, opsets: Mapping[str, int]) -> int:
    """The axis of an operator of ONNX's own that is none given; 0 where it has no such default."""
    versions = [told for since, told, _ in _table().get(f":{op}", ()) if since <= opsets.get("", 0)]
    return int(versions[-1].get("axis", [2, 0])[1]) if versions else 0


@cache
def _defaults(operator: str, version: int) -> Mapping[str, bytes]:
    """Attribute defaults of version number ``version`` of an operator, encoded as given ones are."""
    told = _table()[operator][version][1] | _IN_WORDS.get(operator, {})
    return {name: encode(name) + encode(found) for name, found in told.items()}


@cache
def _table() -> Mapping[str, list[tuple[int, dict[str, list[Any]], int]]]:
    text = files("farm.programs").joinpath("onnx_operators.json").read_bytes()
    table: Mapping[str, list[tuple[int, dict[str, list[Any]], int]]] = json.loads(text)["operators"]
    return table
