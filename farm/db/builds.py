"""What asking and making share: builds as rows, their events, and the one way to change a build's state."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, select

from farm.builds import Build, BuildState, Lease
from farm.db import statements
from farm.db.fence import Fenced
from farm.db.json_text import dump
from farm.db.models import events
from farm.db.rows import Requests, build_from, clean
from farm.db.session import Database
from farm.db.statements import AT_REST, COLUMNS, NEWEST, UNSTARTED, WAITERS
from farm.errors import LeaseLost, NoSuchThing


def lost(lease: Lease) -> LeaseLost:
    return LeaseLost(
        f"the lease on build {lease.build.id} is no longer held: it ran out, or the build has ended",
        "another worker makes it, or made it; nothing was committed",
    )


class BuildRows(Fenced):
    """Builds as rows. Every method works inside the caller's transaction."""

    db: Database
    requests: Requests

    # -- reading -----------------------------------------------------------------------------------------------

    def _search(
        self,
        connection: Connection,
        *where: ColumnElement[bool],
        limit: int | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> list[Build]:
        """The builds for which ``where`` holds, newest first."""
        query: Select[Any] = select(*COLUMNS, WAITERS).where(*where).order_by(*NEWEST).limit(limit)
        return self._with_requests(connection, connection.execute(query, params or {}).all())

    def _fetch(self, connection: Connection, ids: Collection[str]) -> list[Build]:
        """The builds among ``ids``, newest first."""
        if not ids:
            return []
        query = self.db.made(statements.fetch)
        return self._with_requests(connection, connection.execute(query, {"the_builds": self.db.array(ids)}).all())

    def _with_requests(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[Build]:
        requests = {row.id: self.requests.get(row.id) for row in rows}
        unknown = [build for build, request in requests.items() if request is None]
        if unknown:
            query = self.db.made(statements.fetch_requests)
            for build, text in connection.execute(query, {"the_builds": self.db.array(unknown)}):
                requests[build] = self.requests.parse(build, text)
        return [build_from(row, request) for row in rows if (request := requests[row.id]) is not None]

    def _one(self, connection: Connection, build: str) -> Build:
        """``NoSuchThing`` where it is not."""
        found = self._fetch(connection, [clean(build)])
        if not found:
            raise no_build(build)
        return found[0]

    # -- holding -----------------------------------------------------------------------------------------------

    def _lock(self, connection: Connection, build: str) -> Row[Any]:
        """A build's row and the time (``now``), locked until the transaction ends. ``NoSuchThing``."""
        row = connection.execute(self.db.made(statements.lock), {"the_build": clean(build)}).first()
        if row is None:
            raise no_build(build)
        return row

    def _hold(self, connection: Connection, lease: Lease) -> Row[Any]:
        """The row of a build that ``lease`` still holds, and the time (``now``); locked until the transaction ends.
        ``LeaseLost`` else.

        A lease that has run out but was neither reaped nor issued anew still holds: nobody else has the build.
        """
        which = {"the_build": lease.build.id, "the_token": lease.token}
        row = connection.execute(self.db.made(statements.hold), which).first()
        if row is None:
            raise lost(lease)
        self._check_writes([row.namespace])
        return row

    # -- changing ----------------------------------------------------------------------------------------------

    def _move(self, connection: Connection, row: Row[Any], after: BuildState, values: Mapping[str, Any]) -> None:
        """Change the state of a build whose row is locked, as ``BuildState.may`` allows."""
        which = {"the_build": row.id, "the_token": row.token}
        changed = connection.execute(self.db.made(statements.move, after), {**which, **values})
        if changed.rowcount != 1:
            raise LeaseLost(f"build {row.id} is {row.state} and cannot become {after}")

    def _change(self, connection: Connection, build: str, **values: Any) -> None:
        """Change anything but the state of a build whose row is locked."""
        connection.execute(self.db.made(statements.change), {"the_build": build, **values})

    def _end_attempt(self, connection: Connection, row: Row[Any], outcome: str, message: str = "") -> None:
        which = {"the_build": row.id, "the_token": row.token}
        values = {"finished": row.now, "outcome": outcome, "message": clean(message)}
        connection.execute(self.db.made(statements.end_attempt), {**which, **values})

    def _cancel_row(self, connection: Connection, row: Row[Any]) -> None:
        """End a running build that nobody wants."""
        self._end_attempt(connection, row, BuildState.CANCELLED.value)
        self._move(connection, row, BuildState.CANCELLED, {"finished": row.now, **AT_REST})
        self._tell(connection, row.now, "cancelled", [row.id])

    def _requeue_row(self, connection: Connection, row: Row[Any], why: str) -> None:
        """Queue a running build again at once, its attempt not counted."""
        self._end_attempt(connection, row, why)
        values = {**UNSTARTED, "not_before": None, "attempts": row.attempts - 1}
        self._move(connection, row, BuildState.QUEUED, values)
        self._tell(connection, row.now, "requeued", [row.id], {"why": why, "worker": row.worker})

    def _tell(
        self,
        connection: Connection,
        now: float,
        kind: str,
        about: Collection[str],
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Record one event for each build of ``about``."""
        if about:
            text = dump(detail or {})
            rows = [{"build": build, "at": now, "kind": kind, "detail_json": text} for build in about]
            self.db.each(connection, (statements.add_event, events, rows))


def no_build(build: str) -> NoSuchThing:
    return NoSuchThing(f"no build is called '{build}'", "'farm ls builds' lists them")
