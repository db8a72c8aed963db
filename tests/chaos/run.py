"""One run: a fleet is set up, asked for engines, tortured, left in peace, asked once more, audited."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from farm.asks import Identity
from farm.builds import BuildState
from farm.config import load
from farm.errors import CorruptBlob, FarmError, Missing
from farm.index import Found
from farm.service import Farm
from tests.chaos import audit, orphans
from tests.chaos.faults import Chaos, Ground
from tests.chaos.fleet import FARM, Fleet, Scene, make_clients, make_workers, skew_library
from tests.chaos.plan import Kind, plan
from tests.chaos.servers import Postgres, Rabbit, Redis
from tests.chaos.spoken import read
from tests.chaos.stores import MIB, S3, Ballast, Folder, small_disk
from tests.chaos.work import Fate, Work, plan_for, work, write_programs
from tests.support.faulty_proxy import FaultyProxy
from tests.support.seaweed import Seaweed

TICK_S = 0.05
START_S = 60.0
REST_S = 180.0
"""Within so many seconds after the last fault everybody must have an answer."""
HEALING_ROUNDS = 6
DRAIN_S = 30.0
STORE_BYTES = 192 * MIB
SCRATCH_BYTES = 6 * MIB


@dataclass(frozen=True)
class Servers:
    """What several runs share."""

    database: Postgres
    broker: Redis | Rabbit
    s3: Seaweed | None
    folder: Path


@dataclass(frozen=True)
class Torture:
    """One run's measures. ``seconds``: for how long faults go on; ``build_seconds``: what a build takes. ``twice``:
    every message is delivered twice; ``skewed``: clocks differ by a minute."""

    seed: int
    builds: int = 500
    workers: int = 4
    clients: int = 3
    kinds: frozenset[Kind] = frozenset(Kind)
    seconds: float = 40.0
    haste: float = 1.0
    build_seconds: float = 0.4
    pause: float = 1.5
    twice: bool = True
    skewed: bool = True
    s3: bool = True


@dataclass(frozen=True)
class Verdict:
    """``wrong`` is empty when all is as it must be. ``phases``: seconds of start, torture, rest and audit."""

    wrong: tuple[str, ...]
    faults: Counter[Kind]
    figures: Mapping[str, int]
    phases: tuple[float, ...]
    folder: Path


@contextlib.contextmanager
def servers(s3: bool = True, rabbit: bool = False) -> Iterator[Servers]:
    """Servers of one's own, until the end of the block. ``NoServer`` where one cannot be had."""
    from tests.support.seaweed import binary, seaweed

    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="farm-chaos-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        database = Postgres(folder)
        stack.callback(database.stop)
        broker = Rabbit() if rabbit else Redis(folder)
        stack.callback(broker.stop)
        server = None
        if s3 and binary() is not None:
            (folder / "s3").mkdir()
            server = stack.enter_context(seaweed(folder / "s3"))
            server.client().create_bucket(Bucket="chaos")
        yield Servers(database, broker, server, folder)


