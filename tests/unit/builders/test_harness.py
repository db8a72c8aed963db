"""How a subject is timed, over a clock that tells what it is told to: warm-up, sets of runs, and sets made again."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest

from farm.builders.harness import Effort, count_in, measure, resting_collector

QUICK = Effort(runs=3, seconds=0.1, least=2, most=50, warm_least=0.0, warm_seconds=1.0)


class FakeClock:
    """Each group of calls takes what ``paces`` says next (milliseconds a call); the last goes on for ever."""

    def __init__(self, paces: Iterator[float]) -> None:
        self.paces = paces
        self.pace = 1.0
        self.groups: list[int] = []
        self.collecting: list[bool] = []

    def each(self, call: Callable[[], object], count: int) -> list[float]:
        self.pace = next(self.paces, self.pace)
        self.groups.append(count)
        self.collecting.append(gc.isenabled())
        for _ in range(count):
            call()
        return [self.pace] * count

    def together(self, call: Callable[[], object], count: int) -> float:
        return self.pace * count / 2


def warm(pace: float = 1.0) -> list[float]:
    """One call, then two groups that take the same: warm."""
    return [pace, pace]


def test_every_run_is_timed_and_the_rate_is_back_to_back() -> None:
    calls: list[int] = []
    clock = FakeClock(iter([*warm(), 1.0, 1.01, 1.02]))
    shares: list[float] = []
    timed = measure(lambda: calls.append(1), clock, QUICK, shares.append)
    assert [run[0] for run in timed.runs] == [1.0, 1.01, 1.02] and {len(run) for run in timed.runs} == {50}
    assert timed.rates[0] == pytest.approx(2000.0)
    assert shares == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]
    assert timed.steady and timed.discarded == [] and timed.spread == pytest.approx(0.02 / 1.01)
    assert len(calls) == sum(clock.groups), "what is timed is what was called"


def test_it_is_warmed_up_until_it_no_longer_becomes_faster() -> None:
    clock = FakeClock(iter([9.0, 5.0, 3.0, 2.0, 2.0]))
    timed = measure(lambda: None, clock, QUICK)
    assert timed.steady and timed.warm_ups == sum(clock.groups[:5])
    assert all(time == 2.0 for run in timed.runs for time in run)


def test_what_never_becomes_steady_is_timed_all_the_same_and_told() -> None:
    def changing() -> Iterator[float]:
        pace = 1.0
        while True:
            pace *= 1.1 if pace < 50 else 0.01
            yield pace

    timed = measure(lambda: None, FakeClock(changing()), Effort(2, 0.01, 2, 5, 0.0, 0.05, tries=1))
    assert not timed.steady and len(timed.runs) == 2


def test_a_set_whose_runs_lie_apart_is_made_again_and_the_last_counts() -> None:
    apart = [*warm(), 1.0, 1.0, 1.2]
    together = [*warm(), 3.0, 3.0, 3.01]
    timed = measure(lambda: None, FakeClock(iter([*apart, *together])), QUICK)
    assert timed.discarded == [pytest.approx(0.2)]
    assert [run[0] for run in timed.runs] == [3.0, 3.0, 3.01], "slower, and the last: figures are not chosen"


def test_it_is_given_up_after_three_sets() -> None:
    sets = [pace for spread in (1.5, 1.4, 1.3, 1.2) for pace in [*warm(), 1.0, 1.0, spread]]
    timed = measure(lambda: None, FakeClock(iter(sets)), QUICK)
    assert timed.discarded == [pytest.approx(0.5), pytest.approx(0.4)]
    assert timed.spread == pytest.approx(0.3)


@pytest.mark.parametrize(("typical", "count"), [(1.0, 20), (0.001, 50), (1000.0, 2), (0.0, 50)])
def test_a_run_has_as_many_inferences_as_fill_its_time_within_bounds(typical: float, count: int) -> None:
    assert count_in(0.02, typical, QUICK) == count


def test_nothing_is_collected_while_it_is_timed_and_everything_afterwards() -> None:
    clock = FakeClock(iter([]))
    measure(lambda: None, clock, QUICK)
    assert not any(clock.collecting) and gc.isenabled()
    with pytest.raises(ValueError), resting_collector():
        raise ValueError
    assert gc.isenabled()
