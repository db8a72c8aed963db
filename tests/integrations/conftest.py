"""Processes that compile with Torch-TensorRT over TensorRT-RTX."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import clean_environment
from tests.support.torch_tensorrt_site import python_path

COMPILES = Path(__file__).with_name("compiles.py")


@dataclass
class Compilers:
    """Processes on one farm's home."""

    home: Path
    plans: Path
    env: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *jobs: dict[str, Any], **env: str) -> subprocess.Popen[str]:
        self.plans.mkdir(exist_ok=True)
        extra = {"PYTHONPATH": python_path(), "STAND_IN_PLANS": str(self.plans), **self.env, **env}
        process = subprocess.Popen(
            [sys.executable, COMPILES, json.dumps(jobs)],
            env=clean_environment(self.home, **extra),
            cwd=self.home.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err[-3000:]
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def run(self, *jobs: dict[str, Any], **env: str) -> list[dict[str, Any]]:
        return self.finish(self.start(*jobs, **env))


@pytest.fixture
def compilers(tmp_path: Path) -> Iterator[Compilers]:
    made = Compilers(tmp_path / "home", tmp_path / "plans")
    yield made
    for process in made.running:
        if process.poll() is None:
            process.kill()
            process.wait()