@contextlib.contextmanager
def environment_kept() -> Iterator[None]:
    """What a run sets in this process's environment goes again."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run(torture: Torture, on: Servers, keep: Path | None = None) -> Verdict:
    """Set up, torture, audit. ``keep``: where the diaries and logs go when something is wrong."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment_kept())
        folder = Path(tempfile.mkdtemp(prefix=f"run-{torture.seed}-", dir=on.folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        verdict = _Run(torture, on, folder, stack).verdict()
        if verdict.wrong and keep is not None:
            shutil.copytree(folder, keep / folder.name, ignore=shutil.ignore_patterns("store", "home", "*.so"))
        return verdict


class _Run:
    def __init__(self, torture: Torture, on: Servers, folder: Path, stack: contextlib.ExitStack) -> None:
        self.torture, self.folder = torture, folder
        self.work: Work = work(torture.seed, torture.builds, torture.clients, pause=torture.pause)
        (folder / "programs").mkdir()
        write_programs(folder / "programs")
        self.ground = self._ground(on, stack)
        skew = skew_library(folder) if torture.skewed else None
        environment = {
            "FARM_DATABASE_URL": self.ground.url,
            "FARM_BROKER_URL": on.broker.url,
            **self.ground.store.environment,
        }
        self.scene = Scene(folder, folder / "programs", environment, torture.build_seconds, torture.twice, skew)
        self.fleet = Fleet(make_workers(self.scene, torture.workers), make_clients(self.scene, self.work))
        stack.callback(self.fleet.kill)
        self.wrong: list[str] = []

    def _ground(self, on: Servers, stack: contextlib.ExitStack) -> Ground:
        store: Folder | S3
        full_store = None
        if self.torture.s3 and on.s3 is not None:
            proxy = stack.enter_context(FaultyProxy.start(f"127.0.0.1:{on.s3.port}", seed=self.torture.seed))
            store = S3(on.s3, proxy, "chaos", self.folder.name)
        else:
            place = self.folder / "store"
            full_store = Ballast(place) if stack.enter_context(small_disk(place, STORE_BYTES)) else None
            store = Folder(place)
        home = self.folder / f"w{self.torture.workers - 1}" / "home"
        full_scratch = Ballast(home) if stack.enter_context(small_disk(home, SCRATCH_BYTES)) else None
        return Ground(on.database, on.database.database(), on.broker, store, full_store, full_scratch)

    def verdict(self) -> Verdict:
        began = time.monotonic()
        self._await(self._at_work, START_S, lambda: "nothing begins")
        tortured = time.monotonic()
        faults = self._torture()
        rested = time.monotonic()
        self._rest()
        with Farm.open(load({**FARM, **self.scene.environment, "FARM_HOME": str(self.folder / "auditor")})) as farm:
            identities = farm.identify([piece.ask(self.scene.programs) for piece in self.work.pieces])
            self._settle(farm)
            quiet = time.monotonic()
            self._heal(farm, identities)
        self._end()
        self.wrong += self._orphans()
        case = audit.case_of(self.work, identities, self.ground.url, self.fleet.clients)
        self.wrong += audit.all_wrong(case, self.ground.store.true)
        figures = audit.figures(case) | {"healed": self.healed, "orphans collected": self.collected}
        phases = (tortured - began, rested - tortured, quiet - rested, time.monotonic() - quiet)
        return Verdict(tuple(self.wrong), faults, figures, phases, self.folder)

    # -- phases ------------------------------------------------------------------------------------------------

    def _at_work(self) -> bool:
        """Whether the fleet has begun: before that, faults befall nobody."""
        with psycopg.connect(self.ground.url) as connection:
            there = connection.execute("SELECT count(*) FROM workers").fetchone()
        asked = all(any(True for _ in read(member.diary)) for member in self.fleet.clients)
        return asked and there is not None and there[0] >= len(self.fleet.workers)

    def _torture(self) -> Counter[Kind]:
        kinds = self.torture.kinds & self.ground.possible()
        faults = plan(self.torture.seed, kinds, self.torture.seconds, self.torture.haste)
        chaos = Chaos(self.ground, self.fleet, faults)
        began = time.monotonic()
        try:
            while (now := time.monotonic() - began) < self.torture.seconds and not self._all_done(now):
                chaos.tick(now)
                self.fleet.look()
                time.sleep(TICK_S)
        finally:
            chaos.heal()
        return chaos.done

    def _all_done(self, now: float) -> bool:
        """Faults that nobody meets are none."""
        return now > 1.0 and self.fleet.done()

    def _rest(self) -> None:
        """Let the clients come to their ends."""
        self._await(self.fleet.done, REST_S, lambda: f"clients are not done: {self._unfinished()}")

    def _unfinished(self) -> list[str]:
        return [member.name for member in self.fleet.clients if not member.ended()]

    def _settle(self, farm: Farm) -> None:
        """Let the builds end that nobody waits for."""
        states = (BuildState.QUEUED, BuildState.RUNNING)

        def nothing_left() -> bool:
            with contextlib.suppress(FarmError):
                return not farm.index.builds(states=states, limit=1)
            return False

        self._await(nothing_left, REST_S, lambda: f"builds do not end: {farm.index.builds(states=states, limit=5)}")

    def _await(self, condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.wrong.append(what())
                return
            self.fleet.look()
            time.sleep(TICK_S)

    def _heal(self, farm: Farm, identities: Sequence[Identity]) -> None:
        """Ask for everything once more, as a user would: what was damaged is found out, and made again."""
        self.healed = 0
        numbers = [n for n in sorted(self.work.wanted) if self.work.pieces[n].fate is not Fate.POISON]
        for _ in range(HEALING_ROUNDS):
            missing = [n for n in numbers if not self._sound(farm, n)]
            if not missing:
                return
            self.healed += len(missing)
            farm.wait(farm.submit([self.work.pieces[n].ask(self.scene.programs) for n in missing]), timeout=60.0)
        self.wrong.append(f"pieces {missing} cannot be had")

    def _sound(self, farm: Farm, number: int) -> bool:
        """Whether the engine is there, and right."""
        ((identity, found),) = farm.look([self.work.pieces[number].ask(self.scene.programs)])
        if not isinstance(found, Found):
            return False
        dest = self.folder / "auditor.plan"
        try:
            farm.cache.fetch(found.engine, dest)
        except (CorruptBlob, Missing):
            return False
        if dest.read_bytes() != plan_for(identity):
            self.wrong.append(f"the auditor was served wrong bytes for piece {number}")
        return True

    def _end(self) -> None:
        for member in self.fleet.workers:
            member.send(signal.SIGTERM)
        for member in self.fleet.workers:
            status = member.wait(DRAIN_S)
            if status != 0:
                self.wrong.append(f"{member.name} was asked to stop, and ended with {status}")
        self.wrong += audit.processes(self.fleet, self.folder)
        self.wrong += audit.left_in_scratch(self.fleet.workers)

    def _orphans(self) -> Iterator[str]:
        self.collected = orphans.reconcile(self.ground.url, self.ground.store.true)
        left = orphans.find(self.ground.url, self.ground.store.true)
        if left:
            yield f"orphans are left after one reconcile: {left}"


def alone(kind: Collection[Kind], seed: int = 1, **changes: object) -> Torture:
    """One fault by itself, briefly."""
    brief = Torture(
        seed, builds=36, workers=2, clients=1, kinds=frozenset(kind), seconds=5.0, haste=3.0, pause=0.4, twice=False
    )
    return replace(brief, skewed=False, s3=False, **changes)  # type: ignore[arg-type]
