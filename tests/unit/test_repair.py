"""Who is declared lost, and when: not by a process that cannot know whether the database has been away."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from farm.errors import Unavailable
from farm.repair import Repair
from tests.support.clocks import hand_turned


class Reaped:
    """An index that only counts how often it was reaped; ``away``: it cannot be reached."""

    def __init__(self) -> None:
        self.count, self.away = 0, False

    def reap(self, gone: Collection[str]) -> None:
        if self.away:
            raise Unavailable("it is away", "wait")
        self.count += 1

    def wakes(self, interval: float) -> dict[str, int]:
        return {}

    def workers(self) -> list[object]:
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return hand_turned(monkeypatch)


def kept(index: Reaped, **how: float) -> Repair:
    return Repair(index, lambda counts: None, lambda: (), **how)  # type: ignore[arg-type]


def test_a_process_that_starts_declares_nobody_lost_before_workers_could_be_heard(clock: list[float]) -> None:
    index = Reaped()
    one = kept(index, calm=5.0)
    for _ in range(4):
        one.tick()
        clock[0] += 1.0
    assert index.count == 0
    clock[0] += 1.0
    one.tick()
    assert index.count == 1


def test_after_the_database_was_away_neither(clock: list[float]) -> None:
    index = Reaped()
    one = kept(index)
    one.tick()
    index.away = True
    clock[0] += 2.0
    with pytest.raises(Unavailable):
        one.tick()
    index.away = False
    clock[0] += 2.0
    one.tick()
    assert index.count == 1
    clock[0] += 5.0
    one.tick()
    assert index.count == 2
