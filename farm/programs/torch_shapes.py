"""Sizes, places and dims of one call of a torch operator, spelt as what they come to.

``x[1:]`` is ``x[1:4]`` of four rows, ``x[-1]`` is ``x[3]``; ``view(-1)`` is ``view(12)`` of twelve numbers; a sum over
dims 1 and 0 is one over dims 0 and 1, and one over all. Only sizes that are numbers count, and only those of the
operand: what depends on a symbol stays as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any

from farm.canonical import encode

NONE = encode(None)
Shaped = Callable[[list[bytes], Sequence[int], Sequence[Any]], None]
"""Respells a call's encoded arguments in place, given the positions that the rule is about and the operand's metas."""

WHOLE = re.compile(rb"i\d+:(-?\d+)")
LISTED = re.compile(rb"l\d+:s1:\[((?:i\d+:-?\d+)*)")
_UNKNOWN = b":-"
_LAST = 9223372036854775807
"""Where a slice ends that has no end, as torch writes it."""


def whole(part: bytes) -> int | None:
    """An encoded whole number."""
    found = WHOLE.fullmatch(part)
    return None if found is None else int(found[1])


def listed(part: bytes) -> list[int] | None:
    """An encoded list of whole numbers."""
    found = LISTED.fullmatch(part)
    return None if found is None else [int(one) for one in WHOLE.findall(found[1])]


def _shape(operand: Sequence[Any]) -> Sequence[Any] | None:
    """The dims that all of these values have."""
    shapes = {None if meta.scalar else meta.dims for meta in operand}
    return next(iter(shapes)) if len(shapes) == 1 else None


def _size(operand: Sequence[Any], dim: int | None) -> int | None:
    """A size of the operand, if that is a number."""
    shape = _shape(operand)
    if shape is None or dim is None or not -len(shape) <= dim < len(shape):
        return None
    size = shape[dim]
    return size if type(size) is int else None


def _slice(parts: list[bytes], places: Sequence[int], operand: Sequence[Any]) -> None:
    dim, start, end = places
    size = _size(operand, whole(parts[dim]))
    parts[start], parts[end] = _sliced(parts[start], parts[end], size)


@lru_cache(maxsize=1024)
def _sliced(start: bytes, end: bytes, size: int | None) -> tuple[bytes, bytes]:
    """As ATen's ``slice`` reads them (``TensorShape.cpp``): from the back where negative, within the size."""
    first, last = 0 if start == NONE else whole(start), _LAST if end == NONE else whole(end)
    if size is not None:
        first = None if first is None else _within(first, size)
        last = None if last is None else _within(last, size)
    if first is not None and last is not None and size is not None:
        last = max(first, last)
    return start if first is None else encode(first), end if last is None else encode(last)


def _within(place: int, size: int) -> int:
    return min(max(place + size if place < 0 else place, 0), size)


def _select(parts: list[bytes], places: Sequence[int], operand: Sequence[Any]) -> None:
    dim, index = places
    at = whole(parts[index])
    if at is not None and at < 0:
        size = _size(operand, whole(parts[dim]))
        if size is not None and at + size >= 0:
            parts[index] = encode(at + size)


def _view(parts: list[bytes], places: Sequence[int], operand: Sequence[Any]) -> None:
    """The size that is left open, where all of the operand's are numbers."""
    (size,) = places
    if _UNKNOWN in parts[size]:
        shape = _shape(operand)
        if shape is not None and all(type(one) is int for one in shape):
            parts[size] = _filled(parts[size], prod(shape))


def _unflatten(parts: list[bytes], places: Sequence[int], operand: Sequence[Any]) -> None:
    dim, sizes = places
    size = _size(operand, whole(parts[dim])) if _UNKNOWN in parts[sizes] else None
    if size is not None:
        parts[sizes] = _filled(parts[sizes], size)


@lru_cache(maxsize=1024)
def _filled(part: bytes, count: int) -> bytes:
    """A list of sizes whose product is ``count``, its ``-1`` worked out."""
    sizes = listed(part)
    if sizes is None or sizes.count(-1) != 1:
        return part
    others = -prod(sizes)
    if others <= 0 or count % others:
        return part
    return encode(["[", *(count // others if size == -1 else size for size in sizes)])


def _expand(parts: list[bytes], places: Sequence[int], operand: Sequence[Any]) -> None:
    """A size of ``-1`` is the operand's own."""
    (size,) = places
    if _UNKNOWN in parts[size]:
        shape, sizes = _shape(operand), listed(parts[size])
        if shape is not None and sizes is not None and len(shape) <= len(sizes):
            own = [-1] * (len(sizes) - len(shape)) + [one if type(one) is int else -1 for one in shape]
            parts[size] = encode(["[", *(mine if one == -1 else one for one, mine in zip(sizes, own, strict=True))])


def _reduce(parts: list[bytes], places: Sequence[int], operand: Sequence[Any]) -> None:
    """The dims of a reduction are a set, and none of them or an empty list means all (``make_dim_mask`` of ATen)."""
    (dim,) = places
    shape = _shape(operand)
    parts[dim] = _reduced(parts[dim], None if shape is None else len(shape))


@lru_cache(maxsize=1024)
def _reduced(part: bytes, rank: int | None) -> bytes:
    single = whole(part)
    dims = listed(part) if single is None else [single]
    if dims is None or any(dim < 0 for dim in dims) or len(set(dims)) < len(dims):
        return part
    if not dims or (rank is not None and len(dims) >= rank):
        return NONE
    return encode(["[", *sorted(dims)])


_SLICE, _SELECT = (_slice, ("dim", "start", "end")), (_select, ("dim", "index"))
_REDUCE = (_reduce, ("dim",))
SHAPED: Mapping[str, tuple[Shaped, Sequence[str]]] = {
    **dict.fromkeys(("aten.slice.Tensor", "aten.slice_copy.Tensor", "aten.slice_scatter.default"), _SLICE),
    **dict.fromkeys(("aten.select.int", "aten.select_copy.int", "aten.select_scatter.default"), _SELECT),
    **dict.fromkeys(("aten.view.default", "aten.view_copy.default", "aten._unsafe_view.default"), (_view, ("size",))),
    "aten.reshape.default": (_view, ("shape",)),
    "aten.unflatten.int": (_unflatten, ("dim", "sizes")),
    **dict.fromkeys(("aten.expand.default", "aten.expand_copy.default"), (_expand, ("size",))),
    **dict.fromkeys(("aten.sum.dim_IntList", "aten.mean.dim", "aten.amax.default", "aten.amin.default"), _REDUCE),
    **{f"aten.{name}.correction": _REDUCE for name in ("var", "std", "var_mean", "std_mean")},
}
"""The rule of each operator that has one, and the arguments that it is about."""
