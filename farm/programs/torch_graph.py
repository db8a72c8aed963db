"""What torch's operators mean to the canonical graph: shared by the ``.pt2`` and the live front end.

A front end walks its nodes in program order and calls ``TorchGraph.call`` for each. Here defaults are filled
in, what does nothing at inference drops out, and effects are told apart: random draws and custom operators
keep their order, writes are marked for ``graph_effects``, assertions form a set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from farm.canonical import as_list, encode
from farm.errors import BadProgram
from farm.graph import Graph, Meta, Node
from farm.graph_symbols import Expr
from farm.programs import operators as rules
from farm.programs.operators import Operator
from farm.programs.torch_spelling import respell

MAX_NESTING = 30
OWN_NAMESPACES = frozenset({"aten", "prims", "quantized_decomposed"})
"""Namespaces that the operator table is of."""
NONE = encode(None)


@lru_cache(maxsize=4096)
def reference(*path: int) -> bytes:
    """The encoding of a reference to result ``path`` of a node that is listed among the operands."""
    return encode(["@", *path])


_DIGEST = re.compile(r"(?:sha256|b3):[0-9a-f]{64}")


@dataclass(slots=True)
class Scope:
    """The program's body, or a subgraph's: what happens in order in it."""

    depth: int = 0
    first: int = 0
    """The graph's nodes from this one on are the subgraph's own."""
    ordered: list[int] = field(default_factory=list)
    asserts: list[tuple[int, Expr | None]] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    autocast: bool = False


class Call:
    """The arguments of one call while they are encoded: operands, and what came with subgraphs."""

    ordered = False
    writes = False
    inner: tuple[int, ...] = ()
    spans: Mapping[int, tuple[int, int]] = {}

    def __init__(self, refs: list[int] | None = None) -> None:
        self.refs: list[int] = [] if refs is None else refs


Encode = Callable[[Any, str, Call], bytes]
"""Encode one argument of a front end's own kind, adding the values it refers to to the call."""


def check_custom_ops(custom_ops: Mapping[str, str] | None) -> dict[str, str]:
    """``custom_ops`` with its values checked: ``sha256:`` and 64 hexadecimal digits each."""
    given = dict(custom_ops or {})
    for name, found in given.items():
        if not isinstance(found, str) or not _DIGEST.fullmatch(found):
            raise BadProgram(
                f"the declared digest of custom operator {name} is {found!r}",
                f"Write it as {name}: sha256:<64 hex digits> of the operator's implementation.",
            )
    return given


