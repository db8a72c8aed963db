"""Weights by content: digests of tensors, independent of names and of how they lie in memory.

A tensor's digest covers its dtype, shape and logical content (row by row, as if contiguous), so strides,
offsets and shared storages are no matter. A program's weights digest covers its tensors in the canonical
order of first use in the graph: renaming drops out, a tied tensor is seen once, dead weights are not seen.
Bytes are hashed where they lie, in a memory-mapped file, by BLAKE3 on all cores; nothing is copied but
tensors whose rows are not in order, a few MiB at a time.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from farm.canonical import SCHEMA, digest, encode
from farm.errors import BadProgram
from farm.programs.archive import open_regular
from farm.programs.identity import FileIdentity, refuse_change
from farm.programs.memory import WeightsMemory
from farm.programs.strided import rows_in_order

ITEM_SIZES = {
    **dict.fromkeys(("uint8", "int8", "bool"), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32", "complex32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 8),
    "complex128": 16,
    **{f"float8_{form}": 1 for form in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu", "e4m3", "e8m0")},
}
"""Bytes of one element. Packed dtypes (``int4`` and the like) have none: only their whole content is read."""

FLOATING = frozenset(
    {"float16", "bfloat16", "float32", "float64", *(name for name in ITEM_SIZES if name.startswith("float8"))}
)

_CHUNK = 32 << 20
_THREADED = 1 << 20


class Content(Protocol):
    """Where a tensor's bytes come from."""

    def feed(self, files: Files, hasher: blake3) -> None:
        """Feed the logical content to ``hasher``."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that a program uses. ``kind`` is ``weight`` (a fine-tune may replace it) or ``constant``
    (its values may shape the engine: lifted constants, integers, single numbers, unsaved buffers)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: str
    content: Content

    @property
    def count(self) -> int:
        """Number of elements."""
        return element_count(self.shape)


def kind_of(dtype: str, shape: Sequence[int], lasting: bool) -> str:
    """``weight`` for a saved floating-point tensor of two elements or more, else ``constant``.

    Converters read single numbers and integers (to fold them, or as sizes and indices), so an engine may
    depend on their values even where its weights can be refitted.
    """
    return "weight" if lasting and dtype in FLOATING and element_count(shape) > 1 else "constant"


def element_count(shape: Sequence[int]) -> int:
    """Number of elements of a tensor."""
    total = 1
    for size in shape:
        total *= size
    return total


@dataclass(frozen=True, slots=True)
class TensorDigest:
    """One tensor for people and for ``farm explain``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: str
    digest: str


class Files:
    """Files of tensors, each mapped once and known to be the ones that were opened at first."""

    def __init__(self) -> None:
        self._open: dict[Path, tuple[int, mmap.mmap, memoryview]] = {}

    def view(self, path: Path, identity: FileIdentity) -> memoryview:
        """The whole of ``path``, read-only; ``BadProgram`` if it is not the file of ``identity``."""
        if path not in self._open:
            descriptor = open_regular(path)
            try:
                refuse_change(path, identity, os.fstat(descriptor))
                mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
            except BaseException:
                os.close(descriptor)
                raise
            self._open[path] = (descriptor, mapped, memoryview(mapped))
        return self._open[path][2]

    def forget(self, path: Path, start: int, size: int) -> None:
        """Give the pages of a part that was read back to the system, so that they do not count as ours."""
        mapped = self._open[path][1]
        first = start - start % mmap.PAGESIZE
        if size and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED, first, start + size - first)

    def expect(self, path: Path, start: int, size: int) -> None:
        """Ask the system to read a part ahead."""
        first = start - start % mmap.PAGESIZE
        if size and hasattr(mmap, "MADV_WILLNEED"):
            self._open[path][1].madvise(mmap.MADV_WILLNEED, first, start + size - first)

    def check(self, path: Path, identity: FileIdentity) -> None:
        """``BadProgram`` if an open file changed meanwhile."""
        refuse_change(path, identity, os.fstat(self._open[path][0]))

    def close(self) -> None:
        """Unmap and close everything."""
        for descriptor, mapped, view in self._open.values():
            view.release()
            mapped.close()
            os.close(descriptor)
        self._open.clear()


@contextmanager
def open_files() -> Iterator[Files]:
    """``Files`` that are closed afterwards."""
    files = Files()
    try:
        yield files
    finally:
        files.close()


