"""Builds as workers see them: lease, beat, log, end; and the repair of what vanished workers held."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, select

from farm.builds import Build, BuildState, Engine, Failure, FailureKind, Lease, decide_retry
from farm.db import statements
from farm.db.builds import BuildRows, lost
from farm.db.models import log_chunks, workers
from farm.db.rows import build_from, clean, dump, parts_row, worker_from
from farm.db.serving import put_serving
from farm.db.session import Database, reads, writes
from farm.db.statements import AT_REST, UNSTARTED
from farm.index import KeyParts, Worker

# How long a lease looks again for a build whose row somebody has locked for a moment: to raise its priority, say.
SECOND_LOOKS_S = (0.002, 0.005, 0.01, 0.02)
LOST_MESSAGE = "the worker that made it vanished"
LOST_HINT = "look at that machine's memory and logs, then 'farm retry'"


class Making(BuildRows):
    """The making half of ``farm.index.Index``'s builds; the contract is written there."""

    # -- workers -----------------------------------------------------------------------------------------------

    @writes
    def register(self, connection: Connection, worker: Worker) -> None:
        values: dict[str, Any] = {
            "host": clean(worker.host),
            "pid": worker.pid,
            "born": worker.born,
            "capabilities_json": dump(worker.capabilities),
            "detail_json": dump(worker.detail),
            "seen": self.db.time(connection),
        }
        insert = self.db.insert(workers).values(id=clean(worker.id), **values)
        connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=values))

    @writes
    def unregister(self, connection: Connection, worker: str) -> None:
        connection.execute(delete(workers).where(workers.c.id == clean(worker)))

    @reads
    def workers(self, connection: Connection) -> list[Worker]:
        return [worker_from(row) for row in connection.execute(self.db.made(_workers))]

    # -- leasing -----------------------------------------------------------------------------------------------

    def lease(self, worker: str, capabilities: Collection[str], ttl: float) -> Lease | None:
        """As the contract says. An idle look takes SQLite's one write lock from nobody."""
        if not capabilities or (self.db.sqlite and not self._anything_due(capabilities)):
            return None
        return self._lease(worker, capabilities, ttl)

    @reads
    def _anything_due(self, connection: Connection, capabilities: Collection[str]) -> bool:
        able = {"the_capabilities": self.db.array(capabilities)}
        return connection.execute(self.db.made(statements.best_due), able).first() is not None

    @writes
    def _lease(self, connection: Connection, worker: str, capabilities: Collection[str], ttl: float) -> Lease | None:
        row = self._start(connection, clean(worker), capabilities, ttl)
        if row is None:
            return None
        attempt = {"build": row.id, "token": row.token, "number": row.attempts, "worker": row.worker}
        connection.execute(self.db.made(statements.add_attempt), {**attempt, "started": row.started})
        self._tell(connection, row.started, "leased", [row.id], {"worker": worker, "attempt": row.attempts})
        request = self.requests.get(row.id) or self.requests.parse(row.id, row.request_json)
        return Lease(build_from(row, request), row.token, row.attempts, row.lease_expires)

    def _start(self, connection: Connection, worker: str, capabilities: Collection[str], ttl: float) -> Row[Any] | None:
        """Run the best build that nobody has locked. A locked one may be free again in a moment (not each that locks
        it leases it), so what is passed over is looked at again before the answer is that nothing is there."""
        able = {"the_capabilities": self.db.array(capabilities)}
        params = {**able, "the_worker": worker, "the_ttl": ttl}
        self.db.use_indexes(connection)
        for pause in (*SECOND_LOOKS_S, None):
            row = connection.execute(self.db.made(statements.start), params).first()
            if row is not None or self.db.sqlite or pause is None:
                return row
            if connection.execute(self.db.made(statements.best_due), able).first() is None:
                return None
            time.sleep(pause)
        return None

    # -- while it runs -----------------------------------------------------------------------------------------

    @writes
    def beat(self, connection: Connection, lease: Lease, ttl: float, phase: str, progress: float | None) -> bool:
        which = {"the_build": lease.build.id, "the_token": lease.token, "the_ttl": ttl}
        said = {"phase": clean(phase), "progress": progress}
        row = connection.execute(self.db.made(statements.beat), {**which, **said}).first()
        if row is None:
            raise lost(lease)
        connection.execute(self.db.made(statements.see), {"the_worker": row.worker})
        return bool(row.cancel_requested)

    @writes
    def append_log(self, connection: Connection, lease: Lease, text: str) -> None:
        text = clean(text)
        row = self._hold(connection, lease)
        if text:
            ends = row.log_size + len(text)
            self._change(connection, row.id, log_size=ends)
            connection.execute(log_chunks.insert(), {"build": row.id, "ends": ends, "text": text})

    # -- ends --------------------------------------------------------------------------------------------------

    @writes
    def succeed(self, connection: Connection, lease: Lease, engine: Engine) -> None:
        row = self._hold(connection, lease)
        if (engine.namespace, engine.recipe) != (row.namespace, row.recipe):
            raise ValueError(f"build {row.id} makes {row.recipe}, and was to be ended by an engine of {engine.recipe}")
        self._put_engine(connection, row, lease, engine)
        self._end_attempt(connection, row, BuildState.SUCCEEDED.value)
        none = {"failure_kind": None, "failure_message": None, "failure_hint": None}
        ended = {**AT_REST, **none, "finished": row.now, "engine": engine.digest}
        self._move(connection, row, BuildState.SUCCEEDED, ended)
        self._tell(connection, row.now, "succeeded", [row.id], {"engine": engine.digest, "worker": row.worker})

    def _put_engine(self, connection: Connection, row: Row[Any], lease: Lease, engine: Engine) -> None:
        """The engine in place of the recipe's former one, and the link from its key."""
        request = lease.build.request
        values: dict[str, Any] = {
            "recipe": row.recipe,
            "namespace": row.namespace,
            "key": row.key,
            "digest": engine.digest,
            "size": engine.size,
            "weights": request.weights,
            "build": row.id,
            "created": row.now,
            "build_seconds": engine.build_seconds,
            "manifest_json": dump(engine.manifest),
        }
        connection.execute(self.db.made(statements.put_engine), values)
        put_serving(self.db, connection, row.recipe, row.namespace, engine.serves)
        link = KeyParts(row.key, row.recipe, request.parts, request.model, request.target)
        connection.execute(self.db.made(statements.add_parts), parts_row(link, row.now))

    @writes
    def fail(self, connection: Connection, lease: Lease, failure: Failure, retry_in: float | None) -> Build:
        row = self._hold(connection, lease)
        self._fail_row(connection, row, failure, retry_in)
        return self._one(connection, row.id)

    def _fail_row(self, connection: Connection, row: Row[Any], failure: Failure, retry_in: float | None) -> None:
        """End a running build's attempt by a failure: cancelled when that was asked, else queued again, else failed."""
        self._end_attempt(connection, row, failure.kind.value, failure.message)
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
        if not gone and not self._any_expired():
            return []
        return self._reap(gone)

    @reads
    def _any_expired(self, connection: Connection) -> bool:
        return connection.execute(self.db.made(statements.expired), {"the_gone": self.db.array(())}).first() is not None

    @writes
    def _reap(self, connection: Connection, gone: Collection[str]) -> list[Build]:
        who = {"the_gone": self.db.array(clean(worker) for worker in gone)}
        ids = connection.execute(self.db.made(_expired_unlocked), who).scalars().all()
        for build in ids:
            row = self._lock(connection, build)
            failure = Failure(FailureKind.LOST, f"{LOST_MESSAGE} ({row.worker})", LOST_HINT)
            self._fail_row(connection, row, failure, decide_retry(failure.kind, row.attempts))
        if gone:
            connection.execute(delete(workers).where(self.db.among(workers.c.id, "the_gone")), who)
        return self._fetch(connection, ids)

    @reads
    def waiting(self, connection: Connection) -> dict[str, int]:
        return dict(connection.execute(self.db.made(statements.waiting)).all())


def _after_failure(row: Row[Any], failure: Failure, retry_in: float | None) -> tuple[BuildState, dict[str, Any]]:
    """What becomes of a running build whose attempt failed, and what its row then says."""
    if row.cancel_requested:
        return BuildState.CANCELLED, {**AT_REST, "finished": row.now}
    if retry_in is None:
        remembered = failure.kind is FailureKind.PERMANENT
        return BuildState.FAILED, {**AT_REST, "finished": row.now, "remembered": remembered}
    return BuildState.QUEUED, {**UNSTARTED, "not_before": row.now + retry_in if retry_in > 0 else None}


def _workers(_db: Database) -> Select[Any]:
    return select(workers).order_by(workers.c.id)


def _expired_unlocked(db: Database) -> Select[str]:
    """Those that no other reaper, and no worker that has just come back, is at."""
    return statements.expired(db).with_for_update(skip_locked=True)
