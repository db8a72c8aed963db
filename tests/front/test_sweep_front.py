"""Sweeps through the front door: real processes, real programs, real TensorRT-RTX engines."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WARM_TARGET, Farms, descendants, eventually

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("builds")]


def builds(warm: Farms) -> list[dict[str, Any]]:
    """The builds that the test itself asked for."""
    return [build for build in warm.run("ls", "builds", "--json").json if build["target"] != WARM_TARGET]


GRID = ("-g", "optimization_level=1..3", "-g", "tiling_optimization_level=none,full", "-g", "disable_tf32=false,true")


def test_a_sweep_builds_what_differs_and_the_next_is_all_hits(
    warm: Farms, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    model, report = copied("gemm.pt2"), tmp_path / "report.html"
    asked = ("sweep", model, "-t", "sm_86", "-t", "sm_89", *GRID, "--json", "--report", report)
    first = warm.run(*asked)
    assert first.code == 0, first.err
    assert first.json["plan"] == {"asked": 24, "distinct": 4, "cached": 0, "to_build": 4, "refused": 0, "invalid": 0}
    assert "24 asked, 4 distinct, 0 cached, 4 to build" in first.err
    assert "optimization_level and tiling_optimization_level have no effect on TensorRT-RTX 1.7" in first.err
    assert first.json["counts"] == {"asked": 24, "distinct": 4, "engines": 4, "built": 4}
    trials = first.json["trials"]
    assert len(trials) == 24 and {trial["outcome"] for trial in trials} == {"built"}
    assert sum(trial["same_as"] is None for trial in trials) == 4
    assert all(trial["engine"] == trials[(trial["same_as"] or trial["number"]) - 1]["engine"] for trial in trials)
    page = report.read_text("utf-8")
    assert page.startswith("<!doctype html>") and "gemm.pt2" in page and "http" not in page.replace("http-equiv", "")
    again = warm.run(*asked)
    assert again.code == 0 and {trial["outcome"] for trial in again.json["trials"]} == {"hit"}
    assert [t["engine"] for t in again.json["trials"]] == [t["engine"] for t in trials]
    assert len(builds(warm)) == 4
    one = warm.run("build", model, "-t", "sm_86", "-s", "optimization_level=2", "-s", "disable_tf32=true", "--json")
    assert one.json[0]["outcome"] == "hit" and one.json[0]["engine"] == trials[5]["engine"]


def test_the_table_for_a_pipe_is_plain(warm: Farms, copied: Callable[[str], Path]) -> None:
    ran = warm.run("sweep", copied("conv.pt2"), "-t", "sm_89", *GRID[:2])
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out + ran.err
    head, row, summary = ran.out.splitlines()
    assert head.split() == ["model", "target", "outcome", "size", "build", "engine"]
    assert row.split()[:4] == ["3×", "conv", "sm_89", "built"]
    assert "3 asked, 1 distinct: 1 built" in summary
    assert "[1/1] built conv.pt2 sm_89" in ran.err


def test_a_failure_is_a_result_and_the_exit_code_says_so(warm: Farms, copied: Callable[[str], Path]) -> None:
    ran = warm.run("sweep", copied("gemm.pt2"), "-t", "sm_75", "-t", "sm_89", *GRID[:2], "--json")
    assert ran.code == 1
    assert [trial["outcome"] for trial in ran.json["trials"]] == ["failed"] * 3 + ["built"] * 3
    assert "FP32 GEMM" in ran.json["trials"][0]["error"]
    sweep = ran.json["sweep"]
    assert warm.run("sweep", "status", sweep[:6]).code == 1
    shown = warm.run("sweep", "show", sweep, "--json")
    assert shown.json["trials"] == ran.json["trials"] and shown.json["state"] == "failed"
    assert warm.run("show", sweep, "--json").json["kind"] == "sweep"
    assert [item["sweep"] for item in warm.run("sweep", "ls", "--json").json] == [sweep]
    assert warm.run("sweep", "retry", sweep).code == 1


def test_a_file_sweeps_profiles(warm: Farms, copied: Callable[[str], Path], tmp_path: Path) -> None:
    copied("gemm.pt2")
    (tmp_path / "sweep.yaml").write_text(
        "models: [gemm.pt2]\n"
        "targets: [sm_89]\n"
        "profiles: {small: {max: 'x:4x16'}, large: {max: 'x:32x16'}}\n"
        "grid: {profile: [small, large], optimization_level: 2..3}\n"
    )
    ran = warm.run("sweep", "-c", tmp_path / "sweep.yaml", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["counts"] == {"asked": 4, "distinct": 2, "engines": 2, "built": 2}
    assert [trial["profile"] for trial in ran.json["trials"]] == ["small", "small", "large", "large"]


def test_an_interrupted_sweep_is_cancelled_and_can_be_retried(warm: Farms, copied: Callable[[str], Path]) -> None:
    process = warm.start("sweep", copied("deep.pt2"), "-t", "sm_86", "-t", "sm_89", "-g", "disable_tf32=false,true")
    eventually(lambda: any("child.py" in " ".join(p.cmdline()) for p in descendants(process.pid)), what="a build")
    children = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    ran = warm.finish(process, timeout=30)
    assert ran.code == 130 and "Traceback" not in ran.err and "cancelled" in ran.err
    assert not [child for child in children if child.is_running()]
    (sweep,) = warm.run("sweep", "ls", "--json").json
    assert sweep["state"] == "cancelled"
    assert {build["state"] for build in builds(warm)} <= {"cancelled", "succeeded"}
    retried = warm.run("sweep", "retry", sweep["sweep"], "--json")
    assert retried.code == 0, retried.err
    assert retried.json["state"] == "done" and retried.json["counts"]["distinct"] == 4


def test_a_sweep_that_nobody_waits_for_is_built_by_a_worker(warm: Farms, copied: Callable[[str], Path]) -> None:
    queued = warm.run("sweep", copied("conv.pt2"), "-t", "sm_86", "-t", "sm_89", "--no-wait", "--json").json
    assert {trial["outcome"] for trial in queued["trials"]} == {"queued"}
    worked = warm.run("worker", "--until-idle", "--json")
    assert worked.code == 0, worked.err
    assert json.loads(worked.out)["idle"] is True
    status = warm.run("sweep", "status", queued["sweep"], "--json").json
    assert status["state"] == "done" and status["counts"]["built"] == 2


def test_a_sweep_can_be_cancelled_by_its_id(warm: Farms, copied: Callable[[str], Path]) -> None:
    queued = warm.run("sweep", copied("conv.pt2"), "-t", "sm_86", "-t", "sm_89", "--no-wait", "--json").json
    done = warm.run("cancel", queued["sweep"], "--json")
    assert len(done.json["cancelled"]) == 2 and done.json["left"] == []
    assert warm.run("sweep", "status", queued["sweep"], "--json").json["state"] == "cancelled"


@pytest.mark.slow
def test_the_demo_ends_in_all_hits(farm: Farms, tmp_path: Path) -> None:
    ran = farm.run("demo", tmp_path / "demo", "--json", timeout=280)
    assert ran.code == 0, ran.err
    assert ran.json["first"]["counts"]["built"] == ran.json["first"]["counts"]["distinct"] == 48
    assert ran.json["again"]["all_hit"] is True and ran.json["again"]["asked"] == 576
    assert (tmp_path / "demo" / "report.html").is_file()


def test_a_search_answers_within_its_budget(warm: Farms, copied: Callable[[str], Path], tmp_path: Path) -> None:
    grid = ("-g", "disable_tf32=false,true", "-g", "enable_weight_streaming=false,true")
    asked = ("sweep", copied("gemm.pt2"), "-t", "sm_86", "-t", "sm_89", *grid, "--search", "random", "--seed", "1")
    judged = ("--objective", "latency_p99", "--constraint", "engine_size<=1GB")
    ran = warm.run(*asked, "--max-builds", "4", *judged, "--json")
    assert ran.code == 0, ran.err
    assert "of which random tries at most 4" in ran.err
    assert ran.json["ended"] == "the budget of 4 builds is used up" and ran.json["counts"]["built"] == 4
    for answer in ran.json["answers"]:
        assert answer["unknown"] == ["latency_p99"] and answer["ranked_by"][0]["metric"] == "engine_size"
        assert answer["recommended"]["engine"] and "no node with a GPU for" in answer["why"][-1]
    sweep = ran.json["sweep"]
    out = tmp_path / "farm.yaml"
    assert warm.run("sweep", "export", sweep, "--format", "yaml", "-o", out).code == 0
    assert "sm_86@tensorrt_rtx==" in out.read_text("utf-8")
    table = warm.run("sweep", "export", sweep).out.splitlines()
    assert table[0].startswith("number,model,target,") and len(table) > 2
    shown = warm.run("sweep", "show", sweep)
    assert "recommended: " in shown.out and "latency_p99" in shown.out


def test_a_sweep_is_followed_by_another_terminal(warm: Farms, copied: Callable[[str], Path]) -> None:
    """Embedded, whoever follows it builds it."""
    queued = warm.run("sweep", copied("conv.pt2"), "-t", "sm_86", "-t", "sm_89", "--no-wait", "--json").json
    watched = warm.run("sweep", "status", "-w", queued["sweep"], "--json")
    assert watched.code == 0 and watched.json["state"] == "done" and watched.json["counts"]["built"] == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--search", "tpe", "--no-wait"), "somebody has to wait"),
        (("--search", "annealing"), "no such search"),
        (("--constraint", "latency_p99"), "no constraint"),
        (("--objective", "speed"), "no metric 'speed'"),
        (("--max-minutes", "-3"), "finds nothing"),
    ],
)
def test_what_cannot_be_searched_is_bad_input(farm: Farms, flags: tuple[str, ...], said: str) -> None:
    ran = farm.run("sweep", "m.pt2", "-t", "sm_89", *GRID[:2], *flags)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err