@dataclass(frozen=True, slots=True)
class FileContent:
    """Part of a file: ``size`` bytes at ``start``; with ``strides`` (in elements) when rows are not in order."""

    path: Path
    identity: FileIdentity
    start: int
    size: int
    strides: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    item_size: int = 1

    def feed(self, files: Files, hasher: blake3) -> None:
        whole = files.view(self.path, self.identity)
        with whole[self.start : self.start + self.size] as view:
            if self.strides:
                for piece in rows_in_order(view, self.shape, self.strides, self.item_size):
                    hasher.update(piece)
            else:
                self._feed_pieces(files, hasher, view)
        files.check(self.path, self.identity)

    def _feed_pieces(self, files: Files, hasher: blake3, view: memoryview) -> None:
        for at in range(0, self.size, _CHUNK):
            size = min(_CHUNK, self.size - at)
            files.expect(self.path, self.start + at, min(self.size - at, 2 * _CHUNK))
            with view[at : at + size] as piece:
                hasher.update(piece)
            files.forget(self.path, self.start + at, size)


@dataclass(frozen=True, slots=True)
class BytesContent:
    """Bytes that the program's own text holds."""

    data: bytes

    def feed(self, files: Files, hasher: blake3) -> None:
        hasher.update(self.data)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Content that is not there or that only a pickle could bring back; asking for it is the error."""

    why: str

    def feed(self, files: Files, hasher: blake3) -> None:
        raise BadProgram(self.why, "Save the program again with plain tensors as its weights.")


def tensor_digest(tensor: StoredTensor, files: Files) -> str:
    """``b3:`` digest of one tensor's dtype, shape and logical content."""
    threads = blake3.AUTO if tensor.count >= _THREADED // 4 else 1
    hasher = blake3(encode(["farm tensor", SCHEMA, tensor.dtype, list(tensor.shape)]), max_threads=threads)
    tensor.content.feed(files, hasher)
    return "b3:" + hasher.hexdigest()


class Weights:
    """The tensors that a program uses, in canonical order. Digests are computed on demand and kept."""

    def __init__(self, tensors: Sequence[StoredTensor], digests: Sequence[str | None] = ()) -> None:
        self._tensors = tuple(tensors)
        self._digests: list[str | None] = list(digests) or [None] * len(self._tensors)
        self.on_digest: Callable[[], None] = _nothing
        """Called when digests have been computed that were not known (to remember them)."""

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def size(self) -> int:
        """Elements in all, weights and constants."""
        return sum(tensor.count for tensor in self._tensors)

    def content_digest(self) -> str:
        """``b3:`` digest of every tensor that the graph uses, by content, constants among them."""
        found = self._content(range(len(self._tensors)))
        return "b3:" + blake3(encode(["farm weights", SCHEMA, "content", found])).hexdigest()

    def metadata_digest(self) -> str:
        """``sha256:`` digest of the weights' dtypes and shapes; nothing of a file is read."""
        described = [[tensor.dtype, list(tensor.shape), tensor.kind] for tensor in self._tensors]
        return digest("weights metadata", described)

    def constants(self) -> list[tuple[int, str]]:
        """Position and content digest of each constant."""
        chosen = [index for index, tensor in enumerate(self._tensors) if tensor.kind == "constant"]
        return list(zip(chosen, self._content(chosen), strict=True))

    def tensors(self) -> tuple[TensorDigest, ...]:
        """Every tensor with its digest, in canonical order."""
        found = self._content(range(len(self._tensors)))
        return tuple(
            TensorDigest(tensor.name, tensor.dtype, tensor.shape, tensor.kind, one)
            for tensor, one in zip(self._tensors, found, strict=True)
        )

    @property
    def stored(self) -> tuple[StoredTensor, ...]:
        """The tensors themselves, in canonical order."""
        return self._tensors

    def known_digests(self) -> tuple[str | None, ...]:
        """What has been computed so far."""
        return tuple(self._digests)

    def _content(self, chosen: Iterable[int]) -> list[str]:
        chosen = list(chosen)
        missing = [index for index in chosen if self._digests[index] is None]
        made: dict[tuple[object, ...], str] = {}
        with open_files() as files:
            for index in missing:
                tensor = self._tensors[index]
                # A function's constant is a tensor of its own at each call, and hashed once all the same.
                same = tensor.dtype, tensor.shape, id(tensor.content)
                made[same] = self._digests[index] = made.get(same) or tensor_digest(tensor, files)
        if missing:
            self.on_digest()
        return [found for index in chosen if (found := self._digests[index]) is not None]


def _nothing() -> None:
    return None


__all__ = ["StoredTensor", "TensorDigest", "Weights", "WeightsMemory"]
