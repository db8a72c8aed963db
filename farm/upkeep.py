"""What upkeep asks of the index beyond ``farm.index``: rows by the page, blobs by name, rows for another farm.

The rules of ``farm.index`` hold here too: each method is one transaction, safe from any thread and process at once.
Pages are in the order of the primary key, so that a million rows are walked in the memory of one page.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from farm.builds import Engine
from farm.making import Making

T = TypeVar("T")

PAGE = 1000

Row = Mapping[str, Any]
"""A whole row: its columns by name."""
Place = tuple[Any, ...]
"""A row's primary key. The empty one comes before all others."""


def batched(things: Iterable[T], count: int) -> Iterator[list[T]]:
    """Lists of ``count``, the last perhaps shorter, without holding more than one of them."""
    left = iter(things)
    while batch := list(itertools.islice(left, count)):
        yield batch


class Holder(StrEnum):
    """Rows that are worth nothing without their blobs."""

    ENGINE = "engines"
    FORM = "forms"
    PROGRAM = "programs"


@dataclass(frozen=True)
class Holding:
    """A row that names blobs. ``version`` is another once the row has been written anew."""

    holder: Holder
    place: Place
    blobs: tuple[str, ...]
    version: str


class Upkeep(Making, Protocol):
    """The index as ``reconcile`` and ``migrating`` need it."""

    # -- rows and the blobs that they name -----------------------------------------------------------------
    def holdings(self, holder: Holder, after: Place = (), limit: int = PAGE) -> list[Holding]:
        """Rows of one kind beyond ``after``, with every blob that they name."""
        ...

    def named(self, blobs: Collection[str]) -> set[str]:
        """Those of ``blobs`` that some row names, whatever for. By indexes, however many rows there are."""
        ...

    def engines_after(self, place: Place = (), limit: int = PAGE) -> list[Engine]:
        """Engines by recipe and namespace, beyond ``place`` (a recipe and a namespace), whatever their rows say."""
        ...

    def drop(self, holding: Holding, reason: str) -> bool:
        """Forget an engine or a form whose bytes are gone; False when it was written anew since it was read."""
        ...

    def needing(self, programs: Collection[str]) -> list[str]:
        """The active builds that are to be made of one of ``programs``."""
        ...

    # -- notes ---------------------------------------------------------------------------------------------
    def note(self, name: str) -> str | None:
        """What was noted under ``name``."""
        ...

    def notes(self, names: Collection[str]) -> dict[str, str]:
        """What was noted under each of ``names`` that is known."""
        ...

    def put_note(self, name: str, value: str) -> str:
        """Note ``value``, unless something is noted already; returns what is noted then, whoever noted it."""
        ...

    def put_notes(self, notes: Mapping[str, str]) -> dict[str, str]:
        """``put_note`` for several."""
        ...

    def set_note(self, name: str, value: str) -> None:
        """Note ``value`` in place of what was noted."""
        ...

    # -- whole rows ----------------------------------------------------------------------------------------
    def rows(self, table: str, after: Place = (), limit: int = PAGE) -> list[Row]:
        """Whole rows of ``table`` beyond ``after``."""
        ...

    def rows_of(self, table: str, owners: Collection[str]) -> list[Row]:
        """Whole rows of a table that belong to the builds, sweeps or recipes of ``owners`` (its first foreign key)."""
        ...

    def place(self, table: str, row: Row) -> Place:
        """A row's primary key."""
        ...

    def unknown(self, table: str, rows: Sequence[Row]) -> list[Row]:
        """Those of ``rows`` whose primary key ``table`` lacks."""
        ...

    def take_over(self, table: str, rows: Sequence[Row], owned: Mapping[str, Sequence[Row]]) -> int:
        """Insert the rows that are not there yet, and with each the rows that belong to it; returns how many."""
        ...

    def add_counters(self, source: str, counters: Mapping[str, Mapping[str, float]]) -> bool:
        """Add what ``source`` has counted since it was last added, if ever; False when that is nothing."""
        ...
