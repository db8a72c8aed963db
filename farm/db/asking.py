"""Builds as their askers see them: claim, join, leave, cancel, retry, look."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Delete, Select, bindparam, delete, select, update

from farm.builds import Build, BuildRequest, BuildState
from farm.db.builds import BuildRows
from farm.db.claims import Claiming
from farm.db.models import attempts, builds, events, log_chunks, waiters
from farm.db.rows import attempt_from, clean, event_from, starts
from farm.db.session import Database, reads, repeats, writes
from farm.db.statements import AT_REST, IS_ACTIVE, IS_QUEUED, IS_RUNNING
from farm.index import Attempt, Claim, Event


class Asking(BuildRows):
    """The asking half of ``farm.index.Index``'s builds; the contract is written there."""

    @repeats
    def claim_or_join(
        self,
        connection: Connection,
        requests: Sequence[BuildRequest],
        waiter: str,
        *,
        force: bool = False,
        reads: Sequence[str] = (),
    ) -> list[Claim]:
        if not requests:
            return []
        return Claiming(self, connection, waiter, force, () if force else reads).settle(requests)

    @writes
    def leave(self, connection: Connection, waiter: str, builds: Collection[str] | None = None) -> list[str]:
        waiter = clean(waiter)
        left = self._withdraw(connection, waiter, builds) if waiter else []
        unwanted = self._without_waiters(connection, left)
        if unwanted:
            self._unwant(connection, unwanted, f"{waiter} was the last that waited")
        return unwanted

    def _withdraw(self, connection: Connection, waiter: str, among: Collection[str] | None) -> list[str]:
        """Take ``waiter`` off its active builds, which stay locked: nobody joins one while it is decided upon."""
        if among is None:
            query = self.db.made(_waited_for)
            found = connection.execute(query, {"the_waiter": waiter})
        else:
            query = self.db.made(_waited_for_among)
            found = connection.execute(query, {"the_waiter": waiter, "the_builds": self.db.array(among)})
        left = list(found.scalars())
        if left:
            gone = {"the_waiter": waiter, "the_builds": self.db.array(left)}
            connection.execute(self.db.made(_drop_waiter), gone)
        return left

    def _without_waiters(self, connection: Connection, among: Sequence[str]) -> list[str]:
        if not among:
            return []
        kept = connection.execute(self.db.made(_have_waiters), {"the_builds": self.db.array(among)})
        waited_for = set(kept.scalars())
        return [build for build in among if build not in waited_for]

    def _unwant(self, connection: Connection, unwanted: Collection[str], why: str) -> None:
        """Of builds whose rows are locked: the queued ones end now; a running one's worker hears at its next beat."""
        now = self.db.time(connection)
        those = {"the_builds": self.db.array(unwanted)}
        ended = connection.execute(self.db.made(_end_queued), {**those, "finished": now}).scalars().all()
        self._tell(connection, now, "cancelled", ended, {"why": why})
        asked = connection.execute(self.db.made(_ask_running), those).scalars().all()
        self._tell(connection, now, "cancelling", asked, {"why": why})

    @writes
    def cancel(self, connection: Connection, build: str) -> Build:
        row = self._lock(connection, build)
        self._check_writes([row.namespace])
        self._unwant(connection, [row.id], "it was cancelled for everybody")
        return self._one(connection, row.id)

    @writes
    def retry(self, connection: Connection, build: str, waiter: str = "") -> Build:
        request = self._one(connection, build).request
        claim = Claiming(self, connection, waiter, force=True).settle([request])[0]
        assert claim.build is not None
        if claim.build.id != build:
            self._tell(connection, self.db.time(connection), "retried", [claim.build.id], {"of": build})
        return claim.build

    # -- looking -----------------------------------------------------------------------------------------------

    @reads
    def build(self, connection: Connection, id: str) -> Build | None:
        found = self._fetch(connection, [clean(id)])
        return found[0] if found else None

    @reads
    def builds(
        self,
        connection: Connection,
        *,
        prefix: str = "",
        ids: Collection[str] | None = None,
        states: Collection[BuildState] = (),
        limit: int = 1000,
    ) -> list[Build]:
        if ids is not None and not prefix and not states and len(ids) <= limit:
            return self._fetch(connection, ids)
        where = []
        if prefix:
            where.append(starts(builds.c.id, prefix))
        if ids is not None:
            where.append(self.db.among(builds.c.id, "the_builds"))
        if states:
            where.append(builds.c.state.in_([state.value for state in states]))
        params = {} if ids is None else {"the_builds": self.db.array(ids)}
        return self._search(connection, *where, limit=limit, params=params)

    @reads
    def events(self, connection: Connection, build: str) -> list[Event]:
        query = select(events).where(events.c.build == clean(build)).order_by(events.c.id)
        return [event_from(row) for row in connection.execute(query)]

    @reads
    def attempts(self, connection: Connection, build: str) -> list[Attempt]:
        query = select(attempts).where(attempts.c.build == clean(build)).order_by(attempts.c.token)
        return [attempt_from(row) for row in connection.execute(query)]

    @reads
    def log(self, connection: Connection, build: str, after: int = 0) -> tuple[str, int]:
        """Positions count characters."""
        beyond = (log_chunks.c.build == clean(build), log_chunks.c.ends > after)
        chunks = connection.execute(select(log_chunks).where(*beyond).order_by(log_chunks.c.ends)).all()
        if not chunks:
            return "", after
        begins = chunks[0].ends - len(chunks[0].text)
        text = "".join(chunk.text for chunk in chunks)
        return text[max(0, after - begins) :], chunks[-1].ends


THE_WAITER = bindparam("the_waiter", type_=waiters.c.waiter.type)


def _waited_for(_db: Database) -> Select[str]:
    """The active builds that ``the_waiter`` waits for, locked in the order of their ids."""
    mine = (waiters.c.waiter == THE_WAITER, IS_ACTIVE)
    query = select(builds.c.id).select_from(builds.join(waiters)).where(*mine)
    return query.order_by(builds.c.id).with_for_update(of=builds)


def _waited_for_among(db: Database) -> Select[str]:
    return _waited_for(db).where(db.among(builds.c.id, "the_builds"))


def _drop_waiter(db: Database) -> Delete:
    return delete(waiters).where(waiters.c.waiter == THE_WAITER, db.among(waiters.c.build, "the_builds"))


def _have_waiters(db: Database) -> Select[str]:
    return select(waiters.c.build).where(db.among(waiters.c.build, "the_builds")).distinct()


def _end_queued(db: Database) -> Any:
    change = update(builds).where(db.among(builds.c.id, "the_builds"), IS_QUEUED)
    return change.values(state=BuildState.CANCELLED.value, **AT_REST).returning(builds.c.id)


def _ask_running(db: Database) -> Any:
    change = update(builds).where(db.among(builds.c.id, "the_builds"), IS_RUNNING, ~builds.c.cancel_requested)
    return change.values(cancel_requested=True).returning(builds.c.id)
