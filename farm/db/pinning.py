"""Pins: which engines are kept, and by what name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Row, Select, delete, select

from farm.db.collecting import CollectingRows
from farm.db.models import engines, pins
from farm.db.rows import clean
from farm.db.session import Database, reads, writes
from farm.leaving import Pin, Pinned

UNPINNED = "pin"


class PinningRows(CollectingRows):
    """The pins' part of ``farm.leaving.Leaving``; the contract is written there."""

    @writes
    def put_pin(
        self, connection: Connection, name: str, pinned: Sequence[Pinned], seconds: float | None, grace: float
    ) -> list[Pinned]:
        """The rows are locked, so that collection either sees the pin or has removed them already."""
        name = clean(name)
        self._check_writes(one.namespace for one in pinned)
        self.db.alone(connection, f"pin {name}")
        recipes = {"the_recipes": self.db.array(one.recipe for one in pinned)}
        there = {tuple(row) for row in connection.execute(self.db.made(_lock_shared), recipes)}
        missing = [one for one in pinned if (one.recipe, one.namespace, one.digest) not in there]
        if missing:
            return missing
        former = self._drop_pins(connection, name)
        now = self.db.time(connection)
        expires = None if seconds is None else now + seconds
        created = min((row.created for row in former), default=now)
        rows = {(one.recipe, one.namespace): _row(name, one, created, expires) for one in pinned}
        if rows:
            connection.execute(self.db.made(_add), [rows[place] for place in sorted(rows)])
        self._condemn_unpinned(connection, former, grace)
        return []

    @writes
    def drop_pin(self, connection: Connection, name: str, grace: float) -> bool:
        gone = self._drop_pins(connection, clean(name))
        self._condemn_unpinned(connection, gone, grace)
        return bool(gone)

    @writes
    def expire_pins(self, connection: Connection, grace: float) -> int:
        gone = connection.execute(delete(pins).where(pins.c.expires <= self.db.now).returning(*pins.c)).all()
        self._condemn_unpinned(connection, gone, grace)
        return len({row.name for row in gone})

    @reads
    def pins(self, connection: Connection, name: str = "") -> list[Pin]:
        query = select(pins).order_by(pins.c.name, pins.c.recipe, pins.c.namespace)
        if name:
            query = query.where(pins.c.name == clean(name))
        found: dict[str, list[Row[Any]]] = {}
        for row in connection.execute(query):
            found.setdefault(row.name, []).append(row)
        return [_pin(name, rows) for name, rows in found.items()]

    def _drop_pins(self, connection: Connection, name: str) -> Sequence[Row[Any]]:
        gone = connection.execute(delete(pins).where(pins.c.name == name).returning(*pins.c)).all()
        self._check_writes(row.namespace for row in gone)
        return gone

    def _condemn_unpinned(self, connection: Connection, gone: Iterable[Row[Any]], grace: float) -> None:
        """A pin may have been the last to name its blobs, where another build took the engine's place."""
        self._condemn(
            connection, (((row.digest, UNPINNED, row.size), (row.manifest, UNPINNED, 0)) for row in gone), grace
        )


def _lock_shared(db: Database) -> Select[Any]:
    columns = (engines.c.recipe, engines.c.namespace, engines.c.digest)
    query = select(*columns).where(db.among(engines.c.recipe, "the_recipes"))
    return query.order_by(engines.c.recipe, engines.c.namespace).with_for_update(read=True)


def _add(_db: Database) -> Insert:
    return pins.insert()


def _row(name: str, one: Pinned, created: float, expires: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": one.recipe,
        "namespace": one.namespace,
        "digest": one.digest,
        "manifest": one.manifest,
        "program": one.program,
        "size": one.size,
        "created": created,
        "expires": expires,
    }


def _pin(name: str, rows: Sequence[Row[Any]]) -> Pin:
    engines = tuple(Pinned(row.recipe, row.namespace, row.digest, row.manifest, row.program, row.size) for row in rows)
    return Pin(name, engines, rows[0].created, rows[0].expires)
