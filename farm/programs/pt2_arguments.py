"""Arguments of a ``.pt2`` program's nodes, encoded: values by reference, constants with type and exact value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farm.canonical import NUMBERS, as_list, encode
from farm.errors import BadProgram
from farm.programs import schema
from farm.programs.pt2_values import SCALARS, Block, bad, name_of, tagged
from farm.programs.torch_graph import Call

_NONE = encode(None)
_TRUE, _FALSE = encode(True), encode(False)

LISTS = {
    "as_tensors": "as_tensor",
    "as_ints": "as_int",
    "as_floats": "as_float",
    "as_bools": "as_bool",
    "as_strings": "as_string",
    "as_sym_ints": "as_sym_int",
    "as_sym_bools": "as_sym_bool",
    "as_sym_floats": "as_sym_float",
    "as_nested_tensors": "as_tensors",
    "as_int_lists": "as_ints",
    "as_float_lists": "as_floats",
}
"""List arguments, with the tag that each of their items has as an argument of its own."""


class Arguments:
    """Encodes arguments in ``block``, the graph whose nodes are being read. ``subgraph`` encodes a graph."""

    def __init__(self, block: Block, subgraph: Callable[[Any, Call], bytes]) -> None:
        self.block = block
        self._subgraph = subgraph

    def encode(self, argument: schema.Argument, kind: str, call: Call) -> bytes:
        """One argument; ``kind`` is its kind in the operator table (``f``: whole numbers mean floats)."""
        tag, value = tagged(argument)
        if tag == "as_tensor":
            return self._value(value["name"], call)
        if tag == "as_int" and type(value) is int and kind != "f":
            return NUMBERS.get(value) or encode(value)
        if tag == "as_none":
            return _NONE
        if tag == "as_bool":
            return _TRUE if value is True else _FALSE if value is False else self._constant(tag, value, kind)
        single = LISTS.get(tag)
        if single is not None:
            return self._list([{single: item} for item in value], kind, call)
        return self._other(tag, value, kind, call)

    def _other(self, tag: str, value: Any, kind: str, call: Call) -> bytes:
        if tag in SCALARS:
            name = name_of(tag, value)
            return self._value(name, call) if name else self.encode(value, kind, call)
        if tag == "as_optional_tensors":
            return self._list(value, kind, call)
        if tag == "as_optional_tensor":
            return self.encode(value, kind, call)
        if tag == "as_graph":
            return self._subgraph(value, call)
        if tag == "as_string_to_argument":
            parts = [encode(name) + self.encode(value[name], kind, call) for name in sorted(value)]
            return sequence(b"s1:{", parts)
        return self._constant(tag, value, kind)

    def _value(self, name: str, call: Call) -> bytes:
        encoded, node, _ = self.block.value(name)
        call.refs.append(node)
        return encoded

    def _list(self, items: list[schema.Argument], kind: str, call: Call) -> bytes:
        return sequence(b"s1:[", [self.encode(item, kind, call) for item in items])

    @staticmethod
    def _constant(tag: str, value: Any, kind: str) -> bytes:
        return encode(constant(tag, value, kind == "f"))


def sequence(mark: bytes, parts: list[bytes]) -> bytes:
    """An encoded list whose first item is ``mark``, already encoded as the others are."""
    return as_list(mark + b"".join(parts))


def constant(tag: str, value: Any, as_float: bool = False) -> Any:
    """A constant argument in the domain of the canonical encoding; types are told apart."""
    read = _CONSTANTS.get(tag)
    if read is None:
        raise _odd(tag)
    try:
        found = read(value)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise bad(f"an argument of kind {tag} cannot be read") from None
    return float(found) if as_float and type(found) is int else found


def _odd(tag: str) -> BadProgram:
    if tag == "as_custom_obj":
        return BadProgram(
            "the program holds a TorchBind or opaque object, which only a pickle could bring back",
            "Export a module whose state is tensors only.",
        )
    return bad(f"an argument of kind {tag} cannot be read")


def _typed(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


_CONSTANTS: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda value: None,
    "as_int": lambda value: _typed(int, value),
    "as_float": float,
    "as_bool": lambda value: _typed(bool, value),
    "as_string": lambda value: _typed(str, value),
    "as_scalar_type": lambda value: ["dtype", schema.DTYPES[value]],
    "as_memory_format": lambda value: ["memory_format", schema.MEMORY_FORMATS[value]],
    "as_layout": lambda value: ["layout", schema.LAYOUTS[value]],
    "as_device": lambda value: ["device"],
    "as_complex": lambda value: ["complex", float(value["real"]), float(value["imag"])],
    "as_operator": lambda value: ["operator", _typed(str, value)],
}
