"""A crew's hands: how many build at once, what is leased ahead of them, and what is given back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from farm import crew as crew_module
from farm.crew import Crew
from tests.conftest import eventually


class Bench:
    """What a crew asks of its worker, over a queue of numbers: the real one needs a database."""

    gauge: Any = None

    def __init__(self, count: int, make: Callable[[int, Callable[[], object]], None]) -> None:
        self.queue = deque(range(count))
        self.asked: list[int] = []
        self.made: list[int] = []
        self.given_back: list[int] = []
        self.at_once = self.most_at_once = 0
        self.hurried = False
        self._make = make
        self._lock = threading.Lock()

    def lease(self, count: int) -> list[int]:
        with self._lock:
            self.asked.append(count)
            return [self.queue.popleft() for _ in range(min(count, len(self.queue)))]

    def make(self, lease: int, built: Callable[[], object]) -> None:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)

        def leave() -> None:
            with self._lock:
                self.at_once -= 1
            built()

        self._make(lease, leave)
        with self._lock:
            self.made.append(lease)

    def give_back(self, lease: int) -> None:
        with self._lock:
            self.given_back.append(lease)

    def hurry(self) -> None:
        self.hurried = True

    def nothing(self) -> None: ...

    open = leave = close = nothing


Opened = Callable[[Bench, int], Crew]


@pytest.fixture
def opened() -> Iterator[Opened]:
    crews: list[Crew] = []

    def open_crew(bench: Any, hands: int) -> Crew:
        crew = Crew(bench, hands, 0.05)
        crews.append(crew)
        crew.start()
        return crew

    yield open_crew
    for crew in crews:
        crew.stop()


class Gauge:
    """What a crew asks of a gauge: ``waiting`` things to measure, each of which takes until ``go``."""

    def __init__(self, bench: Bench, waiting: int) -> None:
        self.bench, self.waiting = bench, waiting
        self.measured = 0
        self.beside: list[int] = []
        self.late = False
        self.go = threading.Event()
        self.ended: list[bool] = []

    def take(self) -> object | None:
        self.waiting -= 1
        return object() if self.waiting >= 0 else None

    def due(self) -> bool:
        return self.late

    def measure(self, lease: object, stop: Callable[[], bool]) -> None:
        self.beside.append(self.bench.at_once)
        while not self.go.wait(0.01) and not stop():
            pass
        self.ended.append(stop())
        self.measured += 1
        self.late = False


def quick(lease: int, built: Callable[[], object]) -> None:
    time.sleep(0.001)
    built()


def test_quick_builds_are_leased_many_at_a_time(opened: Opened) -> None:
    bench = Bench(500, quick)
    opened(bench, 4)
    eventually(lambda: len(bench.made) == 500, 20, "five hundred builds")
    assert sorted(bench.made) == list(range(500)) and bench.given_back == []
    assert bench.most_at_once <= 4, "hands are not more than there are"
    assert max(bench.asked) > 16


def test_slow_builds_are_leased_one_for_each_hand(opened: Opened) -> None:
    go = threading.Event()

    def slow(lease: int, built: Callable[[], object]) -> None:
        if lease >= 2:
            go.wait(10)
        time.sleep(0.3)
        built()

    bench = Bench(10, slow)
    opened(bench, 2)
    eventually(lambda: bench.at_once == 2 and len(bench.made) == 2, 10, "two slow builds")
    time.sleep(0.2)
    assert len(bench.queue) >= 5, "others may have what no hand here can begin"
    go.set()


def test_what_waits_behind_a_slow_build_goes_to_others(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "PATIENCE_SECONDS", 0.2)
    go = threading.Event()

    def some_slow(lease: int, built: Callable[[], object]) -> None:
        if lease >= 100:
            go.wait(20)
        quick(lease, built)

    bench = Bench(130, some_slow)
    opened(bench, 1)
    eventually(lambda: bench.given_back, 10, "something given back")
    assert bench.at_once == 1 and min(bench.given_back) > 100
    go.set()
    eventually(lambda: len(bench.made) + len(bench.given_back) == 130, 10, "the rest")


def test_what_is_leased_ahead_is_left_to_hands_that_go_on(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a database is slow, giving builds back and leasing them again took a foreman longer than leasing."""
    monkeypatch.setattr(crew_module, "PATIENCE_SECONDS", 0.2)

    def slower(lease: int, built: Callable[[], object]) -> None:
        if lease >= 100:
            time.sleep(0.08)
        quick(lease, built)

    bench = Bench(107, slower)
    opened(bench, 1)
    eventually(lambda: len(bench.made) + len(bench.given_back) == 107, 10, "all of them")
    assert bench.given_back == []


