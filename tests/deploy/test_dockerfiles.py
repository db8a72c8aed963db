"""The Dockerfiles: small, non-root, from a clean checkout."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import DEPLOY, DOCKERFILES, ROOT, Instruction, dockerfile, ignored

both = pytest.mark.parametrize("name", DOCKERFILES)


def named(instructions: list[Instruction], name: str) -> list[str]:
    return [item.text for item in instructions if item.name == name]


def last_stage(name: str) -> list[Instruction]:
    instructions = dockerfile(name)
    return [item for item in instructions if item.stage == instructions[-1].stage]


@both
def test_two_stages_on_one_pinned_base(name: str) -> None:
    instructions = dockerfile(name)
    (base,) = named(instructions, "ARG")
    assert re.fullmatch(r"PYTHON=3\.11\.\d+-slim-bookworm", base), base
    assert named(instructions, "FROM") == ["python:${PYTHON} AS build", "python:${PYTHON} AS run"]
    assert named(last_stage(name), "COPY") == ["--from=build /opt/farm /opt/farm"], "no sources, no compilers"


@both
def test_the_user_is_fixed_and_comes_before_the_entry(name: str) -> None:
    stage = last_stage(name)
    order = [item.name for item in stage]
    assert named(stage, "USER") == ["10001:10001"]
    assert order.index("USER") < order.index("HEALTHCHECK") < order.index("ENTRYPOINT") < order.index("CMD")
    assert not {"RUN", "COPY", "ADD"} & set(order[order.index("USER") :])
    (setup,) = named(stage, "RUN")
    assert "--gid 10001" in setup and "--uid 10001" in setup
    assert "--owner=farm --group=farm --mode=0700 /var/lib/farm /var/lib/farm/tmp" in setup
    (environment,) = named(stage, "ENV")
    assert "TMPDIR=/var/lib/farm/tmp" in environment, "a temporary file may be as large as an engine"


@both
def test_the_process_is_reaped_signalled_and_looked_at(name: str) -> None:
    stage = last_stage(name)
    (entry,), (command,), (check,) = (named(stage, item) for item in ("ENTRYPOINT", "CMD", "HEALTHCHECK"))
    assert json.loads(entry) == ["tini", "--", "farm"], "tini without -g: SIGTERM is for the worker alone"
    assert json.loads(command) == (["worker"] if name == "cpu.Dockerfile" else ["worker", "--gpu", "0"])
    assert json.loads(check.split("CMD ")[1]) == ["python", "/opt/farm/share/healthcheck.py", "worker"]
    assert "tini" in named(stage, "RUN")[0]


@both
def test_what_is_copied_is_in_a_clean_checkout_and_not_ignored(name: str, tracked: set[str]) -> None:
    for text in named(dockerfile(name), "COPY"):
        if text.startswith("--from"):
            continue
        for source in text.split()[:-1]:
            inside = [path for path in tracked if path == source or path.startswith(f"{source}/")]
            assert inside, f"COPY {source}: not in the checkout"
            assert not [path for path in inside if ignored(path)], f"COPY {source}: kept out by .dockerignore"


def test_nothing_else_reaches_the_build(tracked: set[str]) -> None:
    assert ignored("deploy/.env") and ignored(".git/config") and ignored(".venv/bin/python")
    assert ignored("farm/__pycache__/cli.cpython-311.pyc") and ignored(".fleet/fleet.env")
    assert not [path for path in tracked if path.startswith("tests/") and not ignored(path)]


@both
def test_what_is_copied_is_enough_for_a_wheel(name: str, tracked: set[str], tmp_path: Path) -> None:
    """The package from those files alone, migrations and all: what `pip install .` does in the image."""
    pytest.importorskip("hatchling")
    for text in named(dockerfile(name), "COPY"):
        for source in [] if text.startswith(("--from", "deploy/")) else text.split()[:-1]:
            for path in tracked:
                if (path == source or path.startswith(f"{source}/")) and (ROOT / path).is_file():
                    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(ROOT / path, tmp_path / path)
    code = "import hatchling.build as b; print(b.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from zipfile import ZipFile

    names = ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert "farm/_migrations/env.py" in names and "farm/cli/app.py" in names


@both
def test_the_right_extras_and_torch(name: str) -> None:
    installs = [text for text in named(dockerfile(name), "RUN") if "pip install" in text]
    extras = "build,fleet,server" if name == "cpu.Dockerfile" else "build,gpu,fleet"
    assert f'".[{extras}]"' in installs[-1]
    pinned = re.search(r'"(torch[^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert pinned and f'"{pinned[1]}"' in installs[0], "the torch that the build extra names"
    assert ("download.pytorch.org/whl/cpu" in installs[0]) is (name == "cpu.Dockerfile")


@both
def test_hadolint(name: str) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, DEPLOY / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
