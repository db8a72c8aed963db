"""Who builds what: workers as rows, leases and their heartbeats, and which queue to wake."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Row, Select, bindparam, delete, select

from farm.builds import Lease
from farm.db import statements
from farm.db.builds import BuildRows
from farm.db.json_text import dump
from farm.db.models import attempts, events, log_chunks, wakes, workers
from farm.db.nodes import seats
from farm.db.rows import build_from, clean, request_from, worker_from
from farm.db.session import Database, looks, reads, repeats, writes, writes_by_index
from farm.index import FRESH_SECONDS, Worker
from farm.making import Beat, Offer, Sign
from farm.placement import wake_counts

# How long a lease looks again for a build whose row somebody has locked for a moment: to raise its priority, say.
SECOND_LOOKS_S = (0.002, 0.005, 0.01, 0.02)


class Leasing(BuildRows):
    """The leases' part of ``farm.index.Index``; the contract is written there."""

    # -- workers -----------------------------------------------------------------------------------------------

    @repeats
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

    @repeats
    def unregister(self, connection: Connection, worker: str) -> None:
        connection.execute(delete(workers).where(workers.c.id == clean(worker)))

    @reads
    def workers(self, connection: Connection) -> list[Worker]:
        return [worker_from(row) for row in connection.execute(self.db.made(_workers))]

    # -- leasing -----------------------------------------------------------------------------------------------

    def lease(self, offer: Offer, ttl: float, count: int = 1) -> list[Lease]:
        """As the contract says. An idle look takes SQLite's one write lock from nobody."""
        if not offer.capabilities or count <= 0:
            return []
        only = offer.capabilities[0] if len(offer.capabilities) == 1 and not self.db.sqlite else None
        queue = only or self._best_queue(offer)
        return [] if queue is None else self._lease(offer, queue, ttl, count)

    @looks
    def _best_queue(self, connection: Connection, offer: Offer) -> str | None:
        """Of the queues that are served, the one whose next build comes first."""
        heads, mine = [], self._served(offer.namespaces)
        for capability in offer.capabilities:
            head = connection.execute(self.db.made(statements.heads, mine), _wanted(offer, capability, 1)).first()
            if head is not None:
                heads.append(((-head.priority, head.turn, head.created, head.number), capability))
        return min(heads)[1] if heads else None

    @writes_by_index
    def _lease(self, connection: Connection, offer: Offer, queue: str, ttl: float, count: int) -> list[Lease]:
        rows = self._start(connection, _wanted(offer, queue, count), offer, ttl)
        if self.db.sqlite and rows:
            self._note(connection, rows)
        return [self._lease_of(row) for row in rows]

    def _note(self, connection: Connection, rows: Sequence[Row[Any]]) -> None:
        """Record attempts and events, where ``statements.lease`` does not."""
        started = [
            {"build": row.id, "token": row.token, "number": row.attempts, "worker": row.worker, "started": row.started}
            for row in rows
        ]
        told = [{"build": row.id, "at": row.started, "kind": "leased", "detail_json": _leased(row)} for row in rows]
        self.db.each(connection, (statements.add_attempt, attempts, started), (statements.add_event, events, told))

    def _start(self, connection: Connection, wanted: Mapping[str, Any], offer: Offer, ttl: float) -> Sequence[Row[Any]]:
        """Run the best builds that nobody has locked. A locked one may be free again in a moment (not each that locks
        it leases it), so what is passed over is looked at again before the answer is that nothing is there."""
        params = {**wanted, "the_worker": clean(offer.worker), "the_ttl": ttl}
        start = statements.start if self.db.sqlite else statements.lease
        mine = self._served(offer.namespaces)
        for pause in (*SECOND_LOOKS_S, None):
            rows = connection.execute(self.db.made(start, mine), params).all()
            if rows or self.db.sqlite or pause is None:
                return sorted(rows, key=lambda row: (-row.priority, row.turn, row.created, row.number))
            more = connection.execute(self.db.made(statements.best_due, mine), {**wanted, "the_count": 1})
            if more.first() is None:
                return []
            time.sleep(pause)
        return []

    def _lease_of(self, row: Row[Any]) -> Lease:
        # Not kept: a worker asks for each once, and would remember the last 20,000 of its life.
        request = self.requests.get(row.id) or request_from(row.request_json)
        return Lease(build_from(row, request), row.token, row.attempts, row.lease_expires)

    # -- while they run ----------------------------------------------------------------------------------------

    def beat(self, beats: Sequence[Beat], ttl: float) -> list[Sign]:
        return self._beat(beats, ttl) if beats else []

    @writes
    def _beat(self, connection: Connection, beats: Sequence[Beat], ttl: float) -> list[Sign]:
        rows = self._holdings(connection, [beat.lease for beat in beats], statements.hold_all)
        signs = [_sign(beat.lease, rows) for beat in beats]
        held = [beat for beat, sign in zip(beats, signs, strict=True) if sign is not Sign.LOST]
        if held:
            ids = self.db.array(beat.lease.build.id for beat in held)
            connection.execute(self.db.made(statements.extend), {"the_builds": ids, "the_ttl": ttl})
            said = [
                {"the_build": beat.lease.build.id, "phase": clean(beat.phase), "progress": beat.progress}
                for beat in held
            ]
            connection.execute(self.db.made(statements.change), said)
            self._log(connection, held, rows)
            self._see(connection, held)
        return signs

    def _log(self, connection: Connection, held: Sequence[Beat], rows: Mapping[str, Row[Any]]) -> None:
        """Add what was logged. Positions count characters."""
        ends = {build: row.log_size for build, row in rows.items()}
        chunks = []
        for beat in held:
            if text := clean(beat.log):
                ends[beat.lease.build.id] += len(text)
                chunks.append({"build": beat.lease.build.id, "ends": ends[beat.lease.build.id], "text": text})
        if chunks:
            connection.execute(log_chunks.insert(), chunks)
            sizes = {chunk["build"]: {"the_build": chunk["build"], "log_size": chunk["ends"]} for chunk in chunks}
            connection.execute(self.db.made(statements.change), list(sizes.values()))

    def _see(self, connection: Connection, held: Sequence[Beat]) -> None:
        for worker in sorted({beat.lease.build.worker or "" for beat in held}):
            connection.execute(self.db.made(statements.see), {"the_worker": worker})

    @reads
    def signs(self, connection: Connection, leases: Sequence[Lease]) -> list[Sign]:
        rows = self._holdings(connection, leases, statements.holdings)
        return [_sign(lease, rows) for lease in leases]

    def _holdings(self, connection: Connection, leases: Sequence[Lease], make: Any) -> dict[str, Row[Any]]:
        those = {"the_builds": self.db.array(lease.build.id for lease in leases)}
        return {row.id: row for row in connection.execute(self.db.made(make), those)}

    def append_log(self, lease: Lease, text: str) -> None:
        """As the contract says; a beat that only logs."""
        self._append_log(lease, clean(text))

    @writes
    def _append_log(self, connection: Connection, lease: Lease, text: str) -> None:
        row = self._hold(connection, lease)
        self._log(connection, [Beat(lease, log=text)], {row.id: row})

    # -- waking ------------------------------------------------------------------------------------------------

    @reads
    def waiting(self, connection: Connection, namespaces: Sequence[str] = ()) -> dict[str, int]:
        return dict(connection.execute(self.db.made(statements.waiting, tuple(namespaces))).all())

    def wakes(self, interval: float) -> dict[str, int]:
        """As the contract says. Nothing is written where nobody is to be woken."""
        counts = self._wake_counts()
        return self._claim_wakes(counts, interval) if counts else {}

    @reads
    def _wake_counts(self, connection: Connection) -> dict[str, int]:
        waiting: dict[str, int] = dict(connection.execute(self.db.made(statements.waiting)).all())
        return wake_counts(waiting, seats(self.db, connection)) if waiting else {}

    @writes
    def _claim_wakes(self, connection: Connection, counts: Mapping[str, int], interval: float) -> dict[str, int]:
        """Those queues that nobody has woken within the interval; they are the caller's to wake."""
        mine = {}
        for capability in sorted(counts):
            row = {"capability": capability, "the_interval": interval}
            if connection.execute(self.db.made(_wake), row).first() is not None:
                mine[capability] = counts[capability]
        return mine


