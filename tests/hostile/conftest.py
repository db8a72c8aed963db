"""The programs that hostile files are made of, and the process that lets torch load those."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile.forge import NAMES, Archive

from tests.conftest import made_once

HERE = Path(__file__).parent


class TorchChild:
    """A process in which torch loads files, each in a fork of its own with a time limit."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, HERE / "child.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def ask(self, file: Path, **job: Any) -> dict[str, Any]:
        """Load ``file``; also ``describe``, ``run`` or ``export`` it if so asked. What came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"file": str(file), **job}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="session")
def torch_child() -> Iterator[TorchChild]:
    pytest.importorskip("torch")
    child = TorchChild()
    yield child
    child.close()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs of ``export_programs``, exported once for all test processes. Read-only."""
    with made_once(tmp_path_factory, "farm-hostile-programs") as (folder, empty):
        if empty:
            pytest.importorskip("torch")
            subprocess.run([sys.executable, HERE / "export_programs.py", folder], check=True, timeout=240)
    return folder


@pytest.fixture(scope="session")
def archives(exported: Path) -> dict[str, Archive]:
    """The programs, taken apart."""
    return {name: Archive(exported / f"{name}.pt2") for name in NAMES}
