"""A sweep's spec goes into its row and comes back whole; grids whose dimensions depend on each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farm.errors import BadInput
from farm.index import Past
from farm.placement import Seat
from farm.sweeping.costs import estimate
from farm.sweeps.file import read_sweep
from farm.sweeps.grid import Dimension, SweepSpec, SweptModel, configurations, parse_dimension, points
from farm.sweeps.objectives import parse_constraint, parse_objective
from farm.sweeps.searches import Progress, Search, room, stop_reason
from farm.sweeps.spec import search_of, spec_json, spec_of

WHOLE = """\
models:
  m: {path: /models/m.pt2, profiles: {small: {max: "x:4x3"}}, custom_ops: {my.op: "sha256:00"}}
targets: [sm_89]
settings: {disable_tf32: true}
profiles: {large: [{max: "x:8x3"}, {max: "x:9x3"}]}
grid:
  optimization_level: 0..2
  tiling_optimization_level: [none, fast]
  l2_limit_for_tiling: {values: [1M, 2M], when: {tiling_optimization_level: fast}}
  profile: [small, large]
search: {kind: tpe, seed: 7, max_builds: 9, max_minutes: 2.5, patience: 4}
objectives: {latency_p99: 2, engine_size: 1}
constraints: {perf_latency_p99: {max: 10}}
priority: 3
"""


def test_a_file_goes_into_a_row_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(WHOLE, "utf-8")
    spec = read_sweep(tmp_path / "sweep.yaml")
    assert spec.search == Search("tpe", 7, None, 9, 2.5, 4)
    assert spec.objectives == (parse_objective("latency_p99=2"), parse_objective("engine_size=1"))
    assert spec.constraints == (parse_constraint("latency_p99<=10"),)
    told = json.loads(json.dumps(spec_json(spec, "/work")))
    assert spec_of(told) == spec and told["asked"]["folder"] == "/work"
    assert search_of(told) == spec.search and search_of({"search": "grid"}) == Search()
    with pytest.raises(BadInput, match="an older farm"):
        spec_of({"models": ["m.pt2"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("search: {kind: annealing}", "there is no such search"),
        ("search: {kind: tpe, max_builds: -1}", "a search of -1 builds"),
        ("search: {knid: tpe}", "there is no 'search.knid'"),
        ("objectives: [speed]", "no metric 'speed'"),
        ("constraints: {latency_p99: 3}", "has no bounds"),
        ("grid: {optimization_level: {values: [1], wen: {}}}", "there is no 'grid.optimization_level.wen'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, change: str, message: str) -> None:
    (tmp_path / "sweep.yaml").write_text(f"models: [m.pt2]\n{change}\n", "utf-8")
    with pytest.raises(BadInput, match=message) as caught:
        read_sweep(tmp_path / "sweep.yaml")
    assert f"{tmp_path / 'sweep.yaml'}:2: " in caught.value.message


# -- conditions --------------------------------------------------------------------------------------------------


def grid(*texts: str, **settings: object) -> SweepSpec:
    return SweepSpec((SweptModel("m.pt2"),), settings=settings, grid=tuple(parse_dimension(text) for text in texts))


def test_a_limit_for_tiling_is_varied_only_where_tiling_is_on() -> None:
    spec = grid("l2_limit_for_tiling=1M,2M,4M", "tiling_optimization_level=none,fast,full")
    found = list(points(spec))
    assert len(found) == spec.size == len(configurations(spec)) == 1 + 2 * 3
    assert [point for point in found if point["tiling_optimization_level"] == "none"] == [
        {"tiling_optimization_level": "none"}
    ]
    assert grid("l2_limit_for_tiling=1M,2M").size == 2, "nothing else is varied: the recipes say that they are equal"


def test_a_condition_may_be_given_by_hand() -> None:
    spec = grid("workspace_size=1G,2G if optimization_level=4,5 and disable_tf32=true", "optimization_level=3..5",
                disable_tf32=True)  # fmt: skip
    assert spec.grid[0].when == {"optimization_level": (4, 5), "disable_tf32": (True,)}
    assert spec.size == len(configurations(spec)) == 1 + 2 * 2
    assert Dimension.from_json(json.loads(json.dumps(spec.grid[0].as_json()))) == spec.grid[0]


def test_conditions_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput, match="depends on itself"):
        list(
            points(grid("workspace_size=1G,2G if optimization_level=3", "optimization_level=2,3 if workspace_size=1G"))
        )
    with pytest.raises(BadInput, match="which the sweep does not set"):
        configurations(grid("workspace_size=1G,2G if optimization_level=3"))
    with pytest.raises(BadInput, match="no condition"):
        parse_dimension("workspace_size=1G if sometimes")


# -- stopping ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "progress", "why"),
    [
        (Search("tpe"), Progress(tried=5, size=5), "every configuration was tried"),
        (Search("tpe"), Progress(tried=24, size=72), "the budget of 24 trials is used up"),
        (Search("random", trials=3), Progress(tried=3, size=72), "the budget of 3 trials is used up"),
        (Search("grid", builds=4), Progress(tried=4, size=72, builds=4), "the budget of 4 builds is used up"),
        (Search("tpe", minutes=1), Progress(tried=4, size=72, seconds=61), "1 minutes of building is used up"),
        (Search("tpe", patience=3), Progress(tried=4, size=72, stale=3), "the last 3 builds improved nothing"),
        (Search("grid"), Progress(tried=24, size=72), ""),
        (Search("tpe", builds=99), Progress(tried=71, size=72), ""),
    ],
)
def test_why_a_search_stops(search: Search, progress: Progress, why: str) -> None:
    assert why in stop_reason(search, progress) and bool(why) == bool(stop_reason(search, progress))


def test_no_more_is_begun_than_hands_and_budgets_allow() -> None:
    assert room(Search("tpe"), Progress(0, 72), 4, 1) == 3
    assert room(Search("tpe", builds=5), Progress(4, 72, builds=4), 4, 0) == 1
    assert room(Search("random", trials=2), Progress(1, 72), 4, 0) == 1
    assert room(Search("tpe"), Progress(0, 72), 2, 3) == 0


# -- what it should take -----------------------------------------------------------------------------------------


def test_how_long_it_should_take_is_said_where_anything_is_known() -> None:
    seats = [Seat(f"w{n}", f"n{n}", ("q",), slots=1) for n in range(3)]
    past = Past(of_graph={("q", "g"): 200.0})
    assert estimate([("q", "g")] * 19, past, seats, 0).said() == "about 21 min on 3 nodes"
    assert estimate([("q", "g")] * 4, past, [], 2).said() == "about 7 min on this machine"
    assert estimate([("q", "g")] * 2, Past(), seats, 0).said() == ""
    assert estimate([("p", "g")], past, seats, 0).said() == "no worker is there that builds p"
