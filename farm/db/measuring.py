"""Measurements, and what awaits measuring. Asks are few: one look at their index, one row at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, Row, delete, or_, select, update

from farm.db.json_text import dump, load
from farm.db.models import measurements, measuring
from farm.db.rows import clean
from farm.db.session import Database, reads, writes

if TYPE_CHECKING:
    from farm.measurements import Awaiting, Measurement, MeasuringAsk, MeasuringLease


class Measuring:
    """The measurements' part of ``farm.index.Index``; the contract is written there."""

    db: Database

    # -- measurements ------------------------------------------------------------------------------------------

    @writes
    def record_measurement(self, connection: Connection, measurement: Measurement) -> None:
        values = {
            "subject": clean(measurement.subject),
            "at": self.db.time(connection),
            "body_json": dump(measurement.as_json()),
        }
        insert = self.db.insert(measurements).values(id=measurement.id, **values)
        connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=values))

    @reads
    def measurements_of(self, connection: Connection, digests: Collection[str]) -> list[Measurement]:
        from farm.measurements import Measurement

        if not digests:
            return []
        query = select(measurements).where(self.db.among(measurements.c.subject, "the_subjects"))
        newest = query.order_by(measurements.c.at.desc(), measurements.c.id)
        rows = connection.execute(newest, {"the_subjects": self.db.array(map(clean, digests))})
        return [Measurement.from_json({**load(row.body_json), "at": row.at}) for row in rows]

    # -- what awaits measuring ---------------------------------------------------------------------------------

    @writes
    def await_measuring(self, connection: Connection, asks: Sequence[MeasuringAsk]) -> None:
        now = self.db.time(connection)
        for ask in sorted(asks, key=lambda one: one.id):
            values = {"place": clean(ask.place), "since": now, "ask_json": dump(ask.as_json())}
            insert = self.db.insert(measuring).values(id=ask.id, **values)
            again = {**values, "failure": "", "attempts": 0}
            connection.execute(
                insert.on_conflict_do_update(index_elements=["id"], set_=again, where=measuring.c.failure != "")
            )

    @reads
    def awaiting(self, connection: Connection, ids: Collection[str] | None = None) -> list[Awaiting]:
        age = (self.db.now - measuring.c.since).label("age")
        query = select(measuring, self._held().label("held"), age).order_by(measuring.c.since, measuring.c.id)
        if ids is None:
            return [_awaiting(row) for row in connection.execute(query)]
        among = query.where(self.db.among(measuring.c.id, "the_ids"))
        return [_awaiting(row) for row in connection.execute(among, {"the_ids": self.db.array(map(clean, ids))})]

    def lease_measuring(self, places: Collection[str], worker: str, ttl: float) -> MeasuringLease | None:
        """An idle look takes SQLite's one write lock from nobody."""
        return self._lease_measuring(places, worker, ttl) if places and self._anything(places) else None

    @reads
    def _anything(self, connection: Connection, places: Collection[str]) -> bool:
        query = select(measuring.c.id).where(*self._free()).limit(1)
        return connection.execute(query, {"the_places": self.db.array(map(clean, places))}).first() is not None

    @writes
    def _lease_measuring(
        self, connection: Connection, places: Collection[str], worker: str, ttl: float
    ) -> MeasuringLease | None:
        from farm.measurements import MeasuringAsk, MeasuringLease

        oldest = select(measuring).where(*self._free()).order_by(measuring.c.since, measuring.c.id).limit(1)
        params = {"the_places": self.db.array(map(clean, places))}
        row = connection.execute(oldest.with_for_update(skip_locked=True), params).first()
        if row is None:
            return None
        taken = {"token": row.token + 1, "attempts": row.attempts + 1, "worker": clean(worker)}
        change = update(measuring).where(measuring.c.id == row.id)
        connection.execute(change.values(**taken, lease_expires=self.db.now + ttl))
        return MeasuringLease(MeasuringAsk.from_json(load(row.ask_json)), row.token + 1, row.attempts + 1)

    @writes
    def hold_measuring(self, connection: Connection, lease: MeasuringLease, ttl: float) -> bool:
        change = update(measuring).where(*_mine(lease)).values(lease_expires=self.db.now + ttl)
        return connection.execute(change).rowcount > 0

    @writes
    def end_measuring(
        self, connection: Connection, lease: MeasuringLease, failure: str = "", again: bool = False
    ) -> bool:
        if not failure and not again:
            return connection.execute(delete(measuring).where(*_mine(lease))).rowcount > 0
        values = {"worker": "", "lease_expires": None, "failure": "" if again else clean(failure)}
        return connection.execute(update(measuring).where(*_mine(lease)).values(**values)).rowcount > 0

    def _held(self) -> ColumnElement[bool]:
        return measuring.c.lease_expires > self.db.now

    def _free(self) -> tuple[ColumnElement[bool], ...]:
        nobodys = or_(measuring.c.lease_expires.is_(None), measuring.c.lease_expires <= self.db.now)
        return self.db.among(measuring.c.place, "the_places"), measuring.c.failure == "", nobodys


def _mine(lease: MeasuringLease) -> tuple[ColumnElement[bool], ...]:
    return measuring.c.id == lease.ask.id, measuring.c.token == lease.token, measuring.c.worker != ""


def _awaiting(row: Row[tuple[object, ...]]) -> Awaiting:
    from farm.measurements import Awaiting, MeasuringAsk

    worker = row.worker if row.held else ""
    return Awaiting(MeasuringAsk.from_json(load(row.ask_json)), row.since, row.attempts, worker, row.failure, row.age)
