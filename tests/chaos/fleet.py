"""The processes of a tortured fleet: started, watched, started again when they die, as a machine's supervisor does."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.plan import LEASE_SECONDS
from tests.chaos.servers import die_with_parent
from tests.chaos.spoken import read
from tests.chaos.work import Work

AGAIN_S = 0.3
ROOT = Path(__file__).parents[2]
ENDED_WELL = (0, 4)
"""A service was away at the start: 4, as every command of farm's ends then."""


@dataclass
class Member:
    """One process, through all its lives. ``stops``: its end is its own business, and nobody starts it again."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    folder: Path
    given: str = ""
    stops: bool = False
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False
    due: float = 0.0
    codes: Counter[int] = field(default_factory=Counter)

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def diary(self) -> Path:
        return self.folder / "diary.jsonl"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "given.json").write_text(self.given, "utf-8")
        with self.log.open("ab") as log, (self.folder / "given.json").open("rb") as given:
            self.process = subprocess.Popen(
                self.command,
                env={**self.environment, "PYTHONFAULTHANDLER": "1"},
                cwd=self.folder,
                stdin=given,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

    def ended(self) -> bool:
        """Whether it has ended by itself, having nothing left to do."""
        return self.process is None and self.stops and self.codes[0] > 0

    def look(self) -> None:
        """Start it again where it has died."""
        if self.process is not None and self.process.poll() is not None:
            self.codes[self.process.returncode] += 1
            self.process, self.stopped, self.due = None, False, time.monotonic() + AGAIN_S
        if self.process is None and not self.ended() and time.monotonic() >= self.due:
            self.start()

    def send(self, number: int) -> bool:
        """Send a signal; whether anybody was there."""
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.send_signal(number)
        self.stopped = number == signal.SIGSTOP
        return True

    def children(self) -> list[psutil.Process]:
        """Those of its builds."""
        if self.process is None:
            return []
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def wait(self, seconds: float) -> int | None:
        """The status with which it ended, having been asked to; ``None`` when it had to be killed."""
        if self.process is None:
            return 0
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


@dataclass(frozen=True)
class Fleet:
    """All processes of one run."""

    workers: tuple[Member, ...]
    clients: tuple[Member, ...]

    def __iter__(self) -> Iterator[Member]:
        return iter((*self.workers, *self.clients))

    def look(self) -> None:
        for member in self:
            member.look()

    def done(self) -> bool:
        """Whether every client got to its end."""
        return all(member.ended() for member in self.clients)

    def kill(self) -> None:
        for member in self:
            if member.process is not None:
                member.process.kill()
                member.process.wait()


@dataclass(frozen=True)
class Scene:
    """What all processes of a run share."""

    folder: Path
    programs: Path
    environment: Mapping[str, str]
    seconds: float
    twice: bool
    skew: Path | None


def make_workers(scene: Scene, count: int) -> tuple[Member, ...]:
    """Every other one is elsewhere: that it is dead is told by its lease alone. With ``skew``, one is a minute ahead
    and one a minute behind."""
    members = []
    for n in range(count):
        name = f"w{n}"
        flags = ["--elsewhere"] * (n % 2) + ["--twice"] * scene.twice
        command = [sys.executable, "-m", "tests.chaos.worker", name, "--seconds", str(scene.seconds), *flags]
        environment = environment_of(scene, name) | skewed(scene.skew, {0: 60, 1: -60}.get(n, 0))
        members.append(Member(name, command, environment, scene.folder / name))
    return tuple(members)


def make_clients(scene: Scene, work: Work) -> tuple[Member, ...]:
    members = []
    pieces = [[piece.number, int(piece.fate)] for piece in work.pieces]
    for n, lanes in enumerate(work.clients):
        name = f"c{n}"
        folder = scene.folder / name
        diary = folder / "diary.jsonl"
        command = [sys.executable, "-m", "tests.chaos.client", str(diary), str(scene.programs)]
        given = {"pieces": pieces, "lanes": [[[s.kind, s.numbers, s.pause] for s in steps] for steps in lanes]}
        flags = ["--twice"] * scene.twice
        environment = environment_of(scene, name) | skewed(scene.skew, 60 if n == 1 else 0)
        members.append(Member(name, [*command, *flags], environment, folder, json.dumps(given), stops=True))
    return tuple(members)


def environment_of(scene: Scene, name: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FARM_", "PYTEST_", "COV"))}
    mine = {"FARM_HOME": str(scene.folder / name / "home"), "PYTHONPATH": str(ROOT)}
    return {**kept, **FARM, **scene.environment, **mine}


FARM = {
    "FARM_TOOLCHAIN": "tensorrt_rtx==1.7.1.116",
    "FARM_LEASE_SECONDS": str(LEASE_SECONDS),
    "FARM_BEAT_SECONDS": "0.4",
    "FARM_POLL_SECONDS": "0.7",
    "FARM_DRAIN_SECONDS": "10",
    "FARM_PATIENCE_SECONDS": "20",
}


def skewed(library: Path | None, seconds: int) -> dict[str, str]:
    return {"LD_PRELOAD": str(library), "CLOCK_SKEW": str(seconds)} if library and seconds else {}


def skew_library(folder: Path) -> Path | None:
    """The library that shifts a process's clock; ``None`` where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "skewed_clock.so"
    source = Path(__file__).with_name("skewed_clock.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


def entries(members: Sequence[Member]) -> Iterator[dict[str, object]]:
    """All that clients have said."""
    for member in members:
        yield from read(member.diary)
