"""What a sweep is after: metrics, objectives and constraints, by Model Analyzer's names or farm's own. Pure.

A metric's values are kept in one unit: milliseconds for latency, seconds for other times, bytes for sizes. Model
Analyzer's names (``perf_latency_p99``, ``perf_throughput``, ``gpu_used_memory``) mean the same metrics, in its units.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from farm.errors import BadInput
from farm.human import human_seconds, human_size

MILLISECONDS, SECONDS, BYTES, PER_SECOND, PLAIN = "ms", "s", "bytes", "/s", ""

_SIZES = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZES |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-zµ/]*)\s*")
_CONSTRAINT = re.compile(r"\s*([A-Za-z][\w-]*)\s*(<=|>=|<|>)\s*(.+)")


@dataclass(frozen=True)
class Metric:
    """Something that an engine is judged by. ``most``: more is better. ``measured``: only a GPU can tell."""

    name: str
    unit: str
    words: str
    most: bool = False
    measured: bool = True

    def said(self, value: float) -> str:
        """A value as people read it."""
        if self.unit == BYTES:
            return human_size(value)
        if self.unit == SECONDS:
            return human_seconds(value)
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        return f"{text} {self.unit}".replace(" /s", "/s").strip()

    def better(self, one: float, other: float) -> bool:
        return one > other if self.most else one < other

    def cost(self, value: float) -> float:
        """The value turned so that less is better."""
        return -value if self.most else value


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("latency_p50", MILLISECONDS, "median latency"),
        Metric("latency_p90", MILLISECONDS, "90th percentile of latency"),
        Metric("latency_p99", MILLISECONDS, "99th percentile of latency"),
        Metric("latency_avg", MILLISECONDS, "mean latency"),
        Metric("throughput", PER_SECOND, "inferences per second", most=True),
        Metric("gpu_memory", BYTES, "GPU memory"),
        Metric("load_time", SECONDS, "time to load"),
        Metric("accuracy", PLAIN, "cosine with eager's outputs", most=True),
        Metric("max_abs_error", PLAIN, "largest difference from eager"),
        Metric("max_rel_error", PLAIN, "largest relative difference from eager"),
        Metric("engine_size", BYTES, "engine size", measured=False),
        Metric("build_time", SECONDS, "build time", measured=False),
    )
}

_ALSO = {
    "latency": "latency_p50",
    "perf_latency": "latency_p99",
    "perf_latency_avg": "latency_avg",
    "perf_latency_p50": "latency_p50",
    "perf_latency_p90": "latency_p90",
    "perf_latency_p99": "latency_p99",
    "perf_throughput": "throughput",
    "gpu_used_memory": "gpu_memory",
    "size": "engine_size",
    "build_seconds": "build_time",
}
_MEGABYTES = frozenset({"gpu_used_memory"})
"""Names whose plain numbers are megabytes, as Model Analyzer has them."""


@dataclass(frozen=True)
class Objective:
    """A metric to do well in. ``weight`` is its share in one score; ``None`` where the front of all is wanted."""

    metric: Metric
    weight: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {"metric": self.metric.name, "weight": self.weight}


@dataclass(frozen=True)
class Constraint:
    """Bounds that a recommended engine keeps, both included, in the metric's unit."""

    metric: Metric
    low: float | None = None
    high: float | None = None

    def excess(self, value: float) -> float:
        """How far ``value`` is out of bounds, relative to the bound; 0 within them."""
        for bound, over in ((self.high, 1.0), (self.low, -1.0)):
            if bound is not None and over * (value - bound) > 0:
                return abs(value - bound) / (abs(bound) or 1.0)
        return 0.0

    def said(self) -> str:
        """``latency_p99 ≤ 10 ms``."""
        parts = [f"≥ {self.metric.said(self.low)}"] if self.low is not None else []
        parts += [f"≤ {self.metric.said(self.high)}"] if self.high is not None else []
        return f"{self.metric.name} {' and '.join(parts)}"

    def as_json(self) -> dict[str, Any]:
        return {"metric": self.metric.name, "min": self.low, "max": self.high}


def find_metric(name: str) -> Metric:
    """The metric of that name, farm's or Model Analyzer's. ``BadInput`` names those that there are."""
    plain = name.strip().lower().replace("-", "_")
    found = METRICS.get(_ALSO.get(plain, plain))
    if found is None:
        near = get_close_matches(plain, [*METRICS, *_ALSO], 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(METRICS)}"
        raise BadInput(f"there is no metric '{name.strip()}'", hint)
    return found


# -- reading -----------------------------------------------------------------------------------------------------


