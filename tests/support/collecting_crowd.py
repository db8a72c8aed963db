"""Collection beside builders and readers, all of them real processes: nobody loses what was promised.

    python -m tests.support.collecting_crowd build|read|collect

is one of them, configured by the environment as farm is; ``run`` starts all and looks. Builders (``noop_worker`` each)
build what readers ask for. Readers look an engine up, wait for as long as they may, and then fetch it: one that is gone
is a broken promise. Collectors bring the farm down to a budget all the time, and say how far they came; they may be
killed at any moment, and others follow. Some engines are pinned.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.asks import Ask, Outcome
from farm.builders import Job, Product, Watch
from farm.collecting import Collect, things_of
from farm.collection import Kind, Rules, bytes_of, why_kept
from farm.config import Config, load
from farm.dispatch import Station
from farm.errors import CorruptBlob, FarmError, Missing, Unavailable
from farm.index import Found
from farm.pinning import pinned_of
from farm.reconcile import Reconcile
from farm.repair import Repair
from farm.service import Farm
from farm.store import lost
from farm.upkeep import Holder
from farm.wiring.backends import gone_workers, open_store, open_upkeep
from tests.chaos.servers import die_with_parent
from tests.support.asker import Elsewhere
from tests.support.noop import NoopBuilder
from tests.support.noop_worker import QUEUE, open_noop_crew

SIZE = 64 * 1024
"""Bytes of an engine."""
BUDGET = 10 * SIZE
PINNED = 3
CAPABILITIES = (75, 80, 86, 89, 120, 121)
TARGETS = ["+".join(f"sm_{n}" for n in some) for k in (1, 2) for some in itertools.combinations(CAPABILITIES, k)]
MOST_OF_GRACE = 0.7
"""How much of the grace period a reader waits at most between look-up and fetch."""
SURE_OF_GRACE = 0.95
"""A machine that was busy for so much of it has kept the reader from keeping its own side."""
HERE = Path(__file__).parents[2]


class SizedBuilder(NoopBuilder):
    """Makes plans of ``SIZE``, the same for the same job."""

    def build(self, job: Job, watch: Watch) -> Product:
        product = super().build(job, watch)
        plan = product.plan.read_bytes()
        product.plan.write_bytes(plan.ljust(SIZE, b"."))
        return replace(product, size=SIZE)


# -- the roles, each a process ---------------------------------------------------------------------------------


def build(config: Config, hands: int, stop: threading.Event) -> None:
    crew = open_noop_crew(config, SizedBuilder(seconds=0.02, jitter=0.9), hands, (QUEUE,))
    index = crew.worker.shop.index
    repair = Repair(index, lambda counts: None, lambda: gone_workers(index))
    station = Station(config.broker_url, crew, repair.now)
    station.start(5.0)
    say("ready")
    while not stop.wait(0.3):
        with contextlib.suppress(Unavailable):
            repair.tick()
    station.stop(2.0)
    index.close()


def read(config: Config, model: str, threads: int, folder: Path, stop: threading.Event) -> None:
    """Until a line comes; then what was read is said."""
    tallies = [Counter[str]() for _ in range(threads)]
    wrongs: list[str] = []
    opened = threading.Barrier(threads + 1)

    def go(number: int) -> None:
        with Farm.open(config) as farm:
            farm.dispatch = Elsewhere()
            reader = Reader(farm, model, folder / f"{os.getpid()}-{number}", tallies[number], wrongs)
            opened.wait()
            while not stop.is_set():
                reader.once(stop)

    readers = [threading.Thread(target=go, args=(number,)) for number in range(threads)]
    for reader in readers:
        reader.start()
    opened.wait()
    say("ready")
    stop.wait()
    for reader in readers:
        reader.join()
    say(json.dumps({"tally": dict(sum(tallies, Counter[str]())), "wrong": wrongs}))


@dataclass
class Reader:
    farm: Farm
    model: str
    dest: Path
    tally: Counter[str]
    wrongs: list[str]

    def once(self, stop: threading.Event) -> None:
        """Look one up; fetch it as late as may be, or have it built."""
        rng = random.Random()
        target = TARGETS[min(int(rng.expovariate(1 / 6)), len(TARGETS) - 1)]
        asks = [Ask(self.model, target)]
        began = time.monotonic()
        ((identity, found),) = self.farm.look(asks)
        if not isinstance(found, Found):
            self.tally["missed"] += 1
            (answer,) = self.farm.wait(self.farm.submit(asks), timeout=30.0)
            if answer.outcome is Outcome.FAILED:
                self.wrongs.append(f"{target}: {answer.error}")
            return
        stop.wait(rng.random() * MOST_OF_GRACE * self.farm.config.gc_grace)
        try:
            self.farm.cache.fetch(found.engine, self.dest)
        except (Missing, CorruptBlob) as error:
            late = time.monotonic() - began > SURE_OF_GRACE * self.farm.config.gc_grace
            self.tally["late" if late else "lost"] += 1
            if not late:
                self.wrongs.append(f"{target}: promised, and then: {error.message}")
            return
        if self.dest.stat().st_size != SIZE or found.engine.manifest["recipe"] != identity.recipe:
            self.wrongs.append(f"{target}: another engine was handed out")
        self.tally["read"] += 1


def collect(config: Config, stop: threading.Event) -> None:
    """All the time; each run's outcome is a line."""
    index, store = open_upkeep(config), open_store(config)
    rules = Rules(max_bytes=BUDGET, grace=config.gc_grace)
    say("ready")
    while not stop.is_set():
        try:
            done = Collect(index, store, rules, sure=True).run()
        except FarmError as error:
            say(json.dumps({"error": str(error)}))
            return
        line = {"going": len(done.going), "freed": bytes_of(one.thing for one in done.going), "left": done.left}
        say(json.dumps(line | {"kept": done.kept, "removed": done.removed}))
        stop.wait(0.05)


