"""``farm prebuild`` through the front door: an example repository of two models for three targets, really built."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.prebuilds.lock import parse_lock
from tests.conftest import Farms, Ran, descendants, eventually

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("builds")]

TARGETS = ("sm_80", "sm_86", "sm_89")
MANIFEST = """\
models:
  gemm: gemm.pt2
  conv: {path: conv.pt2}
targets: [sm_80, sm_86, sm_89]
"""
NEWER = {"FARM_TOOLCHAIN": "tensorrt_rtx==1.8.0.1"}


@pytest.fixture
def repository(warm: Farms, copied: Callable[[str], Path], tmp_path: Path) -> Farms:
    """A farm whose working directory holds a manifest and its two models."""
    copied("gemm.pt2"), copied("conv.pt2")
    (tmp_path / "farm.yaml").write_text(MANIFEST)
    return warm


def prebuilt(farm: Farms, *more: str | Path, env: dict[str, str] | None = None) -> tuple[Ran, dict[str, str]]:
    """The command, and each entry's state by ``model target``."""
    ran = farm.run("prebuild", *more, "--json", env=env)
    return ran, {f"{item['model']} {item['target']}": item["state"] for item in ran.json["entries"]}


def everything(state: str) -> dict[str, str]:
    return {f"{model} {target}": state for model in ("gemm", "conv") for target in TARGETS}


def lock_of(farm: Farms) -> dict[str, dict[str, Any]]:
    return {f"{one.model} {one.target}": vars(one) for one in parse_lock((farm.cwd / "farm.lock").read_text())}


def builds(farm: Farms) -> int:
    return len(farm.run("ls", "builds", "--json").json)


def test_the_life_of_a_repository(repository: Farms, programs: Path) -> None:
    """Cold, warm, after a rename in the code, after a change of one model, after an upgrade of TensorRT."""
    farm, lock = repository, repository.cwd / "farm.lock"
    cold, states = prebuilt(farm)
    assert cold.code == 0, cold.err
    assert states == everything("built") and cold.json["lock"]["written"] is True
    first = lock_of(farm)
    assert first["gemm sm_89"]["inputs"] == {"x": "x"} and first["conv sm_86"]["toolchain"].startswith("tensorrt_rtx==")

    text, made = lock.read_bytes(), builds(farm)
    warm, states = prebuilt(farm)
    assert warm.code == 0 and states == everything("locked")
    assert lock.read_bytes() == text and warm.json["lock"] == {"path": "farm.lock", "written": False, "changes": []}
    assert farm.run("prebuild").out == farm.run("prebuild").out, "the log is the same for the same"

    shutil.copy(programs / "renamed.pt2", farm.cwd / "gemm.pt2")
    refused = farm.run("prebuild", "--locked")
    assert refused.code == 1 and "gemm for sm_89: inputs no longer called x" in refused.err
    assert lock.read_bytes() == text
    renamed, states = prebuilt(farm)
    assert renamed.code == 0 and "built" not in states.values() and builds(farm) == made
    changed = {name for name, line in lock_of(farm).items() if line != first[name]}
    assert changed == {f"gemm {target}" for target in TARGETS}
    second = lock_of(farm)
    assert second["gemm sm_89"]["inputs"] == {"x": "tokens"}
    assert second["gemm sm_89"]["engine"] == first["gemm sm_89"]["engine"]

    shutil.copy(programs / "tuned.pt2", farm.cwd / "gemm.pt2")
    plan = farm.run("prebuild", "--plan")
    assert plan.code == 0 and plan.err.count("to build: ") == 3 and "weight" in plan.err
    tuned, states = prebuilt(farm)
    assert tuned.code == 0, tuned.err
    assert {name for name, state in states.items() if state == "built"} == changed
    assert {name for name, state in states.items() if state == "locked"} == set(states) - changed

    upgraded, states = prebuilt(farm, "--check", env=NEWER)
    assert upgraded.code == 3 and states == everything("missing")
    assert upgraded.json["missing"] == [f"{model} for {target}" for model in ("gemm", "conv") for target in TARGETS]
    assert all("TensorRT's version is 1.8.0.1 here" in " ".join(item["why"]) for item in upgraded.json["entries"])
    explained = farm.run("explain", "gemm.pt2", "-t", "sm_89", env=NEWER)
    assert "TensorRT's version is 1.8.0.1 here and 1.7.1.116 there" in explained.out
    locked = farm.run("prebuild", "--locked", env=NEWER)
    assert locked.code == 1 and locked.err.count("toolchain tensorrt_rtx==1.7.1.116 → tensorrt_rtx==1.8.0.1") == 6