def test_a_hand_builds_on_while_its_engine_is_stored(opened: Opened) -> None:
    stored = threading.Event()

    def slow_to_store(lease: int, built: Callable[[], object]) -> None:
        time.sleep(0.01)
        built()
        stored.wait(10)

    bench = Bench(5, slow_to_store)
    crew = opened(bench, 1)
    eventually(lambda: not bench.queue and bench.at_once == 0, 5, "five builds")
    assert bench.made == [] and bench.most_at_once == 1
    assert crew.free == 0, "a worker is not idle while it stores"
    stored.set()
    eventually(lambda: len(bench.made) == 5 and crew.free == 1, 5, "their ends")


def test_stores_that_hang_hold_up_the_hands(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a store that is away would gather builds without end."""
    monkeypatch.setattr(crew_module, "STORING_MOST", 3)
    stored = threading.Event()

    def hanging(lease: int, built: Callable[[], object]) -> None:
        built()
        stored.wait(20)

    bench = Bench(200, hanging)
    crew = opened(bench, 1)
    eventually(lambda: bench.given_back, 10, "what cannot be begun, given back")
    assert crew.free == 0 and bench.most_at_once == 1
    stored.set()


def test_a_crew_that_stops_gives_back_what_it_has_not_begun() -> None:
    go = threading.Event()

    def blocked(lease: int, built: Callable[[], object]) -> None:
        if lease >= 50:
            go.wait(10)
        quick(lease, built)

    bench: Any = Bench(120, blocked)
    crew = Crew(bench, 1, 0.05)
    crew.start()
    eventually(lambda: bench.at_once == 1 and len(bench.made) >= 50, 10, "a build that hangs")
    leaving = threading.Thread(target=crew.stop, args=(5.0,))
    leaving.start()
    eventually(lambda: len(bench.given_back) + len(bench.queue) + 51 == 120, 5, "all else back")
    go.set()
    leaving.join(10)
    assert len(bench.made) == 51


def test_nothing_is_built_beside_what_is_measured_and_they_take_turns(opened: Opened) -> None:
    bench = Bench(3, quick)
    bench.gauge = Gauge(bench, 3)
    crew = opened(bench, 1)
    eventually(lambda: bench.gauge.beside, 5, "a measurement")
    assert crew.free == 0 and bench.made == [], "who asks is told that there is something to do"
    bench.gauge.go.set()
    eventually(lambda: bench.gauge.measured == 3 and len(bench.made) == 3, 10, "both")
    assert bench.gauge.beside == [0, 0, 0] and not any(bench.gauge.ended)
    eventually(lambda: crew.free == 1, 5, "nothing left")


def test_what_is_due_is_not_kept_waiting_by_builds(opened: Opened) -> None:
    def slow(lease: int, built: Callable[[], object]) -> None:
        time.sleep(0.02)
        built()

    bench = Bench(10_000, slow)
    bench.gauge = Gauge(bench, 0)
    bench.gauge.go.set()
    opened(bench, 2)
    eventually(lambda: len(bench.made) > 5, 10, "builds")
    bench.gauge.waiting, bench.gauge.late = 1, True
    eventually(lambda: bench.gauge.measured == 1, 10, "a measurement between builds")
    made = len(bench.made)
    eventually(lambda: len(bench.made) > made, 10, "builds again")
    assert bench.gauge.beside == [0]


def test_a_measurement_ends_when_the_crew_does(opened: Opened) -> None:
    bench = Bench(0, quick)
    bench.gauge = Gauge(bench, 1)
    crew = opened(bench, 1)
    eventually(lambda: bench.gauge.beside, 5, "a measurement")
    crew.stop()
    assert bench.gauge.ended == [True]


def test_a_defect_while_leasing_does_not_end_the_crew(opened: Opened) -> None:
    bench, defects = Bench(3, quick), [KeyError("profiles"), RuntimeError("once more")]
    lease = bench.lease

    def failing(count: int) -> list[int]:
        if defects:
            raise defects.pop()
        return lease(count)

    bench.lease = failing  # type: ignore[method-assign]
    opened(bench, 1)
    eventually(lambda: sorted(bench.made) == [0, 1, 2], what="builds after two defects")
