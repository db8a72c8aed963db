"""Sweeps whose client, or one of whose workers, is killed in the middle: they go on, and nothing is built twice."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.builds import Build, BuildState
from farm.db.index import SqlIndex
from tests.conftest import WARM_TARGET, Farms, eventually
from tests.front.test_killed import frozen_child

pytestmark = [pytest.mark.torch, pytest.mark.chaos, pytest.mark.xdist_group("kills")]

TARGETS = ("-t", "sm_80", "-t", "sm_86", "-t", "sm_89")
GRID = ("-g", "disable_tf32=false,true", "-g", "enable_weight_streaming=false,true")
DISTINCT = 12


def index_of(warm: Farms) -> SqlIndex:
    return SqlIndex(f"sqlite:///{warm.home / 'farm.db'}")


def mine(index: SqlIndex) -> list[Build]:
    return [build for build in index.builds() if build.request.target != WARM_TARGET]


def engines(index: SqlIndex) -> dict[str, tuple[str, float]]:
    """When each recipe's engine was made, and its digest."""
    return {one.recipe: (one.digest, one.created) for one in index.engines()}


def half_way(index: SqlIndex, process: subprocess.Popen[str], least: int, most: int) -> str:
    """Wait until so many of the sweep's builds are done, and stop the process before the others are; the sweep's id."""

    def done() -> int:
        assert process.poll() is None, process.communicate()
        return sum(build.state is BuildState.SUCCEEDED for build in mine(index))

    eventually(lambda: done() >= least, what="a few builds")
    process.send_signal(signal.SIGSTOP)
    assert done() < most, "it was too quick to be killed in the middle"
    (sweep,) = index.sweeps()
    return sweep.id


def test_client_and_worker_killed(warm: Farms, copied: Callable[[str], Path]) -> None:
    index = index_of(warm)
    worker = warm.start("worker", "--concurrency", "1")
    client = warm.start("sweep", copied("gemm.pt2"), *TARGETS, *GRID)
    sweep = half_way(index, client, 3, DISTINCT)
    worker.kill(), client.kill()
    worker.wait(), client.wait()
    before = engines(index)
    assert before
    ran = warm.run("sweep", "resume", sweep[:8], "--json")
    assert ran.code == 0, ran.err
    assert ran.json["state"] == "done" and ran.json["counts"]["built"] == DISTINCT, ran.json["counts"]
    after = engines(index)
    assert {recipe: after[recipe] for recipe in before} == before, "what was finished is as it was"
    builds = mine(index)
    assert len(builds) == DISTINCT and {build.state for build in builds} == {BuildState.SUCCEEDED}


def test_a_search_goes_on_where_it_was_killed(warm: Farms, copied: Callable[[str], Path], tmp_path: Path) -> None:
    asked = (*TARGETS, *GRID, "--search", "random", "--seed", "1", "--max-builds", "8", "--objective", "engine_size")
    index = index_of(warm)
    client = warm.start("sweep", copied("gemm.pt2"), *asked)
    sweep = half_way(index, client, 2, 8)
    client.kill()
    client.wait()
    before = engines(index)
    assert warm.run("sweep", "status", sweep, "--json").json["state"] in ("running", "unfinished")
    elsewhere = Farms(warm.home)
    elsewhere.cwd = tmp_path.parent
    ran = elsewhere.run("sweep", "resume", sweep, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["ended"] == "the budget of 8 builds is used up" and ran.json["counts"]["distinct"] == 8
    after = engines(index)
    assert {recipe: after[recipe] for recipe in before} == before
    assert len(mine(index)) == 8
    assert ran.json["answers"][0]["recommended"]["engine"]


def test_cancelling_frees_the_machine_at_once(warm: Farms, copied: Callable[[str], Path]) -> None:
    """A build that does not even answer any more is gone within a second, and nothing takes its place."""
    index = index_of(warm)
    client = warm.start("sweep", copied("deep.pt2"), "-t", "sm_86", "-t", "sm_89", *GRID)
    child = frozen_child(client)
    (sweep,) = index.sweeps()
    assert warm.run("sweep", "cancel", sweep.id).code == 0
    # A command and its worker's next look at its leases; the rest is what a busy machine needs.
    eventually(lambda: not child.is_running(), 3, "the child's death")
    assert not any(build.state.active for build in mine(index) if build.state is not BuildState.RUNNING)
    ran = warm.finish(client, timeout=30)
    assert ran.code == 1 and "cancelled" in ran.out
    assert not any(build.state.active for build in mine(index))
    assert warm.run("sweep", "resume", sweep.id).code == 2
