"""Processes that merge timings against one scope, die at any moment, and are started again.

    python -m tests.support.timing_merges BACKEND FOLDER [--merges 1000] [--processes 8]
        [--seed 1] [--die 0.004] [--careless]

BACKEND is ``folder``, or an S3 URL with its endpoint after a blank. Each process learns its share of the merges: an
operation of its own, and one that others time differently. Around every read and write it may die (SIGKILL to itself),
be refused, or be told that it was refused though it was not; from outside, one process after another is killed. Each
merge that was acknowledged is written down with the tactics that it then had. Prints JSON: whether all of them are
there in the end, unchanged, and how often what happened. ``--careless``: over objects that overwrite whatever is there,
which must be found out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farm.errors import Unavailable
from farm.store import Blob, BlobStore, Versioned, VersionedObjects
from farm.timing import Lesson, TimingCaches
from farm.timing_history import Author
from tests.support.timing_model import SCOPE, cache, combine, entries

REFUSE, FALSELY_REFUSE, AWAY = 0.05, 0.03, 0.01
DIE = 0.004
"""How likely it is to die before or after one access; fewer merges need more of it to meet death everywhere."""
SHARED = 40
"""Operations that every process times."""
KILL_EVERY = 15
"""Merges acknowledged between two kills from outside: by the clock, a slow machine would come to nothing."""
LOOK_S = 0.05


class Harsh:
    """Objects and blobs of a bad day. Deaths before and after everything that is read or written."""

    def __init__(
        self, objects: VersionedObjects, store: BlobStore, rng: random.Random, events: Path, die: float
    ) -> None:
        self._objects, self._store, self._rng, self._events, self._die = objects, store, rng, events, die

    def read_versioned(self, name: str) -> Versioned | None:
        return self._around(lambda: self._objects.read_versioned(name), "read of the pointer")

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        if self._rng.random() < REFUSE:
            self._note("refused")
            return None
        written = self._around(lambda: self._objects.write_if(name, data, version), "write of the pointer")
        if written is None:
            self._note("met another")
        elif self._rng.random() < FALSELY_REFUSE:
            self._note("falsely refused")
            return None
        return written

    def put(self, source: Any) -> Blob:
        return self._around(lambda: self._store.put(source), "write of the blob")

    def read(self, digest: str) -> bytes | None:
        return self._around(lambda: self._store.read(digest), "read of the blob")

    def _around(self, call: Callable[[], Any], what: str) -> Any:
        self._may_die(f"before the {what}")
        if self._rng.random() < AWAY / 2:
            raise Unavailable("away before it was done")
        answer = call()
        self._may_die(f"after the {what}")
        if self._rng.random() < AWAY / 2:
            raise Unavailable("away after it was done")
        return answer

    def _may_die(self, where: str) -> None:
        if self._rng.random() < self._die:
            self._note(f"died {where}")
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, what: str) -> None:
        append(self._events, what)


class Careless:
    """Objects that anybody overwrites."""

    def __init__(self, objects: VersionedObjects) -> None:
        self._objects = objects

    def read_versioned(self, name: str) -> Versioned | None:
        return self._objects.read_versioned(name)

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        now = self._objects.read_versioned(name)
        return self._objects.write_if(name, data, now and now.version)


def append(path: Path, line: str) -> None:
    """One line, whole or not at all: nothing is buffered that a death would lose."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, line.encode() + b"\n")
    os.close(descriptor)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@dataclass
