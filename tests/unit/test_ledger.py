"""Successes that are written together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from farm.builds import Build, BuildRequest, BuildState, Engine, Lease
from farm.errors import LeaseLost, Unavailable
from farm.index import Index
from farm.ledger import Ledger


def lease(name: str) -> Lease:
    request = BuildRequest(name, name, "p", "pt2", "m", "t", "c", {}, ())
    return Lease(Build(name, request, BuildState.RUNNING, 0.0), 1, 1, 0.0)


def engine(name: str) -> Engine:
    return Engine(name, f"sha256:{name}", 1, {}, 0.0, 1.0)


class Slow:
    """An index whose writes wait until they are let through, so that others gather meanwhile."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.batches: list[list[str]] = []
        self.fails: dict[str, Exception] = {}
        self.lost: set[str] = set()

    def succeed_all(self, ends: Sequence[tuple[Lease, Engine]]) -> list[bool]:
        assert self.gate.acquire(timeout=10)
        names = [one.build.id for one, _ in ends]
        self.batches.append(names)
        for name in names:
            if name in self.fails:
                raise self.fails[name]
        return [name not in self.lost for name in names]


class Ends:
    """Threads that end builds through one ledger, and what came of each."""

    def __init__(self) -> None:
        self.index = Slow()
        self.ledger = Ledger(cast(Index, self.index))
        self.came: dict[str, Any] = {}
        self.threads: list[threading.Thread] = []

    def end(self, *names: str) -> None:
        for name in names:
            thread = threading.Thread(target=self._end, args=(name,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _end(self, name: str) -> None:
        try:
            self.ledger.succeed(lease(name), engine(name))
            self.came[name] = "held"
        except Exception as error:  # noqa: BLE001 - what came of it is what is looked at
            self.came[name] = error

    def let_through(self) -> None:
        for _ in range(50):
            self.index.gate.release()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def ends() -> Ends:
    return Ends()


def gather(ends: Ends, *names: str) -> None:
    """One that writes first and alone, and the others that gather behind it."""
    ends.end("first")
    while ends.ledger._waiting or not ends.ledger._writer.locked():
        pass
    ends.end(*names)
    while len(ends.ledger._waiting) < len(names):
        pass
    ends.let_through()


def test_those_who_wait_are_written_together(ends: Ends) -> None:
    gather(ends, *"abcdefgh")
    assert ends.index.batches[0] == ["first"] and sorted(ends.index.batches[1]) == list("abcdefgh")
    assert set(ends.came.values()) == {"held"} and len(ends.came) == 9


def test_a_lost_lease_reaches_its_own_thread_alone(ends: Ends) -> None:
    ends.index.lost = {"b"}
    gather(ends, "a", "b", "c")
    assert isinstance(ends.came.pop("b"), LeaseLost)
    assert set(ends.came.values()) == {"held"}


def test_a_database_that_is_away_reaches_everybody(ends: Ends) -> None:
    ends.index.fails = {"b": Unavailable("away")}
    gather(ends, "a", "b", "c")
    assert ends.came.pop("first") == "held"
    assert {type(error) for error in ends.came.values()} == {Unavailable}


def test_one_defect_does_not_end_the_builds_of_others(ends: Ends) -> None:
    ends.index.fails = {"b": ValueError("a defect")}
    gather(ends, "a", "b", "c")
    assert isinstance(ends.came.pop("b"), ValueError)
    assert set(ends.came.values()) == {"held"}
