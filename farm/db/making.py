"""Builds as workers end them; and the repair of what vanished workers held."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Delete, Row, Select, delete, select

from farm.builds import Build, BuildState, Engine, Failure, FailureKind, Lease, decide_retry, is_remembered
from farm.db import statements
from farm.db.builds import BuildRows, lost
from farm.db.json_text import dump
from farm.db.models import attempts, builds, engines, events, key_parts, workers
from farm.db.nodes import can_go_elsewhere, note_failure, settle_blame
from farm.db.rows import clean, parts_row
from farm.db.serving import add_served, forget_served
from farm.db.session import Database, Step, reads, writes, writes_by_index
from farm.db.statements import AT_REST, UNSTARTED
from farm.index import FORGET_SECONDS, KeyParts

Held = tuple[Row[Any], Lease, Engine]
"""A build's row, locked; the lease that holds it; the engine that was made of it."""
LOST_MESSAGE = "the worker that made it vanished"
LOST_HINT = "look at that machine's memory and logs, then 'farm retry'"


class Making(BuildRows):
    """How builds end, in ``farm.index.Index``; the contract is written there."""

    # -- ends --------------------------------------------------------------------------------------------------

    def succeed(self, lease: Lease, engine: Engine) -> None:
        if self.succeed_all([(lease, engine)]) != [True]:
            raise lost(lease)

    @writes_by_index
    def succeed_all(self, connection: Connection, ends: Sequence[tuple[Lease, Engine]]) -> list[bool]:
        rows = self._hold_all(connection, [lease for lease, _ in ends])
        self._check_writes(row.namespace for row in rows.values())
        held = [(rows[lease.build.id, lease.token], lease, engine) for lease, engine in ends if _key(lease) in rows]
        for row, _, engine in held:
            _check_recipe(row, engine)
        if held:
            served = sorted((row.recipe, row.namespace, engine.serves) for row, _, engine in held)
            former = {(row.recipe, row.namespace) for row, _, _ in held if row.served}
            steps = [*_engine_steps(held, self.trusted), *_success_steps(held)]
            if former:  # one statement cannot take rows away and put the like in their place
                self.db.each(connection, *steps, forget_served([one for one in served if one[:2] in former]))
                self.db.each(connection, add_served(served))
            else:
                self.db.each(connection, *steps, add_served(served))
            settle_blame(self.db, connection, [row for row, _, _ in held])
        return [_key(lease) in rows for lease, _ in ends]

    def _hold_all(self, connection: Connection, leases: Sequence[Lease]) -> dict[tuple[str, int], Row[Any]]:
        """The rows of the builds that ``leases`` still hold, by build and token; locked, by id."""
        those = {"the_builds": self.db.array(lease.build.id for lease in leases)}
        rows = connection.execute(self.db.made(statements.lock_running), those)
        return {(row.id, row.token): row for row in rows}

    @writes
    def fail(self, connection: Connection, lease: Lease, failure: Failure, retry_in: float | None) -> Build:
        row = self._hold(connection, lease)
        self._fail_row(connection, row, failure, retry_in)
        return self._one(connection, row.id)

    def _fail_row(self, connection: Connection, row: Row[Any], failure: Failure, retry_in: float | None) -> None:
        """End a running build's attempt by a failure: cancelled when that was asked, else queued again, else failed."""
        self._end_attempt(connection, row, failure.kind.value, failure.message)
        note_failure(self.db, connection, row, failure)
        if failure.kind is FailureKind.NODE and retry_in is not None:
            retry_in = retry_in if can_go_elsewhere(self.db, connection, row) else None
        said = {
            "failure_kind": failure.kind.value,
            "failure_message": clean(failure.message),
            "failure_hint": clean(failure.hint),
        }
        after, values = _after_failure(row, failure, retry_in)
        self._move(connection, row, after, {**said, **values})
        kind = "requeued" if after is BuildState.QUEUED else after.value
        detail = {"kind": failure.kind.value, "message": failure.message, "worker": row.worker, "retry_in": retry_in}
        self._tell(connection, row.now, kind, [row.id], detail)

    @writes
    def end_cancelled(self, connection: Connection, lease: Lease) -> None:
        """As the contract says; but a build that somebody has asked for meanwhile is queued again."""
        self._drop(connection, lease, "cancelled, then wanted again")

    @writes
    def give_back(self, connection: Connection, lease: Lease) -> None:
        self._drop(connection, lease, "given back")

    def _drop(self, connection: Connection, lease: Lease, why: str) -> None:
        row = self._hold(connection, lease)
        if row.cancel_requested:
            self._cancel_row(connection, row)
        else:
            self._requeue_row(connection, row, why)

    # -- repair ------------------------------------------------------------------------------------------------

    def reap(self, gone: Collection[str] = ()) -> list[Build]:
        """As the contract says; workers of ``gone`` are forgotten. Most of the time there is nothing to do, which a
        look finds out without a write lock."""
        if self._any_forgotten():
            self._forget()
        return self._reap(gone) if gone or self._any_expired() else []

    @reads
    def _any_expired(self, connection: Connection) -> bool:
        return connection.execute(self.db.made(statements.expired), {"the_gone": self.db.array(())}).first() is not None

    @reads
    def _any_forgotten(self, connection: Connection) -> bool:
        return connection.execute(self.db.made(_silent)).first() is not None

    @writes
    def _forget(self, connection: Connection) -> None:
        connection.execute(delete(workers).where(_is_silent(self.db)))

    @writes
    def _reap(self, connection: Connection, gone: Collection[str]) -> list[Build]:
        who = {"the_gone": self.db.array(clean(worker) for worker in gone)}
        ids = connection.execute(self.db.made(_expired_unlocked), who).scalars().all()
        for build in ids:
            row = self._lock(connection, build)
            failure = Failure(FailureKind.LOST, f"{LOST_MESSAGE} ({row.worker})", LOST_HINT)
            self._fail_row(connection, row, failure, decide_retry(failure.kind, row.attempts))
        if gone:
            connection.execute(self.db.made(_forget_gone), who)
        return self._fetch(connection, ids)


