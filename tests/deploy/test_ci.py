"""deploy/ci: each pipeline's steps are run as it would run them, by bash, against an embedded farm.

Two things are stood in for: ``pip``, which writes down what it was to install, and ``farm``, which is this checkout's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import DEPLOY, KNOWN_VARIABLES

from farm.prebuilds.lock import parse_lock
from farm.prebuilds.manifest import read_manifest
from tests.conftest import clean_environment

CI = DEPLOY / "ci"
ROOT = DEPLOY.parent
FILES = sorted(path.name for path in CI.iterdir())
EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
MANIFEST = "models: {gemm: gemm.pt2, other: other.pt2}\ntargets: [sm_80, sm_86, sm_89]\n"


def document(name: str) -> dict[str, Any]:
    found = yaml.safe_load((CI / name).read_text("utf-8"))
    assert isinstance(found, dict)
    return found


class Runner:
    """A checkout of the example repository, and the shell that a pipeline's steps are run by."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder.parent / "bin"
        self.bin.mkdir()
        self._command("farm", f'PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m farm "$@"')
        self._command("pip", f'printf "%s\\n" "$*" >> {shlex.quote(str(folder.parent / "pip.log"))}')

    def _command(self, name: str, line: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    @property
    def installed(self) -> list[str]:
        return (self.folder.parent / "pip.log").read_text().splitlines()

    def run(self, script: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """As GitHub and GitLab do: bash that ends at the first failure."""
        own = clean_environment(self.folder.parent / "home", PATH=f"{self.bin}{os.pathsep}{os.environ['PATH']}")
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        return subprocess.run(words, cwd=self.folder, env={**own, **env}, capture_output=True, text=True, timeout=200)

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        done = subprocess.run(["git", *who, *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()


@pytest.fixture
def runner(tmp_path: Path, programs: Path, warmed: Path) -> Runner:
    """A checkout with one commit."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copytree(warmed, tmp_path / "home")
    shutil.copy(programs / "gemm.pt2", folder)
    shutil.copy(programs / "renamed.pt2", folder / "other.pt2")
    (folder / "farm.yaml").write_text(MANIFEST)
    found = Runner(folder)
    found.git("init", "-q", "-b", "main")
    found.git("add", "-A")
    found.git("commit", "-qm", "models")
    return found


def filled(values: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """An ``env`` with its expressions worked out: what is not known is empty, as a secret is that nobody set."""
    return {name: EXPRESSION.sub(lambda found: known.get(found[1], ""), str(value)) for name, value in values.items()}


def steps_of(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [step for step in job["steps"] if "run" in step]


# -- what holds for all --------------------------------------------------------------------------------------


def test_the_files_are_known() -> None:
    assert FILES == ["github-actions.yml", "gitlab.yml", "init-container.yaml", "pre-commit-config.yaml"]


@pytest.mark.parametrize("name", FILES)
def test_only_variables_that_farm_reads(name: str) -> None:
    asked = set(re.findall(r"FARM_[A-Z0-9_]+", (CI / name).read_text("utf-8"))) - {"FARM_PACKAGE"}
    assert asked <= set(KNOWN_VARIABLES)


def test_no_expression_stands_in_a_script() -> None:
    """A branch's name in ``run`` would be run; it comes in by ``env``."""
    for job in document("github-actions.yml")["jobs"].values():
        for step in steps_of(job):
            assert not EXPRESSION.search(step["run"])


# -- GitHub Actions ------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.xdist_group("builds")
def test_the_github_workflow(runner: Runner, programs: Path, tmp_path: Path) -> None:
    workflow = document("github-actions.yml")
    on_github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "step.md")}

    def run(job: str, known: Mapping[str, str]) -> list[subprocess.CompletedProcess[str]]:
        env = filled({**workflow["env"], **workflow["jobs"][job].get("env", {})}, known)
        return [runner.run(step["run"], {**env, **on_github}) for step in steps_of(workflow["jobs"][job])]

    merged = run("merged", {})
    assert [done.returncode for done in merged] == [0, 0, 0], [done.stderr for done in merged]
    assert len(parse_lock((runner.folder / "farm.lock").read_text())) == 6
    assert (runner.folder / "engines.xml").is_file() and "3 built, 3 joined" in (tmp_path / "step.md").read_text()
    runner.git("add", "farm.lock")
    runner.git("commit", "-qm", "lock")
    base = runner.git("rev-parse", "HEAD")

    shutil.copy(programs / "truncated.pt2", runner.folder / "other.pt2")
    changed = run("changed", {"github.event.pull_request.base.sha": base})
    assert [done.returncode for done in changed] == [0, 1, 1], "it fails here, not at start-up in production"
    for done in changed[1:]:
        assert "3 failed, 3 unchanged" in done.stdout
        assert done.stderr.count("::error file=farm.yaml,line=1,title=other for sm_") == 3
    assert runner.installed == ["install --quiet farm[fleet]"] * 2


# -- GitLab --------------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.xdist_group("builds")
def test_the_gitlab_template(runner: Runner, programs: Path) -> None:
    template = document("gitlab.yml")

    def run(job: str, **known: str) -> list[subprocess.CompletedProcess[str]]:
        whole = {**template[".farm"], **template[job]}
        env = {**template[".farm"].get("variables", {}), **whole.get("variables", {}), **known}
        return [runner.run(line, env) for line in [*whole["before_script"], *whole["script"]]]

    (runner.folder / "farm.yaml").write_text("models: {gemm: gemm.pt2}\ntargets: [sm_86]\n")
    runner.git("commit", "-qam", "one")
    base = runner.git("rev-parse", "HEAD")
    asked = run("engines-changed", CI_MERGE_REQUEST_DIFF_BASE_SHA=base)
    assert [done.returncode for done in asked] == [0, 0, 0], [done.stderr for done in asked]
    merged = run("engines-merged")
    assert [done.returncode for done in merged] == [0, 0, 0], [done.stderr for done in merged]
    for path in template[".farm"]["artifacts"]["paths"]:
        assert (runner.folder / path).is_file()
    assert "built" in merged[1].stdout, "what a merge request built is not what deployments read"


# -- pre-commit ----------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.xdist_group("builds")
def test_the_pre_commit_hook(runner: Runner, programs: Path) -> None:
    (hook,) = document("pre-commit-config.yaml")["repos"][0]["hooks"]
    assert hook["language"] == "system" and hook["pass_filenames"] is False
    for name, runs in (("farm.yaml", True), ("sub/farm.lock", True), ("m/gemm.pt2", True), ("readme.md", False)):
        assert bool(re.search(hook["files"], name)) is runs
    (runner.folder / "farm.yaml").write_text("models: {gemm: gemm.pt2}\ntargets: [sm_86]\n")
    assert runner.run(hook["entry"], {}).returncode == 2, "there is no lock file yet"
    assert runner.run("farm prebuild", {}).returncode == 0
    elsewhere = {"FARM_HOME": str(runner.folder.parent / "another")}
    assert runner.run(hook["entry"], elsewhere).returncode == 0, "it needs no engines, only files"
    shutil.copy(programs / "tuned.pt2", runner.folder / "gemm.pt2")
    refused = runner.run(hook["entry"], elsewhere)
    assert refused.returncode == 1 and "gemm for sm_86: key" in refused.stderr


# -- the init container --------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.xdist_group("builds")
def test_the_init_container(runner: Runner) -> None:
    spec = document("init-container.yaml")["spec"]
    (init,) = spec["initContainers"]
    mounts = {item["name"]: item["mountPath"] for item in init["volumeMounts"]}
    assert set(mounts) <= {volume["name"] for volume in spec["volumes"]}
    assert {item["name"]: item["value"] for item in init["env"]}.keys() <= set(KNOWN_VARIABLES)
    (runner.folder / "farm.yaml").write_text("models: {gemm: gemm.pt2}\ntargets: [sm_86, l4]\n")
    assert runner.run("farm prebuild", {}).returncode == 0
    command = shlex.join(init["command"]).replace(f"{mounts['lock']}/farm.lock", "farm.lock")
    command = command.replace(mounts["engines"], "engines")
    store = (runner.folder.parent / "home" / "store").as_uri()
    done = runner.run(command, {"FARM_HOME": str(runner.folder.parent / "pod"), "FARM_STORE_URL": store})
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (runner.folder / "engines").glob("*.plan")] == ["gemm.l4.plan"]


def test_the_example_manifest_of_the_documents(tmp_path: Path) -> None:
    """What docs/prebuild.md shows is a manifest."""
    text = (ROOT / "docs" / "prebuild.md").read_text("utf-8")
    blocks = re.findall(r"```yaml\n(models:.*?)```", text, re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        assert read_manifest(path).models
