"""Values that attributes of ONNX nodes hold: encoded, or stored as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blake3 import blake3

from farm.canonical import encode
from farm.errors import BadProgram
from farm.programs.onnx_tensors import OnnxTensors, floats, integers
from farm.programs.onnx_wire import NotAMessage

Message = dict[str, Any]

_CONSTANTS = {"value_float", "value_floats", "value_int", "value_ints"}


class OnnxValues:
    """Reads the values of a model whose tensors are ``tensors``. ``doubles``: whether one asks for float64."""

    def __init__(self, tensors: OnnxTensors) -> None:
        self.tensors = tensors
        self.doubles = False
        self._encoded: dict[int, tuple[Message, bytes]] = {}

    def encoded(self, kind: int, attribute: Message) -> bytes:
        """An attribute's type and value; worked out once for one that a function's calls share."""
        known = self._encoded.get(id(attribute))
        if known is None:
            known = self._encoded[id(attribute)] = attribute, encode([kind, self._plain(kind, attribute)])
        return known[1]

    def _plain(self, kind: int, attribute: Message) -> Any:
        if kind == 1:
            return attribute.get("f", 0.0)
        if kind == 2:
            self.doubles |= attribute.get("name") in ("to", "dtype") and attribute.get("i") in (11, 15)
            return attribute.get("i", 0)
        if kind == 3:
            return _text(attribute.get("s", b""))
        if kind == 4:
            return self._tensor_value(attribute["t"])
        if kind in (6, 7):
            return list(attribute.get("floats" if kind == 6 else "ints", []))
        if kind == 8:
            return [_text(one) for one in attribute.get("strings", [])]
        if kind == 9:
            return [self._tensor_value(one) for one in attribute.get("tensors", [])]
        if kind in (13, 14):
            return attribute.get("tp", attribute.get("type_protos", b""))
        raise NotAMessage(f"attribute {attribute.get('name')!r} has the unknown type {kind}")

    def _tensor_value(self, message: Message) -> Any:
        """A small tensor in an attribute: dtype, shape and content."""
        number = self.tensors.add(message, message.get("name", ""))
        tensor = self.tensors.tensors.pop(number)
        hasher = blake3()
        content = tensor.content
        place = message.get("raw_data")
        hasher.update(self.tensors.reader.data[place[0] : place[1]] if place else getattr(content, "data", b""))
        if message.get("data_location", 0) == 1:
            raise BadProgram("an attribute's tensor lies in another file", "Make it an initializer.")
        return [tensor.dtype, list(tensor.shape), hasher.digest()]

    def constant(self, label: str, attributes: Mapping[str, Message]) -> int | None:
        """The stored tensor of a ``Constant``; None for strings and the like, which stay nodes."""
        if len(attributes) != 1:
            raise NotAMessage("a Constant has not one value")
        ((name, given),) = attributes.items()
        if name == "value":
            return self.tensors.add(given["t"], label)
        if name not in _CONSTANTS:
            return None
        if "float" in name:
            values = list(given.get("floats", [])) if name == "value_floats" else [given.get("f", 0.0)]
            shape = (len(values),) if name == "value_floats" else ()
            return self.tensors.add_bytes(label, "float32", shape, floats(values))
        numbers = list(given.get("ints", [])) if name == "value_ints" else [given.get("i", 0)]
        shape = (len(numbers),) if name == "value_ints" else ()
        return self.tensors.add_bytes(label, "int64", shape, integers(numbers))


def guessed(attribute: Message) -> int:
    """The type of an attribute that does not say it (files from before ONNX 1.0.1)."""
    kinds = {"f": 1, "i": 2, "s": 3, "t": 4, "g": 5, "floats": 6, "ints": 7, "strings": 8}
    return next((kind for field, kind in kinds.items() if field in attribute), 0)


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