def _engine_steps(held: Sequence[Held], trusted: bool) -> list[Step]:
    """Put the engines in place of their recipes' former ones, and add the links from their keys that are missing: most
    were recorded when the builds were asked for."""
    values = [_engine_values(row, lease, engine) for row, lease, engine in held]
    links = {
        # Once, though two namespaces have made the recipe at once.
        (row.key, row.recipe): parts_row(
            KeyParts(row.key, row.recipe, _parts(engine), lease.build.request.model, lease.build.request.target),
            row.now,
            trusted,
        )
        for row, lease, engine in held
        if not row.linked
    }
    return [
        (statements.condemn_former, engines, sorted(values, key=lambda one: str(one["recipe"]))),
        (statements.put_engine, engines, sorted(values, key=lambda one: str(one["recipe"]))),
        (statements.add_parts, key_parts, [links[link] for link in sorted(links)]),
    ]


def _success_steps(held: Sequence[Held]) -> list[Step]:
    ended, moves, told = [], [], []
    for row, _, engine in held:
        which = {"token": row.token, "finished": row.now}
        ended.append({**which, "build": row.id, "outcome": BuildState.SUCCEEDED.value})
        moves.append({**which, "id": row.id, "engine": engine.digest})
        detail = dump({"engine": engine.digest, "worker": row.worker})
        told.append({"build": row.id, "at": row.now, "kind": "succeeded", "detail_json": detail})
    return [
        (statements.end_attempts, attempts, ended),
        (statements.succeed, builds, moves),
        (statements.add_event, events, told),
    ]


def _after_failure(row: Row[Any], failure: Failure, retry_in: float | None) -> tuple[BuildState, dict[str, Any]]:
    """What becomes of a running build whose attempt failed, and what its row then says."""
    if row.cancel_requested:
        return BuildState.CANCELLED, {**AT_REST, "finished": row.now}
    if retry_in is None:
        remembered = is_remembered(failure.kind)
        return BuildState.FAILED, {**AT_REST, "finished": row.now, "remembered": remembered}
    return BuildState.QUEUED, {**UNSTARTED, "not_before": row.now + retry_in if retry_in > 0 else None}


def _expired_unlocked(db: Database) -> Select[str]:
    """Those that no other reaper, and no worker that has just come back, is at."""
    return statements.expired(db).with_for_update(skip_locked=True)


def _forget_gone(db: Database) -> Delete:
    return delete(workers).where(db.among(workers.c.id, "the_gone"))


def _is_silent(db: Database) -> ColumnElement[bool]:
    return workers.c.seen < db.now - FORGET_SECONDS


def _silent(db: Database) -> Select[str]:
    return select(workers.c.id).where(_is_silent(db)).limit(1)


def _key(lease: Lease) -> tuple[str, int]:
    return (lease.build.id, lease.token)


def _check_recipe(row: Row[Any], engine: Engine) -> None:
    if (engine.namespace, engine.recipe) != (row.namespace, row.recipe):
        raise ValueError(f"build {row.id} makes {row.recipe}, and was to be ended by an engine of {engine.recipe}")


def _parts(engine: Engine) -> Mapping[str, Any]:
    """What the worker found the key to be made of, from the stored program."""
    parts: Mapping[str, Any] = engine.manifest.get("parts") or {}
    return parts


def _engine_values(row: Row[Any], lease: Lease, engine: Engine) -> dict[str, Any]:
    request = lease.build.request
    return {
        "recipe": row.recipe,
        "namespace": row.namespace,
        "key": row.key,
        "digest": engine.digest,
        "size": engine.size,
        "weights": request.weights,
        "build": row.id,
        "created": row.now,
        "build_seconds": engine.build_seconds,
        "graph": str(_parts(engine).get("graph", "")),
        "capability": row.capability,
        "manifest": str(engine.manifest.get("manifest") or ""),
        "manifest_json": dump(engine.manifest),
    }
