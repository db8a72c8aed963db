"""Optuna's TPE over the configurations of one model and target, by ask and tell. The farm's own rows are the truth: the
study lives in memory, and is made from them whenever a process begins to run a sweep.

Optuna comes with the extra ``search``; it is imported when the first study is made.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm.errors import BadConfig
from farm.sweeps.grid import TILING, Dimension

ASKS = 6
"""How often TPE is asked for a point before, all of them tried already, one nearby is taken."""

Point = Mapping[str, Any]
"""A configuration's value in each dimension that it varies."""


@dataclass(frozen=True)
class Observation:
    """What is known of a tried configuration: ``costs`` (less is better; ``None`` while it is being built or measured)
    and by how much it breaks each constraint. ``failed``: it has no engine, and never will."""

    number: int
    point: Point
    costs: tuple[float, ...] | None = None
    excess: tuple[float, ...] = ()
    failed: bool = False


class Study:
    """One Optuna study over a finite space."""

    def __init__(self, dimensions: Sequence[Dimension], points: Mapping[int, Point], axes: int, seed: int) -> None:
        """``points``: all configurations by number; ``axes``: how many costs an observation has."""
        self._optuna = require()
        self._dimensions = dimensions
        self._points = points
        self._numbers = {_frozen(point): number for number, point in points.items()}
        self._random = random.Random(seed)
        self._open: dict[int, Any] = {}
        self._known: set[int] = set()
        startup = min(10, max(4, len(points) // 8))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = self._optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=startup,
                multivariate=True,
                group=True,
                constant_liar=True,
                constraints_func=lambda trial: trial.user_attrs.get("excess", ()),
            )
            self._study = self._optuna.create_study(directions=["minimize"] * axes, sampler=sampler)

    def learn(self, observations: Sequence[Observation]) -> None:
        """Take in what is new of these; what it knows already is passed over."""
        for one in observations:
            if one.number in self._known:
                continue
            if one.number not in self._open:
                self._study.enqueue_trial(self._params(one.point))
                self._open[one.number] = self._suggested(self._study.ask(), one.point)
            self._settle(one)

    def _settle(self, one: Observation) -> None:
        if one.costs is None and not one.failed:
            return
        trial = self._open.pop(one.number)
        self._known.add(one.number)
        if one.costs is None:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return
        trial.set_user_attr("excess", list(one.excess))
        self._study.tell(trial, list(one.costs))

    def propose(self, untried: Collection[int]) -> int:
        """The number of the configuration to try next, one of ``untried``; it counts as being tried from now on."""
        asked: list[tuple[Any, dict[str, Any]]] = []
        for _ in range(ASKS):
            trial = self._study.ask()
            point = self._drawn(trial)
            number = self._numbers.get(_frozen(point))
            if number in untried and number is not None:
                self._open[number] = trial
                return number
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            asked.append((trial, point))
        nearest = self._nearest(asked[-1][1], untried)
        self.learn([Observation(nearest, self._points[nearest])])
        return nearest

    def _nearest(self, point: Point, untried: Collection[int]) -> int:
        order = sorted(untried)
        self._random.shuffle(order)
        return min(order, key=lambda number: self._distance(point, self._points[number]))

    def _distance(self, one: Point, other: Point) -> float:
        return sum(
            _apart(dimension, one.get(dimension.name), other.get(dimension.name)) for dimension in self._dimensions
        )

    # -- to Optuna's words and back --------------------------------------------------------------------------

    def _drawn(self, trial: Any) -> dict[str, Any]:
        """A point as TPE wants it, each dimension where it applies."""
        point: dict[str, Any] = {}
        waiting = list(self._dimensions)
        while waiting:
            ready = [one for one in waiting if not set(one.when) & {other.name for other in waiting}]
            for one in ready or waiting:
                waiting.remove(one)
                if self._varied(one, point):
                    point[one.name] = self._suggest(trial, one)
        return point

    def _varied(self, one: Dimension, point: Point) -> bool:
        """What it depends on may be fixed, and is then the same for all points."""
        if not one.when:
            return True
        varied = {other.name for other in self._dimensions}
        if not set(one.when) & varied:
            return any(one.name in other for other in self._points.values())
        return Dimension(one.name, (), {k: v for k, v in one.when.items() if k in varied}).applies(point)

    def _suggested(self, trial: Any, point: Point) -> Any:
        for one in self._dimensions:
            if one.name in point:
                self._suggest(trial, one)
        return trial

    def _suggest(self, trial: Any, one: Dimension) -> Any:
        if is_ordered(one):
            return ordered(one)[trial.suggest_int(one.name, 0, len(one.values) - 1)]
        return one.values[trial.suggest_categorical(one.name, list(range(len(one.values))))]

    def _params(self, point: Point) -> dict[str, int]:
        """Positions of the values, in the order that they are suggested in."""
        return {
            one.name: _position(ordered(one) if is_ordered(one) else one.values, point[one.name])
            for one in self._dimensions
            if one.name in point
        }


def is_ordered(one: Dimension) -> bool:
    """Whether neighbouring values are alike: numbers, and how hard to tile."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in one.values)
    return numbers or all(value in TILING for value in one.values)


def ordered(one: Dimension) -> list[Any]:
    return sorted(one.values, key=lambda value: TILING.index(value) if value in TILING else value)


def _position(values: Sequence[Any], value: Any) -> int:
    return next(n for n, other in enumerate(values) if type(other) is type(value) and other == value)


def _apart(one: Dimension, a: Any, b: Any) -> float:
    if type(a) is type(b) and a == b:
        return 0.0
    if a is None or b is None or not is_ordered(one):
        return 1.0
    values = ordered(one)
    return abs(_position(values, a) - _position(values, b)) / max(1, len(values) - 1)


def _frozen(point: Point) -> tuple[Any, ...]:
    return tuple(sorted((name, type(value).__name__, str(value)) for name, value in point.items()))


def require() -> Any:
    """Optuna. ``BadConfig`` says how to come by it."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise BadConfig(
            f"--search tpe needs {error.name}, which is missing", "pip install 'farm[search]', or --search random"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
