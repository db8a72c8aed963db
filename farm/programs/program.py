"""``Program``: what farm knows of a model file, in values."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from farm.canonical import digest
from farm.errors import BadInput
from farm.graph import Canonical, Graph, Input, Meta, Node, Output, Symbol
from farm.graph_dims import Numbering, show
from farm.programs.specs import NodeInfo, TensorSpec
from farm.programs.torch_overloads import general_of
from farm.programs.weights import Weights

Describe = Callable[[Node], tuple[str, str]]
"""A node's arguments for people, and its source line."""

LEAVES = frozenset({"input", "lifted", "subgraph input", "token"})
DOUBLE = frozenset({"float64", "complex128"})


@dataclass(frozen=True)
class Loaded:
    """A program's graph while it is at hand: for nodes, not for digests."""

    graph: Graph
    canonical: Canonical
    describe: Describe


@dataclass(frozen=True)
class Program:
    """A program, opened. Digests are written with their algorithm; see the design's section "The key".

    ``structure_digest`` covers everything but the values of tensors (all lifted tensors by dtype, shape and
    which of them are one); ``graph_digest`` adds the values of constants; ``weights`` holds the tensors in
    canonical order. ``symbols`` maps canonical symbols (``s0``) to range and name. ``mutations`` names the
    buffers and inputs that the program writes to. ``operators`` are those that live nodes call.
    """

    path: Path
    format: str
    structure_digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    symbols: Mapping[str, Symbol]
    weights: Weights
    node_count: int
    uses_float64: bool
    mutations: tuple[str, ...]
    operators: frozenset[str]
    load: Callable[[], Loaded] = field(repr=False, compare=False)

    @property
    def mutates(self) -> bool:
        """Whether running the program changes a buffer, a parameter or an input."""
        return bool(self.mutations)

    @cached_property
    def graph_digest(self) -> str:
        """``sha256:`` digest of the graph with the values of its constants."""
        return digest("graph", [self.structure_digest, [list(one) for one in self.weights.constants()]])

    @cached_property
    def _loaded(self) -> Loaded:
        return self.load()

    def nodes(self) -> list[NodeInfo]:
        """Live nodes in canonical order, for people (``farm explain``)."""
        graph, canonical = self._loaded.graph, self._loaded.canonical
        found = []
        for number in canonical.order:
            node = graph.nodes[number]
            if node.op not in LEAVES:
                description, source = self._loaded.describe(node)
                found.append(NodeInfo(canonical.node_digest(number), node.op, node.name, description, source))
        return found

    def match_nodes(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """Digests that stand for the live nodes whose names match one of ``patterns``, sorted.

        As Torch-TensorRT matches ``autocast_excluded_nodes``: ``re.match``, on FX node names. Nodes that are
        equal are told apart by their place in canonical order; a call that drops out of the graph (dropout at
        inference) still has a digest here. ``BadInput`` for what is no regular expression.
        """
        compiled = [_pattern(pattern) for pattern in sorted(patterns)]
        named = _calls(self._loaded) if compiled else []
        found = {one for name, _, one in named if any(pattern.match(name) for pattern in compiled)}
        return tuple(sorted(found))

    @cached_property
    def spellings(self) -> tuple[str, ...]:
        """Digests that stand for the live calls of operators that are spelt as others (``torch_overloads``), each with
        the operator as it was written; sorted. For settings that go by an operator's name."""
        others = {name for name in self.operators if general_of(name)[0] != name}
        calls = _calls(self._loaded) if others else []
        return tuple(sorted(digest("spelling", [op, one]) for _, op, one in calls if op in others))

    def content_digest(self) -> str:
        """``sha256:`` digest of the file's bytes."""
        with self.path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _calls(loaded: Loaded) -> list[tuple[str, str, str]]:
    """Name, operator and digest of every live call, those that dropped out included."""
    graph, canonical = loaded.graph, loaded.canonical
    seen = Counter[str]()
    found = []
    for number in canonical.order:
        if graph.nodes[number].op not in LEAVES:
            own, node = canonical.node_digest(number), graph.nodes[number]
            found.append((node.name, node.op, digest("node", [own, seen[own]]) if seen[own] else own))
            seen[own] += 1
    for name, op, number in graph.dropped:
        if number in canonical.digest_of:
            found.append((name, op, digest("dropped node", [op, canonical.node_digest(number)])))
    return found


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise BadInput(
            f"autocast_excluded_nodes: {text!r} is not a regular expression: {error}", "Correct the pattern."
        ) from None


def build_program(
    path: Path, format: str, loaded: Loaded, weights: Weights, load: Callable[[], Loaded] | None = None
) -> Program:
    """The ``Program`` of a canonical graph."""
    graph, canonical = loaded.graph, loaded.canonical
    numbering = Numbering(dict(canonical.names))
    live = [graph.nodes[number] for number in canonical.order]
    metas = {id(meta): meta for node in live for meta in node.metas}
    metas |= {id(one.meta): one.meta for one in graph.inputs if one.meta is not None}
    return Program(
        path=path,
        format=format,
        structure_digest=canonical.structure_digest,
        inputs=_specs(graph.inputs, numbering),
        outputs=_specs([one for one in graph.outputs if one.kind == "user_output"], numbering),
        symbols=canonical.symbols,
        weights=weights,
        node_count=sum(node.op not in LEAVES for node in live),
        uses_float64=any(meta.dtype in DOUBLE for meta in metas.values()),
        mutations=_mutations(graph, canonical),
        operators=frozenset(node.op for node in live if node.op not in LEAVES),
        load=load or (lambda: loaded),
    )


def _specs(values: Sequence[Input | Output], numbering: Numbering) -> tuple[TensorSpec, ...]:
    """Tensors and symbolic numbers; constants have no place in an engine's bindings."""
    return tuple(
        _spec(one.name, one.meta, position, numbering) for position, one in enumerate(values) if one.meta is not None
    )


def _spec(name: str, meta: Meta, position: int, numbering: Numbering) -> TensorSpec:
    if meta.scalar:
        return TensorSpec(name, meta.dtype, (), position, scalar=True)
    dims = [numbering.canonical(dim) for dim in meta.dims]
    return TensorSpec(name, meta.dtype, tuple(dim if type(dim) is int else show(dim) for dim in dims), position)


def _mutations(graph: Graph, canonical: Canonical) -> tuple[str, ...]:
    """Names of what is written back to, and of what is written to in place."""
    targets = [one.target for one in graph.outputs if one.target is not None]
    return tuple(dict.fromkeys(graph.nodes[leaf].name for leaf in (*targets, *canonical.written)))
