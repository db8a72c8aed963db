"""Ranking: within constraints, by objectives; the front; what each setting does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.sweeping.answer import PlaceAnswer
from farm.sweeps.grid import Dimension
from farm.sweeps.objectives import METRICS, parse_constraint, parse_objective
from farm.sweeps.ranking import Candidate, front, rank, sensitivities

LATENCY, SIZE, BUILD = METRICS["latency_p50"], METRICS["engine_size"], METRICS["build_time"]


def engine(number: int, latency: float | None, size: float = 100.0, build: float = 10.0, **varied: object) -> Candidate:
    values = {"engine_size": size, "build_time": build}
    if latency is not None:
        values |= {"latency_p50": latency, "latency_p99": 1.1 * latency, "throughput": 1000 / latency}
    return Candidate(number, values, varied)


def numbers(found: object) -> list[int]:
    return [one.number for one, _ in found.ranked]  # type: ignore[attr-defined]


def test_the_fastest_within_the_constraints_is_best() -> None:
    some = [engine(1, 5.0, 100), engine(2, 3.0, 900), engine(3, 4.0, 200)]
    found = rank(some, [parse_objective("latency_p50")], [parse_constraint("engine_size<=500")])
    assert numbers(found) == [3, 1] and [one.number for one, _ in found.broken] == [2]
    assert found.unknown == () and found.axes == (LATENCY, SIZE)
    assert numbers(rank(some, [parse_objective("throughput")])) == [2, 3, 1], "more is better"


def test_what_nobody_measured_is_said_and_size_ranks() -> None:
    found = rank([engine(1, None, 300), engine(2, None, 200)], [parse_objective("latency_p99")],
                 [parse_constraint("latency_p99<=10")])  # fmt: skip
    assert numbers(found) == [2, 1] and [one.metric.name for one in found.used] == ["engine_size"]
    assert [metric.name for metric in found.unknown] == ["latency_p99"] and found.broken == ()
    assert [one.metric.name for one in rank([engine(1, 3.0)]).used] == ["latency_p50"], "without objectives"
    nothing = rank([])
    assert nothing.best is None and nothing.used == () and nothing.front == ()


def test_what_is_not_measured_yet_is_not_ranked_beside_what_is() -> None:
    found = rank([engine(1, None, 1), engine(2, 9.0, 100)], [parse_objective("latency_p50")])
    assert numbers(found) == [2] and [one.number for one in found.waiting] == [1]


def test_what_may_yet_break_a_constraint_is_not_recommended() -> None:
    some = [engine(1, None, 1), engine(2, 5.0, 300), engine(3, 50.0, 200)]
    found = rank(some, [parse_objective("engine_size")], [parse_constraint("latency_p99<=10")])
    assert numbers(found) == [2], "the smallest may be as slow as the one that is out of bounds"
    assert [one.number for one, _ in found.broken] == [3] and [one.number for one in found.waiting] == [1]
    assert found.front == (some[1],)
    only = rank(some[::2], [parse_objective("engine_size")], [parse_constraint("latency_p99<=10")])
    assert only.best is None and [one.number for one in only.waiting] == [1]


def test_weights_make_one_score_whatever_the_units() -> None:
    some = [engine(1, 4.0, 100), engine(2, 2.0, 300), engine(3, 8.0, 90)]
    equal = rank(some, [parse_objective("latency_p50=1"), parse_objective("engine_size=1")])
    assert numbers(equal)[0] == 1
    assert numbers(rank(some, [parse_objective("latency_p50=5"), parse_objective("engine_size=1")]))[0] == 2
    (_, score), *_ = equal.ranked
    assert score == pytest.approx(math.sqrt(2.0 * (100 / 90))), "times the ideal, as a geometric mean"


def test_scores_that_are_as_good_as_equal_go_by_size_then_by_build_time() -> None:
    some = [engine(1, 3.02, 100, 90.0), engine(2, 3.0, 400, 10.0), engine(3, 3.01, 100, 20.0), engine(4, 3.5, 1)]
    found = rank(some, [parse_objective("latency_p50")])
    assert numbers(found) == [3, 1, 2, 4] and found.equals == 3


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=30))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    some = [engine(number, float(x), float(y)) for number, (x, y) in enumerate(points)]
    on = front(some, (LATENCY, SIZE))
    kept = {points[one.number] for one in on}
    assert len(kept) == len(on), "equals are shown once"
    for x, y in points:
        beaten = any((a <= x and b <= y) and (a, b) != (x, y) for a, b in points)
        assert ((x, y) in kept) is not beaten


def test_what_each_setting_does() -> None:
    grid = [Dimension("level", (1, 2)), Dimension("inert", (False, True)), Dimension("one", (7,))]
    some = [
        engine(n, 2.0 * level, level=level, inert=inert, one=7)
        for n, (level, inert) in enumerate([(1, False), (1, True), (2, False), (2, True)])
    ]
    strong, weak = sensitivities(some, grid, LATENCY)
    assert (strong.dimension, strong.effect) == ("level", 1.0) and strong.means == ((1, 2.0, 2), (2, 4.0, 2))
    assert weak.dimension == "inert" and weak.none
    assert sensitivities(some, grid, METRICS["accuracy"]) == []


def test_words_say_how_many_are_not_measured_yet() -> None:
    some = [engine(1, None, 1), engine(2, 5.0, 300), engine(3, 50.0, 200)]
    bounds = [parse_constraint("latency_p99<=10")]
    place, ranking = ("m.pt2", "sm_89", ""), rank(some, [parse_objective("engine_size")], bounds)
    said = PlaceAnswer(place, ranking, (), {2: None}, {2: "x"})  # type: ignore[dict-item]
    assert said._recommended().startswith(
        "recommended: x, because it is the only engine within the constraints so far (1 more is not measured yet): "
    )
    nothing = PlaceAnswer(place, rank(some[::2], (), bounds), (), {}, {3: "y"})
    assert nothing.sentences()[1] == "1 more is not measured yet"


def test_an_engine_that_computes_something_else_is_no_equal_of_one_that_does_not() -> None:
    exact = Candidate(1, {"engine_size": 400.0, "build_time": 1.0, "accuracy": 0.99999}, {}, spread=0.05)
    rough = Candidate(2, {"engine_size": 100.0, "build_time": 1.0, "accuracy": 0.991}, {}, spread=0.05)
    found = rank([rough, exact], [parse_objective("accuracy")])
    assert numbers(found) == [1, 2] and found.equals == 1
    times = [engine(1, 3.0, 400), replace(engine(2, 3.1, 100), spread=0.05), replace(engine(3, 3.0, 300), spread=0.05)]
    assert numbers(rank(times[1:], [parse_objective("latency_p50")])) == [2, 3], "within what repeats lay apart"
