"""The canonical digest of a dataflow graph: one algorithm, fed by three front ends.

A front end (``.pt2`` JSON, ONNX, a live FX graph) describes its program as a ``Graph``: nodes in an order
where operands come first, each with an encoded operator and arguments (``head``), the nodes it refers to
(``refs``) and what its results are (``metas``). ``canonicalise`` then

1. walks from the roots (outputs in order, mutated state, effects in order, assertions), operands first, so
   that dead code, names and the order of independent nodes drop out;
2. numbers symbols, lifted tensors and devices by first use on that walk, whose order follows from the
   structure alone;
3. digests each node: its head, what its results are, and its operands' digests in place of names;
4. digests the inputs (unused ones too), the outputs in order with their structure, effects in order, state and
   assertions as sets, and the symbols' ranges.

Nothing here recurses: a subgraph's nodes are nodes like others, which their owner refers to; parameters of
a subgraph are leaves named by nesting level and position.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

from farm.canonical import NUMBERS, as_list, digest, encode
from farm.graph_dims import Numbering, Range, bounds, holds, text
from farm.graph_effects import Versions, versions
from farm.graph_symbols import Call, Expr, Sym

Ref = tuple[int, tuple[int, ...]]
"""A value: the node that makes it, and which of its results (``()`` the only one; ``(1, 0)`` the first of
the list that is the second)."""


class Meta:
    """What a value is: dtype, dims (ints or expressions), device, layout. Interned by ``Graph.meta``.

    A symbolic scalar has the dtype ``"int"``, ``"float"`` or ``"bool"`` and its expression as the only dim.
    """

    __slots__ = ("code", "device", "dims", "dtype", "layout", "listed", "scalar")

    def __init__(self, dtype: str, dims: tuple[Expr, ...], device: str, layout: str, scalar: bool) -> None:
        self.dtype, self.dims, self.device, self.layout, self.scalar = dtype, dims, device, layout, scalar
        self.code = self.listed = b""


class Node:
    """One operation. ``writes``: positions in ``refs`` that it writes to; ``inner``: positions that are its
    subgraphs' roots rather than operands; ``aliases``: a result may share memory with an operand."""

    __slots__ = ("aliases", "head", "inner", "metas", "name", "op", "refs", "source", "writes")

    def __init__(
        self,
        op: str,
        head: bytes,
        refs: tuple[int, ...],
        metas: tuple[Meta, ...],
        name: str = "",
        source: object = None,
    ) -> None:
        self.op = op
        self.head = head
        self.refs = refs
        self.metas = metas
        self.name = name
        self.source = source
        self.writes: tuple[int, ...] = ()
        self.inner: tuple[int, ...] = ()
        self.aliases = False


@dataclass(frozen=True, slots=True)
class Input:
    """An argument of the program: a tensor or symbolic scalar (``node``, ``meta``), or a constant."""

    name: str
    node: int | None
    meta: Meta | None
    constant: Any = None


@dataclass(frozen=True, slots=True)
class Output:
    """A result: ``kind`` (``user``, ``buffer_mutation`` …), its value or constant, and what it overwrites."""

    kind: str
    value: Ref | None
    constant: Any = None
    target: int | None = None
    name: str = ""
    meta: Meta | None = None


