"""Whole programs: the ``torch_tensorrt`` builder, its artefacts, and engines with their weights baked in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from farm.builders.plan import read_header
from farm.config import load
from farm.container import unpack
from farm.wiring.backends import open_index
from tests.conftest import FARM, clean_environment
from tests.integrations.conftest import Compilers
from tests.support.torch_tensorrt_site import python_path

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("torch_tensorrt")]

TARGET = "sm_86@torch_tensorrt"


def farm(compilers: Compilers, *args: str | Path) -> subprocess.Popen[str]:
    environment = clean_environment(compilers.home, PYTHONPATH=python_path())
    return subprocess.Popen(
        [*FARM, *map(str, args)],
        env=environment,
        cwd=compilers.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, Any, str]:
    out, err = process.communicate(timeout=150)
    return process.returncode, json.loads(out) if out.strip() else None, err


def test_a_program_is_built_shown_and_put_together(compilers: Compilers) -> None:
    model, folder = compilers.folder / "two.pt2", compilers.folder / "pulled"
    wide = compilers.folder / "wide.pt2"
    compilers.run({"model": "two", "export": str(model)}, {"model": "wide", "export": str(wide)})
    built = farm(compilers, "build", model, wide, "-t", TARGET, "-s", "min_block_size=1", "--json")
    nothing = farm(compilers, "build", model, "-t", TARGET, "--json")  # no block has min_block_size operators
    code, told, err = ended(built)
    assert code == 0, (told, err)
    answer, other = told
    assert (answer["outcome"], other["outcome"]) == ("built", "built"), err
    code, (failed,), _ = ended(nothing)
    assert code == 1 and "no part of the model went into TensorRT: min_block_size is 5" in failed["error"]

    engines = open_index(load({"FARM_HOME": str(compilers.home)})).engines()
    details = {engine.digest: engine.manifest["detail"] for engine in engines}
    reports = [details[one["engine"]["digest"]]["report"] for one in (answer, other)]
    # Of four parts there are three: the backbone that both have was built once, whoever came first. (An attempt that
    # was handed back, since its process ended, may have left parts for the next to find.)
    assert len(engines) == 5 and sum(one["built"] for one in reports) <= 3
    report = reports[0]
    sizes = [one["operators"] for one in report["engines"]]
    assert len(sizes) == 2 and sum(sizes) == report["converted"] == report["operators"] - 1
    assert list(report["in_torch"].values()) == [1] and "erfcx" in next(iter(report["unsupported"]))
    assert report["min_block_size"] == {str(min(sizes)): 2, str(max(sizes)): 1}
    card, _ = farm(compilers, "show", answer["engine"]["digest"]).communicate(timeout=60)
    assert f"{sum(sizes)} of {sum(sizes) + 1} operators in 2 engines of {sizes[0]}, {sizes[1]}" in card
    assert f"min_block_size: {max(sizes)} gives 1" in card

    ended(farm(compilers, "pull", answer["key"], "-o", folder, "--json"))
    (artefact,) = folder.glob("*.plan")
    check_artefact(artefact, answer)
    # Put together with its program, without building anything; another program's parts are not in it.
    loaded, told = compilers.run({"model": "two", "load": str(artefact), "fail": True})
    assert told["error"] == "" and [name for name in loaded["loaded"] if "acc" in name] == [
        "_run_on_acc_0",
        "_run_on_acc_2",
    ]
    (other,) = compilers.run({"model": "wide", "load": str(artefact), "fail": True})
    assert "another program's artefact" in other["error"]


def check_artefact(artefact: Path, answer: dict[str, Any]) -> None:
    """Plain data and plans: the header names each by digest, and each is for the target that was asked for."""
    header, plans = unpack(artefact.read_bytes())
    assert header.key == answer["key"] and header.toolchain.startswith("torch_tensorrt==2.13.0+rtx")
    engines = header.detail["engines"]
    assert len({engine["digest"] for engine in engines}) == 2 and [one["op"] for one in header.detail["graph"]]
    for engine in engines:
        plan = plans[engine["offset"] : engine["offset"] + engine["size"]]
        assert read_header(bytes(plan[:64])).capabilities == ("sm_86",)


def test_engines_with_weights_baked_in_are_shared_by_content(compilers: Compilers) -> None:
    """What ``immutable_weights=True`` passes every engine cache by for: farm's own ``compile`` keeps them."""
    first, again, renamed, tuned = compilers.run(
        {"model": "head", "baked": True},
        {"model": "head", "baked": True, "fail": True},
        {"model": "renamed", "baked": True, "fail": True},
        {"model": "head", "baked": True, "weights": 1},
    )
    assert (first["misses"], first["stored"], first["error"]) == (1, 1, "")
    assert (again["local_hits"], again["error"], again["refitted"]) == (1, "", [])
    # Nothing is refitted, so other names do not matter; other weights do.
    assert (renamed["farm_hits"] + renamed["local_hits"], renamed["error"]) == (1, "")
    assert (tuned["misses"], tuned["stored"]) == (1, 1)
    (elsewhere,) = compilers.run({"model": "head", "baked": True, "fail": True, "cache": {"local_bytes": 0}})
    assert (elsewhere["farm_hits"], elsewhere["error"]) == (1, "")


def test_no_command_imports_torch_tensorrt(compilers: Compilers) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, farm.cli; print([m for m in sys.modules if 'torch' in m or 'tensorrt' in m])",
        ],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
