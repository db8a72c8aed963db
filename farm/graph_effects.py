"""Memory in a graph that writes in place: which write does each read see?

Export in torch's training dialect keeps in-place operators (``add_``, ``copy_``, batch norm's running
statistics), so dataflow alone does not say what ``x * 2`` reads: that depends on the writes before it. Each
read is therefore tied to the last write to anything that may share its memory, as memory SSA does. Reads
before a write, after it, and between two writes then differ; independent writes stay unordered.

What may share memory is decided once for the whole program, and generously: more sharing can only tell
programs apart that are the same, never the reverse (promise 1 of the design).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Operation(Protocol):
    """What this module needs of a node (``farm.graph.Node``)."""

    refs: tuple[int, ...]
    writes: tuple[int, ...]
    inner: tuple[int, ...]
    aliases: bool


@dataclass(frozen=True, slots=True)
class Versions:
    """``reads[n]``: for node ``n``, its (position in refs, the node whose write it sees) pairs."""

    reads: dict[int, tuple[tuple[int, int], ...]]
    _parents: list[int]
    _last: dict[int, int]

    def final(self, node: int) -> int | None:
        """The last write to the memory of ``node``'s results, or None."""
        return self._last.get(_root(self._parents, node))


def versions(nodes: Sequence[Operation], together: Iterable[Sequence[int]] = ()) -> Versions:
    """Tie the reads of ``nodes`` (in program order) to writes. ``together``: leaves that lie in one memory."""
    parents = _shared_memory(nodes)
    for first, *others in together:
        for other in others:
            parents[_root(parents, other)] = _root(parents, first)
    last: dict[int, int] = {}
    reads: dict[int, tuple[tuple[int, int], ...]] = {}
    for number, node in enumerate(nodes):
        roots = [_root(parents, operand) for operand in node.refs]
        seen = tuple(
            (position, last[root]) for position, root in enumerate(roots) if root in last and position not in node.inner
        )
        if seen:
            reads[number] = seen
        for position in node.writes:
            last[roots[position]] = number
    return Versions(reads, parents, last)


def _shared_memory(nodes: Sequence[Operation]) -> list[int]:
    """Union-find over nodes: one set for values that may share memory."""
    parents = list(range(len(nodes)))
    for number, node in enumerate(nodes):
        if node.aliases or node.writes:
            for position, operand in enumerate(node.refs):
                if node.aliases or position in node.writes:
                    parents[_root(parents, operand)] = _root(parents, number)
    return parents


def _root(parents: list[int], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node
