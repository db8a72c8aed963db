"""How many dims a value of an ONNX model has, as far as that follows from the model's inputs and stored tensors alone.

What a model states of the values in between is not asked: it may be wrong, and nothing would tell. Operators that are
not here give no rank, and an axis that is counted from the back then stays as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_AS_FIRST = _names(
    "Abs Acos Asin Atan Cast Ceil Celu Clip Cos CumSum DequantizeLinear Elu Erf Exp Floor Gelu HardSigmoid "
    "HardSwish Identity LeakyRelu Log LogSoftmax Mish Neg Not PRelu QuantizeLinear Reciprocal Relu Round Selu "
    "Sigmoid Sign Sin Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Hardmax Transpose Split Concat "
    "Pad Slice Tile Trilu BatchNormalization InstanceNormalization GroupNormalization LayerNormalization "
    "RMSNormalization LpNormalization LRN Conv ConvTranspose MaxPool AveragePool LpPool GlobalAveragePool "
    "GlobalMaxPool Resize DepthToSpace SpaceToDepth GatherElements ScatterElements ScatterND TopK"
)
_BROADCAST = _names(
    "Add Sub Mul Div Pow Mod Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Where Min Max Sum Mean BitwiseAnd"
)
_REDUCE = _names(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare ArgMax ArgMin"
)

ALL_ALIKE = _names("Split TopK MaxPool")
"""Operators whose results have one rank; of others that is only said of the first."""


def rank_of(
    op: str, attributes: Mapping[str, Message], ranks: Sequence[int | None], stored: Sequence[Sequence[int] | None]
) -> int | None:
    """The rank of the first result of a call. ``ranks`` are its operands', ``stored`` the shapes of the stored ones."""
    first = ranks[0] if ranks else None
    if op in _AS_FIRST:
        return first
    if op in _BROADCAST:
        known = [rank for rank in ranks if rank is not None]
        return max(known) if known and len(known) == len(ranks) else None
    if op in _REDUCE:
        return first if attributes.get("keepdims", {}).get("i", 1) else None
    if op in ("Gemm", "Flatten"):
        return 2
    return _other(op, attributes, ranks, stored)


def _other(
    op: str, attributes: Mapping[str, Message], ranks: Sequence[int | None], stored: Sequence[Sequence[int] | None]
) -> int | None:
    first, second = ranks[0] if ranks else None, ranks[1] if len(ranks) > 1 else None
    if op == "MatMul":
        return max(first, second) if first is not None and second is not None and min(first, second) >= 2 else None
    if op == "Gather":
        return None if first is None or second is None else first + second - 1
    if op == "Reshape":
        shape = stored[1] if len(stored) > 1 else attributes.get("shape", {}).get("ints", [])
        return None if not shape else shape[0] if len(stored) > 1 else len(shape)
    if op in ("Squeeze", "Unsqueeze") and first is not None:
        axes = _count(attributes, stored)
        return None if axes is None else first + (axes if op == "Unsqueeze" else -axes)
    return None


def _count(attributes: Mapping[str, Message], stored: Sequence[Sequence[int] | None]) -> int | None:
    """How many axes are named, by an attribute or a stored operand."""
    if "axes" in attributes:
        return len(attributes["axes"].get("ints", []))
    shape = stored[1] if len(stored) > 1 else None
    return None if shape is None or len(shape) != 1 else shape[0]
