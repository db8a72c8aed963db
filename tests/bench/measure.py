"""How things are measured: repeated, the least taken, since what else runs on a machine can only make them slower."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

Command = Sequence[Any]
"""A command's words; paths among them."""
Clock = Callable[[], float]
"""Wall-clock time, or the processor time of this thread: what computes on one core and waits for nothing is timed by
that, so that a busy machine does not count."""


class Unavailable(Exception):
    """What a row needs is not on this machine; the row is skipped with these words."""


@dataclass(frozen=True)
class Row:
    """One figure. ``limit`` is in ``unit``, like ``value``; ``ratio`` is the value by the figure that ``against``
    names (a peer's, else the limit). ``ok`` is ``None`` where there is nothing to be held to."""

    name: str
    value: float | None
    unit: str
    limit: float | None
    against: str
    ratio: float | None
    ok: bool | None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Times:
    """Repeated measurements of one thing, in seconds."""

    all: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.all)

    def said(self, scale: float = 1.0, unit: str = "s") -> str:
        middle = median(self.all)
        return f"least of {len(self.all)}; median {middle * scale:.3g} {unit}, most {max(self.all) * scale:.3g} {unit}"


def limited(name: str, value: float, unit: str, limit: float, note: str = "", against: str = "") -> Row:
    """A figure that must not exceed ``limit``."""
    return Row(
        name, value, unit, limit, against or f"the limit of {limit:g} {unit}", value / limit, value <= limit, note
    )


def beside(name: str, value: float, unit: str, peer: str, figure: float, most: float | None, note: str = "") -> Row:
    """A figure that must be at most ``most`` times a peer's, measured in the same run (``None``: only shown)."""
    limit = None if most is None else most * figure
    ok = None if limit is None else value <= limit
    return Row(name, value, unit, limit, f"{peer}: {figure:.4g} {unit}", value / figure, ok, note)


def shown(name: str, value: float, unit: str, note: str = "") -> Row:
    """A figure without a limit."""
    return Row(name, value, unit, None, "", None, None, note)


def skipped(name: str, why: str) -> Row:
    return Row(name, None, "", None, "", None, None, f"skipped: {why}")


def repeated(action: Callable[[], object], repeats: int, clock: Clock = time.perf_counter) -> Times:
    """Time ``action`` so many times, after once that does not count."""
    action()
    return Times(tuple(timed(action, clock) for _ in range(repeats)))


def alternated(
    one: Callable[[], object], other: Callable[[], object], repeats: int, clock: Clock = time.perf_counter
) -> tuple[Times, Times]:
    """Time both in turns, so that whatever slows the machine down slows both."""
    one(), other()
    pairs = [(timed(one, clock), timed(other, clock)) for _ in range(repeats)]
    return Times(tuple(pair[0] for pair in pairs)), Times(tuple(pair[1] for pair in pairs))


def timed(action: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    started = clock()
    action()
    return clock() - started


@dataclass(frozen=True)
class Process:
    """A command's runs: wall-clock and processor time of each, from start to end."""

    wall: Times
    cpu: Times

    def said(self) -> str:
        return f"{self.wall.said()}; processor time {self.cpu.least:.3g} s"


def processes(
    command: Command,
    repeats: int,
    env: Mapping[str, str] | None = None,
    before: Callable[[], object] = lambda: None,
) -> Process:
    """Run ``command`` so many times, after once that does not count; ``before`` runs, untimed, before each."""
    runs = []
    for _ in range(repeats + 1):
        before()
        runs.append(_run(command, env))
    return Process(Times(tuple(run[0] for run in runs[1:])), Times(tuple(run[1] for run in runs[1:])))


def _run(command: Command, env: Mapping[str, str] | None) -> tuple[float, float]:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    output(command, env)
    wall = time.perf_counter() - started
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime


def output(
    command: Command, env: Mapping[str, str] | None = None, timeout: float = 900, cwd: Path | None = None
) -> str:
    """Run ``command`` to its end and give its standard output; ``Unavailable`` with its last words if it fails."""
    words = [*map(str, command)]
    done = subprocess.run(
        words, env=clean(env), cwd=cwd, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise Unavailable(f"{' '.join(words)[:80]} failed: {_last_words(done)}")
    return done.stdout


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Farm's own complaint, else the last line that says anything."""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if len(line.strip()) > 2]
    own = [line for line in lines if line.startswith("farm:")]
    return (own or lines or [f"exit status {done.returncode}"])[-1]


def clean(env: Mapping[str, str] | None) -> dict[str, str]:
    """The environment of a user who has configured nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FARM_", "PYTHON"))}
    return kept | {"NO_COLOR": "1"} | dict(env or {})


@contextmanager
def folder(where: Path) -> Iterator[Path]:
    """A temporary folder in ``where``."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=where) as name:
        yield Path(name)


class Sampler:
    """Reads a process's memory 500 times a second, in a thread: the kernel's RssAnon and RssFile, in bytes."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.peak: dict[str, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()

    def now(self) -> dict[str, int]:
        lines = (line.split() for line in self._status.read_text().splitlines())
        return {words[0][:-1]: int(words[1]) * 1024 for words in lines if words[0] in ("RssAnon:", "RssFile:")}

    def _sample(self) -> None:
        while not self._done.wait(0.002):
            try:
                found = self.now()
            except OSError:
                return
            for name, size in found.items():
                self.peak[name] = max(size, self.peak.get(name, 0))
