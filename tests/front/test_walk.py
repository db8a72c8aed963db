"""The main job through the front door: real processes, real programs, real TensorRT-RTX engines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Farms, eventually

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("builds")]


def test_a_build_then_a_hit(farm: Farms, copied: Callable[[str], Path], tmp_path: Path) -> None:
    model = copied("gemm.pt2")
    first = farm.run("build", model, "-t", "sm_86", "-t", "sm_89", "--json")
    assert first.code == 0, first.err
    assert [answer["outcome"] for answer in first.json] == ["built", "built"]
    assert [answer["model"] for answer in first.json] == [str(model)] * 2
    assert len({answer["key"] for answer in first.json}) == 2
    second = farm.run("build", model, "-t", "sm_86", "-t", "sm_89", "--json")
    assert [answer["outcome"] for answer in second.json] == ["hit", "hit"]
    assert [a["engine"] for a in second.json] == [a["engine"] for a in first.json]
    pulled = farm.run("pull", first.json[0]["key"], "-o", tmp_path / "out", "--json")
    assert pulled.code == 0, pulled.err
    plans = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert first.json[0]["engine"]["digest"].removeprefix("sha256:") in plans


def test_what_cannot_matter_is_a_hit(ready: Farms, copied: Callable[[str], Path]) -> None:
    """Renamed parameters and inputs, another example batch, an inert level: all the same engine."""
    built = ready.run("build", copied("gemm.pt2"), "-t", "sm_89", "--json").json[0]
    renamed = ready.run("build", copied("renamed.pt2"), "-t", "l4", "--json").json[0]
    assert (renamed["outcome"], renamed["key"], renamed["engine"]) == ("hit", built["key"], built["engine"])
    level = ready.run("build", copied("gemm.pt2"), "-t", "sm_89", "-s", "optimization_level=5", "--json")
    assert level.json[0]["outcome"] == "hit" and level.json[0]["key"] != built["key"]
    assert "optimization_level" in " ".join(level.json[0]["warnings"])


def test_other_weights_are_another_engine(ready: Farms, copied: Callable[[str], Path]) -> None:
    built = ready.run("build", copied("gemm.pt2"), "-t", "sm_89", "--json").json[0]
    looked = ready.run("build", copied("tuned.pt2"), "-t", "sm_89", "--no-build", "--json")
    assert looked.code == 3 and looked.json[0]["outcome"] == "missing" and looked.json[0]["key"] != built["key"]


def test_two_terminals_share_one_build(ready: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("deep.pt2")
    both = [ready.start("build", model, "-t", "sm_89", "--json") for _ in range(2)]
    answers = [ready.finish(process).json[0] for process in both]
    assert sorted(answer["outcome"] for answer in answers) in (["built", "joined"], ["built", "hit"])
    assert answers[0]["engine"] == answers[1]["engine"]
    assert len(ready.run("ls", "builds", "--json").json) == 1


def test_what_can_never_build_says_why_and_is_remembered(ready: Farms, copied: Callable[[str], Path]) -> None:
    """TensorRT-RTX has no fp32 matrix product for Turing (reference/tensorrt.md, Targets)."""
    model = copied("gemm.pt2")
    failed = ready.run("build", model, "-t", "sm_75", "-t", "sm_86", "--json")
    assert failed.code == 1
    bad, good = failed.json
    assert bad["outcome"] == "failed" and "FP32 GEMM" in bad["error"] and good["outcome"] == "built"
    again = ready.run("build", model, "-t", "sm_75", "--json")
    assert again.code == 1 and again.json[0]["build"] == bad["build"]
    retried = ready.run("retry", bad["build"], "--json")
    assert retried.code == 1
    builds = ready.run("ls", "builds", "--json").json
    assert len(builds) == 3


def test_a_program_that_cannot_be_converted_names_operator_and_line(farm: Farms, copied: Callable[[str], Path]) -> None:
    failed = farm.run("build", copied("fft.pt2"), "-t", "sm_89", "--json")
    assert failed.code == 1
    assert "fft" in failed.json[0]["error"].lower() and "programs_for_tests.py" in failed.json[0]["error"]


@pytest.mark.parametrize("name", ["truncated.pt2", "empty.pt2", "text.onnx", "checkpoint.pt2"])
def test_a_bad_model_is_one_clear_line(farm: Farms, copied: Callable[[str], Path], name: str) -> None:
    ran = farm.run("build", copied(name), "-t", "sm_89")
    assert ran.code == 2 and name in ran.err and "Traceback" not in ran.err
    assert len(ran.err.strip().splitlines()) <= 2
    assert not ran.out


def test_nobody_waits_and_somebody_builds_later(ready: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("conv.pt2")
    queued = ready.run("build", model, "-t", "sm_89", "--no-wait", "--json").json[0]
    assert queued["outcome"] == "queued"
    assert ready.run("ls", "builds", "--json").json[0]["state"] == "queued"
    joined = ready.run("build", model, "-t", "sm_89", "--json").json[0]
    assert joined["outcome"] == "joined" and joined["build"] == queued["build"]


def test_force_builds_what_is_there(ready: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("conv.pt2")
    first = ready.run("build", model, "-t", "sm_89", "--json").json[0]
    forced = ready.run("build", model, "-t", "sm_89", "--force", "--json").json[0]
    assert forced["outcome"] == "built" and forced["build"] != first["build"]
    assert forced["engine"] == first["engine"], "TensorRT-RTX builds are byte-identical"


def test_a_lost_blob_is_a_miss_and_is_built_again(ready: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("conv.pt2")
    built = ready.run("build", model, "-t", "sm_89", "--json").json[0]
    hexdigest = built["engine"]["digest"].removeprefix("sha256:")
    (blob,) = (path for path in ready.home.rglob(f"*{hexdigest[2:]}*") if path.is_file())
    blob.unlink()
    again = ready.run("build", model, "-t", "sm_89", "--json").json[0]
    assert again["outcome"] == "built" and again["engine"] == built["engine"]
    eventually(lambda: ready.run("build", model, "-t", "sm_89", "--json").json[0]["outcome"] == "hit", timeout=20)


def test_a_portable_engine_serves_only_where_that_is_allowed(ready: Farms, copied: Callable[[str], Path]) -> None:
    """An engine for a set of capabilities serves each of them, but is another engine than theirs (DESIGN, Targets)."""
    model = copied("gemm.pt2")
    both = ready.run("build", model, "-t", "sm_86+sm_89", "--json").json[0]
    look = ("build", model, "-t", "sm_89", "--no-build", "--json")
    assert ready.run(*look).code == 3
    allowed = ready.run(*look, "--allow-portable")
    assert allowed.code == 0 and allowed.json[0]["engine"] == both["engine"]
    assert "sm_86+sm_89" in allowed.json[0]["portable"] and allowed.json[0]["key"] != both["key"]
    assert ready.run("build", model, "-t", "sm_120", "--no-build", "--allow-portable").code == 3
    assert ready.run(*look, "--allow-portable", "-s", "disable_tf32=true").code == 3
