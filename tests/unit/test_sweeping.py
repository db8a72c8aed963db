"""Sweeps over a farm: what is equal in effect is built once, failures are results, and all can be read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.builds import Lease
from farm.errors import BadInput, NoSuchThing
from farm.service import Farm
from farm.sweeping import planning as sweeping
from farm.sweeping.results import find_sweep, results
from farm.sweeps.grid import SweepSpec, SweptModel, parse_dimension
from tests.sweep_support import StubDispatch, stub_farm


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[tuple[Farm, StubDispatch]]:
    farm, dispatch = stub_farm(tmp_path / "home")
    yield farm, dispatch
    farm.close()


def spec(*grid: str, targets: tuple[str, ...] = ("sm_86", "sm_89"), **settings: object) -> SweepSpec:
    return SweepSpec(
        models=(SweptModel("m.pt2"),),
        targets=targets,
        grid=tuple(parse_dimension(text) for text in grid),
        settings=settings,
    )


LEVELS = "optimization_level=1..4"
TF32 = "disable_tf32=false,true"


def test_the_plan_counts_what_is_asked_distinct_and_to_build(stub: tuple[Farm, StubDispatch]) -> None:
    plan = sweeping.plan(stub[0], spec(LEVELS, TF32))
    assert plan.line() == "16 asked, 4 distinct, 0 cached, 4 to build"
    assert plan.notes() == [
        "optimization_level has no effect on TensorRT-RTX 1.7: 16 configurations are 4 distinct builds"
    ]


def test_two_inert_dimensions_are_one_sentence(stub: tuple[Farm, StubDispatch]) -> None:
    plan = sweeping.plan(stub[0], spec(LEVELS, "tiling_optimization_level=none,fast", targets=("sm_89",)))
    assert plan.notes() == [
        "optimization_level and tiling_optimization_level have no effect on TensorRT-RTX 1.7: "
        "8 configurations are 1 distinct build"
    ]


def test_equal_configurations_are_built_once_and_say_so(stub: tuple[Farm, StubDispatch]) -> None:
    farm, dispatch = stub
    started = sweeping.start(farm, sweeping.plan(farm, spec(LEVELS, TF32, targets=("sm_89",))))
    found = sweeping.wait(farm, started)
    assert dispatch.built == 2
    assert [(result.trial.number, result.same_as, result.outcome) for result in found.trials] == [
        (1, None, "built"),
        (2, None, "built"),
        *((number, 1 if number % 2 else 2, "built") for number in range(3, 9)),
    ]
    assert found.counts == {"asked": 8, "distinct": 2, "engines": 2, "built": 2}
    assert found.state == "done" and not found.failed
    assert found.saved == pytest.approx(6 * 2.0)


def test_the_same_sweep_again_is_all_hits_and_builds_nothing(stub: tuple[Farm, StubDispatch]) -> None:
    farm, dispatch = stub
    asked = spec(LEVELS, TF32)
    sweeping.wait(farm, sweeping.start(farm, sweeping.plan(farm, asked)))
    built = dispatch.built
    plan = sweeping.plan(farm, asked)
    assert plan.line() == "16 asked, 4 distinct, 4 cached, 0 to build"
    found = sweeping.wait(farm, sweeping.start(farm, plan))
    assert {result.outcome for result in found.trials} == {"hit"}
    assert dispatch.built == built
    assert found.spent == 0.0 and found.saved == pytest.approx(16 * 2.0)


def test_hits_are_counted_for_stats(stub: tuple[Farm, StubDispatch]) -> None:
    farm, _ = stub
    for _again in range(2):
        sweeping.wait(farm, sweeping.start(farm, sweeping.plan(farm, spec(LEVELS))))
    farm.recorder.flush()
    counters = farm.index.stats()["counters"]
    assert counters["hit"]["n"] == 8 and counters["miss"]["n"] == 2


def test_search_settings_share_a_key_and_are_built_all_the_same(stub: tuple[Farm, StubDispatch]) -> None:
    """A sweep's trials belong to recipes: another recipe's engine of the same key is no answer (DESIGN, Words)."""
    farm, dispatch = stub
    sweeping.wait(farm, sweeping.start(farm, sweeping.plan(farm, spec(targets=("sm_89",)))))
    plan = sweeping.plan(farm, spec("workspace_size=1G,2G", targets=("sm_89",)))
    assert len({item.identity.key for item in plan.planned if item.identity}) == 1
    assert plan.line() == "2 asked, 2 distinct, 0 cached, 2 to build, about 2 s on 1 node"
    found = sweeping.wait(farm, sweeping.start(farm, plan))
    assert [result.outcome for result in found.trials] == ["built", "built"]
    assert dispatch.built == 3


def test_a_failure_is_a_result_with_its_reason(tmp_path: Path) -> None:
    def verdict(lease: Lease) -> str:
        return "FP32 GEMM is not supported" if lease.build.request.target == "sm_75" else ""

    farm, dispatch = stub_farm(tmp_path / "home", verdict)
    with farm:
        found = sweeping.wait(farm, sweeping.start(farm, sweeping.plan(farm, spec(LEVELS, targets=("sm_75", "sm_89")))))
        assert [result.outcome for result in found.distinct] == ["failed", "built"]
        assert found.distinct[0].error == "FP32 GEMM is not supported" and found.distinct[0].hint == "do otherwise"
        assert found.state == "failed"
        dispatch.verdict = lambda lease: ""
        again = sweeping.wait(farm, sweeping.retry(farm, find_sweep(farm, found.sweep.id[:6])))
        assert again.sweep.id == found.sweep.id
        assert [result.outcome for result in again.distinct] == ["built", "built"] and again.state == "done"
        assert results(farm, find_sweep(farm, found.sweep.id)).counts == again.counts


def test_what_a_builder_refuses_fails_and_the_rest_is_built(stub: tuple[Farm, StubDispatch]) -> None:
    farm, dispatch = stub
    plan = sweeping.plan(farm, spec("hardware_compatible=false,true", targets=("sm_89",)))
    assert plan.line() == "2 asked, 2 distinct, 0 cached, 1 to build, 1 refused by the builder"
    found = sweeping.wait(farm, sweeping.start(farm, plan))
    assert [result.outcome for result in found.trials] == ["built", "failed"]
    assert "hardware_compatible" in found.trials[1].error
    assert dispatch.built == 1


def test_contradictory_points_of_a_grid_are_left_out_and_named(stub: tuple[Farm, StubDispatch]) -> None:
    farm, _ = stub
    plan = sweeping.plan(farm, spec("use_fp32_acc=false,true", "use_explicit_typing=true,false", targets=("sm_89",)))
    assert plan.counts()["invalid"] == 1
    assert any("left out 1 of 4" in note for note in plan.notes())
    found = sweeping.wait(farm, sweeping.start(farm, plan))
    assert [result.outcome for result in found.trials][-1] == "invalid"
    assert found.counts["invalid"] == 1 and found.counts["distinct"] == 3


def test_a_target_without_any_sound_configuration_is_bad_input(stub: tuple[Farm, StubDispatch]) -> None:
    with pytest.raises(BadInput) as error:
        sweeping.plan(stub[0], spec(LEVELS, targets=("sm_89", "sm_100")))
    assert "m.pt2 for sm_100" in str(error.value)


def test_targets_written_twice_are_one_and_the_configured_ones_are_meant_without_any(
    stub: tuple[Farm, StubDispatch],
) -> None:
    farm, _ = stub
    assert sweeping.plan(farm, spec(targets=("sm_89", "sm89", "8.9"))).counts()["asked"] == 1
    assert [item.configuration.target for item in sweeping.plan(farm, spec(targets=())).planned] == ["sm_89"]


def test_a_sweep_whose_client_died_can_be_looked_at_and_picked_up(stub: tuple[Farm, StubDispatch]) -> None:
    farm, dispatch = stub
    asked = spec(TF32)
    dispatch.idle = True
    first = sweeping.start(farm, sweeping.plan(farm, asked), keep=True)
    standing = results(farm, find_sweep(farm, first.sweep.id))
    assert standing.state == "running" and {result.outcome for result in standing.trials} == {"queued"}
    dispatch.idle = False
    second = sweeping.start(farm, sweeping.plan(farm, asked))
    assert {trial.asked for trial in second.sweep.trials} == {"joined"}
    found = sweeping.wait(farm, second)
    assert {result.outcome for result in found.trials} == {"joined"} and dispatch.built == 4
    assert {result.outcome for result in results(farm, find_sweep(farm, first.sweep.id)).trials} == {"built"}


def test_cancelling_leaves_what_others_wait_for(stub: tuple[Farm, StubDispatch], tmp_path: Path) -> None:
    farm, dispatch = stub
    dispatch.idle = True
    started = sweeping.start(farm, sweeping.plan(farm, spec(TF32, targets=("sm_89",))))
    other, _ = stub_farm(tmp_path / "home")
    with other:
        sweeping.start(other, sweeping.plan(other, spec(targets=("sm_89",))))
        cancelled, left = sweeping.cancel(farm, find_sweep(farm, started.sweep.id))
    assert len(cancelled) == len(left) == 1
    found = results(farm, find_sweep(farm, started.sweep.id))
    assert sorted(result.outcome for result in found.trials) == ["cancelled", "queued"]


def test_force_builds_what_is_there(stub: tuple[Farm, StubDispatch]) -> None:
    farm, dispatch = stub
    for force in (False, True):
        plan = sweeping.plan(farm, spec(TF32, targets=("sm_89",)))
        found = sweeping.wait(farm, sweeping.start(farm, plan, force=force))
        assert {result.outcome for result in found.trials} == {"built"}
    assert dispatch.built == 4


def test_an_unknown_sweep_is_named(stub: tuple[Farm, StubDispatch]) -> None:
    with pytest.raises(NoSuchThing) as error:
        find_sweep(stub[0], "sxyz")
    assert "sxyz" in str(error.value)
