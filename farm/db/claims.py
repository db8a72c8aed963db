"""One call of ``claim_or_join``: many requests settled in one transaction, in a few statements.

Who else may be at work: other claims of the same recipes (the partial unique index lets one insert; the others
wait for its commit and find its build), workers that end builds meanwhile (hence the rounds), and ``leave`` and
``cancel`` (which lock the same rows, so that a build is either joined before it is cancelled, or not joined).

Lock order: inserts by (namespace, recipe); then builds by id. Every writer of several builds keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Executable,
    Result,
    Select,
    Update,
    and_,
    bindparam,
    delete,
    func,
    select,
    update,
)

from farm.builds import Build, BuildRequest, BuildState, answers_for
from farm.db import statements
from farm.db.builds import BuildRows
from farm.db.models import builds, engines, waiters
from farm.db.rows import clean, engine_from, new_id, request_json
from farm.db.session import Database, Rows
from farm.db.statements import IS_ACTIVE, IS_QUEUED
from farm.errors import BadInput, Unavailable
from farm.index import Claim, Claimed
from farm.placement import turns

ROUNDS = 20
PRIORITIES = 2**31

Wish = tuple[str, str]
"""Namespace and recipe: what there is one active build of."""


class Claiming:
    """``settle`` once, inside one writing transaction."""

    def __init__(
        self, rows: BuildRows, connection: Connection, waiter: str, force: bool, reads: Sequence[str] = ()
    ) -> None:
        self._rows, self._db, self._connection = rows, rows.db, connection
        self._waiter, self._force, self._reads = clean(waiter), force, tuple(reads)
        self._now = self._db.time(connection)
        self._claims: dict[Wish, Claim] = {}
        self._joined: dict[str, Wish] = {}

    def settle(self, requests: Sequence[BuildRequest]) -> list[Claim]:
        """The claim of each request, in their order."""
        wanted = _distinct(requests)
        self._rows._check_writes(namespace for namespace, _ in wanted)
        if self._force:
            self._forget_failures(wanted)
        for _ in range(ROUNDS):
            unsettled = {wish: request for wish, request in wanted.items() if wish not in self._claims}
            if not unsettled:
                break
            self._settle_round(unsettled)
        if len(self._claims) < len(wanted):
            raise Unavailable("the builds that were asked for kept ending as they were joined", "ask again")
        self._attach()
        return self._in_order(requests)

    def _settle_round(self, wanted: Mapping[Wish, BuildRequest]) -> None:
        if not self._force:
            self._answer_known(wanted)
        unknown = {wish: request for wish, request in wanted.items() if wish not in self._claims}
        elsewhere = self._made_elsewhere(unknown)
        mine = self._queue({wish: request for wish, request in unknown.items() if wish not in elsewhere})
        self._find_active(wanted, mine)
        self._join_elsewhere(elsewhere)
        if not self._force and not self._db.sqlite:
            self._withdraw_known(mine, wanted)

    # -- what is known already ---------------------------------------------------------------------------------

    def _answer_known(self, wanted: Mapping[Wish, BuildRequest]) -> list[Wish]:
        """Settle what has an engine or is known to fail; returns those. A failure of another file of the same program
        is forgotten, as this one is tried now: there is one remembered failure of a recipe at most."""
        before, stale = set(self._claims), set[Wish]()
        for namespace, which in self._groups(wanted):
            for other in (*self._others(namespace), namespace):  # its own last, since that is preferred
                for row in self._run(_made_already, {**which, "the_namespace": other}):
                    self._claims[namespace, row.recipe] = Claim(Claimed.DONE, engine=engine_from(row))
            failed = [row.id for row in self._run(_known_to_fail, which)]
            for build in self._rows._fetch(self._connection, failed):
                wish = (namespace, build.request.recipe)
                if answers_for(build, wanted[wish]):
                    self._claims.setdefault(wish, Claim(Claimed.FAILED, build))
                elif wish not in self._claims:
                    stale.add(wish)
        self._forget_failures(stale)
        return [wish for wish in self._claims if wish not in before]

    def _withdraw_known(self, mine: Mapping[str, Wish], wanted: Mapping[Wish, BuildRequest]) -> None:
        """Take back what ended between the look and the insert: one build per recipe, whoever asks when.

        An earlier build of the recipe has committed its end before ours could be inserted, so a statement that
        begins now sees its engine. (On SQLite nobody else writes meanwhile.)
        """
        queued = [mine[build] for build in mine if self._is_new(mine[build])]
        held = {wish: self._claims.pop(wish) for wish in queued}
        known = set(self._answer_known({wish: wanted[wish] for wish in queued}))
        self._claims = held | self._claims
        gone = [build for build, wish in mine.items() if wish in known]
        if gone:
            self._run(_withdraw, {"the_builds": self._db.array(gone)})

    def _is_new(self, wish: Wish) -> bool:
        return wish in self._claims and self._claims[wish].outcome is Claimed.NEW

    def _forget_failures(self, wishes: Iterable[Wish]) -> None:
        for _, which in self._groups(wishes):
            self._run(_forget, which)

    def _run(self, make: Callable[[Database], Executable], params: Mapping[str, Any]) -> Result[*tuple[Any, ...]]:
        return self._connection.execute(self._db.made(make), params)

    def _groups(self, wishes: Iterable[Wish]) -> list[tuple[str, dict[str, Any]]]:
        """The wishes by namespace, as parameters."""
        groups: dict[str, list[str]] = {}
        for namespace, recipe in wishes:
            groups.setdefault(namespace, []).append(recipe)
        return [
            (name, {"the_namespace": name, "the_recipes": self._db.array(recipes)})
            for name, recipes in sorted(groups.items())
        ]

    # -- what must be built ------------------------------------------------------------------------------------

    def _queue(self, wanted: Mapping[Wish, BuildRequest]) -> dict[str, Wish]:
        """Insert a build for each wish that has no active one; returns the ids that were tried."""
        numbered = {wish: number for number, wish in enumerate(wanted)}
        turn, tried = self._turns(wanted), {new_id("b"): wish for wish in sorted(wanted)}

        def row(build: str) -> dict[str, Any]:
            wish = tried[build]
            one = wanted[wish]
            return {
                "id": build,
                "namespace": one.namespace,
                "recipe": one.recipe,
                "key": one.key,
                "capability": one.capability,
                "priority": one.priority,
                "tenant": clean(one.tenant),
                "flow": clean(one.flow),
                "turn": turn[wish],
                "memory": one.memory,
                "gpu_memory": one.gpu_memory,
                "request_json": request_json(one),
                "state": BuildState.QUEUED.value,
                "created": self._now,
                "number": numbered[wish],
            }

        self._db.each(self._connection, (statements.add_build, builds, Rows(row, list(tried))))
        return tried

    def _turns(self, wanted: Mapping[Wish, BuildRequest]) -> dict[Wish, float]:
        """Each build's place in its queue (``placement.turns``)."""
        groups: dict[tuple[str, int, str, str], list[Wish]] = {}
        for wish, one in wanted.items():
            groups.setdefault((one.capability, one.priority, one.tenant, one.flow), []).append(wish)
        found: dict[Wish, float] = {}
        for (capability, priority, tenant, flow), wishes in groups.items():
            queue = {"the_capability": clean(capability), "the_priority": priority}
            start = self._run(_next_turn, queue).scalar()
            if start is None:  # beside whoever is next elsewhere: a worker may serve both queues
                start = self._run(_furthest_turn, queue).scalar() or 0.0
            flows = 1 + self._run(_other_flows, {"the_tenant": clean(tenant), "the_flow": clean(flow)}).scalar_one()
            found |= zip(wishes, turns(start, [wanted[wish].expected for wish in wishes], flows), strict=True)
        return found

    def _find_active(self, wanted: Mapping[Wish, BuildRequest], mine: Mapping[str, Wish]) -> None:
        """Lock the active build of each wish; what is not there has ended meanwhile, and waits for the next round."""
        open_wishes = [wish for wish in wanted if wish not in self._claims]
        for namespace, which in self._groups(open_wishes):
            for build, recipe, priority in self._run(_active, which).all():
                request = wanted[namespace, recipe]
                if build in mine:
                    self._claims[namespace, recipe] = self._new(build, request)
                else:
                    self._joined[build] = (namespace, recipe)
                    self._claims[namespace, recipe] = Claim(Claimed.JOINED)
                    self._raise(build, priority, request.priority)

    def _others(self, namespace: str) -> list[str]:
        """The other namespaces that are read, the first named last."""
        return [name for name in reversed(self._reads) if name != namespace]

    def _made_elsewhere(self, wishes: Iterable[Wish]) -> dict[Wish, str]:
        """The wishes whose recipe is being made in another namespace that is read, and that namespace. A look only:
        builds are locked in one order, after all inserts."""
        found: dict[Wish, str] = {}
        for namespace, which in self._groups(wishes):
            for other in self._others(namespace):
                rows = self._run(_being_made, {**which, "the_namespace": other})
                found |= {(namespace, recipe): other for recipe in rows.scalars()}
        return found

    def _join_elsewhere(self, elsewhere: Mapping[Wish, str]) -> None:
        """Lock and join those builds; what has ended meanwhile waits for the next round. Whoever may read a namespace
        may wait for what it makes, and no more: the build keeps its priority."""
        asked = {(other, recipe): (own, recipe) for (own, recipe), other in elsewhere.items()}
        for other, which in self._groups(asked):
            for build, recipe, _ in self._run(_active, which).all():
                self._joined[build] = asked[other, recipe]
                self._claims[asked[other, recipe]] = Claim(Claimed.JOINED)

    def _new(self, build: str, request: BuildRequest) -> Claim:
        self._rows.requests.keep(build, request)
        return Claim(Claimed.NEW, Build(build, request, BuildState.QUEUED, self._now, waiters=1))

    def _raise(self, build: str, priority: int, asked: int) -> None:
        """A build that is joined takes the highest priority that anybody asked for."""
        if asked > priority:
            self._rows._change(self._connection, build, priority=asked)

    # -- who waits ---------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Add the waiter, and want again what was being cancelled for want of one."""
        new = [claim.build.id for claim in self._claims.values() if claim.outcome is Claimed.NEW and claim.build]
        joined = list(self._joined)
        rows = [{"build": build, "waiter": self._waiter, "since": self._now} for build in sorted(new + joined)]
        if rows:
            self._db.each(self._connection, (statements.add_waiter, waiters, rows))
        self._rows._tell(self._connection, self._now, "queued", new)
        if joined:
            self._rows._tell(self._connection, self._now, "joined", joined, {"waiter": self._waiter})
            self._want_again(joined)
            for build in self._rows._fetch(self._connection, joined):
                self._claims[self._joined[build.id]] = Claim(Claimed.JOINED, build)

    def _want_again(self, joined: Sequence[str]) -> None:
        again = self._run(_wanted_again, {"the_builds": self._db.array(joined)}).scalars().all()
        self._rows._tell(self._connection, self._now, "wanted again", again)

    def _in_order(self, requests: Sequence[BuildRequest]) -> list[Claim]:
        """Of several requests for one new build the first is ``NEW``; the others joined it."""
        seen: set[Wish] = set()
        answers = []
        for request in requests:
            wish = (request.namespace, request.recipe)
            claim = self._claims[wish]
            if wish in seen and claim.outcome is Claimed.NEW:
                claim = replace(claim, outcome=Claimed.JOINED)
            seen.add(wish)
            answers.append(claim)
        return answers


