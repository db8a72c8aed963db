"""Whole rows, out of one database and into another: what ``farm migrate`` does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Insert, Table, select, update

from farm.db.engines import Engines
from farm.db.holding import beyond
from farm.db.json_text import dump, load
from farm.db.models import metadata, notes
from farm.db.session import Database, reads, writes
from farm.upkeep import PAGE, Place, Row

ADDED = "counters of "


class MovingRows(Engines):
    """The last part of ``farm.upkeep.Upkeep``; the contract is written there."""

    @reads
    def rows(self, connection: Connection, table: str, after: Place = (), limit: int = PAGE) -> list[Row]:
        found = metadata.tables[table]
        query = beyond(select(found), found.primary_key.columns, after).limit(limit)
        return [dict(row) for row in connection.execute(query).mappings()]

    @reads
    def rows_of(self, connection: Connection, table: str, owners: Collection[str]) -> list[Row]:
        found = metadata.tables[table]
        query = select(found).where(self.db.among(_owner(found)[0], "the_owners")).order_by(*found.primary_key.columns)
        return [dict(row) for row in connection.execute(query, {"the_owners": self.db.array(owners)}).mappings()]

    def place(self, table: str, row: Row) -> Place:
        return tuple(row[column.name] for column in metadata.tables[table].primary_key.columns)

    @reads
    def unknown(self, connection: Connection, table: str, rows: Sequence[Row]) -> list[Row]:
        found = metadata.tables[table]
        key = list(found.primary_key.columns)
        those = self.db.array(str(row[key[0].name]) for row in rows)
        query = select(*key).where(self.db.among(key[0], "the_first"))
        known = {tuple(row) for row in connection.execute(query, {"the_first": those})}
        return [row for row in rows if self.place(table, row) not in known]

    @writes
    def take_over(
        self, connection: Connection, table: str, rows: Sequence[Row], owned: Mapping[str, Sequence[Row]]
    ) -> int:
        """A row that another process inserts at the same time is waited for, and is that one's: nothing is doubled."""
        if not rows:
            return 0
        self._check_writes(row["namespace"] for row in rows if "namespace" in row)
        in_order = sorted(rows, key=lambda row: self.place(table, row))
        taken = {tuple(row) for row in connection.execute(self.db.made(_take, table), in_order)}
        for name, theirs in owned.items():
            child = metadata.tables[name]
            ours = [_unnumbered(child, row) for row in theirs if _belongs_to(child, row) in taken]
            if ours:
                connection.execute(self.db.made(_add, name), ours)
        return len(taken)

    @writes
    def add_counters(self, connection: Connection, source: str, counters: Mapping[str, Mapping[str, float]]) -> bool:
        name = ADDED + source
        empty = self.db.insert(notes).values(name=name, value="{}").on_conflict_do_nothing()
        connection.execute(empty)
        which = select(notes.c.value).where(notes.c.name == name).with_for_update()
        before = load(connection.execute(which).scalar_one())
        more = {name: _more(counters[name], before.get(name, {})) for name in counters}
        if not any(more.values()):
            return False
        for counter, by in more.items():
            self._count(connection, counter, by)
        connection.execute(update(notes).where(notes.c.name == name).values(value=dump(counters)))
        return True


def _owner(table: Table) -> list[Column[Any]]:
    """The columns that refer to the row that one belongs to, in the order of that one's key."""
    (reference,) = table.foreign_key_constraints
    return list(reference.columns)


def _belongs_to(table: Table, row: Row) -> Place:
    return tuple(row[column.name] for column in _owner(table))


def _unnumbered(table: Table, row: Row) -> Row:
    """A row without what its database counts up by itself."""
    counted = {column.name for column in table.primary_key.columns if column.autoincrement is True}
    return {name: value for name, value in row.items() if name not in counted}


def _take(db: Database, name: str) -> Any:
    table = metadata.tables[name]
    return db.insert(table).on_conflict_do_nothing().returning(*table.primary_key.columns)


def _add(_db: Database, name: str) -> Insert:
    return metadata.tables[name].insert()


def _more(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """What has been counted since."""
    return {field: now[field] - before.get(field, 0.0) for field in now if now[field] > before.get(field, 0.0)}