class TorchGraph:
    """A ``Graph`` under construction from torch operators."""

    def __init__(self, custom_ops: Mapping[str, str] | None) -> None:
        self.graph = Graph()
        self.custom_ops = check_custom_ops(custom_ops)
        self.writes_in_place = False
        self._heads: dict[tuple[object, ...], bytes] = {}

    @staticmethod
    def arguments(op: Operator, given: Sequence[tuple[str, Any]], call: Call, encode_one: Encode) -> list[bytes]:
        """Arguments in the schema's order, defaults filled in. ``given`` pairs names with raw values."""
        parts, kinds, position_of = op.defaults.copy(), op.kinds, op.position
        extra: list[bytes] = []
        spans: dict[int, tuple[int, int]] = {}
        last, plain = -1, op.plain
        for name, raw in given:
            position = position_of.get(name, len(kinds))
            if position == last < len(kinds):
                raise BadProgram(f"{op.name} is given {name} twice", "Export the program again.")
            if position < last:
                ordered = sorted(given, key=lambda pair: position_of.get(pair[0], len(kinds)))
                call.refs.clear()
                return TorchGraph.arguments(op, ordered, call, encode_one)
            last = position
            if plain and position < len(kinds):
                parts[position] = encode_one(raw, kinds[position], call)
            elif position == len(kinds):
                extra.append(encode(name) + encode_one(raw, "", call))
            elif kinds[position] != "v" and name not in rules.MESSAGES:
                start = len(call.refs)
                parts[position] = encode_one(raw, kinds[position], call)
                spans[position] = (start, len(call.refs))
            else:
                parts[position] = rules.SKIPPED
        call.spans = spans
        if op.pool and parts[op.position["stride"]] == rules.EMPTY:
            parts[op.position["stride"]] = parts[op.position["kernel_size"]]
        return parts + extra

    def custom(self, name: str) -> bytes:
        """What stands for custom operator ``ns.op.overload``: its name and its declared digest."""
        namespace, packet, overload = ([*name.split("."), "", ""])[:3]
        spellings = [f"{namespace}::{packet}.{overload}", name]
        if overload == "default":
            spellings += [f"{namespace}::{packet}", f"{namespace}.{packet}"]
        for spelling in spellings:
            if spelling in self.custom_ops:
                return encode(["custom", name, self.custom_ops[spelling]])
        if namespace in OWN_NAMESPACES and (overload == "out" or overload.endswith("_out")):
            raise BadProgram(
                f"{spellings[0]} writes its result into a tensor that it is given (out=), which keys do not cover",
                "Export without out=, or save program.run_decompositions().",
            )
        if namespace in OWN_NAMESPACES:
            raise BadProgram(
                f"{spellings[0]} is an operator that this farm does not know (its table is of torch 2.13)",
                f"Export with torch 2.13, or declare it: custom_ops={{'{spellings[0]}': 'sha256:…'}}.",
            )
        raise BadProgram(
            f"{spellings[0]} is a custom operator: nothing in the program says what it computes",
            f"Declare its implementation: custom_ops={{'{spellings[0]}': 'sha256:<digest of its source or"
            " library>'}; a new implementation needs a new digest.",
        )

    def call(
        self, op: Operator, parts: list[bytes], call: Call, metas: tuple[Meta, ...], label: str, source: object
    ) -> Node:
        """The node of a call of a known operator. The caller adds it with ``place``."""
        node = usual_node(op, self.head(op, parts, call, metas), call, metas, label, source)
        if op.writes:
            node.writes = self._written(call, op.writes)
        elif op.name in rules.WRITES_WHEN_TRUE:
            flag, written = rules.WRITES_WHEN_TRUE[op.name]
            if parts[op.position[flag]] != _FALSE:
                node.writes = self._written(call, [op.position[name] for name in written])
        return node

    def head(self, op: Operator, parts: list[bytes], call: Call, metas: tuple[Meta, ...]) -> bytes:
        """A call's operator and arguments, spelt in the one way: worked out once for calls that are alike."""
        if op.spelling is None:
            return as_list(op.head + b"".join(parts))
        operand = self.graph.nodes[call.refs[0]].metas if call.refs else ()
        key = (op.head, operand, metas, *parts)
        found = self._heads.get(key)
        if found is None:
            spelt = parts.copy()
            respell(op.spelling, spelt, operand, metas)
            found = self._heads[key] = as_list(op.head + b"".join(spelt))
        return found

    @staticmethod
    def _written(call: Call, positions: Iterable[int]) -> tuple[int, ...]:
        spans = [call.spans[position] for position in positions if position in call.spans]
        return tuple(ref for start, end in spans for ref in range(start, end))

    def opaque(self, head: bytes, op: str, call: Call, metas: tuple[Meta, ...], label: str, source: object) -> Node:
        """A node that is not in the table: a custom operator or one with subgraphs.

        A custom operator may write to any operand and return any; so may one whose subgraphs write.
        """
        node = Node(op, head, tuple(call.refs), metas, label, source)
        node.inner = call.inner
        node.aliases = True
        if call.writes:
            node.writes = tuple(index for index in range(len(call.refs)) if index not in node.inner)
        return node

    def place(self, node: Node, scope: Scope, ordered: bool) -> int:
        """Add ``node`` to the graph and to what is ordered in ``scope``."""
        if ordered:
            tail = encode(["effect", scope.depth, len(scope.ordered)])
            node.head = as_list(node.head + tail)
        number = self.graph.add(node)
        if ordered:
            scope.ordered.append(number)
        if node.writes:
            scope.writes.append(number)
        return number

    @staticmethod
    def draws(op: Operator, parts: list[bytes]) -> bool:
        """Whether this call draws random numbers."""
        if not op.random:
            return False
        known = rules.PURE_WHEN.get(op.name)
        return known is None or parts[op.position[known[0]]] != encode(known[1])

    def is_identity(self, op: Operator, parts: list[bytes]) -> bool:
        """Whether this call's result is its first operand, so that the node may drop out."""
        if op.name in rules.IDENTITIES:
            return True
        if op.name in rules.IDENTITIES_WITHOUT_WRITES:
            return not self.writes_in_place
        flag = rules.IDENTITIES_UNLESS_TRAINING.get(op.name)
        return flag is not None and parts[op.position[flag]] == _FALSE

    def inner_scope(self, outer: Scope) -> Scope:
        """The scope of a subgraph that is about to be read."""
        return Scope(depth=outer.depth + 1, first=len(self.graph.nodes), autocast=outer.autocast)

    def subgraph(self, scope: Scope, outputs: list[bytes], refs: list[int], params: int, call: Call) -> bytes:
        """Encode a subgraph that was built in ``scope``; its roots become inner operands of ``call``, but for values
        from outside that it hands on, which it reads like any operand."""
        effects = [*scope.ordered, *scope.writes, *[node for node, _ in scope.asserts]]
        start = len(call.refs)
        call.refs.extend((*refs, *effects))
        call.inner += tuple(at for at in range(start, len(call.refs)) if call.refs[at] >= scope.first)
        call.ordered |= bool(scope.ordered)
        call.writes |= bool(scope.writes)
        counts = [len(scope.ordered), len(scope.writes), len(scope.asserts)]
        return as_list(encode("graph") + encode([scope.depth, params, *counts]) + b"".join(outputs))


def usual_node(op: Operator, head: bytes, call: Call, metas: tuple[Meta, ...], label: str, source: object) -> Node:
    """The node of a call that writes nothing; ``head`` as ``TorchGraph.head`` gives it."""
    node = Node(op.name, head, tuple(call.refs), metas, label, source)
    if op.aliases:
        node.aliases = True
    return node


_FALSE = encode(False)
