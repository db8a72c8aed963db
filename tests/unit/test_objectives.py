"""Objectives and constraints, in farm's words and in Model Analyzer's."""

from __future__ import annotations

import pytest

from farm.errors import BadInput
from farm.sweeps.objectives import (
    METRICS,
    checked,
    constraints_from_json,
    constraints_of,
    find_metric,
    objectives_from_json,
    objectives_of,
    parse_constraint,
    parse_objective,
)


@pytest.mark.parametrize(
    ("text", "name", "low", "high"),
    [
        ("latency_p99<=10", "latency_p99", None, 10.0),
        ("perf_latency_p99 < 10ms", "latency_p99", None, 10.0),
        ("latency-p50<=0.01s", "latency_p50", None, 10.0),
        ("engine_size<=200MB", "engine_size", None, 200e6),
        ("size<=1.5GiB", "engine_size", None, 1.5 * 2**30),
        ("gpu_used_memory<=200", "gpu_memory", None, 200e6),
        ("gpu_memory<=200", "gpu_memory", None, 200.0),
        ("throughput>=1e3", "throughput", 1000.0, None),
        ("build_time<=2min", "build_time", None, 120.0),
        ("accuracy>0.999", "accuracy", 0.999, None),
    ],
)
def test_a_constraint_is_read(text: str, name: str, low: float | None, high: float | None) -> None:
    found = parse_constraint(text)
    assert (found.metric.name, found.low, found.high) == (name, low, high)
    assert constraints_from_json([found.as_json()]) == (found,)


def test_model_analyzers_form() -> None:
    found = constraints_of({"perf_latency_p99": {"max": 10}, "perf_throughput": {"min": 100, "max": 1000}})
    assert [one.said() for one in found] == ["latency_p99 ≤ 10 ms", "throughput ≥ 100/s and ≤ 1,000/s"]
    assert objectives_of(["perf_throughput"])[0].metric is METRICS["throughput"]
    weighted = objectives_of({"latency_p99": 2, "engine_size": 1})
    assert [(one.metric.name, one.weight) for one in weighted] == [("latency_p99", 2.0), ("engine_size", 1.0)]
    assert objectives_from_json([one.as_json() for one in weighted]) == weighted
    assert parse_objective("latency_p50=0.5") == objectives_of([{"latency_p50": 0.5}])[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parse_constraint("latency_p99"), "no constraint"),
        (lambda: parse_constraint("latency_p99<=fast"), "no number"),
        (lambda: parse_constraint("latency_p99<=10MB"), "no unit of latency_p99"),
        (lambda: parse_constraint("throughput>=1MB"), "no unit"),
        (lambda: constraints_of({"latency_p99": 10}), "has no bounds"),
        (lambda: constraints_of({"latency_p99": {"most": 10}}), "has no bounds"),
        (lambda: constraints_of({"latency_p99": {"min": 3, "max": 2}}), "nothing is at least 3"),
        (lambda: parse_objective("latency_p99=0"), "no positive number"),
        (lambda: objectives_of(["latency_p99", "perf_latency_p99"]), "given twice"),
        (lambda: checked([parse_objective("engine_size=1"), parse_objective("latency_p50")]), "has no weight"),
        (lambda: find_metric("latency_p98"), "there is no metric 'latency_p98'"),
    ],
)
def test_what_is_wrong_is_said(make: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()  # type: ignore[operator]


def test_a_near_miss_is_offered() -> None:
    with pytest.raises(BadInput) as caught:
        find_metric("latency_p9")
    assert "did you mean latency_p9" in caught.value.hint


def test_excess_is_relative_to_the_bound() -> None:
    one = parse_constraint("latency_p99<=10")
    assert (one.excess(10.0), one.excess(9.0), one.excess(15.0)) == (0.0, 0.0, 0.5)
    assert parse_constraint("throughput>=100").excess(75.0) == 0.25