@dataclass(slots=True)
class Graph:
    """A program as its front end describes it. Nodes only refer to nodes before them."""

    nodes: list[Node] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    effects: list[int] = field(default_factory=list)
    asserts: list[tuple[int, Expr | None]] = field(default_factory=list)
    leaves: dict[int, int] = field(default_factory=dict)
    """Nodes that stand for lifted tensors (parameters, buffers, constants), with the tensor's number."""
    storages: Mapping[int, tuple[Hashable, tuple[int, ...]]] = field(default_factory=dict)
    """Where lifted tensors lie: a storage, and the byte offset and strides in it. Only asked for where the program
    writes, since then one tensor may change with another."""
    structure: Any = None
    ranges: dict[str, Range] = field(default_factory=dict)
    expression_ranges: list[tuple[Expr, Range]] = field(default_factory=list)
    dialect: str = "torch"
    dropped: list[tuple[str, str, int]] = field(default_factory=list)
    """Calls that do nothing and have no node: name, operator, and the node whose result is theirs."""
    _metas: dict[tuple[object, ...], Meta] = field(default_factory=dict)

    def add(self, node: Node) -> int:
        """Append ``node``; its number."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def meta(
        self, dtype: str, dims: tuple[Expr, ...], device: str = "", layout: str = "", scalar: bool = False
    ) -> Meta:
        """The one ``Meta`` of this graph with these parts."""
        key = (dtype, dims, device, layout, scalar)
        found = self._metas.get(key)
        if found is None:
            found = self._metas[key] = Meta(dtype, dims, device, layout, scalar)
        return found

    def leaf(self, op: str, parts: Sequence[Any], meta: Meta | None, name: str = "") -> int:
        """Append a node without operands (an input, a subgraph's parameter)."""
        return self.add(Node(op, encode([op, *parts]), (), () if meta is None else (meta,), name))

    def lifted(self, tensor: int, meta: Meta, name: str) -> int:
        """Append the leaf that stands for lifted tensor ``tensor``."""
        number = self.add(Node("lifted", b"", (), (meta,), name))
        self.leaves[number] = tensor
        return number


@dataclass(frozen=True, slots=True)
class Symbol:
    """A canonical symbol's range, and the name that the program gave it."""

    minimum: int | None
    maximum: int | None
    name: str


@dataclass(frozen=True, slots=True)
class Canonical:
    """A graph in canonical form."""

    structure_digest: str
    digest_of: dict[int, bytes]
    """The Merkle digest of each live node, as an encoded operand."""
    order: list[int]
    """Live nodes, operands first, in canonical order."""
    lifted: list[int]
    """Lifted tensors in order of first use; those never used are not in it."""
    symbols: dict[str, Symbol]
    names: dict[str, str]
    written: list[int]
    """Inputs and lifted tensors that the program writes to in place."""

    def node_digest(self, node: int) -> str:
        """``sha256:`` digest of live node ``node`` and all that it is computed from."""
        return "sha256:" + self.digest_of[node][_MARK:].hex()


def canonicalise(graph: Graph) -> Canonical:
    """The canonical form and structure digest of ``graph``.

    The digest covers every lifted tensor by dtype, shape and position only (one number for tensors that are
    one), so constants and weights are for the caller to add.
    """
    return _Canonicaliser(graph).run()


_LIFTED = encode("lifted")
_TENSOR = encode("tensor")
_MARK = len(b"y32:")
_text = lru_cache(maxsize=1024)(encode)
"""Of dtypes and layouts, of which there are few."""


class _Canonicaliser:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.numbering = Numbering()
        self.devices: dict[str, int] = {}
        self.lifted: dict[int, int] = {}
        self.digest_of: dict[int, bytes] = {}
        self.order: list[int] = []
        self.written: list[int] = []
        self._seen = bytearray(len(graph.nodes))
        self._dims: dict[int, bytes] = {}
        """Encoded expressions among dims; one's canonical form stays, since no symbol's name ever changes. By ``id``
        (the graph's metas hold them), since to hash an expression is to hash all that it is made of."""

    def run(self) -> Canonical:
        graph = self.graph
        together = _together(graph)
        memory = versions(graph.nodes, together) if any(node.writes for node in graph.nodes) else None
        asserts = [(node,) for node in self._needed_asserts()]
        inputs = [self._input(one) for one in graph.inputs]
        outputs = [self._output(one, memory) for one in graph.outputs if one.target is None]
        mutations = self._mutations(memory)
        whole = {
            "dialect": graph.dialect,
            "inputs": inputs,
            "outputs": outputs,
            "structure": graph.structure,
            "mutations": sorted(mutations, key=encode),
            "state": sorted(self._state(memory)) if memory is not None else [],
            "effects": [self._digest(node, memory) for node in graph.effects],
            "asserts": sorted({self._digest(asserts[at][0], memory) for at in self._settled(asserts, memory)}),
            "ranges": self._ranges(),
        }
        overlaps = self._overlaps(together, memory)
        if overlaps:
            whole["overlaps"] = overlaps
        return Canonical(
            structure_digest=digest("graph structure", whole),
            digest_of=self.digest_of,
            order=self.order,
            lifted=list(self.lifted),
            symbols={new: Symbol(*self._range(old), old) for old, new in self.numbering.names.items()},
            names=self.numbering.names,
            written=self.written,
        )

    def _input(self, one: Input) -> Any:
        if one.meta is None:
            return ["constant", one.constant]
        return ["value", self._meta(one.meta)]

    def _output(self, one: Output, memory: Versions | None) -> Any:
        target = None if one.target is None else self._digest(one.target, memory)
        if one.value is None:
            return [one.kind, target, "constant", one.constant]
        node, path = one.value
        made = self._digest(node, memory)
        return [one.kind, target, made, list(path), self._version(node, memory)]

    def _mutations(self, memory: Versions | None) -> list[Any]:
        """What is written back to state."""
        found = [one for one in self.graph.outputs if one.target is not None]
        ends = [(target, one.value[0] if one.value else target) for one in found if (target := one.target) is not None]
        return [self._output(found[at], memory) for at in self._settled(ends, memory)]

    def _state(self, memory: Versions) -> list[list[bytes]]:
        """Inputs and lifted tensors that are written to in place, each with the last write."""
        leaves = [one.node for one in self.graph.inputs if one.node is not None]
        final = {leaf: memory.final(leaf) for leaf in (*leaves, *self.graph.leaves)}
        ends = [(leaf, version) for leaf, version in final.items() if version is not None]
        self.written += [leaf for leaf, _ in ends]
        return [[self._digest(node, memory) for node in ends[at]] for at in self._settled(ends, memory)]

    def _settled(self, ends: Sequence[tuple[int, ...]], memory: Versions | None) -> Sequence[int]:
        """In which order to number what ``ends`` bring: by what they are, since that of declarations follows names.

        Most often all is numbered already, by the outputs. Where this takes too long, declarations decide.
        """
        places = range(len(ends))
        if len(ends) < 2 or all(node in self.digest_of for one in ends for node in one):
            return places
        budget, sketches = 20 * len(self.graph.nodes), []
        for one in ends:
            found, visited = self._sketch(one, memory)
            sketches.append(found)
            budget -= visited
            if budget < 0:
                return places
        return sorted(places, key=sketches.__getitem__)

    def _sketch(self, ends: Sequence[int], memory: Versions | None) -> tuple[list[bytes], int]:
        """Digests of nodes as if they alone came next, and how many nodes that took; nothing of it is kept."""
        tables: tuple[dict[Any, Any], ...] = (self.lifted, self.devices, self.numbering.names)
        counts, start = [len(one) for one in tables], len(self.order)
        found = [self._digest(node, memory) for node in ends]
        for table, count in zip(tables, counts, strict=True):
            while len(table) > count:
                table.popitem()
        visited = len(self.order) - start
        for number in self.order[start:]:
            del self.digest_of[number]
            self._seen[number] = 0
            for meta in self.graph.nodes[number].metas:
                meta.code = meta.listed = b""
        del self.order[start:]
        self._dims.clear()
        return found, visited

    def _overlaps(self, together: Iterable[Sequence[int]], memory: Versions | None) -> list[bytes]:
        """Live tensors that lie in one memory which the program writes to, and how they lie there."""
        targets = {one.target for one in self.graph.outputs}
        found = []
        for group in together:
            live = [leaf for leaf in group if leaf in self.digest_of]
            written = any(leaf in targets or self._version(leaf, memory) for leaf in live)
            if written and len(live) > 1:
                places = {leaf: self.graph.storages.get(self.graph.leaves[leaf], ("", (0,)))[1] for leaf in live}
                least = min(offset for offset, *_ in places.values())
                parts = [[self.digest_of[leaf], places[leaf][0] - least, *places[leaf][1:]] for leaf in live]
                found.append(encode(sorted(parts, key=encode)))
        return sorted(found)

    def _version(self, node: int, memory: Versions | None) -> bytes | None:
        """The last write to the memory of ``node``."""
        version = None if memory is None else memory.final(node)
        return None if version is None else self._digest(version, memory)

    def _needed_asserts(self) -> Iterable[int]:
        """Assertions that the ranges do not already imply: those add nothing."""
        ranges = self.graph.ranges
        for node, condition in self.graph.asserts:
            if condition is None or not holds(condition, ranges):
                yield node

    def _digest(self, root: int, memory: Versions | None) -> bytes:
        """The encoded digest of ``root``; its operands' first, by an explicit stack."""
        digest_of, seen, nodes, stack = self.digest_of, self._seen, self.graph.nodes, [root]
        reads = {} if memory is None else memory.reads
        while stack:
            number = stack[-1]
            node = nodes[number]
            if not seen[number]:
                seen[number] = 1
                operands = _operands(node, reads.get(number)) if reads else node.refs
                first = [operand for operand in operands if not seen[operand]]
                if first:
                    stack += first[::-1]
                    continue
            stack.pop()
            if number not in digest_of:
                self._add(number, node, reads.get(number, ()) if reads else ())
        return digest_of[root]

    def _add(self, number: int, node: Node, reads: Sequence[tuple[int, int]]) -> None:
        """Digest one node: its head, what its results are, and its operands' digests."""
        digest_of, metas = self.digest_of, node.metas
        body = node.head or self._lifted_head(number)
        listed = (metas[0].listed if len(metas) == 1 else b"") or self._listed(metas)
        operands = [digest_of[operand] for operand in node.refs]
        if reads:
            body += encode([position for position, _ in reads])
            operands += [digest_of[version] for _, version in reads]
        # The bytes of encode([head, metas, operands]), made here because this runs for every node.
        content = as_list(body + listed + as_list(b"".join(operands)))
        digest_of[number] = b"y32:" + sha256(b"farm node " + content).digest()
        self.order.append(number)

    def _listed(self, metas: tuple[Meta, ...]) -> bytes:
        """A node's metas, encoded as a list; kept where there is only one."""
        listed = as_list(b"".join([meta.code or self._meta_code(meta) for meta in metas]))
        if len(metas) == 1:
            metas[0].listed = listed
        return listed

    def _lifted_head(self, number: int) -> bytes:
        tensor = self.graph.leaves[number]
        return as_list(_LIFTED + encode(self.lifted.setdefault(tensor, len(self.lifted))))

    def _meta_code(self, meta: Meta) -> bytes:
        if meta.scalar:
            meta.code = encode(self._meta(meta))
            return meta.code
        # The bytes of encode(self._meta(meta)), from parts that recur.
        dims = b"".join([self._dim_code(dim) for dim in meta.dims])
        device = encode(self.devices.setdefault(meta.device, len(self.devices)))
        meta.code = as_list(_TENSOR + _text(meta.dtype) + as_list(dims) + device + _text(meta.layout))
        return meta.code

    def _dim_code(self, dim: Expr) -> bytes:
        if type(dim) is int:
            return NUMBERS.get(dim) or encode(dim)
        found = self._dims.get(id(dim))
        if found is None:
            found = self._dims[id(dim)] = encode(self._dim(dim))
        return found

    def _meta(self, meta: Meta) -> Any:
        dims = [self._dim(dim) for dim in meta.dims]
        if meta.scalar:
            return ["scalar", meta.dtype, dims]
        device = self.devices.setdefault(meta.device, len(self.devices))
        return ["tensor", meta.dtype, dims, device, meta.layout]

    def _dim(self, dim: Expr) -> int | str:
        if type(dim) is int:
            return dim
        known = self.numbering.names.get(dim.name) if isinstance(dim, Sym) else None
        if known is not None:
            return known
        canonical = self.numbering.canonical(dim)
        return canonical if type(canonical) is int else text(canonical)

    def _range(self, name: str) -> Range:
        return self.graph.ranges.get(name, (None, None))

    def _ranges(self) -> Any:
        """Ranges of the numbered symbols, then those of expressions that say more than the symbols do."""
        names = self.numbering.names
        plain = [[new, *self._range(old)] for old, new in names.items()]
        known: Mapping[str, Range] = {new: self._range(old) for old, new in names.items()}
        extra = []
        for expr, (low, high) in self.graph.expression_ranges:
            if not all(symbol in names for symbol in _symbols(expr)):
                continue
            canonical = self.numbering.canonical(expr)
            least, most = bounds(canonical, known)
            if _tighter(low, least, 1) or _tighter(high, most, -1):
                extra.append([text(canonical), low, high])
        return [plain, sorted(extra)]


def _together(graph: Graph) -> list[list[int]]:
    """Leaves of tensors that lie in one storage, or are one; none where the program writes nothing."""
    if not any(one.target is not None for one in graph.outputs) and not any(node.writes for node in graph.nodes):
        return []
    groups: dict[Hashable, list[int]] = {}
    for leaf, tensor in graph.leaves.items():
        storage = graph.storages[tensor][0] if tensor in graph.storages else ("tensor", tensor)
        groups.setdefault(storage, []).append(leaf)
    return [group for group in groups.values() if len(group) > 1]


def _operands(node: Node, reads: Sequence[tuple[int, int]] | None) -> tuple[int, ...]:
    return node.refs + tuple(version for _, version in reads) if reads else node.refs


def _tighter(given: int | None, implied: int | None, sign: int) -> bool:
    """Whether a bound says more than the implied one (``sign`` 1 for lower bounds, -1 for upper)."""
    return given is not None and (implied is None or sign * given > sign * implied)


def _symbols(expr: Expr) -> list[str]:
    if isinstance(expr, Sym):
        return [expr.name]
    return [name for arg in expr.args for name in _symbols(arg)] if isinstance(expr, Call) else []
