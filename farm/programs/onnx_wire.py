"""Protocol Buffers' wire format, read where it lies: no copy of tensors, bounded in depth and number.

ONNX files hold gigabytes of weights within the message. A message is decoded into a plain dictionary by a table
of its fields (``onnx_messages``); fields of raw data give their place in the file, not their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from farm.errors import BadProgram

Field = tuple[str, str]
"""A field's name and kind: ``int``, ``float``, ``text``, ``bytes``, ``place``, or a message's name; a ``*``
after it marks a repeated field."""

Place = tuple[int, int]
"""Where bytes lie: start and end."""

MAX_DEPTH = 64
MAX_VALUES = 8_000_000


class NotAMessage(Exception):
    """The bytes are no such message. Translated by ``open_onnx``."""


class Reader:
    """Decodes messages of ``data`` by ``tables``: message name → field number → field."""

    def __init__(self, data: memoryview, tables: Mapping[str, Mapping[int, Field]]) -> None:
        self.data = data
        self.tables = tables
        self._values = 0

    def message(self, name: str, start: int, end: int, depth: int = 0) -> dict[str, Any]:
        """The message ``name`` that lies at ``start`` to ``end``."""
        if depth > MAX_DEPTH:
            raise NotAMessage("it is nested too deeply")
        table, found, data = self.tables[name], dict[str, Any](), self.data
        for number, wire, value in self._fields(start, end):
            field = table.get(number)
            if field is None:
                continue
            self.count(1)
            if field[1] == "text*" and wire == 2:
                found.setdefault(field[0], []).append(_text(data, value))
            else:
                self._store(found, field, wire, value, depth)
        return found

    def count(self, values: int) -> None:
        """Take note of ``values`` more of them, before they are made. ``BadProgram`` if that is too many."""
        self._values += values
        if self._values > MAX_VALUES:
            raise BadProgram("the model has too many parts for a program", "Split the model in two.")

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, Any]]:
        """Field number, wire type and value (a place for everything of a length)."""
        data, at = self.data, start
        while at < end:
            key = data[at]
            at += 1
            if key >= 0x80:
                key, at = self._varint(at - 1, end)
            wire = key & 7
            if wire == 0:
                value, at = self._varint(at, end)
                yield key >> 3, 0, value
                continue
            if wire == 2:
                size, at = self._varint(at, end)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise NotAMessage(f"wire type {wire} at byte {at}")
            if at + size > end:
                raise NotAMessage(f"a field reaches beyond its message at byte {at}")
            yield key >> 3, wire, (at, at + size)
            at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        data, result, shift = self.data, 0, 0
        if at < end and data[at] < 0x80:
            return data[at], at + 1
        while at < end:
            byte = data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift > 63:
                break
        raise NotAMessage(f"a number is cut short at byte {at}")

    def _store(self, found: dict[str, Any], field: Field, wire: int, value: Any, depth: int) -> None:
        name, kind = field
        if kind.endswith("*"):
            items = found.setdefault(name, [])
            kind = kind[:-1]
            if wire == 2 and kind in ("int", "float"):
                self._packed(items, kind, value)
            else:
                items.append(self._one(kind, wire, value, depth))
        else:
            found[name] = self._one(kind, wire, value, depth)

    def _packed(self, items: list[Any], kind: str, place: Place) -> None:
        at, end = place
        self.count((end - at) // 4 if kind == "float" else end - at)
        if kind == "float":
            if (end - at) % 4:
                raise NotAMessage(f"packed floats at byte {at} are cut short")
            items.extend(self.data[at:end].cast("f"))
        else:
            while at < end:
                value, at = self._varint(at, end)
                items.append(_signed(value))

    def _one(self, kind: str, wire: int, value: Any, depth: int) -> Any:
        if kind == "int" and wire == 0:
            return _signed(value)
        if kind == "float" and wire == 5:
            return self.data[value[0] : value[1]].cast("f")[0]
        if wire != 2:
            raise NotAMessage(f"a field has wire type {wire} where {kind} belongs")
        if kind == "place":
            return value
        if kind == "bytes":
            return bytes(self.data[value[0] : value[1]])
        if kind == "text":
            return _text(self.data, value)
        return self.message(kind, value[0], value[1], depth + 1)

    def integers(self, place: Place) -> Iterator[int]:
        """Packed integers at ``place``."""
        at, end = place
        while at < end:
            value, at = self._varint(at, end)
            yield value


def _text(data: memoryview, place: Place) -> str:
    try:
        return str(data[place[0] : place[1]], "utf-8")
    except UnicodeDecodeError:
        raise NotAMessage(f"text at byte {place[0]} is not UTF-8") from None


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
