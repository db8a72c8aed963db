"""The commands that look and act, through the front door, around one real build."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Farms

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("builds")]


def test_one_build_can_be_looked_at_from_every_side(farm: Farms, copied: Callable[[str], Path], tmp_path: Path) -> None:
    model = copied("gemm.pt2")
    (built,) = farm.run("build", model, "-t", "sm_89", "--json").json
    digest, key = built["engine"]["digest"], built["key"]
    (engine,) = farm.run("ls", "--json").json
    assert (engine["engine"], engine["key"], engine["model"]) == (digest, key, str(model))
    for ident in (digest, digest.removeprefix("sha256:")[:8], key, built["recipe"]):
        shown = farm.run("show", ident, "--json")
        assert shown.code == 0, shown.err
        assert (shown.json["kind"], shown.json["engine"]) == ("engine", digest)
    build = farm.run("show", built["build"][:6], "--json").json
    assert (build["kind"], build["state"], build["recipe"]) == ("build", "succeeded", built["recipe"])
    assert build["events"][0]["event"] == "queued"
    assert farm.run("show", farm.run("ls", "programs", "--json").json[0]["program"], "--json").json["kind"] == "program"
    log = farm.run("logs", built["build"])
    assert log.code == 0 and log.out.strip()
    assert "".join(line for line in farm.run("logs", built["build"], "-f").out) == log.out
    stats = farm.run("stats", "--json").json
    assert stats["engines"] == 1 and stats["builds"]["succeeded"] == 1
    for command in (("ls",), ("show", built["build"]), ("show", key), ("stats",), ("nodes",)):
        said = farm.run(*command)
        assert said.code == 0 and said.out.strip() and "sha256:" not in said.out


def test_keys_are_said_without_building(farm: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("gemm.pt2")
    said = farm.run("key", model, "-t", "sm_86", "-t", "l4@tensorrt==10.14.1", "-s", "sparse_weights=true", "--json")
    assert said.code == 0, said.err
    fields = {"model", "target", "key", "recipe", "graph", "weights", "settings", "toolchain", "cached"}
    assert all(fields <= set(item) and item["cached"] is False for item in said.json)
    assert [item["toolchain"].partition("==")[0] for item in said.json] == ["tensorrt_rtx", "tensorrt"]
    assert farm.run("ls", "builds", "--json").json == []
    farm.run("build", model, "-t", "sm_86", "--json")
    assert farm.run("key", model, "-t", "sm_86", "--json").json[0]["cached"] is True


def test_a_miss_is_explained_by_what_is_nearest(farm: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("gemm.pt2")
    (built,) = farm.run("build", model, "-t", "sm_89", "--json").json
    (told,) = farm.run("explain", model, "-t", "sm_86", "-s", "disable_tf32=true", "--json").json
    assert told["cached"] is False and told["nearest"][0]["key"] == built["key"]
    assert {item["part"] for item in told["nearest"][0]["differences"]} == {"target", "settings"}
    said = farm.run("explain", model, "-t", "sm_89", "-s", "disable_tf32=true").out
    assert "disable_tf32" in said and "engine-invariant" in said
    weights = farm.run("explain", copied("tuned.pt2"), "-t", "sm_89").out
    assert "first.weight" in weights
    assert farm.run("explain", model, "-t", "sm_89", "--json").json[0]["cached"] is True
    (other,) = farm.run("build", model, "-t", "sm_86", "--json").json
    pair = farm.run("explain", built["key"], other["key"][:19], "--json").json
    assert [item["part"] for item in pair["differences"]] == ["target"]


def test_plans_are_pulled_by_key_by_digest_and_by_model(
    farm: Farms, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    model = copied("gemm.pt2")
    built = farm.run("build", model, "-t", "sm_86", "-t", "sm_89", "--json").json
    for what in ((model, "-t", "sm_86"), (built[0]["key"],), (built[0]["engine"]["digest"][7:19],)):
        out = tmp_path / "out" / str(len(what)) / what[0].__class__.__name__ / str(what[0])[-3:]
        pulled = farm.run("pull", *what, "-o", out, "--json")
        assert pulled.code == 0, pulled.err
        (item,) = pulled.json
        plan = Path(item["path"])
        assert "sha256:" + hashlib.sha256(plan.read_bytes()).hexdigest() == built[0]["engine"]["digest"]
        assert sorted(path.suffix for path in out.iterdir()) == [".json", ".plan"]
    missing = farm.run("pull", model, "-t", "sm_120", "-o", tmp_path / "none")
    assert missing.code == 3 and "farm build" in missing.err and not (tmp_path / "none").exists()


def test_plans_of_one_model_for_several_targets_lie_side_by_side(
    farm: Farms, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    model = copied("gemm.pt2")
    farm.run("build", model, "-t", "sm_86", "-t", "sm_89")
    pulled = farm.run("pull", model, "-t", "sm_86", "-t", "sm_89", "-o", tmp_path / "out")
    assert pulled.code == 0 and "2 plans in" in pulled.out
    assert len(list((tmp_path / "out").glob("gemm.sm_8*.plan"))) == 2


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
