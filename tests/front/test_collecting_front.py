"""``farm gc``, ``pin``, ``unpin`` and ``ls pins``: what people and scripts see of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from farm.prebuilds.lock import LockEntry, format_lock
from tests.conftest import Farms
from tests.support.stock import open_place, stock_engines, stock_program, stock_request

NOW = ("--grace", "0")


@pytest.fixture
def stocked(farm: Farms) -> list[str]:
    """Four engines of one program; their digests."""
    place = open_place(farm.home)
    program = stock_program(place, "m")
    made = stock_engines(place, [stock_request(place, n, program) for n in range(4)])
    place.index.close()
    for path in (farm.home / "store" / "sha256").rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 86_400,) * 2)
    return [engine.digest for engine in made]


def lock_of(path: Path, recipes: dict[str, str]) -> Path:
    digest = "sha256:" + "1" * 64
    entries = [
        LockEntry(f"m{n}", "sm_89", digest, recipe, engine, 10, "tensorrt_rtx==1.7.1.116", digest)
        for n, (engine, recipe) in enumerate(recipes.items())
    ]
    path.write_text(format_lock(entries))
    return path


def test_collecting_by_hand(farm: Farms, stocked: list[str], tmp_path: Path) -> None:
    listed = {one["engine"]: one["recipe"] for one in farm.run("ls", "engines", "--json").json}
    lock = lock_of(tmp_path / "farm.lock", {engine: listed[engine] for engine in stocked[:2]})
    pinned = farm.run("pin", "--lock", lock, "--expires", "30d", "--json").json
    assert pinned["name"] == f"{tmp_path.name}/farm.lock" and len(pinned["engines"]) == 2 and pinned["expires"]
    told = farm.run("gc", "--dry-run", "--max-bytes", "15", *NOW, "--json").json
    assert told["dry_run"] and told["bytes"] == {"looked": 50, "kept": 20, "left": 20}
    collected = {one["digest"] for one in told["collected"] if one["kind"] == "engine"}
    assert collected == set(stocked[2:]) and len(told["collected"]) == 3
    shown = farm.run("gc", "--dry-run", "--max-bytes", "15", *NOW)
    assert shown.code == 0 and "over the budget" in shown.out and "3 things (30 B) would go" in shown.out
    assert "20 B would be left, of which 20 B may not go (pinned, in use or young): more than the budget" in shown.out
    done = farm.run("gc", "--max-bytes", "15", *NOW, "--json").json
    assert done["collected"] == told["collected"] and done["removed"]["blobs"] == 5
    assert {one["engine"] for one in farm.run("ls", "engines", "--json").json} == set(stocked[:2])
    assert farm.run("reconcile", "--json").json["removed"]["blobs"] == 0


@pytest.mark.slow
def test_pins_by_hand(farm: Farms, stocked: list[str], tmp_path: Path) -> None:
    assert "nothing is pinned" in farm.run("ls", "pins").out
    assert farm.run("pin", stocked[0]).out == f"1 engine pinned as {stocked[0][7:19]}\n"
    assert farm.run("pin", stocked[0][:25], stocked[1], "--name", "demo").code == 0
    pins = {one["name"]: len(one["engines"]) for one in farm.run("ls", "pins", "--json").json}
    assert pins == {stocked[0][7:19]: 1, "demo": 2}
    assert "demo" in farm.run("ls", "pins").out
    assert farm.run("pin", stocked[2], "--name", "demo").code == 0
    assert [one["engine"] for one in farm.run("unpin", "demo", "--json").json["engines"]] == [stocked[2]]
    again = farm.run("unpin", "demo")
    assert again.code == 2 and "no pin is called 'demo'" in again.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["pin", "ffffffff"], 3, "no engine's key, recipe or digest starts with"),
        (["pin"], 2, "give engines or keys, or a lock file"),
        (["pin", "--lock", "nowhere.lock"], 2, "nowhere.lock cannot be read"),
        (["pin", "ab", "--expires", "soon"], 2, "--expires is 'soon', which is no length of time"),
        (["gc", "--max-bytes", "lots"], 2, "--max-bytes is 'lots'"),
        (["gc", "--max-age", "-1d"], 2, "--max-age is '-1d'"),
        (["gc", "--toolchain-retired", "trt8"], 2, "'trt8' names no toolchains to retire"),
    ],
)
def test_what_cannot_be_is_said_in_words(farm: Farms, words: list[str], code: int, says: str) -> None:
    ran = farm.run(*words)
    assert ran.code == code and says in ran.err and len(ran.err.strip().splitlines()) <= 2, ran.err


def test_an_engine_that_a_lock_file_names_and_that_is_gone(farm: Farms, stocked: list[str], tmp_path: Path) -> None:
    lock = lock_of(tmp_path / "farm.lock", {"sha256:" + "2" * 64: "sha256:" + "3" * 64})
    ran = farm.run("pin", "--lock", lock, "--json")
    assert ran.code == 3 and "is not there; nothing was pinned" in ran.err
    assert json.loads(ran.out)["error"]["exit_code"] == 3 and farm.run("ls", "pins", "--json").json == []


def test_the_configured_budget_is_kept_by_whoever_builds(farm: Farms, stocked: list[str]) -> None:
    """An embedded farm collects beside its builds; and doctor and stats say how full it is."""
    env = {"FARM_MAX_BYTES": "35", "FARM_QUOTAS": "main=20", "FARM_GC_GRACE": "0"}
    told = {one["name"]: one for one in farm.run("doctor", "--json", env=env).json}
    assert told["budget"]["state"] == "warn" and "50 B of 35 B" in told["budget"]["found"]
    shown = farm.run("stats", env=env).out
    assert "main" in shown and "40 B of 20 B" in shown
    ended = farm.run("worker", "--until-idle", env=env)
    assert ended.code == 0, ended.err
    assert len(farm.run("ls", "engines", "--json").json) == 2
    assert {one["name"]: one for one in farm.run("doctor", "--json", env=env).json}["budget"]["state"] == "ok"
