"""Ranks what a sweep found: within constraints, by objectives; the front, and what each setting does. Pure.

Several objectives make one score: the weighted geometric mean of how many times worse than the best each value is, so
that milliseconds and bytes need no common scale. Without weights all count the same.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from farm.sweeps.grid import Dimension
from farm.sweeps.objectives import METRICS, MILLISECONDS, PER_SECOND, Constraint, Metric, Objective
from farm.sweeps.values import Values

CLOSE = 0.01
"""Two scores no further apart than this share are equal; the smaller engine, then the quicker build, is taken."""
ALIKE = 1e-4
"""The same where nothing counts but the cosine with eager's outputs: one of 0.99 is far from one of 1."""
PODIUM = 10
"""How many places are decided by that; those behind are in the order of their scores."""
LEAST = 1e-9
"""What a value counts as at least in a score: an error may be 0."""

USUAL = (METRICS["latency_p50"], METRICS["engine_size"], METRICS["build_time"])
"""What a sweep without objectives is ranked by: the first of these that is known."""
_TIES = (METRICS["engine_size"], METRICS["build_time"])


@dataclass(frozen=True)
class Candidate:
    """One distinct engine of a place. ``number`` is its trial's, ``varied`` its value in each dimension, ``spread`` how
    far repeated measurements lay apart (a share)."""

    number: int
    values: Values
    varied: Mapping[str, Any] = field(default_factory=dict)
    spread: float = 0.0


@dataclass(frozen=True)
class Ranking:
    """``ranked``: those within the constraints, best first, with their scores (1: best in everything). ``broken``:
    those outside, each with the first constraint that it breaks. ``used``: the objectives that the ranking is by;
    ``unknown``: metrics that were asked for, and of which no value is known. ``front``: those that no other beats in
    every one of ``axes``. ``waiting``: those of which a value that others are judged by is not known. ``close``: the
    share up to which scores are equal."""

    ranked: tuple[tuple[Candidate, float], ...]
    broken: tuple[tuple[Candidate, Constraint], ...]
    used: tuple[Objective, ...]
    unknown: tuple[Metric, ...]
    axes: tuple[Metric, ...]
    front: tuple[Candidate, ...]
    waiting: tuple[Candidate, ...] = ()
    close: float = CLOSE

    @property
    def best(self) -> Candidate | None:
        return self.ranked[0][0] if self.ranked else None

    @property
    def equals(self) -> int:
        """How many are as good as the best, itself included."""
        return sum(score <= self.ranked[0][1] * (1 + self.close) for _, score in self.ranked)


def rank(
    candidates: Sequence[Candidate], objectives: Sequence[Objective] = (), constraints: Sequence[Constraint] = ()
) -> Ranking:
    """Rank the engines of one place. A metric of which nothing is known is left out, and said to be unknown. Where
    it is known of some engines, the others wait: none is recommended that may yet turn out to break a constraint."""
    used = used_objectives(candidates, objectives)
    asked = [one.metric for one in objectives] + [one.metric for one in constraints]
    unknown = tuple(metric for metric in dict.fromkeys(asked) if not _known(metric, candidates))
    broken = [(one, found) for one in candidates if (found := first_broken(one.values, constraints)) is not None]
    outside = {one.number for one, _ in broken}
    judged = [*used, *(Objective(one.metric) for one in constraints if one.metric not in unknown)]
    inside = [one for one in candidates if one.number not in outside]
    kept = [one for one in inside if complete(one.values, judged)]
    waiting = tuple(one for one in inside if not complete(one.values, judged))
    axes = _axes(kept, used)
    return Ranking(
        tuple(_ordered(kept, used)), tuple(broken), used, unknown, axes, tuple(front(kept, axes)), waiting, _close(used)
    )


