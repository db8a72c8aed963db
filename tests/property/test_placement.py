"""Turns, eligibility and wake-ups, for any queue and any fleet."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.placement import (
    LEAST_SECONDS,
    UNKNOWN_SECONDS,
    Needs,
    Seat,
    elsewhere,
    expected_seconds,
    gpu_memory_needed,
    memory_needed,
    turns,
    wake_counts,
    why_not,
    why_not_now,
)
from farm.toolchains import exact_toolchain

SECONDS = st.one_of(st.just(0.0), st.floats(0.001, 10_000))
NAMES = st.sampled_from(["a", "b", "c"])
RTX, PLAIN = exact_toolchain("tensorrt_rtx==1.7.1.116"), exact_toolchain("tensorrt==10.14.1")


def cost(seconds: float) -> float:
    return max(LEAST_SECONDS, seconds or UNKNOWN_SECONDS)


@given(st.floats(0, 1e6), st.lists(SECONDS, min_size=1, max_size=50), st.integers(1, 20))
def test_turns_are_as_far_apart_as_builds_take(start: float, expected: list[float], flows: int) -> None:
    places = turns(start, expected, flows)
    in_turn = sorted(range(len(expected)), key=lambda n: places[n])
    assert min(places) >= start
    for one, next_ in pairwise(in_turn):
        gap = places[next_] - places[one]
        assert abs(gap - cost(expected[one]) * flows) <= 1e-9 * max(1.0, places[next_])
        assert cost(expected[one]) >= cost(expected[next_])


@given(st.floats(0, 1e6), st.lists(SECONDS, min_size=1, max_size=30))
def test_a_tenants_only_submission_begins_beside_whoever_is_next(start: float, expected: list[float]) -> None:
    assert min(turns(start, expected, 1)) == start


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0.1, 100)), min_size=2, max_size=5))
def test_nobody_who_waits_falls_behind_its_share(submissions: list[tuple[int, float]]) -> None:
    """Served in turn, whoever still waits has been given no less time than any other by more than the longest build
    of each."""
    queue = sorted(
        (place, who, seconds)
        for who, (count, seconds) in enumerate(submissions)
        for place in turns(0.0, [seconds] * count)
    )
    served: Counter[int] = Counter()
    time: dict[int, float] = dict.fromkeys(range(len(submissions)), 0.0)
    longest = max(seconds for _, seconds in submissions)
    for _, who, seconds in queue:
        waiting = [other for other, (count, _) in enumerate(submissions) if served[other] < count]
        assert time[who] <= min(time[other] for other in waiting) + longest + 1e-6
        served[who] += 1
        time[who] += cost(seconds)


SEATS = st.builds(
    Seat,
    worker=st.uuids().map(str),
    node=NAMES,
    capabilities=st.lists(NAMES, unique=True).map(tuple),
    slots=st.integers(1, 8),
    busy=st.integers(0, 8),
    memory=st.sampled_from([0, 10, 100]),
    gpu_memory=st.sampled_from([0, 10, 100]),
    fresh=st.booleans(),
    aside=st.sampled_from(["", "12:00"]),
    draining=st.booleans(),
)
NEEDS = st.builds(
    Needs,
    capability=NAMES,
    memory=st.integers(0, 150),
    gpu_memory=st.integers(0, 150),
    failed_on=st.frozensets(NAMES),
)


@given(NEEDS, st.lists(SEATS, max_size=8))
def test_a_build_is_refused_for_reasons_and_for_nothing_else(needs: Needs, seats: list[Seat]) -> None:
    for seat in seats:
        can = (
            seat.fresh
            and not seat.draining
            and needs.capability in seat.capabilities
            and seat.node not in needs.failed_on
            and not seat.aside
            and (not seat.memory or needs.memory <= seat.memory)
            and (not seat.gpu_memory or needs.gpu_memory <= seat.gpu_memory)
        )
        assert (why_not(needs, seat) == "") == can
    assert elsewhere(needs, seats) == any(not why_not(needs, seat) for seat in seats)


@pytest.mark.parametrize(
    ("seat", "says"),
    [
        ({}, ""),
        ({"trouble": "no such bucket"}, "takes nothing until this works again: no such bucket"),
        ({"gpu_free": 3 * 10**9}, "has 3.0 GB of GPU memory free, and this one needs 4.0 GB"),
        ({"gpu_free": 3 * 10**9, "busy": 1}, ""),
        ({"gpu_free": 4 * 10**9}, ""),
    ],
)
def test_what_is_in_the_way_for_now(seat: dict[str, Any], says: str) -> None:
    needs, one = Needs("q", gpu_memory=4 * 10**9), Seat("w", "n", ("q",), **seat)
    assert (why_not(needs, one), why_not_now(needs, one)) == ("", says)


@given(st.dictionaries(NAMES, st.integers(0, 50)), st.lists(SEATS, max_size=8))
def test_nobody_is_woken_for_nothing(waiting: dict[str, int], seats: list[Seat]) -> None:
    counts = wake_counts(waiting, seats)
    for name, count in counts.items():
        free = sum(
            max(0, seat.slots - seat.busy)
            for seat in seats
            if seat.fresh and not seat.aside and name in seat.capabilities
        )
        assert 0 < count <= min(waiting[name], free)
    for name in waiting.keys() - counts.keys():
        hands = [s for s in seats if s.fresh and not s.aside and name in s.capabilities and s.slots > s.busy]
        assert not waiting[name] or not hands


def test_what_a_build_needs() -> None:
    assert memory_needed(10**9, {}) == 3_400_000_000
    assert memory_needed(10**9, {"cpu_memory_budget": 5}) == 5
    assert gpu_memory_needed(RTX, 10**9, {"workspace_size": 7}) == 0
    assert gpu_memory_needed(PLAIN, 10**9, {"workspace_size": 7}) == 10**9 + 7


def test_the_nearest_past_is_believed() -> None:
    of_graph, of_capability = {("c", "g"): 5.0}, {"c": 9.0}
    assert expected_seconds(of_graph, of_capability, "c", "g") == 5.0
    assert expected_seconds(of_graph, of_capability, "c", "other") == 9.0
    assert expected_seconds(of_graph, of_capability, "d", "g") == UNKNOWN_SECONDS
