"""Processes that compile with Torch-TensorRT over TensorRT-RTX."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import clean_environment, eventually
from tests.support.torch_tensorrt_site import python_path

COMPILES = Path(__file__).with_name("compiles.py")


@dataclass
class Running:
    """A process that compiles, and the file of its output."""

    process: psutil.Process
    out: Path

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.send_signal(signal.SIGKILL)


@dataclass
class Compilers:
    """Processes on one farm's home."""

    parent: subprocess.Popen[str]
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, *jobs: dict[str, Any] | str, **env: str) -> Running:
        plans = self.folder / "plans"
        plans.mkdir(exist_ok=True)
        out = self.folder / f"out-{len(self.running)}"
        extra = {"STAND_IN_PLANS": str(plans), **self.env, **env}
        order = {
            "jobs": "hashes" if jobs == ("hashes",) else jobs,
            "env": clean_environment(self.home, **extra),
            "cwd": str(self.folder),
            "out": str(out),
        }
        assert self.parent.stdin is not None and self.parent.stdout is not None
        self.parent.stdin.write(json.dumps(order) + "\n")
        self.parent.stdin.flush()
        self.running.append(Running(psutil.Process(int(self.parent.stdout.readline())), out))
        return self.running[-1]

    def finish(self, running: Running) -> list[dict[str, Any]]:
        """What it printed."""
        eventually(lambda: not running.process.is_running(), timeout=200, what="the compile")
        lines = running.out.read_text("utf-8", "replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        assert found and found[-1] == {"end": True}, "\n".join(lines[-40:])
        return found[:-1]

    def run(self, *jobs: dict[str, Any] | str, **env: str) -> list[dict[str, Any]]:
        return self.finish(self.start(*jobs, **env))


@pytest.fixture(scope="session")
def importer() -> Iterator[subprocess.Popen[str]]:
    """The process that has imported torch and Torch-TensorRT."""
    environment = {**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, COMPILES],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def compilers(importer: subprocess.Popen[str], tmp_path: Path) -> Iterator[Compilers]:
    made = Compilers(importer, tmp_path)
    yield made
    for running in made.running:
        running.kill()