def used_objectives(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """Those of which something is known; where there is none, the usual one."""
    used = tuple(one for one in objectives if _known(one.metric, candidates))
    if used:
        return used
    return tuple(Objective(metric) for metric in USUAL if _known(metric, candidates))[:1]


def _known(metric: Metric, candidates: Iterable[Candidate]) -> bool:
    return any(metric.name in one.values for one in candidates)


def complete(values: Values, objectives: Iterable[Objective]) -> bool:
    """Whether there is a value for each objective."""
    return all(one.metric.name in values for one in objectives)


def first_broken(values: Values, constraints: Iterable[Constraint]) -> Constraint | None:
    """The first constraint that is known to be broken."""
    return next((one for one in constraints if one.excess(values.get(one.metric.name, math.nan)) > 0), None)


def log_score(values: Values, objectives: Sequence[Objective]) -> float:
    """The score's logarithm, up to a constant: less is better. It compares engines of one place alone."""
    whole = sum(one.weight or 1.0 for one in objectives)
    parts = ((one.weight or 1.0) * _log(one.metric, values[one.metric.name]) for one in objectives)
    return math.fsum(parts) / whole if whole else 0.0


def _log(metric: Metric, value: float) -> float:
    logarithm = math.log(max(value, LEAST))
    return -logarithm if metric.most else logarithm


def _ordered(kept: Sequence[Candidate], used: Sequence[Objective]) -> list[tuple[Candidate, float]]:
    """Best first, with scores relative to an engine that is best in everything. Scores that are as good as equal go by
    size, then by build time, then by number."""
    if not kept or not used:
        return []
    weights = sum(one.weight or 1.0 for one in used)
    ideal = math.fsum(
        (one.weight or 1.0) * min(_log(one.metric, c.values[one.metric.name]) for c in kept) for one in used
    )
    scored = [(one, log_score(one.values, used) - ideal / weights) for one in kept]
    scored.sort(key=lambda item: item[1])
    ordered: list[tuple[Candidate, float]] = []
    close, timed = _close(used), any(one.metric.unit in (MILLISECONDS, PER_SECOND) for one in used)
    while scored and len(ordered) < PODIUM:
        first, least = scored[0]
        most = least + math.log1p(max(close, first.spread if timed else 0.0))
        equal = scored[: bisect.bisect_right(scored, most, key=lambda item: item[1])]
        best = min(equal, key=lambda item: _tie(item[0]))
        scored.remove(best)
        ordered.append(best)
    return [(one, math.exp(score)) for one, score in (*ordered, *scored)]


def _close(used: Sequence[Objective]) -> float:
    """Up to which share two scores are equal. (How far repeated measurements lay apart is known of times alone.)"""
    return ALIKE if used and all(one.metric.name == "accuracy" for one in used) else CLOSE


def _tie(one: Candidate) -> tuple[float, ...]:
    """Sizes within a thousandth are equal, and so are build times within a quarter, or a second apart."""
    size, seconds = (one.values.get(metric.name, math.inf) for metric in _TIES)
    return (_step(size, 1.001), _step(4.0 + seconds, 1.25), one.number)


def _step(value: float, factor: float) -> float:
    return math.floor(math.log(value) / math.log(factor)) if 0 < value < math.inf else value


def advantage(one: Candidate, other: Candidate) -> str:
    """What decides between two whose scores are as good as equal."""
    (size, seconds, _), (size2, seconds2, _) = _tie(one), _tie(other)
    if size != size2:
        return "the smaller"
    return "the quicker to build" if seconds != seconds2 else "the first asked for"


def _axes(kept: Sequence[Candidate], used: Sequence[Objective]) -> tuple[Metric, ...]:
    """What the front is of: the objectives; where there is but one, its price in size and build time too."""
    metrics = [one.metric for one in used]
    if len(metrics) == 1:
        metrics += [metric for metric in _TIES if metric not in metrics and _known(metric, kept)][:1]
    return tuple(metrics)


def front(candidates: Sequence[Candidate], axes: Sequence[Metric]) -> list[Candidate]:
    """Those that no other is at least as good as in every metric and better in one, by the first metric."""
    costs = [(tuple(metric.cost(one.values[metric.name]) for metric in axes), one) for one in candidates]
    costs.sort(key=lambda item: (item[0], item[1].number))
    found: list[tuple[tuple[float, ...], Candidate]] = []
    for cost, one in costs:
        # What is at least as good in everything comes before; of equals the first stays.
        if not any(all(a <= b for a, b in zip(other, cost, strict=True)) for other, _ in found):
            found.append((cost, one))
    return [one for _, one in found]


# -- what each setting does --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sensitivity:
    """What one dimension does to one metric: the mean at each of its values, best first; ``effect`` is how much worse
    than the best of them the worst is (a share)."""

    dimension: str
    metric: Metric
    means: tuple[tuple[Any, float, int], ...]

    @property
    def effect(self) -> float:
        best, worst = self.means[0][1], self.means[-1][1]
        return abs(worst - best) / abs(best) if best else 0.0

    @property
    def none(self) -> bool:
        """No difference beyond rounding."""
        return self.effect < 1e-9


def sensitivities(candidates: Sequence[Candidate], grid: Sequence[Dimension], metric: Metric) -> list[Sensitivity]:
    """What each dimension does, the strongest first; ``candidates`` are all configurations, equal ones too. Dimensions
    of which one value alone is known are left out."""
    found = []
    for dimension in grid:
        means = _means(candidates, dimension, metric)
        if len(means) > 1:
            ordered = sorted(means, key=lambda item: metric.cost(item[1]))
            found.append(Sensitivity(dimension.name, metric, tuple(ordered)))
    return sorted(found, key=lambda one: -one.effect)


def _means(candidates: Sequence[Candidate], one: Dimension, metric: Metric) -> list[tuple[Any, float, int]]:
    means = []
    for value in one.values:
        known = [
            candidate.values[metric.name]
            for candidate in candidates
            if metric.name in candidate.values and _same(candidate.varied.get(one.name), value)
        ]
        if known:
            means.append((value, math.fsum(known) / len(known), len(known)))
    return means


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
