"""Gives up builds of a sweep that cannot win any more, while they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from farm.builds import Build, BuildState
from farm.canonical import to_json
from farm.index import Sweep
from farm.service import Farm
from farm.sweeping.results import STOPPED
from farm.sweeps.objectives import Constraint, Objective, constraints_from_json, objectives_from_json

BUILD_TIME = "build_time"
BUILDING = "build"
"""The phase whose time an engine's build time has all of."""


class Referee:
    """Called with the builds as they stand. A build's time is known to be no less than what it has run for; nothing
    else that a sweep judges by is known before a build ends. So a build is given up when it has taken longer than a
    constraint on ``build_time`` allows, or, where that is the only objective, longer than the best took.
    """

    def __init__(self, farm: Farm, sweep: Sweep, clock: Callable[[], float] = time.monotonic) -> None:
        self._farm, self._sweep, self._clock = farm, sweep, clock
        self._limit = limit_of(constraints_from_json(sweep.spec.get("constraints", ())))
        self._races = is_race(objectives_from_json(sweep.spec.get("objectives", ())))
        self._seen: dict[str, float] = {}
        self._given_up: set[str] = set()

    def __call__(self, builds: Sequence[Build]) -> None:
        if self._limit is None and not self._races:
            return
        best = least_seconds(builds) if self._races else {}
        now = self._clock()
        for build in builds:
            if build.state is BuildState.RUNNING and build.phase == BUILDING and build.id not in self._given_up:
                took = now - self._seen.setdefault(build.id, now)
                reason = self._hopeless(took, best.get(contest(build)))
                if reason:
                    give_up(self._farm, self._sweep.id, {build.id: reason})
                    self._given_up.add(build.id)

    def _hopeless(self, took: float, best: float | None) -> str:
        if self._limit is not None and took > self._limit:
            return f"given up: its build takes longer than {self._limit:g} s, the most that the sweep allows"
        if best is not None and took > best:
            return f"given up: its build takes longer than the best, {best:.1f} s"
        return ""


def limit_of(constraints: Sequence[Constraint]) -> float | None:
    """The most seconds that a build may take."""
    limits = [one.high for one in constraints if one.metric.name == BUILD_TIME and one.high is not None]
    return min(limits, default=None)


def is_race(objectives: Sequence[Objective]) -> bool:
    """Whether nothing counts but the build time."""
    return [one.metric.name for one in objectives] == [BUILD_TIME]


def contest(build: Build) -> str:
    """What a build competes within: its model, target and shapes."""
    request = build.request
    return to_json([request.model, request.target, list(request.profiles)]).decode()


def least_seconds(builds: Sequence[Build]) -> dict[str, float]:
    """The shortest successful build, from its lease to its end, of each contest."""
    best: dict[str, float] = {}
    for build in builds:
        if build.state is BuildState.SUCCEEDED and build.started and build.finished:
            place = contest(build)
            best[place] = min(best.get(place, float("inf")), build.finished - build.started)
    return best


def give_up(farm: Farm, sweep: str, reasons: Mapping[str, str]) -> None:
    """Withdraw the sweep from builds (reasons by build); those that nobody else wants end within a second."""
    found = next(iter(farm.index.sweeps(prefix=sweep)), None)
    trials = found.trials if found else ()
    stopped = [
        replace(trial, asked=STOPPED, error=reasons[trial.build])
        for trial in trials
        if trial.build and trial.build in reasons
    ]
    farm.index.change_trials(sweep, stopped)
    farm.index.leave(waiter_of(sweep), builds=list(reasons))


def waiter_of(sweep: str) -> str:
    """The name under which a sweep waits for its builds, whichever process runs it."""
    return f"sweep:{sweep}"


def withdraw(farm: Farm, sweep: str, builds: Collection[str], why: str) -> None:
    """Give up builds for one reason."""
    if builds:
        give_up(farm, sweep, dict.fromkeys(builds, why))
