"""The commands that look and act, through the front door, around one real build."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WARM, Farms

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("builds")]


def asked(farm: Farms, model: Path, *args: str) -> dict[str, Any]:
    """The one answer of ``farm build``."""
    ran = farm.run("build", model, *args, "--json")
    assert ran.code == 0, ran.err
    (answer,) = ran.json
    return dict(answer)


def test_one_build_can_be_looked_at_from_every_side(warm: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("gemm.pt2")
    built = asked(warm, model, "-t", "sm_89")
    digest, key = built["engine"]["digest"], built["key"]
    engine = warm.run("ls", "--json").json[0]
    assert (engine["engine"], engine["key"], engine["model"]) == (digest, key, str(model))
    for ident in (digest, digest.removeprefix("sha256:")[:8], key, built["recipe"]):
        shown = warm.run("show", ident, "--json")
        assert shown.code == 0, shown.err
        assert (shown.json["kind"], shown.json["engine"]) == ("engine", digest)
    build = warm.run("show", built["build"][:8], "--json").json
    assert (build["kind"], build["state"], build["recipe"]) == ("build", "succeeded", built["recipe"])
    assert build["events"][0]["event"] == "queued"
    program = warm.run("ls", "programs", "--json").json[0]["program"]
    assert warm.run("show", program, "--json").json["kind"] == "program"
    log = warm.run("logs", built["build"])
    assert log.code == 0 and log.out.strip()
    assert warm.run("logs", built["build"], "-f").out == log.out
    stats = warm.run("stats", "--json").json
    assert stats["engines"] == len(WARM) + 1 == stats["builds"]["succeeded"]
    for command in (("ls",), ("show", built["build"]), ("show", key), ("stats",), ("nodes",)):
        said = warm.run(*command)
        assert said.code == 0 and said.out.strip() and "sha256:" not in said.out


def test_keys_are_said_without_building(stocked: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("gemm.pt2")
    said = stocked.run("key", model, "-t", "sm_86", "-t", "l4@tensorrt==10.14.1", "-s", "sparse_weights=true", "--json")
    assert said.code == 0, said.err
    fields = {"model", "target", "key", "recipe", "graph", "weights", "settings", "toolchain", "cached"}
    assert all(fields <= set(item) for item in said.json)
    assert [item["toolchain"].partition("==")[0] for item in said.json] == ["tensorrt_rtx", "tensorrt"]
    # sparse_weights is inert on TensorRT-RTX: another key, and the same engine.
    assert [item["cached"] for item in said.json] == [True, False]
    assert len(stocked.run("ls", "builds", "--json").json) == len(WARM) + 2


def test_a_miss_is_explained_by_what_is_nearest(stocked: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("gemm.pt2")
    one, other = (asked(stocked, model, "-t", target) for target in ("sm_86", "sm_89"))
    ran = stocked.run("explain", model, "-t", "sm_89", "-s", "disable_tf32=true", "--json")
    assert ran.code == 0, ran.err
    (told,) = ran.json
    assert told["cached"] is False and told["nearest"][0]["key"] == other["key"]
    assert [item["part"] for item in told["nearest"][0]["differences"]] == ["settings"]
    said = stocked.run("explain", model, "-t", "sm_89", "-s", "disable_tf32=true").out
    assert "disable_tf32" in said and "engine-invariant" in said
    weights = stocked.run("explain", copied("tuned.pt2"), "-t", "sm_89")
    assert weights.code == 0 and "first.weight" in weights.out, weights.err
    assert stocked.run("explain", model, "-t", "sm_89", "--json").json[0]["cached"] is True
    pair = stocked.run("explain", one["key"], other["key"][:19], "--json").json
    assert [item["part"] for item in pair["differences"]] == ["target"]


def test_plans_are_pulled_by_key_by_digest_and_by_model(
    stocked: Farms, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    model = copied("gemm.pt2")
    built = asked(stocked, model, "-t", "sm_86")
    ways = {"model": (model, "-t", "sm_86"), "key": (built["key"],), "digest": (built["engine"]["digest"][7:19],)}
    for way, what in ways.items():
        pulled = stocked.run("pull", *what, "-o", tmp_path / way, "--json")
        assert pulled.code == 0, pulled.err
        (item,) = pulled.json
        plan = Path(item["path"])
        assert "sha256:" + hashlib.sha256(plan.read_bytes()).hexdigest() == built["engine"]["digest"]
        assert sorted(path.suffix for path in (tmp_path / way).iterdir()) == [".json", ".plan"]
    both = stocked.run("pull", model, "-t", "sm_86", "-t", "sm_89", "-o", tmp_path / "both")
    assert both.code == 0 and "2 plans in" in both.out
    assert len(list((tmp_path / "both").glob("gemm.sm_8*.plan"))) == 2
    missing = stocked.run("pull", model, "-t", "sm_80", "-o", tmp_path / "none")
    assert missing.code == 3 and "farm build" in missing.err and not (tmp_path / "none").exists()


def test_the_doctor_is_content_with_a_fresh_farm(farm: Farms) -> None:
    seen = farm.run("doctor", "--json")
    assert seen.code == 0, seen.out
    found = {item["name"]: item for item in seen.json}
    assert {"python", "machine", "gpu", "toolchain", "exporter", "home", "database", "store", "broker"} <= set(found)
    assert "tensorrt_rtx==" in found["toolchain"]["found"] and "sm_89" in found["toolchain"]["found"]


def test_the_doctor_names_what_is_broken(farm: Farms, tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_text("this is no database, and was never one\n" * 40)
    seen = farm.run("doctor", "--json", env={"FARM_DATABASE_URL": f"sqlite:///{tmp_path / 'junk.db'}"})
    assert seen.code == 1
    assert [item["name"] for item in seen.json if item["state"] == "fail"] == ["database"]
