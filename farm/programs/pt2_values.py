"""Names, metadata and expressions of a ``.pt2`` program: what its values are called and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from farm.errors import BadProgram
from farm.graph import Graph, Meta
from farm.graph_symbols import Expr, Number, parse
from farm.programs import schema
from farm.programs.torch_graph import reference

Value = tuple[bytes, int, tuple[int, ...]]
"""How a name is referred to: its encoded reference, the node that makes it, and which result it is."""

SCALARS = {"as_sym_int": "int", "as_sym_bool": "bool", "as_sym_float": "float"}
VALUES = frozenset({"as_tensor", *SCALARS})


def bad(why: str) -> BadProgram:
    """The error for a program that contradicts itself."""
    return BadProgram(
        f"the program's graph is not well formed: {why}", "Export and save the program again with torch.export."
    )


def tagged(argument: Mapping[str, Any]) -> tuple[str, Any]:
    """The tag and value of a union; ``BadProgram`` unless it has exactly one."""
    if len(argument) != 1:
        raise bad(f"an argument has {len(argument)} kinds")
    for pair in argument.items():
        return pair
    raise AssertionError


def name_of(tag: str, value: Any) -> str:
    """The name in a tensor or symbolic argument; empty for a plain number in its place."""
    try:
        name = value["name"] if tag == "as_tensor" else value.get("as_name", "")
    except (KeyError, TypeError, AttributeError):
        raise bad(f"{tag} has no name") from None
    if not isinstance(name, str):
        raise bad(f"{tag} has no name")
    return name


def raw(content: bytes, kind: Any) -> Any:
    """A raw slice of the file, decoded."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (*schema.NOT_JSON, RecursionError) as error:
        raise bad(f"a tensor's description cannot be read: {error}") from None


class Block:
    """The names of one graph: the program's, or a subgraph's."""

    __slots__ = ("graph", "values")

    def __init__(self, graph: schema.Graph) -> None:
        self.graph = graph
        self.values: dict[str, Value] = {}

    def define(self, name: str, node: int, path: tuple[int, ...] = ()) -> None:
        """Let ``name`` be result ``path`` of ``node``."""
        self.define_as(name, (reference(*path), node, path))

    def define_as(self, name: str, value: Value) -> None:
        """Let ``name`` be another name of ``value``."""
        if name in self.values:
            raise bad(f"two values are named {name}")
        self.values[name] = value

    def value(self, name: str) -> Value:
        """What ``name`` is; ``BadProgram`` if it has not been made yet."""
        found = self.values.get(name)
        if found is None:
            raise bad(f"{name} is used before it is made")
        return found


MAX_EXPRESSIONS = 4_000_000
"""Characters of all of a program's expressions: some ten seconds' worth of parsing."""


class Metadata:
    """What the program records of its values, as ``Meta`` of ``graph``."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._metas: dict[tuple[int, bytes, bytes, int], Meta] = {}
        self._exprs: dict[str, Expr] = {}
        self._characters = 0

    def of(self, block: Block, tag: str, name: str) -> Meta:
        """The metadata of a tensor or symbolic number."""
        if tag == "as_tensor":
            tensor = block.graph.tensor_values.get(name)
            if tensor is None:
                raise bad(f"nothing is recorded of tensor {name}")
            key = (tensor.dtype, bytes(tensor.sizes), bytes(tensor.device), tensor.layout)
            return self._metas.get(key) or self._tensor(key)
        dim = self._dim(_table(block, tag).get(name, {}), SCALARS[tag])
        return self.graph.meta(SCALARS[tag], (dim,), scalar=True)

    def _tensor(self, key: tuple[int, bytes, bytes, int]) -> Meta:
        dtype, sizes, device, layout = key
        if dtype not in schema.DTYPES or layout not in schema.LAYOUTS:
            raise bad(f"dtype {dtype} or layout {layout} is unknown")
        dims = tuple(self._dim(size, "int") for size in raw(sizes, list[schema.Argument]))
        where = raw(device, schema.Device)
        name = where.type if where.index is None else f"{where.type}:{where.index}"
        meta = self.graph.meta(schema.DTYPES[dtype], dims, name, schema.LAYOUTS[layout])
        self._metas[key] = meta
        return meta

    def strides(self, block: Block, name: str) -> tuple[Meta, ...]:
        """How a tensor lies in memory, for operators whose result depends on it."""
        tensor = block.graph.tensor_values.get(name)
        if tensor is None:
            raise bad(f"nothing is recorded of tensor {name}")
        strides = raw(bytes(tensor.strides), list[schema.Argument])
        offset = raw(bytes(tensor.storage_offset), schema.Argument)
        dims = tuple(self._dim(one, "int") for one in [*strides, offset])
        return (self.graph.meta("strides", dims, scalar=True),)

    def _dim(self, size: Mapping[str, Any], kind: str) -> Expr:
        """A recorded size or symbolic value: a number or an expression."""
        tag, value = tagged(size)
        if tag == "as_expr":
            return self.expression(value.get("expr_str"))
        if tag == "as_int" and kind == "int" and type(value) is int:
            return value
        if tag == "as_bool" and kind == "bool":
            return Number("true" if value else "false")
        if tag == "as_float" and kind == "float":
            return Number("Float", float(value).hex())
        raise bad(f"a size is recorded as {tag}")

    def expression(self, text: Any) -> Expr:
        """An expression of the program, read once."""
        if not isinstance(text, str):
            raise bad("an expression is no text")
        found = self._exprs.get(text)
        if found is None:
            self._characters += len(text)
            if self._characters > MAX_EXPRESSIONS:
                raise bad(f"its symbolic expressions have more than {MAX_EXPRESSIONS:,} characters")
            found = self._exprs[text] = parse(text)
        return found


def _table(block: Block, tag: str) -> Mapping[str, schema.Argument]:
    graph = block.graph
    return {
        "as_sym_int": graph.sym_int_values,
        "as_sym_bool": graph.sym_bool_values,
        "as_sym_float": graph.sym_float_values,
    }[tag]
