"""Why an ask is a miss: the stored keys most like it, compared by parts and, where programs differ, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from farm.asks import Identity
from farm.cache import Miss, key_parts
from farm.explain import Comparison, compare, nearest
from farm.index import Found, Index, KeyParts
from farm.outlines import load_outline, program_reasons
from farm.store import BlobStore


@dataclass(frozen=True)
class Explanation:
    """An ask's identity, what the cache has for it, and the stored keys most like it."""

    identity: Identity
    answer: Found | Miss
    nearest: tuple[Comparison, ...]


def likest(
    index: Index, store: BlobStore, identity: Identity, outline: Mapping[str, Any], missed: bool, limit: int
) -> tuple[Comparison, ...]:
    """The ``limit`` stored keys most like the identity's, whose program has that ``outline``; its own key among them
    only where it was ``missed``."""
    mine = key_parts(identity)
    stored = [*index.recent_parts(graph=identity.graph), *index.recent_parts()]
    found = nearest(mine, [other for other in stored if other.key != mine.key or missed], limit)
    return tuple(_in_detail(store, one, outline) for one in found)


def compared(store: BlobStore, mine: KeyParts, theirs: KeyParts) -> Comparison:
    """How two stored keys differ."""
    return _in_detail(store, compare(mine, theirs), load_outline(mine.parts.get("outline"), store))


def _in_detail(store: BlobStore, found: Comparison, mine: Mapping[str, Any] | None) -> Comparison:
    """The same comparison, its programs compared node by node where they differ."""
    if mine is None or not {reason.part for reason in found.reasons} & {"graph", "weights"}:
        return found
    theirs = load_outline(found.other.parts.get("outline"), store)
    return found if theirs is None else replace(found, reasons=(*found.reasons, *program_reasons(mine, theirs)))
