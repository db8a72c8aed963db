"""Which blobs the rows name, and which rows name a blob: what ``farm reconcile`` compares with the store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Column, CompoundSelect, Connection, Row, Select, delete, select, tuple_, union_all

from farm.builds import Engine
from farm.db.engines import Engines
from farm.db.json_text import load
from farm.db.models import builds, condemned, engines, forms, key_parts, notes, pins, programs
from farm.db.rows import clean, engine_from
from farm.db.session import Database, reads, writes
from farm.db.statements import IS_ACTIVE
from farm.upkeep import PAGE, Holder, Holding, Place

TABLES = {Holder.ENGINE: engines, Holder.FORM: forms, Holder.PROGRAM: programs}
NAMING = (
    engines.c.digest,
    engines.c.manifest,
    programs.c.digest,
    forms.c.graph,
    forms.c.data,
    forms.c.side,
    key_parts.c.outline,
    pins.c.digest,
    pins.c.manifest,
    condemned.c.blob,
)
"""Every column that names a blob, each the first of an index. A column that is missing here costs its blobs."""


class HoldingRows(Engines):
    """The first part of ``farm.upkeep.Upkeep``; the contract is written there."""

    @reads
    def holdings(self, connection: Connection, holder: Holder, after: Place = (), limit: int = PAGE) -> list[Holding]:
        columns = _columns(holder)
        query = beyond(select(*columns), TABLES[holder].primary_key.columns, after).limit(limit)
        return [_holding(holder, row) for row in connection.execute(query)]

    @reads
    def engines_after(self, connection: Connection, place: Place = (), limit: int = PAGE) -> list[Engine]:
        query = beyond(select(engines), engines.primary_key.columns, place).limit(limit)
        return [engine_from(row) for row in connection.execute(query)]

    @reads
    def named(self, connection: Connection, blobs: Collection[str]) -> set[str]:
        if not blobs:
            return set()
        self.db.use_indexes(connection)
        return set(connection.execute(self.db.made(_named), {"the_blobs": self.db.array(blobs)}).scalars())

    @writes
    def drop(self, connection: Connection, holding: Holding, reason: str) -> bool:
        if holding.holder is Holder.ENGINE:
            recipe, namespace = holding.place
            self._check_writes([namespace])
            which = (engines.c.recipe == recipe, engines.c.namespace == namespace)
            unchanged = (engines.c.digest == holding.blobs[0], engines.c.build == holding.version)
            return self._drop_engines(connection, (*which, *unchanged), holding.blobs[0], reason)
        if holding.holder is Holder.FORM:
            program, exporter = holding.place
            which = (forms.c.program == program, forms.c.exporter == exporter)
            same = forms.c.created == float(holding.version)
            return connection.execute(delete(forms).where(*which, same)).rowcount > 0
        raise ValueError(f"rows of {holding.holder} are kept: builds are to be made of what they name")

    @reads
    def needing(self, connection: Connection, programs: Collection[str]) -> list[str]:
        found: list[str] = []
        after: Place = ()
        while True:
            query = select(builds.c.id, builds.c.request_json).where(IS_ACTIVE)
            page = connection.execute(beyond(query, (builds.c.id,), after).limit(PAGE)).all()
            found += [row.id for row in page if load(row.request_json).get("program") in programs]
            if len(page) < PAGE:
                return found
            after = (page[-1].id,)

    # -- notes -------------------------------------------------------------------------------------------------

    def note(self, name: str) -> str | None:
        return self.notes([name]).get(name)

    @reads
    def notes(self, connection: Connection, names: Collection[str]) -> dict[str, str]:
        return _noted_as(self.db, connection, names)

    def put_note(self, name: str, value: str) -> str:
        return self.put_notes({name: value})[name]

    @writes
    def set_note(self, connection: Connection, name: str, value: str) -> None:
        row = {"name": clean(name), "value": clean(value)}
        insert = self.db.insert(notes).values(**row)
        connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": row["value"]}))

    @writes
    def put_notes(self, connection: Connection, notes: Mapping[str, str]) -> dict[str, str]:
        rows = [{"name": clean(name), "value": clean(notes[name])} for name in sorted(notes)]
        if rows:
            connection.execute(self.db.made(_put_note), rows)
        return _noted_as(self.db, connection, notes)


def beyond(query: Select[Any], key: Iterable[Column[Any]], after: Place) -> Select[Any]:
    """The rows of ``query`` after one place, in the order of the key."""
    columns = list(key)
    if after:
        query = query.where(tuple_(*columns) > tuple_(*after))
    return query.order_by(*columns)


def _columns(holder: Holder) -> list[Column[Any]]:
    if holder is Holder.ENGINE:
        return [engines.c.recipe, engines.c.namespace, engines.c.digest, engines.c.manifest, engines.c.build]
    if holder is Holder.FORM:
        return [forms.c.program, forms.c.exporter, forms.c.graph, forms.c.data, forms.c.side, forms.c.created]
    return [programs.c.digest, programs.c.created]


def _holding(holder: Holder, row: Row[Any]) -> Holding:
    blobs: tuple[str | None, ...]
    if holder is Holder.ENGINE:
        blobs, version = (row.digest, row.manifest), row.build
    elif holder is Holder.FORM:
        blobs, version = (row.graph, row.data, row.side), repr(row.created)
    else:
        blobs, version = (row.digest,), repr(row.created)
    place = tuple(getattr(row, column.name) for column in TABLES[holder].primary_key.columns)
    return Holding(holder, place, tuple(blob for blob in blobs if blob), version)


def _named(db: Database) -> CompoundSelect[Any]:
    """What is condemned counts until its time has come."""
    columns = (column for column in NAMING if column.table is not condemned)
    named = [select(column).where(db.among(column, "the_blobs")) for column in columns]
    waits = select(condemned.c.blob).where(db.among(condemned.c.blob, "the_blobs"), condemned.c.until > db.now)
    return union_all(*named, waits)


def _noted_as(db: Database, connection: Connection, names: Collection[str]) -> dict[str, str]:
    rows = connection.execute(db.made(_noted), {"the_names": db.array(names)})
    return {row.name: row.value for row in rows}


def _put_note(db: Database) -> Any:
    return db.insert(notes).on_conflict_do_nothing()


def _noted(db: Database) -> Select[str, str]:
    return select(notes.c.name, notes.c.value).where(db.among(notes.c.name, "the_names"))