def test_a_failing_model_fails_the_run_and_nothing_else(
    repository: Farms, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    copied("fft.pt2"), copied("truncated.pt2")
    (tmp_path / "farm.yaml").write_text(
        "models:\n  gemm: gemm.pt2\n  fft: fft.pt2\n  cut:\n    path: truncated.pt2\n"
        "targets: [sm_75, sm_86]\nbest_effort: [{target: sm_75}]\nexclude: [{model: fft, target: sm_75}]\n"
    )
    step = tmp_path / "step.md"
    ran, states = prebuilt(
        repository,
        *("--junit", "j.xml", "--summary", "s.md"),
        env={"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(step)},
    )
    assert ran.code == 1
    expected = {"gemm sm_75": "failed", "gemm sm_86": "built", "fft sm_86": "failed"}
    assert states == expected | {"cut sm_75": "failed", "cut sm_86": "failed"}
    assert list(lock_of(repository)) == ["gemm sm_86"], "what was built is locked, and nothing else"
    (suite,) = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("5", "2", "2")
    failures = {f"{case.get('classname')} {case.get('name')}": case.find("failure") for case in suite}
    reason = failures["fft sm_86"]
    assert reason is not None and "no operator DFT" in str(reason.get("message")) and reason.text
    assert failures["gemm sm_86"] is None and failures["gemm sm_75"] is None
    annotated = [line for line in ran.err.splitlines() if line.startswith("::")]
    assert annotated[1].startswith("::error file=farm.yaml,line=3,title=fft for sm_86::TensorRT has no operator DFT")
    assert [line.split()[0] for line in annotated] == ["::warning", "::error", "::warning", "::error"]
    assert step.read_text() == (tmp_path / "s.md").read_text()
    assert "| gemm | sm\\_86 |  | built |" in step.read_text() and "no operator DFT" in step.read_text()


def test_locked_builds_what_is_missing_and_checks_what_comes_out(repository: Farms, tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text("models: {gemm: gemm.pt2}\ntargets: [sm_86]\n")
    assert repository.run("prebuild", "--locked").code == 2, "there is no lock file"
    assert repository.run("prebuild").code == 0
    assert repository.run("prebuild", "--locked", "--check").code == 0
    lock = tmp_path / "farm.lock"
    lock.write_text(lock.read_text() + "\n" + lock.read_text().splitlines()[-1].replace("sm_86", "sm_80") + "\n")
    stale = repository.run("prebuild", "--locked", "--junit", "j.xml")
    assert '<testcase classname="farm.lock"' in (tmp_path / "j.xml").read_text()
    assert stale.code == 1 and "gemm for sm_80: the manifest has it no longer" in stale.err
    elsewhere = {"FARM_HOME": str(tmp_path / "another")}
    assert repository.run("prebuild", "--check", env=elsewhere).code == 3
    text = lock.read_text()
    head, line, *_ = text.split("\n\n")
    lock.write_text(f"{head}\n\n{line.strip().replace(json.loads(line)['engine'], 'sha256:' + 64 * '0')}\n")
    gone = repository.run("prebuild", "--check", "--locked")
    assert gone.code == 1 and "engine 000000000000 → " in gone.err, "what nobody could pull"
    lock.write_text(text)
    conflicted = lock.read_text() + "<<<<<<< ours\n"
    lock.write_text(conflicted)
    assert repository.run("prebuild", "--locked").code == 2 and lock.read_text() == conflicted
    healed = repository.run("prebuild")
    assert healed.code == 0 and "a merge conflict at line 6; it is written anew" in healed.err
    assert repository.run("prebuild", "--locked").code == 0
    (tmp_path / "other.lock").write_text("")
    assert repository.run("prebuild", "--lock", "other.lock").code == 2
    assert repository.run("prebuild", "--plan", "--check").code == 2


def test_what_is_locked_is_pinned(repository: Farms, copied: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text("models: {gemm: gemm.pt2}\ntargets: [sm_86, sm_89]\npins: release\n")
    ran = repository.run("prebuild", "--pin", "canary", "--json")
    assert ran.code == 0 and ran.json["pins"] == ["release", "canary"]
    locked = {line["engine"] for line in lock_of(repository).values()}

    def pins() -> dict[str, set[str]]:
        found = repository.run("ls", "pins", "--json").json
        return {pin["name"]: {engine["engine"] for engine in pin["engines"]} for pin in found}

    assert pins() == {"release": locked, "canary": locked}
    asked = repository.run("prebuild", "--json", env={"FARM_NAMESPACE": "pr/17"})
    assert asked.code == 0 and asked.json["pins"] == [] and "pins nothing" in asked.err, "nor does a pull request"
    copied("truncated.pt2").rename(tmp_path / "gemm.pt2")
    assert repository.run("prebuild").code == 1
    assert pins()["release"] == locked, "what still runs is kept while its successor cannot be built"


@pytest.mark.slow
def test_a_script_makes_a_model_and_a_url_brings_one(
    repository: Farms, served: str, programs: Path, tmp_path: Path
) -> None:
    (tmp_path / "helper.py").write_text("SEED = 3\n")
    (tmp_path / "export.py").write_text(
        "import sys, torch\nfrom helper import SEED\nprint('noise')\n"
        "def small():\n    torch.manual_seed(SEED)\n"
        "    return torch.export.export(torch.nn.Conv2d(3, 4, 3), (torch.randn(1, 3, 8, 8),))\n"
    )
    (tmp_path / "light.py").write_text("def path():\n    return 'gemm.pt2'\ndef number():\n    return 3\n")
    digest = hashlib.sha256((programs / "gemm.pt2").read_bytes()).hexdigest()
    (tmp_path / "farm.yaml").write_text(
        "models:\n"
        "  small: {script: 'export.py:small'}\n"
        "  path: {script: 'light.py:path'}\n"
        "  number: {script: 'light.py:number'}\n"
        f"  url: {{url: '{served}/gemm.pt2', sha256: {digest}}}\n"
        f"  other: {{url: '{served}/gemm.pt2', sha256: {'ab' * 32}}}\n"
        f"  gone: {{url: '{served}/gone.pt2'}}\n"
        "targets: [sm_86]\n"
    )
    ran, states = prebuilt(repository)
    assert ran.code == 1
    assert {name.split()[0]: state for name, state in states.items()} == {
        "small": "built",
        "path": "built",
        "url": "joined",
        "number": "failed",
        "other": "failed",
        "gone": "failed",
    }
    why = {item["model"]: " ".join(item["why"]) for item in ran.json["entries"]}
    assert "the function returned int" in why["number"] and "404" in why["gone"] and "SHA-256" in why["other"]
    assert not list((repository.home / "cache" / "models").iterdir()), "nothing that was made is left over"
    states = prebuilt(repository)[1]
    assert states["small sm_86"] == states["path sm_86"] == "locked", "an export that repeats is the same key"


@pytest.fixture
def served(programs: Path) -> Iterator[str]:
    """The programs over http."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Quiet(*given, directory=str(programs)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_is_not_finished_in_time_has_failed(
    repository: Farms, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    copied("deep.pt2")
    (tmp_path / "farm.yaml").write_text("models: {conv: conv.pt2, deep: deep.pt2}\ntargets: [sm_86, sm_89]\n")
    assert repository.run("prebuild", "--timeout", "soon").code == 2
    process = repository.start("prebuild", "--timeout", "1s", "--json")
    eventually(lambda: descendants(process.pid) or process.poll() is not None, what="a build")
    children = descendants(process.pid)
    ran = repository.finish(process, timeout=60)
    late = [item for item in ran.json["entries"] if item["state"] == "failed"]
    assert ran.code == 1 and late and all("not finished in the time" in item["why"][0] for item in late)
    assert not [child for child in children if child.is_running()]
    states = {build["state"] for build in repository.run("ls", "builds", "--json").json}
    assert states <= {"succeeded", "cancelled"}


def test_only_what_changed_is_looked_at(repository: Farms, programs: Path, tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text("models: {gemm: gemm.pt2, conv: conv.pt2}\ntargets: [sm_86]\n")
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / ".gitignore").write_text("home\n")
    assert repository.run("prebuild").code == 0
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "models")
    ran, states = prebuilt(repository, "--changed-since", "HEAD")
    assert ran.code == 0 and states == {"gemm sm_86": "unchanged", "conv sm_86": "unchanged"}
    before = lock_of(repository)
    (tmp_path / "conv.pt2").write_bytes(b"no model any more")
    shutil.copy(programs / "renamed.pt2", tmp_path / "gemm.pt2")
    git(tmp_path, "checkout", "-q", "conv.pt2")
    ran, states = prebuilt(repository, "--changed-since", "HEAD")
    assert ran.code == 0 and states == {"gemm sm_86": "cached", "conv sm_86": "unchanged"}
    assert lock_of(repository)["conv sm_86"] == before["conv sm_86"]
    assert repository.run("prebuild", "--changed-since", "nowhere").code == 2


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def test_bad_manifests_name_their_line(farm: Farms, tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text("models:\n  a:\n    pth: a.pt2\ntargets: [sm_86]\n")
    ran = farm.run("prebuild")
    assert ran.code == 2 and ran.err.startswith("farm: farm.yaml:3: there is no 'models.a.pth' in a manifest\n")
    assert len(ran.err.splitlines()) == 2
    assert farm.run("prebuild", "nothing.yaml").code == 2


def test_the_schema_needs_no_farm(farm: Farms) -> None:
    ran = farm.run("prebuild", "--schema")
    assert ran.code == 0 and json.loads(ran.out)["properties"]["models"] and not farm.home.exists()


def test_the_command_line_stays_light(farm: Farms) -> None:
    code = (
        "import sys; import farm.cli.app, farm.cli.pulling, farm.pulling.pulls, farm.prebuilds.manifest;"
        "farm.cli.app.app_for();"
        "print([m for m in ('torch', 'tensorrt_rtx', 'boto3', 'celery', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
