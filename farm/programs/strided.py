"""Rows of a tensor in order, whatever its strides, without NumPy and without a copy of the whole.

The longest dimension is copied in one go (a strided slice of a ``memoryview``, which C does); the others are
walked. The result comes in pieces of some MiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

_PIECE = 16 << 20
_FORMATS: Mapping[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements lie in row order without gaps."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to the last one that is addressed, both included; 0 for an empty tensor."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def rows_in_order(
    view: memoryview, shape: Sequence[int], strides: Sequence[int], item_size: int
) -> Iterator[bytearray]:
    """Pieces of the logical content of ``view`` (elements at ``strides``), in row order."""
    if item_size == 16:
        shape, strides, item_size = (*shape, 2), (*(2 * stride for stride in strides), 1), 8
    dims = _merged(shape, strides)
    total = item_size
    for size, _ in dims:
        total *= size
    with view.cast("B").cast(_FORMATS[item_size]) as items:
        yield from _pieces(items, dims, item_size, total)


def _merged(shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(size, stride) of each dimension, without those of size 1, neighbours in one run merged."""
    dims: list[tuple[int, int]] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if dims and dims[-1][1] == size * stride:
            dims[-1] = (dims[-1][0] * size, stride)
        else:
            dims.append((size, stride))
    return dims or [(1, 1)]


def _pieces(items: memoryview, dims: list[tuple[int, int]], item_size: int, total: int) -> Iterator[bytearray]:
    """Split along the first dimension until a piece is small, then copy it."""
    if total <= _PIECE or len(dims) == 1:
        yield from _copied(items, dims, item_size, total)
        return
    (size, stride), rest = dims[0], dims[1:]
    each = total // size
    step = max(1, _PIECE // each) if each <= _PIECE else 1
    for at in range(0, size, step):
        count = min(step, size - at)
        with items[at * stride :] as part:
            if count == 1:
                yield from _pieces(part, rest, item_size, each)
            else:
                yield from _copied(part, [(count, stride), *rest], item_size, each * count)


def _copied(items: memoryview, dims: list[tuple[int, int]], item_size: int, total: int) -> Iterator[bytearray]:
    if len(dims) == 1 and total > _PIECE:
        size, stride = dims[0]
        step = _PIECE // item_size
        for at in range(0, size, step):
            count = min(step, size - at)
            with items[at * stride :] as part:
                yield from _copied(part, [(count, stride)], item_size, count * item_size)
        return
    out = bytearray(total)
    with memoryview(out).cast(_FORMATS[item_size]) as target:
        _copy(items, target, _with_places(dims))
    yield out


def _with_places(dims: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(size, stride from, stride to), the longest dimension last."""
    places, step = [], 1
    for size, stride in reversed(dims):
        places.append((size, stride, step))
        step *= size
    return sorted(places, key=lambda dim: dim[0])


def _copy(items: memoryview, target: memoryview, dims: list[tuple[int, int, int]]) -> None:
    *outer, (size, stride, step) = dims
    starts = [(0, 0)]
    for count, from_stride, to_stride in outer:
        starts = [(a + k * from_stride, b + k * to_stride) for a, b in starts for k in range(count)]
    for a, b in starts:
        end = b + (size - 1) * step + 1
        if stride == 0:
            filled = memoryview(items[a : a + 1].tobytes() * size)
            target[b:end:step] = filled.cast(_FORMATS[items.itemsize])
        else:
            target[b:end:step] = items[a : a + (size - 1) * stride + 1 : stride]
