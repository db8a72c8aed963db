"""Which weights of a torch program are read for their values: those are constants, whatever an engine could refit.

``weight.sum().item()`` or ``nonzero(weight)`` come to a number, a shape or a branch that a builder works out and builds
upon; another fine-tune's would be another engine (DESIGN, Weights: "nothing read their values"). What also depends on
an input is worked out anew at every run, and a refit reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from farm.graph import Canonical, Graph, Node
from farm.programs.weights import StoredTensor, Weights

READERS = frozenset(
    (
        "aten.item.default",
        "aten._local_scalar_dense.default",
        "aten.is_nonzero.default",
        "aten.equal.default",
        "aten.nonzero.default",
        "aten.nonzero_numpy.default",
        "aten.nonzero_static.default",
        "aten.argwhere.default",
        "aten.where.default",
        "aten.masked_select.default",
        "aten.unique_dim.default",
        "aten.unique_consecutive.default",
        "aten.unique_dim_consecutive.default",
        "aten._unique.default",
        "aten._unique2.default",
        "aten.bincount.default",
        "aten.repeat_interleave.Tensor",
        "aten.repeat_interleave.self_Tensor",
        "aten.index.Tensor",
        "cond",
        "while_loop",
    )
)
"""Operators whose result's shape, or what is run at all, follows from values."""
_BY_MASK = frozenset({"aten.index.Tensor", "aten.masked_select.default"})
_BY_FIRST = frozenset({"cond"})


def weights_of(tensors: Sequence[StoredTensor], graph: Graph, canonical: Canonical) -> Weights:
    """The tensors that a graph uses, in its canonical order, each as what it is used as."""
    read = values_read(graph, canonical)
    return Weights([replace(tensors[n], kind="constant") if n in read else tensors[n] for n in canonical.lifted])


def values_read(graph: Graph, canonical: Canonical) -> frozenset[int]:
    """Numbers of the lifted tensors whose values shape what the program computes."""
    nodes = graph.nodes
    readers = [node for number in canonical.order if (node := nodes[number]).op in READERS]
    if not readers:
        return frozenset()
    varying, seen = _varying(graph), set[int]()
    pending = [ref for node in readers for ref in _reads(graph, node)]
    while pending:
        one = pending.pop()
        if one not in varying and one not in seen:
            seen.add(one)
            pending += _came_from(graph, graph.nodes[one])
    return frozenset(graph.leaves[one] for one in seen if one in graph.leaves)


def _reads(graph: Graph, node: Node) -> Sequence[int]:
    """The operands that a reader reads for their values, rather than to hand them on."""
    if node.op in _BY_MASK:
        return [ref for ref in node.refs if any(meta.dtype == "bool" for meta in graph.nodes[ref].metas)]
    return node.refs[:1] if node.op in _BY_FIRST else node.refs


def _came_from(graph: Graph, node: Node) -> Sequence[int]:
    """What a node is computed from; of a subgraph's input, all that any subgraph is given: which it is, is not told."""
    if node.op != "subgraph input":
        return node.refs
    return [ref for holder in graph.nodes if holder.inner for ref in holder.refs]


def _varying(graph: Graph) -> set[int]:
    """The nodes that depend on more than what is stored: on inputs, on chance, on what has been written before."""
    found = set(graph.effects)
    for number, node in enumerate(graph.nodes):
        stored = number in graph.leaves or node.op == "subgraph input"
        if not stored and (not node.refs or not found.isdisjoint(node.refs)):
            found.add(number)
    return found
