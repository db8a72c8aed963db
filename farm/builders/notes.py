"""What an ONNX form says of itself, carried in the file: binding names, exporter, and where nodes come from. Pure.

The notes are one entry of the model's ``metadata_props``. Protocol buffers let a field be appended to a file
that ends, so writing needs no ONNX package, and reading skips over the graph without parsing it: a process
that builds from a cached form needs neither ``onnx`` nor ``torch``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from farm.errors import BadProgram

KEY = b"farm.form"
_METADATA_PROPS = 14
_KEY_FIELD, _VALUE_FIELD = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 100_000
MAX_NOTES = 64 * 2**20


@dataclass(frozen=True)
class Notes:
    """``inputs`` and ``outputs``: binding names in the program's order. ``exporter``: versions, or empty.
    ``doubles``: names of float64 values, which TensorRT narrows. ``left_out``: outputs of the program that no
    engine can give (``None``, Python constants), as ``"1: None"``. ``nodes``: ONNX node → where it comes from, as
    ``"aten.linear.default at model.py:12 (forward)"``."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    exporter: str = ""
    doubles: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    nodes: Mapping[str, str] = field(default_factory=dict)


def append_notes(path: Path, notes: Notes) -> None:
    """Add ``notes`` to the ONNX file at ``path``; they win over notes that it has already."""
    value = json.dumps(asdict(notes), separators=(",", ":"), sort_keys=True).encode()
    entry = _field(_KEY_FIELD, KEY) + _field(_VALUE_FIELD, value)
    with path.open("ab") as file:
        file.write(_field(_METADATA_PROPS, entry))


def read_notes(path: Path) -> Notes:
    """The notes of the ONNX file at ``path``; empty ones where it has none. ``BadProgram`` if it is no ONNX."""
    found = Notes()
    with path.open("rb") as file:
        for entry in _entries(file, path):
            pair = dict(_split(entry, path))
            if pair.get(_KEY_FIELD) == KEY:
                found = _decode(pair.get(_VALUE_FIELD, b""), path)
    return found


def _decode(value: bytes, path: Path) -> Notes:
    try:
        told: dict[str, Any] = json.loads(value)
        tuples = {name: tuple(told[name]) for name in ("inputs", "outputs", "doubles", "left_out")}
        return Notes(exporter=told["exporter"], nodes=told["nodes"], **tuples)
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(path) from error


def _entries(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The bodies of the model's ``metadata_props``; everything else is skipped by its length."""
    size = file.seek(0, 2)
    file.seek(0)
    for _ in range(MAX_FIELDS):
        if file.tell() == size:
            return
        tag = _varint(file, path)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _varint(file, path)
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
        length = _varint(file, path) if wire == _BYTES else length
        if length < 0 or file.tell() + length > size:
            raise _broken(path)
        if wire == _BYTES and number == _METADATA_PROPS and length <= MAX_NOTES:
            yield file.read(length)
        else:
            file.seek(length, 1)
    raise _broken(path)


def _split(body: bytes, path: Path) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that holds strings alone."""
    at = 0
    while at < len(body):
        tag, at = _varint_at(body, at, path)
        length, at = _varint_at(body, at, path)
        if tag & 7 != _BYTES or at + length > len(body):
            raise _broken(path)
        yield tag >> 3, body[at : at + length]
        at += length


def _varint(file: BinaryIO, path: Path) -> int:
    result = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        result |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return result
    raise _broken(path)


def _varint_at(body: bytes, at: int, path: Path) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise _broken(path)


def _field(number: int, body: bytes) -> bytes:
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(body)) + body


def _encode_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _broken(path: Path) -> BadProgram:
    return BadProgram(f"{path.name} is no ONNX file", "export the model again")
