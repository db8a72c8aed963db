"""``farm pull`` by lock file, through the front door: killed, twice at once, over a corrupt store, for Triton."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.blobs.folder import FolderStore
from farm.prebuilds.lock import LockEntry, format_lock, parse_lock
from tests.conftest import Farms

MIB = 2**20
PLAN = random.Random(11).randbytes(MIB) * 96
"""An engine that takes a moment to copy."""


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def bindings(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": "HALF", "shape": [-1, 3]} for name in names]


@pytest.fixture
def store(farm: Farms) -> FolderStore:
    return FolderStore(farm.home / "store")


Locked = Callable[..., LockEntry]


@pytest.fixture
def locked(farm: Farms, store: FolderStore) -> Locked:
    """Put an engine and its manifest into the store, and a line into the lock file."""
    lines: list[LockEntry] = []

    def lock(model: str, target: str, plan: bytes, *, place: dict[str, Any] | None = None, **changes: Any) -> LockEntry:
        key = digest(f"{model} {target}".encode())
        manifest = {
            "key": key,
            "recipe": key,
            "engine": {"digest": digest(plan), "size": len(plan)},
            "bindings": {"inputs": bindings("x"), "outputs": bindings("y")},
            "profiles": [{}, {}],
            "parts": {"target": place or {}},
        }
        store.put(io.BytesIO(plan))
        blob = store.put(io.BytesIO(json.dumps(manifest | changes.pop("manifest", {})).encode())).digest
        names = {"inputs": {"x": "x"}, "outputs": {"y": "y"}}
        line = LockEntry(
            model, target, key, key, digest(plan), len(plan), "tensorrt_rtx==1.7.1.116", blob, **(names | changes)
        )
        lines[:] = [*(other for other in lines if other.name != line.name), line]
        (farm.cwd / "farm.lock").write_text(format_lock(lines))
        return line

    return lock


def test_what_the_lock_file_names(farm: Farms, locked: Locked) -> None:
    locked("gemm", "sm_89", b"one"), locked("conv", "sm_89", b"two"), locked("gemm", "sm_86", b"three")
    ran = farm.run("pull", "-t", "rtx4090", "-o", "out", "--json")
    assert ran.code == 0, ran.err
    assert [(item["model"], item["target"]) for item in ran.json] == [("conv", "sm_89"), ("gemm", "sm_89")]
    assert (farm.cwd / "out" / "gemm.sm_89.plan").read_bytes() == b"one"
    beside = json.loads((farm.cwd / "out" / "gemm.sm_89.json").read_text())
    assert beside["names"] == {"inputs": {"x": "x"}, "outputs": {"y": "y"}}
    assert sorted(path.name for path in (farm.cwd / "out").iterdir()) == [
        *("conv.sm_89.json", "conv.sm_89.plan", "gemm.sm_89.json", "gemm.sm_89.plan")
    ]
    assert len(farm.run("pull", "--lock", "farm.lock", "-o", "all", "--json").json) == 3
    assert len(farm.run("pull", "gemm", "--lock", "farm.lock", "-o", "gemms", "--json").json) == 2
    assert not (farm.home / "farm.db").exists(), "nothing but the store was asked"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["-t", "sm_75"], 3, "farm.lock has nothing for sm_75"),
        (["resnet", "--lock", "farm.lock"], 3, "farm.lock has nothing of resnet"),
        (["-t", "sm_89", "--layout", "onnx"], 2, "--layout onnx is not known"),
        (["-s", "disable_tf32=true"], 2, "a lock file says all of its engines"),
        (["--lock", "other.lock"], 2, "other.lock: there is no such file"),
        (["--layout", "triton"], 2, "would both be"),
    ],
)
def test_what_cannot_be_pulled(farm: Farms, locked: Locked, words: list[str], code: int, told: str) -> None:
    locked("gemm", "sm_89", b"one"), locked("gemm", "sm_86", b"three")
    ran = farm.run("pull", *words, "-o", "out")
    assert ran.code == code and told in ran.err and len(ran.err.splitlines()) <= 2


def test_a_portable_engine_only_when_asked(farm: Farms, locked: Locked) -> None:
    several = {"capabilities": [80, 86, 89], "os": "linux", "arch": "x86_64"}
    pair = {"capabilities": [86, 89], "os": "linux", "arch": "x86_64"}
    locked("gemm", "sm_80+sm_86+sm_89", b"set", place=several), locked("gemm", "sm_86+sm_89", b"pair", place=pair)
    assert farm.run("pull", "-t", "sm_89", "-o", "out").code == 3
    ran = farm.run("pull", "-t", "l4", "-o", "out", "--allow-portable", "--json")
    assert [item["portable"] for item in ran.json] == ["sm_86+sm_89"], "the one for fewest others"
    assert farm.run("pull", "-t", "sm_120", "-o", "out", "--allow-portable").code == 3
    locked("gemm", "sm_89", b"exact")
    ran = farm.run("pull", "-t", "sm_89", "-o", "out", "--allow-portable", "--json")
    assert [(item["portable"], item["digest"]) for item in ran.json] == [(None, digest(b"exact"))]


def test_a_triton_model_repository(farm: Farms, locked: Locked) -> None:
    locked("same", "sm_89", b"one"), locked("other", "sm_89", b"two", inputs={"x": 'im"age'}, variant="fast")
    ran = farm.run("pull", "-t", "sm_89", "-o", "models", "--layout", "triton", "--json")
    assert ran.code == 0, ran.err
    root = farm.cwd / "models"
    assert (root / "same" / "1" / "model.plan").read_bytes() == b"one"
    config = (root / "same" / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in config and "dims: [ -1, 3 ]" in config and "TYPE_FP16" in config
    assert 'profile: [ "0", "1" ]' in config
    assert (root / "other.fast.plan" / "1" / "model.plan").read_bytes() == b"two"
    own, asked = ((root / name / "config.pbtxt").read_text() for name in ("other.fast.plan", "other.fast"))
    assert re.findall(r'^    name: "(.*)"$', own, re.MULTILINE) == ["x", "y"]
    assert re.findall(r'^    name: "(.*)"$', asked, re.MULTILINE) == ['im\\"age', "y"]
    assert 'platform: "ensemble"' in asked and 'model_name: "other.fast.plan"' in asked
    assert 'input_map { key: "x" value: "im\\"age" }' in asked and (root / "other.fast" / "1").is_dir()


def test_a_corrupt_store_ends_with_no_plan(farm: Farms, locked: Locked, store: FolderStore) -> None:
    line, _ = locked("gemm", "sm_89", PLAN), locked("conv", "sm_89", b"sound")
    digits = line.engine.removeprefix("sha256:")
    blob = store.root / "sha256" / digits[:2] / digits
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(50 * MIB)
        file.write(b"rotten")
    ran = farm.run("pull", "-t", "sm_89", "-o", "out")
    assert ran.code == 1 and line.engine in ran.err
    assert [path.name for path in (farm.cwd / "out").glob("*.plan")] == ["conv.sm_89.plan"], "the sound one is there"
    assert farm.run("pull", "-t", "sm_89", "-o", "out").code == 3, "it was put aside"
    store.put(io.BytesIO(PLAN))
    assert farm.run("pull", "-t", "sm_89", "-o", "out").code == 0
    assert (farm.cwd / "out" / "gemm.sm_89.plan").read_bytes() == PLAN


def test_a_line_that_names_another_engines_manifest(farm: Farms, locked: Locked) -> None:
    one, other = locked("gemm", "sm_89", b"one"), locked("conv", "sm_89", b"two")
    (farm.cwd / "farm.lock").write_text(format_lock([replace(one, manifest=other.manifest)]))
    ran = farm.run("pull", "-o", "out")
    assert ran.code == 2 and "a manifest of another engine" in ran.err and not list(farm.cwd.glob("out/*.plan"))
    (farm.cwd / "farm.lock").write_text(format_lock([replace(one, manifest=other.engine)]))
    assert farm.run("pull", "-o", "out").code == 2, "no manifest at all"


@pytest.mark.parametrize("change", [{"target": "sm_86"}, {"recipe": digest(b"other")}, {"target": "sm_89/windows"}])
def test_a_line_that_says_another_place_or_recipe(farm: Farms, locked: Locked, change: dict[str, str]) -> None:
    line = locked("gemm", "sm_89", b"one", place={"capabilities": [89], "os": "linux", "arch": "x86_64"})
    (farm.cwd / "farm.lock").write_text(format_lock([replace(line, **change)]))  # type: ignore[arg-type]
    ran = farm.run("pull", "-o", "out")
    assert ran.code == 2 and "a manifest of another engine" in ran.err and not list(farm.cwd.glob("out/*.plan"))
    (farm.cwd / "farm.lock").write_text(format_lock([line]))
    assert farm.run("pull", "-o", "out").code == 0


def test_a_trust_policy_asks_for_a_signature(farm: Farms, locked: Locked) -> None:
    locked("gemm", "sm_89", b"one")
    made = farm.run("keygen", "key.pem", "--json")
    assert made.code == 0, made.err
    trusted = next(path for path in farm.cwd.iterdir() if path.suffix == ".pub")
    ran = farm.run("pull", "-o", "out", env={"FARM_TRUST": str(trusted)})
    assert ran.code == 1 and "is not handed out" in ran.err and not list(farm.cwd.glob("out/*.plan"))


def test_killed_at_any_moment(farm: Farms, locked: Locked) -> None:
    """Killed once so much of it has come, again and again; then one run ends it, with what was there already."""
    locked("gemm", "sm_89", PLAN)
    plan = farm.cwd / "out" / "gemm.sm_89.plan"
    chance, kills = random.Random(5), 0
    for _ in range(8):
        after = chance.randrange(len(PLAN))
        process = farm.start("pull", "-t", "sm_89", "-o", "out")
        while process.poll() is None and not plan.exists() and _came(plan.parent) < after:
            time.sleep(0.0005)  # what is watched for is the size of a file
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += process.returncode == -signal.SIGKILL and not plan.exists()
        if plan.exists():
            assert plan.read_bytes() == PLAN
            plan.unlink()
    assert kills >= 2
    assert farm.run("pull", "-t", "sm_89", "-o", "out").code == 0
    assert plan.read_bytes() == PLAN
    assert sorted(path.name for path in plan.parent.iterdir()) == ["gemm.sm_89.json", "gemm.sm_89.plan"]


def _beside(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "gemm.sm_89.json").read_text())
    assert isinstance(found, dict)
    return found


def test_a_newer_engine_takes_the_place_of_the_old_one_with_its_names(farm: Farms, locked: Locked) -> None:
    """Stopped anywhere, a plan never stands beside the names of another."""
    old, plan = b"old" * 1000, farm.cwd / "out" / "gemm.sm_89.plan"
    locked("gemm", "sm_89", old)
    assert farm.run("pull", "-t", "sm_89", "-o", "out").code == 0
    locked("gemm", "sm_89", PLAN, inputs={"x": "image"})
    process = farm.start("pull", "-t", "sm_89", "-o", "out")
    while process.poll() is None and not _came(plan.parent):
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    expected = {digest(old): "x", digest(PLAN): "image"}
    beside = _beside(plan.parent)
    assert (beside["engine"]["digest"], beside["names"]["inputs"]["x"]) == (
        digest(plan.read_bytes()),
        expected[digest(plan.read_bytes())],
    )
    both = [farm.start("pull", "-t", "sm_89", "-o", "out") for _ in range(2)]
    assert [farm.finish(one).code for one in both] == [0, 0]
    assert plan.read_bytes() == PLAN and _beside(plan.parent)["names"]["inputs"] == {"x": "image"}
    assert sorted(path.name for path in plan.parent.iterdir()) == ["gemm.sm_89.json", "gemm.sm_89.plan"]


def test_an_update_that_was_stopped_at_its_last_step_is_ended(farm: Farms, locked: Locked) -> None:
    locked("gemm", "sm_89", b"new")
    out = farm.cwd / "out"
    out.mkdir()
    (out / ".gemm.sm_89.plan.next").write_bytes(b"new")
    assert farm.run("pull", "-t", "sm_89", "-o", "out").code == 0
    assert sorted(path.name for path in out.iterdir()) == ["gemm.sm_89.json", "gemm.sm_89.plan"]
    assert (out / "gemm.sm_89.plan").read_bytes() == b"new"


def test_an_update_that_cannot_be_had_leaves_what_there_is(farm: Farms, locked: Locked, store: FolderStore) -> None:
    locked("gemm", "sm_89", b"old")
    assert farm.run("pull", "-t", "sm_89", "-o", "out").code == 0
    before = _beside(farm.cwd / "out")
    line = locked("gemm", "sm_89", b"new", inputs={"x": "image"})
    store.delete(line.engine)
    assert farm.run("pull", "-t", "sm_89", "-o", "out").code == 3
    assert (farm.cwd / "out" / "gemm.sm_89.plan").read_bytes() == b"old" and _beside(farm.cwd / "out") == before


def _came(folder: Path) -> int:
    """How many bytes of the largest file under way are there; one that is done meanwhile is gone from here."""
    came = 0
    for path in folder.glob(".*.partial") if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            came = max(came, path.stat().st_size)
    return came


def test_two_at_once_both_end_well(farm: Farms, locked: Locked) -> None:
    for number in range(3):
        locked(f"model{number}", "sm_89", PLAN[number : 30 * MIB])
    both = [farm.start("pull", "-t", "sm_89", "-o", "out", "--jobs", "3") for _ in range(2)]
    ended = [farm.finish(process) for process in both]
    assert [ran.code for ran in ended] == [0, 0], ended[0].err + ended[1].err
    names = sorted(path.name for path in (farm.cwd / "out").iterdir())
    assert names == sorted(f"model{n}.sm_89.{kind}" for n in range(3) for kind in ("json", "plan"))
    for number in range(3):
        assert (farm.cwd / "out" / f"model{number}.sm_89.plan").read_bytes() == PLAN[number : 30 * MIB]


def test_an_interrupted_pull_goes_on_later(farm: Farms, locked: Locked) -> None:
    locked("gemm", "sm_89", PLAN)
    process = farm.start("pull", "-t", "sm_89", "-o", "out")
    while process.poll() is None and not _came(farm.cwd / "out"):
        time.sleep(0.0005)
    process.send_signal(signal.SIGINT)
    ran = farm.finish(process, timeout=30)
    assert ran.code in (0, 130) and "Traceback" not in ran.err
    assert farm.run("pull", "-t", "sm_89", "-o", "out").code == 0
    assert (farm.cwd / "out" / "gemm.sm_89.plan").read_bytes() == PLAN


@pytest.mark.torch
@pytest.mark.xdist_group("builds")
def test_by_model_for_triton_under_the_askers_names(warm: Farms, copied: Callable[[str], Path], tmp_path: Path) -> None:
    """The engine was built for a model with other names; the one who pulls has its own."""
    assert warm.run("build", copied("gemm.pt2"), "-t", "sm_89").code == 0
    ran = warm.run("pull", copied("renamed.pt2"), "-t", "sm_89", "-o", "models", "--layout", "triton")
    assert ran.code == 0, ran.err
    assert 'input_map { key: "x" value: "tokens" }' in (tmp_path / "models/renamed/config.pbtxt").read_text()
    (tmp_path / "farm.yaml").write_text("models: {m: renamed.pt2}\ntargets: [sm_89]\n")
    assert warm.run("prebuild").code == 0
    (line,) = parse_lock((tmp_path / "farm.lock").read_text())
    assert warm.run("pull", "-t", "sm_89", "-o", "out").code == 0
    assert digest((tmp_path / "out" / "m.sm_89.plan").read_bytes()) == line.engine
    # By key, for a GPU by its name: an engine of TensorRT-RTX is for its compute capability, as by lock file.
    by_key = warm.run("pull", line.key, "-t", "l4", "-o", "named", "--json")
    assert by_key.code == 0 and [item["digest"] for item in by_key.json] == [line.engine], by_key.err
    elsewhere = warm.run("pull", line.key, "-t", "rtx3090", "-o", "none")
    assert elsewhere.code == 3 and "is for sm_89, not for rtx3090" in elsewhere.err