def _distinct(requests: Sequence[BuildRequest]) -> dict[Wish, BuildRequest]:
    """One request for each recipe, at the highest priority that was asked for."""
    wanted: dict[Wish, BuildRequest] = {}
    for request in requests:
        if abs(request.priority) >= PRIORITIES:
            raise BadInput(f"priority {request.priority} is out of range", "give a whole number of at most nine digits")
        first = wanted.setdefault((request.namespace, request.recipe), request)
        if request.priority > first.priority:
            wanted[request.namespace, request.recipe] = replace(first, priority=request.priority)
    return wanted


THE_NAMESPACE = bindparam("the_namespace", type_=builds.c.namespace.type)


def _next_turn(_db: Database) -> Select[float]:
    """The earliest turn that waits in a queue."""
    queue = (
        builds.c.capability == bindparam("the_capability", type_=builds.c.capability.type),
        builds.c.priority == bindparam("the_priority", type_=builds.c.priority.type),
    )
    return select(builds.c.turn).where(IS_QUEUED, *queue).order_by(builds.c.turn).limit(1)


def _furthest_turn(_db: Database) -> Select[float]:
    """Of the earliest turns that wait in each queue, the latest: a queue that nobody serves stands still."""
    at = builds.c.priority == bindparam("the_priority", type_=builds.c.priority.type)
    heads = select(func.min(builds.c.turn).label("turn")).where(IS_QUEUED, at).group_by(builds.c.capability).subquery()
    return select(func.max(heads.c.turn))


