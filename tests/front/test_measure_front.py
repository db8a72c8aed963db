"""``farm measure`` through the front door: asked for, measured by a worker that comes later, and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Farms

pytestmark = pytest.mark.torch


def test_a_baseline_awaits_a_worker_that_measures_it_and_is_shown(warm: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("gemm.pt2")
    how = ("measure", model, "--device", "cpu", "--baseline", "eager", "--runs", "1", "--json")
    (asked,) = warm.run(*how, "--no-wait").json
    assert asked["outcome"] == "awaiting" and asked["place"].startswith("torch/cpu/")
    done = warm.run("worker", "--until-idle", timeout=200)
    assert done.code == 0, done.err
    program = only(warm.run("ls", "programs", "--json").json, "gemm")["program"]
    (one,) = warm.run("show", program, "--json").json["measurements"]
    assert one["runner"] == "eager" and one["device"].startswith("cpu-") and one["runs"] == 1
    assert one["latency"]["p50"] > 0 and one["throughput"] > 0 and one["accuracy"] is None
    shown = warm.run("show", program)
    assert shown.code == 0 and "p50 ms" in shown.out and "eager" in shown.out


def only(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (row,) = [row for row in rows if name in row["name"]]
    return row


@pytest.mark.slow
def test_an_engine_whose_gpu_is_nowhere_awaits_it_and_one_that_is_missing_is_told(
    warm: Farms, copied: Callable[[str], Path]
) -> None:
    model = copied("gemm.pt2")
    done = warm.run("measure", model, "-t", "sm_120", "-t", "sm_75")
    assert done.code == 3
    assert "it waits for a node that measures tensorrt_rtx==1.7.1.116/sm_120/x86_64" in done.err
    assert "no engine of this key has been built" in done.err and "farm build" in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--device", "tpu"), "'tpu' is no device"),
        (("--baseline", "jit"), "'jit' is no baseline"),
        (("--device", "cpu", "--baseline", "none"), "give models, and a --baseline"),
    ],
)
def test_what_cannot_be_asked_is_bad_input(farm: Farms, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    (tmp_path / "m.pt2").write_bytes(b"")
    done = farm.run("measure", tmp_path / "m.pt2", *words)
    assert done.code == 2 and told in done.err and "Traceback" not in done.err
