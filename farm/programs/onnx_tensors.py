"""Tensors of an ONNX model: where their bytes lie, in the model's file or beside it."""

from __future__ import annotations

import os
import struct
import sys
from array import array
from itertools import islice
from pathlib import Path
from typing import Any

from farm.canonical import encode
from farm.errors import BadProgram
from farm.programs.archive import open_regular
from farm.programs.identity import FileIdentity
from farm.programs.onnx_messages import DTYPES, PACKED
from farm.programs.onnx_wire import NotAMessage, Place, Reader
from farm.programs.weights import ITEM_SIZES, BytesContent, Content, FileContent, StoredTensor

_INT32 = {"int8", "uint8", "int16", "uint16", "bool", "float16", "bfloat16", "int32", *PACKED} | {
    name for name in ITEM_SIZES if name.startswith("float8")
}
MAX_NUMBERS = 32_000_000
"""Numbers of typed fields that are read one by one, in a whole model: some ten seconds' worth."""

_ARRAYS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_HINT = "Keep the model's external data beside it, in its own folder."


class OnnxTensors:
    """Stored tensors by number. ``files`` are all files that the model's tensors lie in."""

    def __init__(self, path: Path, identity: FileIdentity, reader: Reader) -> None:
        self.path, self.identity, self.reader = path, identity, reader
        self.tensors: list[StoredTensor] = []
        self.files: dict[Path, FileIdentity] = {path: identity}
        self._folder = Path(os.path.realpath(path)).parent
        self._numbers = 0
        self._spelt: dict[int, tuple[dict[str, Any], Content]] = {}
        """Content by the message that spells it out: a function's constants are met at each of its calls."""

    def add(self, message: dict[str, Any], name: str) -> int:
        """The number of the tensor in ``message``; a constant until it is known to be a weight."""
        dtype = DTYPES.get(message.get("data_type", 0))
        shape = tuple(message.get("dims", ()))
        if dtype is None or any(size < 0 for size in shape) or "segment" in message:
            raise NotAMessage(f"tensor {name!r} has a dtype or shape that cannot be")
        known = self._spelt.get(id(message))
        if known is None:
            known = self._spelt[id(message)] = message, self._content(message, name, dtype, shape)
        self.tensors.append(StoredTensor(name, dtype, shape, "constant", known[1]))
        return len(self.tensors) - 1

    def add_bytes(self, name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> int:
        """The number of a tensor that an attribute spells out."""
        self.tensors.append(StoredTensor(name, dtype, shape, "constant", BytesContent(data)))
        return len(self.tensors) - 1

    def is_false(self, number: int) -> bool:
        """Whether a stored tensor is the truth value False."""
        tensor = self.tensors[number]
        content, plain = tensor.content, tensor.dtype == "bool" and tensor.count == 1
        if plain and isinstance(content, FileContent) and content.path == self.path:
            return self.reader.data[content.start] == 0
        return plain and isinstance(content, BytesContent) and content.data == b"\0"

    def _content(self, message: dict[str, Any], name: str, dtype: str, shape: tuple[int, ...]) -> Content:
        if dtype == "string":
            return BytesContent(encode(list(message.get("string_data", []))))
        expected = byte_size(dtype, shape)
        if message.get("data_location", 0) == 1:
            return self._external(message, name, expected)
        if "raw_data" in message:
            start, end = message["raw_data"]
            if end - start != expected:
                raise NotAMessage(f"tensor {name!r} has {end - start} bytes of data, not {expected}")
            return FileContent(self.path, self.identity, start, expected)
        data = self._typed(message, dtype, expected)
        if len(data) != expected:
            raise NotAMessage(f"tensor {name!r} has {len(data)} bytes of data, not {expected}")
        return BytesContent(data)

    def _typed(self, message: dict[str, Any], dtype: str, expected: int) -> bytes:
        """Data in a typed field, as the bytes that ``raw_data`` would hold; hardly more than ``expected``."""
        if dtype in ("float32", "complex64"):
            return self._joined(message.get("float_data", []))
        if dtype in ("float64", "complex128"):
            return self._joined(message.get("double_data", []))
        if dtype in _INT32:
            size = ITEM_SIZES.get(dtype, 1)
            return self._narrowed(message.get("int32_data", []), size, expected)
        if dtype in ("uint32", "uint64"):
            return self._narrowed(message.get("uint64_data", []), ITEM_SIZES[dtype], expected)
        return self._narrowed(message.get("int64_data", []), 8, expected)

    def _joined(self, places: list[Place]) -> bytes:
        return b"".join(bytes(self.reader.data[start:end]) for start, end in places)

    def _narrowed(self, places: list[Place], size: int, expected: int) -> bytes:
        mask, wanted = (1 << 8 * size) - 1, expected // size
        self._numbers += min(wanted, sum(end - start for start, end in places))
        if self._numbers > MAX_NUMBERS:
            raise BadProgram(
                f"{self.path} spells out more than {MAX_NUMBERS:,} numbers one by one",
                "Save the model with its tensors as raw_data.",
            )
        values = (value & mask for place in places for value in self.reader.integers(place))
        found = array(_ARRAYS[size], islice(values, min(wanted, MAX_NUMBERS) + 1))
        if sys.byteorder == "big":
            found.byteswap()
        return found.tobytes()

    def _external(self, message: dict[str, Any], name: str, expected: int) -> Content:
        entries = {one.get("key", ""): one.get("value", "") for one in message.get("external_data", [])}
        path, identity = self._outside(entries.get("location", ""), name)
        start = _number(entries.get("offset", "0"), name)
        size = _number(entries["length"], name) if "length" in entries else expected
        if size != expected or start + size > identity.size:
            raise BadProgram(
                f"{self.path}: tensor {name!r} needs {expected} bytes at {start} of {path.name}, which has"
                f" {identity.size}",
                "Fetch the model's external data again.",
            )
        return FileContent(path, identity, start, size)

    def _outside(self, location: str, name: str) -> tuple[Path, FileIdentity]:
        """A file beside the model: a regular one within its folder, reached through no link."""
        path = self._folder / location
        plain = Path(os.path.normpath(path))
        if not location or "\0" in location or not plain.is_relative_to(self._folder):
            raise BadProgram(f"{self.path}: tensor {name!r} lies outside the model's folder ({location!r})", _HINT)
        if Path(os.path.realpath(plain)) != plain:
            raise BadProgram(f"{self.path}: tensor {name!r} lies behind a symbolic link ({location!r})", _HINT)
        if plain not in self.files:
            descriptor = open_regular(plain)
            self.files[plain] = FileIdentity.of(os.fstat(descriptor))
            os.close(descriptor)
        return plain, self.files[plain]


def byte_size(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor; packed dtypes fill whole bytes."""
    count = 1
    for size in shape:
        count *= size
    if dtype in PACKED:
        return -(-count // PACKED[dtype])
    return count * ITEM_SIZES[dtype]


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadProgram(f"tensor {name!r}: {text!r} is no place in a file", _HINT)
    return int(text)


def floats(values: list[float]) -> bytes:
    """float32 values as bytes."""
    return struct.pack(f"<{len(values)}f", *values)


def integers(values: list[int]) -> bytes:
    """int64 values as bytes."""
    return struct.pack(f"<{len(values)}q", *values)