def _other_flows(_db: Database) -> Select[int]:
    """How many other submissions of a tenant wait."""
    others = (
        builds.c.tenant == bindparam("the_tenant", type_=builds.c.tenant.type),
        builds.c.flow != bindparam("the_flow", type_=builds.c.flow.type),
    )
    return select(func.count(builds.c.flow.distinct())).where(IS_QUEUED, *others)


def _made_already(db: Database) -> Select[Any]:
    return select(engines).where(engines.c.namespace == THE_NAMESPACE, db.among(engines.c.recipe, "the_recipes"))


def _of_recipes(db: Database) -> ColumnElement[bool]:
    return and_(builds.c.namespace == THE_NAMESPACE, db.among(builds.c.recipe, "the_recipes"))


def _known_to_fail(db: Database) -> Select[str]:
    return select(builds.c.id).where(builds.c.remembered, _of_recipes(db))


def _forget(db: Database) -> Update:
    return update(builds).where(builds.c.remembered, _of_recipes(db)).values(remembered=False)


def _active(db: Database) -> Select[Any]:
    query = select(builds.c.id, builds.c.recipe, builds.c.priority).where(IS_ACTIVE, _of_recipes(db))
    # A key-share lock: it keeps out whoever would cancel the build (FOR UPDATE), and hinders no worker that leases it.
    return query.order_by(builds.c.id).with_for_update(read=True, key_share=True)


def _being_made(db: Database) -> Select[str]:
    return select(builds.c.recipe).where(IS_ACTIVE, ~builds.c.cancel_requested, _of_recipes(db))


def _wanted_again(db: Database) -> Any:
    unwanted = (db.among(builds.c.id, "the_builds"), builds.c.cancel_requested)
    return update(builds).where(*unwanted).values(cancel_requested=False).returning(builds.c.id)


def _withdraw(db: Database) -> Delete:
    return delete(builds).where(db.among(builds.c.id, "the_builds"))