def _wanted(offer: Offer, capability: str, count: int) -> dict[str, Any]:
    return {
        "the_capability": clean(capability),
        "the_memory": offer.memory,
        "the_gpu_memory": offer.gpu_memory,
        "the_free": offer.free,
        "the_gpu_free": offer.gpu_free,
        "the_node": clean(offer.node),
        "the_count": count,
    }


def _leased(row: Row[Any]) -> str:
    return dump({"worker": row.worker, "attempt": row.attempts})


def _sign(lease: Lease, rows: Mapping[str, Row[Any]]) -> Sign:
    row = rows.get(lease.build.id)
    if row is None or row.token != lease.token:
        return Sign.LOST
    return Sign.UNWANTED if row.cancel_requested else Sign.HELD


def _workers(db: Database) -> Select[Any]:
    fresh = (workers.c.seen > db.now - FRESH_SECONDS).label("fresh")
    return select(workers, fresh).order_by(workers.c.id)


def _wake(db: Database) -> Any:
    """Claim one queue's waking; a row where nobody has done so within ``the_interval``."""
    due = wakes.c.sent < db.now - bindparam("the_interval", type_=wakes.c.sent.type)
    insert: Insert = db.insert(wakes).values(capability=bindparam("capability"), sent=db.now)
    claim = insert.on_conflict_do_update(index_elements=["capability"], set_={"sent": db.now}, where=due)  # type: ignore[attr-defined]
    return claim.returning(wakes.c.capability)