def say(line: str) -> None:
    print(line, flush=True)


# -- who starts them, and looks --------------------------------------------------------------------------------


class Process:
    """A role in a process of its own; its lines are gathered."""

    def __init__(self, *words: str, env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.support.collecting_crowd", *words]
        self._popen = subprocess.Popen(
            command,
            cwd=HERE,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        self.lines: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            if line.strip() == "ready":
                self._ready.set()
            elif line.endswith("\n"):
                self.lines.append(line)
        self._ready.set()

    def wait_ready(self) -> None:
        assert self._ready.wait(120.0) and self._popen.poll() is None, "it does not start"

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self._popen.send_signal(how)
        code = self._popen.wait(60.0)
        self._reader.join(10.0)
        return code


@dataclass(frozen=True)
class Crowd:
    """How many of each. ``kill``: seconds between two kills of a collector; 0 for none."""

    builders: int = 4
    readers: int = 8
    threads: int = 1
    collectors: int = 1
    kill: float = 0.0


def run(env: dict[str, str], folder: Path, model: Path, seconds: float, crowd: Crowd) -> dict[str, Any]:
    """All of it, for so many seconds after everybody is there."""
    config = load(env, folder)
    with crowding(env, folder, model, crowd) as (builders, readers, collectors):
        pins = pin_some(config, model)
        began = time.monotonic()
        finished: list[Process] = []
        while time.monotonic() - began < seconds:
            time.sleep(random.random() * 2 * crowd.kill if crowd.kill else seconds / 20)
            if crowd.kill:
                victim = collectors.pop(0)
                victim.end(signal.SIGKILL)
                finished.append(victim)
                collectors.append(Process("collect", env=env))
                collectors[-1].wait_ready()
        codes = [one.end() for one in (*readers, *collectors, *builders)]
    told = [json.loads(reader.lines[-1]) for reader in readers]
    runs = [json.loads(line) for one in (*finished, *collectors) for line in one.lines]
    wrong = [text for one in told for text in one["wrong"]] + balance(runs)
    if any(codes):
        wrong.append(f"processes ended with {codes}")
    read = dict(sum((Counter(one["tally"]) for one in told), Counter[str]()))
    return {
        "read": read,
        "runs": len(runs),
        "collected": sum(one.get("going", 0) for one in runs),
        "removed": sum(one.get("removed", 0) for one in runs),
        "killed": len(finished),
        "wrong": wrong + settle(config, pins),
    }


@contextlib.contextmanager
def crowding(
    env: dict[str, str], folder: Path, model: Path, crowd: Crowd
) -> Iterator[tuple[list[Process], list[Process], list[Process]]]:
    builders = [Process("build", f"--hands={2 if crowd.threads > 1 else 1}", env=env) for _ in range(crowd.builders)]
    words = ("read", f"--threads={crowd.threads}", f"--model={model}", f"--folder={folder}")
    readers = [Process(*words, env=env) for _ in range(crowd.readers)]
    collectors = [Process("collect", env=env) for _ in range(crowd.collectors)]
    try:
        for one in (*builders, *readers, *collectors):
            one.wait_ready()
        yield builders, readers, collectors
    finally:
        for one in (*builders, *readers, *collectors):
            if one._popen.poll() is None:
                one.end(signal.SIGKILL)


def pin_some(config: Config, model: Path) -> list[str]:
    """Have a few built, and pinned; the digests."""
    with Farm.open(config) as farm:
        farm.dispatch = Elsewhere()
        asks = [Ask(str(model), target) for target in TARGETS[-PINNED:]]
        for _ in range(20):
            farm.wait(farm.submit(asks), timeout=30.0)
            found = [hit for _, hit in farm.look(asks)]
            with contextlib.suppress(Missing):
                hits = [hit for hit in found if isinstance(hit, Found)]
                if len(hits) == PINNED:
                    return [one.digest for one in farm.pin([pinned_of(hit.engine) for hit in hits], "kept").engines]
        raise AssertionError("the engines that are to be pinned are not built")


def balance(runs: Sequence[dict[str, Any]]) -> list[str]:
    """What a run that was not killed leaves: no more than the budget unless nothing is left that may go; and no less
    than the budget by more than one engine, if it took anything for its sake."""
    wrong = [f"a run failed: {one['error']}" for one in runs if "error" in one]
    for one in (one for one in runs if "error" not in one):
        if one["left"] > max(BUDGET, one["kept"]):
            wrong.append(f"left {one['left']}, of which {one['kept']} may not go; the budget is {BUDGET}")
        if one["going"] and one["left"] + SIZE < BUDGET:
            wrong.append(f"only {one['left']} left of a budget of {BUDGET}")
    return wrong


def settle(config: Config, pins: Sequence[str]) -> list[str]:
    """When everybody has gone: two more runs, a grace period apart, leave what should be there and nothing else."""
    index, store = open_upkeep(config), open_store(config)
    try:
        for build in index.builds(states=()):
            if build.state.active:
                index.cancel(build.id)
        index.reap([worker.id for worker in index.workers()])
        rules = Rules(max_bytes=BUDGET, grace=config.gc_grace)
        deadline = time.monotonic() + 20 * config.gc_grace + 20
        while time.monotonic() < deadline:
            done = Collect(index, store, rules, sure=True).run()
            if not done.waiting and done.left <= BUDGET:
                break
            time.sleep(config.gc_grace / 4)
        # What a builder stored whose lease had run out, nobody ever named: that is reconcile's to remove.
        Reconcile(index, store, Repair(index, lambda counts: None, set), grace=config.gc_grace, sure=True).run()
        return left_wrong(index, store, config, pins)
    finally:
        index.close()


def left_wrong(index: Any, store: Any, config: Config, pins: Sequence[str]) -> list[str]:
    wrong = []
    holdings = [row for holder in Holder for row in index.holdings(holder)]
    named = {blob for row in holdings for blob in row.blobs}
    if gone := lost(store, named):
        wrong.append(f"rows without their blobs: {sorted(gone)}")
    blobs = {blob.digest for blob in store.blobs()}
    if over := blobs - index.named(list(blobs)):
        before = store.clock() - config.gc_grace
        old = [blob.digest for blob in store.blobs() if blob.digest in over and blob.modified < before]
        wrong.append(f"blobs that nothing names: {len(over)}, of them old {old}")
    if index.condemned()[0]:
        wrong.append(f"{index.condemned()[0]} blobs are still condemned")
    safe = index.protected()
    things = list(things_of(index, tuple(Kind), safe))
    if bytes_of(things) > BUDGET:
        wrong.append(f"{bytes_of(things)} bytes are left of a budget of {BUDGET}")
    kept = {thing.blobs[0] for thing in things if why_kept(thing, Rules(grace=0.0), safe.now)}
    if not set(pins) <= kept or len(set(pins)) != PINNED:
        wrong.append(f"pinned {pins}, and kept {kept}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["build", "read", "collect"])
    parser.add_argument("--hands", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="")
    parser.add_argument("--folder", type=Path, default=Path())
    given = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    config = load()
    if given.role == "build":
        build(config, given.hands, stop)
    elif given.role == "read":
        read(config, given.model, given.threads, given.folder, stop)
    else:
        collect(config, stop)


if __name__ == "__main__":
    main()
