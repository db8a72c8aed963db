"""Carries a plan of faults out on a fleet and what it stands on, and undoes what lasts."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import psutil
import psycopg
import redis

from tests.chaos.fleet import Fleet, Member
from tests.chaos.plan import Fault, Kind
from tests.chaos.servers import NoServer, Postgres, Rabbit, Redis
from tests.chaos.spoken import Diary
from tests.chaos.stores import BAD, S3, Ballast, Folder, StoreAway
from tests.support.faulty_proxy import Rules

AGAIN_S = 0.1
TRIES = 25
"""For a victim that is not there now, such as a build's child."""
AWAY = (psycopg.OperationalError, redis.RedisError, NoServer, StoreAway)

Undo = Callable[[], object]
T = TypeVar("T")


@dataclass(frozen=True)
class Ground:
    """What a fleet stands on. ``full_scratch``: the small disk on which one worker works."""

    database: Postgres
    url: str
    broker: Redis | Rabbit
    store: Folder | S3
    full_store: Ballast | None
    full_scratch: Ballast | None

    def possible(self) -> frozenset[Kind]:
        """What can be done here."""
        kinds = set(Kind)
        if self.full_store is None:
            kinds.discard(Kind.FULL_STORE)
        if self.full_scratch is None:
            kinds.discard(Kind.FULL_SCRATCH)
        if not isinstance(self.store, S3):
            kinds.discard(Kind.BAD_STORE)
        return frozenset(kinds)


class Chaos:
    """``tick`` does what is due; ``heal`` undoes all that lasts. ``reconcile`` begins upkeep, and returns at once;
    ``diary`` takes what was done and when."""

    def __init__(
        self, ground: Ground, fleet: Fleet, faults: Sequence[Fault], reconcile: Callable[[], object], diary: Diary
    ) -> None:
        self.ground, self.fleet, self._begin = ground, fleet, reconcile
        self.done: Counter[Kind] = Counter()
        self._diary = diary
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._lasting: list[Undo] = []
        self._now = 0.0
        for fault in faults:
            self._at(fault.at, partial(self._strike, fault, TRIES))

    def tick(self, now: float) -> None:
        """``now``: seconds since the beginning."""
        self._now = now
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()

    @property
    def over(self) -> bool:
        """Whether nothing more is to come, and nothing lasts."""
        return not self._due

    def heal(self) -> None:
        """All faults are over, also those that have not begun; the database takes connections again."""
        self._due.clear()
        for undo in [*self._lasting]:
            undo()
        self._lasting.clear()
        self.ground.database.wait()
        for member in self.fleet:
            member.send(signal.SIGCONT)

    def _at(self, when: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), act))

    def _strike(self, fault: Fault, tries: int) -> None:
        began = time.monotonic()
        struck, undo = self._carry_out(fault)
        took = round(time.monotonic() - began, 3)
        self._diary.write("struck" if struck else "missed", fault=fault.kind, lasts=fault.lasts, took=took)
        if struck:
            self.done[fault.kind] += 1
        elif tries:
            self._at(self._now + AGAIN_S, partial(self._strike, fault, tries - 1))
        if undo is not None:
            self._lasting.append(undo)
            self._at(self._now + fault.lasts, lambda: self._undo(undo))

    def _undo(self, undo: Undo) -> None:
        self._diary.write("over")
        undo()
        self._lasting.remove(undo)

    def _carry_out(self, fault: Fault) -> tuple[bool, Undo | None]:
        """Whether it befell anybody, and what ends it."""
        try:
            answer: tuple[bool, Undo | None] = getattr(self, "_" + fault.kind.name.lower())(fault)
            return answer
        except AWAY:
            return False, None

    # -- processes ---------------------------------------------------------------------------------------------

    def _kill_worker(self, fault: Fault) -> tuple[bool, Undo | None]:
        return pick(self.fleet.workers, fault.draw).send(signal.SIGKILL), None

    def _stop_worker(self, fault: Fault) -> tuple[bool, Undo | None]:
        return stop(pick(self.fleet.workers, fault.draw))

    def _kill_client(self, fault: Fault) -> tuple[bool, Undo | None]:
        return pick(self.fleet.clients, fault.draw).send(signal.SIGKILL), None

    def _stop_client(self, fault: Fault) -> tuple[bool, Undo | None]:
        return stop(pick(self.fleet.clients, fault.draw))

    def _child(self, fault: Fault) -> psutil.Process | None:
        children = [child for worker in self.fleet.workers for child in worker.children()]
        return pick(children, fault.draw) if children else None

    def _kill_child(self, fault: Fault) -> tuple[bool, Undo | None]:
        child = self._child(fault)
        return child is not None and signalled(child, signal.SIGKILL), None

    def _stop_child(self, fault: Fault) -> tuple[bool, Undo | None]:
        child = self._child(fault)
        if child is None or not signalled(child, signal.SIGSTOP):
            return False, None
        return True, lambda: signalled(child, signal.SIGCONT)

    # -- servers -----------------------------------------------------------------------------------------------

    def _empty_broker(self, fault: Fault) -> tuple[bool, Undo | None]:
        self.ground.broker.empty()
        return True, None

    def _restart_broker(self, fault: Fault) -> tuple[bool, Undo | None]:
        self.ground.broker.crash()
        return True, self.ground.broker.start

    def _restart_database(self, fault: Fault) -> tuple[bool, Undo | None]:
        self.ground.database.crash()
        return True, self.ground.database.start

    def _cut_database(self, fault: Fault) -> tuple[bool, Undo | None]:
        return self.ground.database.cut() > 0, None

    # -- stores ------------------------------------------------------------------------------------------------

    def _bad_store(self, fault: Fault) -> tuple[bool, Undo | None]:
        assert isinstance(self.ground.store, S3)
        proxy = self.ground.store.proxy
        proxy.rules = BAD
        proxy.cut()
        return True, lambda: setattr(proxy, "rules", Rules())

    def _full_store(self, fault: Fault) -> tuple[bool, Undo | None]:
        return filled(self.ground.full_store)

    def _full_scratch(self, fault: Fault) -> tuple[bool, Undo | None]:
        return filled(self.ground.full_scratch)

    def _damage_engine(self, fault: Fault) -> tuple[bool, Undo | None]:
        with psycopg.connect(self.ground.url, connect_timeout=5) as connection:
            digests = [str(row[0]) for row in connection.execute("SELECT digest FROM engines ORDER BY digest")]
        if not digests:
            return False, None
        self.ground.store.damage(pick(digests, fault.draw))
        return True, None

    def _reconcile(self, fault: Fault) -> tuple[bool, Undo | None]:
        self._begin()
        return True, None


def pick(things: Sequence[T], draw: float) -> T:
    return things[int(draw * len(things))]


def stop(member: Member) -> tuple[bool, Undo | None]:
    stopped = member.send(signal.SIGSTOP)
    return stopped, (lambda: member.send(signal.SIGCONT)) if stopped else None


def signalled(process: psutil.Process, number: int) -> bool:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
        return True
    return False


def filled(disk: Ballast | None) -> tuple[bool, Undo | None]:
    assert disk is not None
    disk.load()
    return True, disk.drop