class Run:
    """One process's share: merges ``number``, ``number + processes``, …"""

    backend: str
    folder: Path
    number: int
    merges: list[int]
    careless: bool = False
    die: float = DIE
    life: int = 0

    @property
    def acknowledged(self) -> Path:
        return self.folder / f"acknowledged-{self.number}"

    def left(self) -> list[int]:
        done = {json.loads(line)["merge"] for line in lines(self.acknowledged)}
        return [merge for merge in self.merges if merge not in done]

    def work(self, seed: int) -> None:
        """Learn what is left; in a process of its own."""
        rng = random.Random(f"{seed} {self.number} {self.life}")
        objects, store = opened(self.backend, self.folder)
        objects = Careless(objects) if self.careless else objects
        harsh = Harsh(objects, store, rng, self.folder / f"events-{self.number}", self.die)
        caches = TimingCaches(harsh, harsh, pause=0.002)  # type: ignore[arg-type]
        while left := self.left():
            for merge in left:
                with contextlib.suppress(Unavailable):
                    self.learn(caches, store, merge, rng)

    def learn(self, caches: TimingCaches, store: BlobStore, merge: int, rng: random.Random) -> None:
        mine = {f"own {merge}": f"tactic of {self.number}", f"shared {merge % SHARED}": f"tactic of {self.number}"}
        author = Author(f"process {self.number}")
        lesson = Lesson(cache(mine), author)
        if rng.random() < 0.7 and (latest := caches.latest(SCOPE)):
            version, data = latest
            lesson = Lesson(cache({**mine, **entries(data)}), author, taken=version.number)
        version = caches.learn(SCOPE, lesson, combine).version
        assert version is not None
        held = entries(store.read(version.digest) or b"{}")
        append(self.acknowledged, json.dumps({"merge": merge, "tactics": {name: held[name] for name in mine}}))


def opened(backend: str, folder: Path) -> tuple[VersionedObjects, BlobStore]:
    if backend == "folder":
        from farm.blobs.folder import FolderStore
        from farm.blobs.folder_objects import FolderObjects

        return FolderObjects(folder / "store"), FolderStore(folder / "store")
    from farm.blobs.s3 import open_s3
    from farm.blobs.s3_objects import open_s3_objects

    url, endpoint = backend.split()
    return open_s3_objects(url, endpoint), open_s3(url, endpoint)


@dataclass
class Crowd:
    """The processes, each started again when it dies before its share is done."""

    runs: list[Run]
    seed: int
    rng: random.Random = field(init=False)
    alive: dict[int, Run] = field(default_factory=dict)
    killed: int = 0
    deaths: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def go(self) -> None:
        for run in self.runs:
            self.start(run)
        while self.alive:
            done = sum(len(lines(run.acknowledged)) for run in self.runs)
            if done >= (self.killed + 1) * KILL_EVERY:
                self.killed += 1
                os.kill(self.rng.choice(list(self.alive)), signal.SIGKILL)
            self.reap()
            time.sleep(LOOK_S)

    def start(self, run: Run) -> None:
        run.life += 1
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run.work(self.seed)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        self.alive[pid] = run

    def reap(self) -> None:
        for pid, run in list(self.alive.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self.alive[pid]
            if os.WIFSIGNALED(status):
                self.deaths += 1
                self.start(run)
            elif status != 0:
                raise SystemExit(f"process {run.number} failed")


def verdict(crowd: Crowd, backend: str, folder: Path) -> dict[str, Any]:
    """What was acknowledged, against what is there."""
    objects, store = opened(backend, folder)
    latest = TimingCaches(objects, store).latest(SCOPE)
    held = entries(latest[1]) if latest else {}
    acknowledged = [json.loads(line) for run in crowd.runs for line in lines(run.acknowledged)]
    events = Counter(event for run in crowd.runs for event in lines(folder / f"events-{run.number}"))
    return {
        "acknowledged": len(acknowledged),
        "lost": [one for one in acknowledged if any(name not in held for name in one["tactics"])],
        "changed": [
            one
            for one in acknowledged
            if any(held.get(name, tactic) != tactic for name, tactic in one["tactics"].items())
        ],
        "versions": latest[0].number if latest else 0,
        "deaths": crowd.deaths,
        "killed": crowd.killed,
        "events": dict(sorted(events.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--merges", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--die", type=float, default=DIE)
    parser.add_argument("--careless", action="store_true")
    told = parser.parse_args()
    runs = [
        Run(told.backend, told.folder, n, list(range(n, told.merges, told.processes)), told.careless, told.die)
        for n in range(told.processes)
    ]
    opened(told.backend, told.folder)  # whatever this imports, it imports once and not after every death
    began = time.monotonic()
    crowd = Crowd(runs, told.seed)
    crowd.go()
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({**verdict(crowd, told.backend, told.folder), "seconds": seconds}))


if __name__ == "__main__":
    main()
