"""Fixtures that the whole suite shares: the test programs, a fresh farm, and the command line as a process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.forks import Forks

FARM = [sys.executable, "-m", "farm"]
HERE = Path(__file__).parent
_forks = Forks()
_FOR_PYTHON = ("PYTHONPATH", "PYTHONHASHSEED", "LD_PRELOAD")
"""What an interpreter reads when it starts: with others of these, a command needs one of its own."""

# A shell starts what runs in the background with Ctrl-C ignored, and what is ignored here would be in every farm that a
# test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A run starts a thousand interpreters, each of which would compile all that it imports of farm: bytecode is kept, even
# where nobody else keeps it. (The processes that tests are distributed to start after this.)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def clean_environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a user who has configured nothing but where the farm lives."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FARM_", "PYTEST_"))}
    return kept | {"FARM_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "80"} | extra


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Farms:
    """One farm's home, and its command line in processes of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.cwd = home.parent
        self._running: list[subprocess.Popen[str]] = []

    def run(self, *args: str | Path, timeout: float = 120, env: dict[str, str] | None = None) -> Ran:
        """Run ``farm ARGS`` to its end."""
        words, whole = [str(arg) for arg in args], clean_environment(self.home, **(env or {}))
        if all(whole.get(name) == os.environ.get(name) for name in _FOR_PYTHON):
            with tempfile.TemporaryDirectory(prefix="farm-said-") as folder:
                ran = _forks.run(words, whole, self.cwd, Path(folder), timeout)
            if ran is not None:
                return Ran(*ran)
        done = subprocess.run([*FARM, *words], env=whole, cwd=self.cwd, capture_output=True, text=True, timeout=timeout)
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *args: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start ``farm ARGS``; it is killed at the end of the test if it still runs."""
        process = subprocess.Popen(
            [*FARM, *map(str, args)],
            env=clean_environment(self.home, **(env or {})),
            cwd=self.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], timeout: float = 120) -> Ran:
        out, err = process.communicate(timeout=timeout)
        return Ran(process.returncode, out, err)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


def descendants(pid: int) -> list[psutil.Process]:
    """The processes below ``pid``."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def eventually(condition: Callable[[], Any], timeout: float = 60, what: str = "the condition") -> Any:
    """Poll until ``condition`` gives something true, and return that."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about within {timeout} s")


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farms]:
    farms = Farms(tmp_path / "home")
    yield farms
    farms.close()


@contextlib.contextmanager
def made_once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that all test processes of a run share, and whether it is still to be filled. The first comer fills it
    while the others wait; what fails in doing so is tried again by the next."""
    folder = factory.getbasetemp().parent / name
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        yield folder, not done.exists()
        done.touch()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small programs, exported once for all test processes. Read-only: copy before you change one."""
    with made_once(tmp_path_factory, "farm-test-programs") as (folder, empty):
        if empty:
            pytest.importorskip("torch")
            subprocess.run([sys.executable, HERE / "programs_for_tests.py", folder], check=True, timeout=240)
    return folder


WARM = ("gemm.pt2", "conv.pt2", "deep.pt2")
WARM_TARGET = "sm_120"
"""What the warm farm has engines for; tests ask for other targets."""


@pytest.fixture(scope="session")
def warmed(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a farm with the forms of ``WARM`` and an engine of each; copy it before use. An export takes seconds,
    and few tests are about it."""
    with made_once(tmp_path_factory, "farm-warm") as (folder, empty):
        if empty:
            shutil.rmtree(folder / "home", ignore_errors=True)
            farms = Farms(folder / "home")
            done = farms.run("build", *(programs / name for name in WARM), "-t", WARM_TARGET, timeout=280)
            assert done.code == 0, done.err
    return folder / "home"


ASKED = ("engines", "serving", "uses", "usage", "key_parts", "attempts", "events", "waiters", "log_chunks", "builds")
"""The tables of what was asked for and came of it, those that refer to others first."""


@pytest.fixture(scope="session")
def formed(warmed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a farm that has the forms of ``WARM``, and has never been asked for anything; copy it before use."""
    home = tmp_path_factory.mktemp("formed") / "home"
    shutil.copytree(warmed, home)
    with contextlib.closing(sqlite3.connect(home / "farm.db")) as connection:
        for table in ASKED:
            connection.execute(f"DELETE FROM {table}")
        connection.commit()
    return home


@pytest.fixture
def copied(programs: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copy one of ``programs`` beside the farm's home and give its path."""

    def copy(name: str) -> Path:
        return Path(shutil.copy(programs / name, tmp_path / name))

    return copy