def parse_objective(text: str) -> Objective:
    """``latency_p99``, or with a weight ``latency_p99=2``."""
    name, equals, weight = text.partition("=")
    return _objective(name, weight.strip() if equals else None)


def objectives_of(given: Sequence[Any] | Mapping[str, Any]) -> tuple[Objective, ...]:
    """Objectives as a file gives them: a list of names, or names with weights. ``BadInput``."""
    pairs = given.items() if isinstance(given, Mapping) else [_pair(item) for item in given]
    return checked([_objective(name, weight) for name, weight in pairs])


def _pair(item: Any) -> tuple[str, Any]:
    if isinstance(item, Mapping) and len(item) == 1:
        return next((str(name), weight) for name, weight in item.items())
    return str(item), None


def _objective(name: str, weight: Any) -> Objective:
    metric = find_metric(name)
    if weight is None:
        return Objective(metric)
    try:
        number = float(weight)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < 1e9:
        raise BadInput(f"{name}: the weight {weight} is no positive number", f"as in {metric.name}=2")
    return Objective(metric, number)


def checked(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """The objectives, each metric once, all with weights or none. ``BadInput``."""
    names = [objective.metric.name for objective in objectives]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadInput(f"the objective {twice} is given twice", "leave one of them out")
    weighted = [objective for objective in objectives if objective.weight is not None]
    if weighted and len(weighted) < len(objectives):
        bare = next(objective.metric.name for objective in objectives if objective.weight is None)
        raise BadInput(f"the objective {bare} has no weight, and others have", f"as in {bare}=1, or give no weights")
    return tuple(objectives)


def parse_constraint(text: str) -> Constraint:
    """``latency_p99<=10``, ``engine_size<=200MB``, ``accuracy>=0.999``; ``<`` and ``>`` mean the same bounds."""
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise BadInput(f"'{text}' is no constraint", "write METRIC<=VALUE or METRIC>=VALUE, as in latency_p99<=10")
    name, sign, value = match.groups()
    bound = _amount(name, value)
    metric = find_metric(name)
    return Constraint(metric, high=bound) if sign[0] == "<" else Constraint(metric, low=bound)


def constraints_of(given: Mapping[str, Any]) -> tuple[Constraint, ...]:
    """Constraints in Model Analyzer's form: ``{perf_latency_p99: {max: 10}, perf_throughput: {min: 100}}``."""
    found = []
    for name, bounds in given.items():
        metric = find_metric(name)
        if not isinstance(bounds, Mapping) or not bounds or set(bounds) - {"min", "max"}:
            raise BadInput(f"the constraint on {name} has no bounds", f"write {name}: {{max: VALUE}}, or min, or both")
        low, high = (_amount(name, bounds[key]) if key in bounds else None for key in ("min", "max"))
        if low is not None and high is not None and low > high:
            raise BadInput(f"{name}: nothing is at least {low:g} and at most {high:g}", "swap min and max")
        found.append(Constraint(metric, low, high))
    return tuple(found)


def _amount(name: str, given: Any) -> float:
    """A bound in the metric's unit."""
    metric = find_metric(name)
    match = _NUMBER.fullmatch(str(given)) if not isinstance(given, bool) else None
    if match is None:
        raise BadInput(f"{name}: {given} is no number", "as in 10, 200MB or 5ms")
    number, unit = float(match[1]), match[2].lower()
    factor = 1e6 if not unit and name.strip().lower().replace("-", "_") in _MEGABYTES else _factor(metric, unit)
    if factor is None:
        raise BadInput(
            f"{name}: '{match[2]}' is no unit of {metric.name}", f"it is in {metric.unit or 'plain numbers'}"
        )
    return number * factor


def _factor(metric: Metric, unit: str) -> float | None:
    """What one ``unit`` is in the metric's own."""
    if not unit:
        return 1.0
    if metric.unit == BYTES:
        found = _SIZES.get(unit if unit == "b" else unit.removesuffix("b"))
        return None if found is None else float(found)
    if metric.unit in (SECONDS, MILLISECONDS) and unit in _TIMES:
        return _TIMES[unit] * (1000.0 if metric.unit == MILLISECONDS else 1.0)
    return 1.0 if unit == metric.unit else None


def objectives_from_json(items: Sequence[Mapping[str, Any]]) -> tuple[Objective, ...]:
    return tuple(Objective(find_metric(item["metric"]), item.get("weight")) for item in items)


def constraints_from_json(items: Sequence[Mapping[str, Any]]) -> tuple[Constraint, ...]:
    return tuple(Constraint(find_metric(item["metric"]), item.get("min"), item.get("max")) for item in items)
