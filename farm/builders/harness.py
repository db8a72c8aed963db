"""How a subject is timed, whatever it is and wherever it runs. Pure but for the clock that it is given.

It is warmed up until it no longer becomes faster; then timed in several runs: inferences one at a time, each from an
idle device, which gives the latency, and then as many back to back, which gives the throughput. The garbage collector
rests meanwhile. A set of runs that lie too far apart is thrown away, and another is made: what disturbed it may be
over.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from farm.measurements import spread_of

Call = Callable[[], object]
"""One inference on inputs that stay where they are; it may return before the device has done it."""
STEADY = 0.01
"""Warm when two groups of inferences in a row differ by less than this share."""


class Clock(Protocol):
    """Times calls on one device."""

    def each(self, call: Call, count: int) -> list[float]:
        """Milliseconds of each of ``count`` calls, every one begun when the device had nothing to do."""
        ...

    def together(self, call: Call, count: int) -> float:
        """Milliseconds from the first call's beginning to the last one's end, none waited for in between."""
        ...


@dataclass(frozen=True)
class Effort:
    """How much is measured. ``seconds`` of timing a run (half for latency, half for throughput), of between ``least``
    and ``most`` inferences; ``warm_seconds`` bounds the warm-up, of which at least ``warm_least`` seconds are taken.
    A set of ``runs`` whose spread is not below ``apart`` is made again, until ``tries`` sets have been made."""

    runs: int = 5
    seconds: float = 1.0
    least: int = 20
    most: int = 5000
    warm_least: float = 0.5
    warm_seconds: float = 10.0
    apart: float = 0.03
    tries: int = 3

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Effort:
        return cls(**told)


@dataclass
class Timed:
    """The last set. ``runs`` holds the milliseconds of each inference, by run; ``rates`` inferences per second, by run.
    ``discarded`` are the spreads of the sets before it."""

    runs: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    warm_ups: int = 0
    steady: bool = True
    discarded: list[float] = field(default_factory=list)

    @property
    def spread(self) -> float:
        return spread_of(self.runs)


def measure(call: Call, clock: Clock, effort: Effort, progress: Callable[[float], None] = lambda share: None) -> Timed:
    """Warm ``call`` up and time it: set after set, until one holds together or the tries are used up. The last counts,
    whatever its spread: to choose among sets would be to choose the figures."""
    discarded: list[float] = []
    with resting_collector():
        while True:
            timed = one_set(call, clock, effort, progress)
            if timed.spread < effort.apart or len(discarded) + 1 >= effort.tries:
                timed.discarded = discarded
                return timed
            discarded.append(timed.spread)


def one_set(call: Call, clock: Clock, effort: Effort, progress: Callable[[float], None]) -> Timed:
    """Warm ``call`` up, and time it in so many runs."""
    timed = Timed()
    count = count_in(effort.seconds / 2, warm_up(call, clock, effort, timed), effort)
    for number in range(effort.runs):
        timed.runs.append(clock.each(call, count))
        timed.rates.append(1000.0 * count / max(clock.together(call, count), 1e-6))
        progress((number + 1) / effort.runs)
    return timed


def warm_up(call: Call, clock: Clock, effort: Effort, timed: Timed) -> float:
    """Run until two groups in a row take the same, or time is up; the mean milliseconds of one inference then.

    Groups are compared by their medians, and sized by their means: where something else takes the processor now and
    then, few inferences may take most of the time.
    """
    began = time.monotonic()
    times = clock.each(call, 1)
    timed.warm_ups += 1
    while True:
        count = max(1, min(effort.most, int(100.0 / max(statistics.fmean(times), 1e-3))))
        before, times = statistics.median(times), clock.each(call, count)
        timed.warm_ups += count
        taken = time.monotonic() - began
        typical = statistics.median(times)
        timed.steady = abs(before - typical) <= STEADY * typical
        if taken >= effort.warm_least and (timed.steady or taken >= effort.warm_seconds):
            return statistics.fmean(times)


def count_in(seconds: float, mean: float, effort: Effort) -> int:
    """How many inferences of ``mean`` milliseconds fill ``seconds``, within the effort's bounds."""
    return max(effort.least, min(effort.most, int(1000.0 * seconds / max(mean, 1e-6))))


@contextlib.contextmanager
def resting_collector() -> Iterator[None]:
    """No garbage collection inside what is timed."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
