"""Searches over a synthetic fleet: no-op builds, latencies that are known beforehand."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.errors import BadConfig, BadInput
from farm.index import Worker
from farm.making import Beat, Offer, Sign
from farm.service import Farm
from farm.sweeping import planning as sweeping
from farm.sweeping.answer import answers
from farm.sweeping.results import SweepResults, find_sweep, results
from farm.sweeping.resuming import resume
from farm.sweeping.searching import Runner
from farm.sweeping.stops import Referee
from farm.sweeps.grid import SweepSpec, SweptModel, parse_dimension
from farm.sweeps.objectives import parse_constraint, parse_objective
from farm.sweeps.searches import ALL_TRIED, Search
from tests.sweep_support import CAPABILITY, StubDispatch, measured, stub_farm

TARGET = "l4@tensorrt==10.14.1.48"
GRID = ("optimization_level=0..5", "tiling_optimization_level=none,fast,moderate,full", "num_avg_timing_iters=1,2,4")
POINTS = 72


def spec(search: Search, *grid: str, **changes: Any) -> SweepSpec:
    made = SweepSpec(
        (SweptModel("m.pt2"),),
        targets=(TARGET,),
        grid=tuple(parse_dimension(text) for text in grid or GRID),
        search=search,
        objectives=(parse_objective("latency_p50"),),
    )
    return replace(made, **changes)


def latency(settings: Mapping[str, Any]) -> float:
    """Levels and tiling help, and each other; more timing helps a little; the last step of each hurts."""
    level = settings.get("optimization_level", 3)
    tiling = ("none", "fast", "moderate", "full").index(settings.get("tiling_optimization_level", "none"))
    averaged = settings.get("num_avg_timing_iters", 1)
    milliseconds = 9.0 - 0.9 * level + 0.05 * (level - 2) ** 2 - 0.5 * tiling + 0.12 * (tiling - level / 2) ** 2
    return milliseconds + 0.1 / averaged


BEST = min(
    latency({"optimization_level": level, "tiling_optimization_level": tiling, "num_avg_timing_iters": averaged})
    for level, tiling, averaged in itertools.product(range(6), ("none", "fast", "moderate", "full"), (1, 2, 4))
)


def searched(farm: Farm, asked: SweepSpec) -> SweepResults:
    plan = sweeping.plan(farm, asked)
    return Runner(farm, plan, sweeping.start_search(farm, plan).id).run()


@pytest.fixture
def stub(tmp_path: Path) -> tuple[Farm, StubDispatch]:
    farm, dispatch = stub_farm(tmp_path)
    farm.config = replace(farm.config, concurrency=2)
    dispatch.latency = latency
    return farm, dispatch


def best_of(found: SweepResults) -> float:
    return min(result.values["latency_p50"] for result in found.distinct if result.engine)


@pytest.mark.xdist_group("tpe")
def test_tpe_finds_the_best_in_a_third_of_the_builds(tmp_path: Path) -> None:
    """Within 2 % of the best, the median of 20 seeds."""
    pytest.importorskip("optuna")
    ratios = []
    for seed in range(20):
        farm, dispatch = stub_farm(tmp_path / str(seed))
        farm.config = replace(farm.config, concurrency=2)
        dispatch.latency = latency
        found = searched(farm, spec(Search("tpe", seed=seed, builds=POINTS // 3)))
        assert dispatch.built == POINTS // 3 and found.ended == "the budget of 24 builds is used up"
        ratios.append(best_of(found) / BEST)
        farm.close()
    assert statistics.median(ratios) <= 1.02, sorted(ratios)


def test_a_search_may_be_repeated(stub: tuple[Farm, StubDispatch], tmp_path: Path) -> None:
    other, dispatch = stub_farm(tmp_path / "other")
    dispatch.latency = latency
    asked = spec(Search("random", seed=5, trials=9))
    chosen = [{result.trial.number for result in searched(farm, asked).trials} for farm in (stub[0], other)]
    assert chosen[0] == chosen[1] and len(chosen[0]) == 9
    again = searched(stub[0], replace(asked, search=Search("random", seed=6, trials=9)))
    assert {result.trial.number for result in again.trials} != chosen[0]


def test_what_is_there_already_costs_nothing_and_is_known(stub: tuple[Farm, StubDispatch]) -> None:
    farm, dispatch = stub
    searched(farm, spec(Search("random", seed=1, trials=12)))
    found = searched(farm, spec(Search("random", seed=1, builds=5)))
    assert dispatch.built == 17 and found.counts["hit"] == 12 and found.counts["built"] == 5


def test_a_search_stops_when_nothing_improves(stub: tuple[Farm, StubDispatch]) -> None:
    farm, dispatch = stub
    dispatch.latency = lambda settings: 5.0
    found = searched(farm, spec(Search("random", patience=4)))
    assert found.ended.endswith("builds improved nothing") and 5 <= dispatch.built <= 7


def test_a_budget_on_a_grid_takes_the_cheap_ones_first(stub: tuple[Farm, StubDispatch]) -> None:
    found = searched(stub[0], spec(Search("grid", builds=6)))
    tried = [result.trial.settings for result in found.distinct]
    assert len(tried) == 6 and {one["tiling_optimization_level"] for one in tried} == {"none"}
    assert {one["optimization_level"] for one in tried} == {0, 1}


def test_without_optuna_nothing_is_begun(stub: tuple[Farm, StubDispatch], monkeypatch: pytest.MonkeyPatch) -> None:
    farm, _ = stub
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BadConfig, match="needs optuna, which is missing") as caught:
        sweeping.start_search(farm, sweeping.plan(farm, spec(Search("tpe"))))
    assert "farm[search]" in caught.value.hint and farm.index.sweeps() == []


def test_equal_configurations_are_tried_once_and_shown(stub: tuple[Farm, StubDispatch]) -> None:
    """Levels are inert on TensorRT-RTX: a search does not spend a build on each."""
    asked = spec(Search("tpe", builds=10), "optimization_level=0..5", "disable_tf32=false,true", targets=("sm_89",))
    found = searched(stub[0], asked)
    assert stub[1].built == 2 and found.ended == ALL_TRIED
    assert found.counts["asked"] == 12 and found.counts["distinct"] == 2


def test_the_whole_is_tried_when_no_budget_ends_it(stub: tuple[Farm, StubDispatch]) -> None:
    pytest.importorskip("optuna")
    found = searched(stub[0], spec(Search("tpe", builds=99), "optimization_level=0..5"))
    assert found.ended == ALL_TRIED and stub[1].built == 6


def test_a_failure_is_a_result_and_the_search_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    farm, dispatch = stub_farm(
        tmp_path, lambda lease: "no" if lease.build.request.settings["optimization_level"] > 3 else ""
    )
    dispatch.latency = latency
    found = searched(farm, spec(Search("tpe", seed=2, builds=24)))
    assert found.counts["failed"] and found.counts["built"] and found.ended
    assert min(r.trial.settings["optimization_level"] for r in found.failed) == 4


def test_several_objectives_are_searched_for_a_front(stub: tuple[Farm, StubDispatch]) -> None:
    pytest.importorskip("optuna")
    asked = spec(Search("tpe", builds=12), objectives=(parse_objective("latency_p50"), parse_objective("build_time")))
    assert searched(stub[0], asked).counts["built"] == 12
    weighted = tuple(parse_objective(text) for text in ("latency_p50=2", "engine_size=1"))
    found = searched(stub[0], spec(Search("tpe", builds=3), objectives=weighted))
    assert found.counts["built"] == 3 and found.counts["hit"] == 12


def test_constraints_steer_the_search(stub: tuple[Farm, StubDispatch]) -> None:
    pytest.importorskip("optuna")
    limit = parse_constraint(f"latency_p50>={1.2 * BEST}")
    found = searched(stub[0], spec(Search("tpe", builds=24), constraints=(limit,)))
    kept = [r.values["latency_p50"] for r in found.distinct if not limit.excess(r.values["latency_p50"])]
    assert kept and min(kept) < 1.4 * BEST


# -- other processes ---------------------------------------------------------------------------------------------


def resumable(farm: Farm, asked: SweepSpec, folder: Path) -> str:
    """A search of which a process appended two trials, submitted one of them, and was killed."""
    plan = sweeping.plan(farm, asked)
    sweep = sweeping.start_search(farm, plan)
    runner = Runner(farm, plan, sweep.id)
    first, second = plan.distinct[:2]
    assert runner._append([first]) and runner._append([second])
    runner._submit([first])
    farm.waiters.discard(f"sweep:{sweep.id}")
    return sweep.id


def test_another_process_goes_on(stub: tuple[Farm, StubDispatch], tmp_path: Path) -> None:
    farm, dispatch = stub
    sweep = resumable(farm, spec(Search("random", builds=6)), tmp_path)
    now = results(farm, find_sweep(farm, sweep))
    assert now.state == "running" and sorted(r.outcome for r in now.trials) == ["planned", "queued"]
    found = resume(farm, find_sweep(farm, sweep))
    assert found.ended == "the budget of 6 builds is used up" and found.state == "done"
    assert dispatch.built == 6 and not farm.waiters & {f"sweep:{sweep}"}, "interrupted, it would leave the builds alone"
    assert resume(farm, find_sweep(farm, sweep)).counts == found.counts and dispatch.built == 6


def test_two_processes_may_run_one_sweep(stub: tuple[Farm, StubDispatch]) -> None:
    """The second of two that choose the same configuration looks again."""
    farm, dispatch = stub
    plan = sweeping.plan(farm, spec(Search("random", builds=6)))
    sweep = sweeping.start_search(farm, plan).id
    theirs = Runner(farm, plan, sweep)
    mine = Runner(farm, plan, sweep)
    chosen = theirs._choose(results(farm, find_sweep(farm, sweep)), set(), 1)
    assert theirs._append(chosen) and not mine._append(chosen)
    theirs._submit(chosen)
    assert mine.run().counts["built"] == 6 and dispatch.built == 6


def test_a_cancelled_search_is_not_resumed(stub: tuple[Farm, StubDispatch], tmp_path: Path) -> None:
    farm, dispatch = stub
    sweep = find_sweep(farm, resumable(farm, spec(Search("random", builds=6)), tmp_path))
    cancelled, left = sweeping.cancel(farm, sweep)
    assert len(cancelled) == 1 and left == []
    with pytest.raises(BadInput, match="was cancelled"):
        resume(farm, find_sweep(farm, sweep.id))
    plan = sweeping.plan(farm, spec(Search("random", builds=6)))
    assert Runner(farm, plan, sweep.id).run().state == "cancelled" and dispatch.built == 0


def test_a_changed_model_is_not_mixed_in(stub: tuple[Farm, StubDispatch], tmp_path: Path) -> None:
    farm, _ = stub
    sweep = find_sweep(farm, resumable(farm, spec(Search("random", builds=6)), tmp_path))
    farm.index.put_sweep(replace(sweep, trials=tuple(replace(t, recipe="sha256:" + "0" * 64) for t in sweep.trials)))
    with pytest.raises(BadInput, match="is not what it was"):
        resume(farm, find_sweep(farm, sweep.id))


def test_a_grid_that_was_not_submitted_whole_is(stub: tuple[Farm, StubDispatch]) -> None:
    farm, dispatch = stub
    plan = sweeping.plan(farm, spec(Search(), "optimization_level=0..5"))
    sweep = sweeping.new_sweep(plan)
    farm.index.put_sweep(sweep)
    sweeping.submit(farm, sweep.id, plan.to_build[:3], keep=True)
    assert results(farm, find_sweep(farm, sweep.id)).state == "unfinished"
    found = resume(farm, find_sweep(farm, sweep.id))
    assert found.state == "done" and dispatch.built == 6
    assert found.counts["built"] + found.counts["joined"] == 6


def test_latency_that_is_measured_later_completes_the_answer(stub: tuple[Farm, StubDispatch]) -> None:
    """No node could measure at first; then one joins."""
    farm, dispatch = stub
    dispatch.latency = None
    found = searched(farm, spec(Search("random", builds=6)))
    (before,) = answers(found)
    assert [metric.name for metric in before.ranking.unknown] == ["latency_p50"]
    assert any("no node with a GPU for l4" in text for text in before.sentences())
    for result in found.distinct:
        assert result.engine
        farm.index.record_measurement(measured(result.engine.digest, latency(result.trial.settings)))
    (after,) = answers(results(farm, find_sweep(farm, found.sweep.id)))
    assert after.ranking.unknown == () and after.best is not None
    assert latency(after.best.trial.settings) == min(latency(r.trial.settings) for r in found.distinct)


def test_what_cannot_win_is_given_up(stub: tuple[Farm, StubDispatch]) -> None:
    """A build that has run for longer than the constraint allows."""
    farm, dispatch = stub
    dispatch.idle = True
    plan = sweeping.plan(
        farm, spec(Search(), "optimization_level=0..1", constraints=(parse_constraint("build_time<=5"),))
    )
    started = sweeping.start(farm, plan)
    farm.index.register(Worker("w", "here", 1, 0.0, (CAPABILITY,)))
    (lease,) = farm.index.lease(Offer("w", "here", (CAPABILITY,)), 60.0)
    farm.index.beat([Beat(lease, "build")], 60.0)
    clock = iter([100.0, 104.9, 105.1, 105.2])
    referee = Referee(farm, started.sweep, lambda: next(clock))
    builds = [answer.build for answer in started.answers if answer.build]
    for _ in range(4):
        referee(farm.glance(builds))
    assert farm.index.signs([lease]) == [Sign.UNWANTED]
    farm.index.end_cancelled(lease)
    found = results(farm, find_sweep(farm, started.sweep.id))
    (given_up,) = [result for result in found.trials if result.outcome == "stopped"]
    assert "longer than 5 s" in given_up.error and found.failed == []
