"""Measurements as values: statistics, what may stand beside what, and how they are written down."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import BadInput
from farm.measurements import (
    Accuracy,
    Latency,
    Measurement,
    MeasuringAsk,
    Runner,
    baseline_of,
    comparable,
    is_at,
    latency_of,
    parse_baselines,
    percentile,
    shapes_text,
    speedup,
    spread_of,
)

TIMES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=200)


def measured(runner: Runner = Runner.ENGINE, p50: float = 2.0, **changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "runner": runner,
        "engine": "" if runner.is_baseline else "sha256:e",
        "program": "sha256:p",
        "shapes": {"0": [1, 3]},
        "device": "l4-sm89-58mp-23g",
        "place": "tensorrt==10.14.1/l4/x86_64",
        "latency": Latency(p50, p50, p50, p50, p50, p50),
        "throughput": 1.0,
        "memory": None,
        "load_seconds": 0.1,
        "first_seconds": 0.1,
        "spread": 0.0,
        "runs": 5,
        "iterations": 100,
    }
    return Measurement(**(values | changes))


@given(TIMES)
def test_percentiles_are_those_of_the_inclusive_method(times: list[float]) -> None:
    ordered = sorted(times)
    if len(ordered) > 1:
        wanted = statistics.quantiles(ordered, n=100, method="inclusive")
        for share in (1, 50, 90, 99):
            assert percentile(ordered, share / 100) == pytest.approx(wanted[share - 1], rel=1e-9)
    assert percentile(ordered, 0.5) == pytest.approx(statistics.median(ordered))


@given(TIMES)
def test_a_latency_is_in_order_and_within_what_was_timed(times: list[float]) -> None:
    found = latency_of(times)
    assert min(times) == found.best <= found.p50 <= found.p90 <= found.p99 <= found.worst == max(times)
    assert found.best <= found.mean * (1 + 1e-12) and found.mean <= found.worst * (1 + 1e-12)


@given(st.lists(TIMES, min_size=1, max_size=6), st.floats(0.01, 100))
def test_a_spread_does_not_depend_on_the_unit_nor_on_the_order(runs: list[list[float]], unit: float) -> None:
    spread = spread_of(runs)
    assert spread >= 0 and spread_of(runs[::-1]) == spread
    assert spread_of([[one * unit for one in run] for run in runs]) == pytest.approx(spread, rel=1e-6, abs=1e-9)


def test_a_spread_is_between_the_runs_and_not_within_them() -> None:
    assert spread_of([[1.0, 100.0, 10.0], [10.0]]) == 0.0
    assert spread_of([[10.0], [10.3], [10.1]]) == pytest.approx(0.3 / 10.1)
    assert spread_of([[5.0, 7.0]]) == 0.0


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(BadInput):
        percentile([], 0.5)


def test_it_comes_back_from_json_also_with_what_a_newer_farm_added() -> None:
    one = measured(accuracy=Accuracy(1e-3, 1e-4, 1.0), throttled=("power cap",), notes=("a",), tries=2)
    told = json.loads(json.dumps(one.as_json()))
    assert Measurement.from_json({**told, "newer": 1}) == one
    ask = MeasuringAsk(Runner.ENGINE, "sha256:p", "pt2", "x/l4/x86_64", inputs=("x",), baselines=(Runner.EAGER,))
    assert MeasuringAsk.from_json({**json.loads(json.dumps(ask.as_json())), "newer": 1}) == ask


def test_the_same_thing_measured_again_has_the_same_id_and_anything_else_another() -> None:
    one = measured()
    assert measured(p50=9.0, node="b", at=5.0, tries=3).id == one.id
    others = [
        replace(one, device="a10"),
        replace(one, shapes={"0": [2, 3]}),
        replace(one, cuda_graphs=True),
        replace(one, engine="sha256:f"),
        replace(one, runner=Runner.EAGER),
        replace(one, runtime="tensorrt==10.15.0"),
        replace(one, harness=one.harness + 1),
    ]
    assert len({one.id, *(other.id for other in others)}) == 1 + len(others)


def test_only_like_is_compared_with_like() -> None:
    one = measured()
    for change in ({"device": "a10"}, {"shapes": {"0": [2, 3]}}, {"program": "sha256:q"}, {"harness": 0}):
        assert not comparable(one, replace(one, **change))
    assert comparable(one, measured(Runner.COMPILE, cuda_graphs=True))


def test_a_baseline_is_the_newest_that_fits_and_rather_one_measured_in_the_same_way() -> None:
    one = measured(cuda_graphs=True)
    plain, old = measured(Runner.EAGER, 8.0, at=9.0), measured(Runner.EAGER, 6.0, cuda_graphs=True, at=1.0)
    newer, elsewhere = replace(old, at=2.0), measured(Runner.EAGER, 1.0, device="a10", at=99.0)
    among = [plain, old, newer, elsewhere, measured(Runner.COMPILE, at=99.0)]
    assert baseline_of(one, among) == newer
    assert baseline_of(one, [plain, elsewhere]) == plain
    assert baseline_of(one, [elsewhere]) is None
    assert speedup(plain, one) == 4.0


@pytest.mark.parametrize(
    ("place", "device", "there"),
    [
        ("torch/cpu/x86_64", "cpu-amdepyc-2c", True),
        ("tensorrt==10.14.1/l4/x86_64", "l4-sm89-58mp-23g", True),
        ("tensorrt_rtx==1.7.1.116/sm_89/x86_64", "l4-sm89-58mp-23g", True),
        ("tensorrt_rtx==1.7.1.116/sm_86/x86_64", "l4-sm89-58mp-23g", False),
        ("torch/l40/x86_64", "l4-sm89-58mp-23g", False),
    ],
)
def test_a_place_means_its_devices(place: str, device: str, there: bool) -> None:
    assert is_at(place, measured(device=device, place="elsewhere/x/y")) is there


def test_shapes_are_written_in_the_order_of_the_inputs() -> None:
    assert shapes_text({"10": [], "2": [1, 3], "0": [4]}) == "0:4,2:1x3,10:"


def test_baselines_are_named() -> None:
    assert parse_baselines("eager, COMPILE,eager") == (Runner.EAGER, Runner.COMPILE)
    assert parse_baselines("none") == parse_baselines("") == ()
    with pytest.raises(BadInput, match="'engine' is no baseline"):
        parse_baselines("engine")
