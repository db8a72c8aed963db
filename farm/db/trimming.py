"""History that nobody needs any more: sweeps, builds with all that belongs to them, and what keys were made of."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Double,
    and_,
    cast,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
)

from farm.db.collecting import CollectingRows, is_live
from farm.db.holding import beyond
from farm.db.models import builds, engines, events, key_parts, log_chunks, notes, pins, sweeps, trials
from farm.db.rows import clean
from farm.db.session import Database, reads, writes
from farm.db.statements import IS_ACTIVE
from farm.errors import NotAllowed
from farm.leaving import Trimmed
from farm.upkeep import PAGE, Place

OUTLINE = "outline"
IN_ORDER = (builds.c.created, builds.c.number, builds.c.id)


class TrimmingRows(CollectingRows):
    """The history's part of ``farm.leaving.Leaving``; the contract is written there."""

    @writes
    def trim_sweeps(self, connection: Connection, before: float, limit: int = PAGE) -> int:
        self._check_history()
        some = select(sweeps.c.id).where(*_old_sweep(before)).order_by(sweeps.c.id).limit(limit)
        gone = connection.execute(some).scalars().all()
        connection.execute(delete(sweeps).where(sweeps.c.id.in_(gone)))
        return len(gone)

    @writes
    def trim_builds(self, connection: Connection, before: float, after: Place = (), limit: int = PAGE) -> Trimmed:
        self._check_history()
        query = select(*IN_ORDER, _stays().label("stays")).where(*_old_build(before))
        page = connection.execute(beyond(query, IN_ORDER, after).limit(limit)).all()
        if not page:
            return Trimmed(0, 0, ())
        stay = {"the_builds": self.db.array(row.id for row in page if row.stays)}
        go = {"the_builds": self.db.array(row.id for row in page if not row.stays)}
        gone = connection.execute(self.db.made(_forget), go).rowcount
        logs = connection.execute(self.db.made(_forget_logs), stay).rowcount
        connection.execute(self.db.made(_forget_events), stay)
        return Trimmed(gone, logs, tuple(page[-1])[:3])

    @writes
    def trim_parts(self, connection: Connection, before: float, grace: float, limit: int = PAGE) -> int:
        self._check_history()
        query = select(key_parts.c.key, key_parts.c.recipe, key_parts.c.outline).where(*_old_parts(self.db, before))
        some = connection.execute(query.order_by(key_parts.c.key, key_parts.c.recipe).limit(limit)).all()
        which = tuple_(key_parts.c.key, key_parts.c.recipe).in_([(row.key, row.recipe) for row in some])
        connection.execute(delete(key_parts).where(which))
        self._condemn(connection, (((row.outline, OUTLINE, 0),) for row in some), grace)
        return len(some)

    def _check_history(self) -> None:
        if not self.trusted:
            raise NotAllowed("history is everybody's: it is forgotten from trusted namespaces alone")

    @reads
    def history(self, connection: Connection, before: float) -> dict[str, int]:
        def count(table: Any, *where: ColumnElement[bool]) -> int:
            return connection.execute(select(func.count()).select_from(table).where(*where)).scalar_one()

        return {
            "sweeps": count(sweeps, *_old_sweep(before)),
            "builds": count(builds, *_old_build(before), ~_stays()),
            "key_parts": count(key_parts, *_old_parts(self.db, before)),
        }

    @writes
    def take_turn(self, connection: Connection, name: str, seconds: float) -> bool:
        """The time of the last turn is a note."""
        now = self.db.time(connection)
        add = self.db.insert(notes).values(name=clean(name), value=repr(now))
        due = cast(notes.c.value, Double) <= now - seconds
        taken = add.on_conflict_do_update(index_elements=["name"], set_={"value": repr(now)}, where=due)
        return connection.execute(taken.returning(notes.c.name)).first() is not None


def _old_sweep(before: float) -> tuple[ColumnElement[bool], ...]:
    active = exists().where(trials.c.sweep == sweeps.c.id, trials.c.build == builds.c.id, IS_ACTIVE)
    return sweeps.c.created < before, ~active


def _old_build(before: float) -> tuple[ColumnElement[bool], ...]:
    return builds.c.created < before, builds.c.finished < before, ~IS_ACTIVE


def _stays() -> ColumnElement[bool]:
    """Of an old build: that something still refers to it."""
    made = exists().where(engines.c.build == builds.c.id)
    return or_(builds.c.remembered, made, exists().where(trials.c.build == builds.c.id))


def _old_parts(db: Database, before: float) -> tuple[ColumnElement[bool], ...]:
    made = exists().where(engines.c.recipe == key_parts.c.recipe)
    pinned = exists().where(and_(pins.c.recipe == key_parts.c.recipe, is_live(db)))
    asked = key_parts.c.recipe.in_(select(builds.c.recipe).where(IS_ACTIVE))
    return key_parts.c.recorded < before, ~made, ~pinned, ~asked


def _forget(db: Database) -> Delete:
    return delete(builds).where(db.among(builds.c.id, "the_builds"), ~IS_ACTIVE, ~builds.c.remembered)


def _forget_logs(db: Database) -> Delete:
    return delete(log_chunks).where(db.among(log_chunks.c.build, "the_builds"))


def _forget_events(db: Database) -> Delete:
    return delete(events).where(db.among(events.c.build, "the_builds"))
