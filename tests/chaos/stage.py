"""Where a fleet is tortured: servers of one's own, a store, small disks, programs, and the fleet itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from farm.config import load
from farm.service import Farm
from tests.chaos import audit, orphans
from tests.chaos.faults import Ground
from tests.chaos.fleet import ENDED_WELL, FARM, Fleet, Scene, environment_of, make_clients, make_workers, skew_library
from tests.chaos.plan import Kind
from tests.chaos.servers import Postgres, Rabbit, Redis
from tests.chaos.spoken import Diary, read
from tests.chaos.stores import MIB, S3, Ballast, Folder, small_disk
from tests.chaos.work import Work, write_programs
from tests.support.faulty_proxy import FaultyProxy
from tests.support.seaweed import Seaweed

TICK_S = 0.05
DRAIN_S = 30.0
GRACE_S = 20.0
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
    """One run's measures. ``seconds``: for how long faults go on, unless all is answered before; ``build_seconds``:
    what a build takes. ``twice``: every message is delivered twice; ``skewed``: clocks differ by a minute."""

    seed: int
    builds: int = 500
    workers: int = 4
    clients: int = 3
    kinds: frozenset[Kind] = frozenset(Kind)
    seconds: float = 150.0
    haste: float = 1.0
    build_seconds: float = 0.4
    pause: float = 1.5
    twice: bool = True
    skewed: bool = True
    s3: bool = True


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


class Stage:
    """A fleet on ``on``, with the clients of ``work``. ``stack`` takes it down; ``wrong`` is what was found so far."""

    def __init__(self, torture: Torture, work: Work, on: Servers, stack: contextlib.ExitStack) -> None:
        stack.enter_context(environment_kept())
        self.folder = Path(tempfile.mkdtemp(prefix=f"run-{torture.seed}-", dir=on.folder))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        programs = self.folder / "programs"
        programs.mkdir()
        write_programs(programs)
        self.ground = self._ground(torture, on, stack)
        environment = {
            "FARM_DATABASE_URL": self.ground.url,
            "FARM_BROKER_URL": on.broker.url,
            **self.ground.store.environment,
        }
        skew = skew_library(self.folder) if torture.skewed else None
        self.scene = Scene(self.folder, programs, environment, torture.build_seconds, torture.twice, skew)
        self.fleet = Fleet(make_workers(self.scene, torture.workers), make_clients(self.scene, work))
        stack.callback(lambda: self.fleet.kill())
        self.diary = Diary(self.folder / "faults.jsonl")
        self.wrong: list[str] = []
        self._keepers: list[subprocess.Popen[str]] = []

    def _ground(self, torture: Torture, on: Servers, stack: contextlib.ExitStack) -> Ground:
        store: Folder | S3
        full_store = None
        if torture.s3 and on.s3 is not None:
            proxy = stack.enter_context(FaultyProxy.start(f"127.0.0.1:{on.s3.port}", seed=torture.seed))
            store = S3(on.s3, proxy, "chaos", self.folder.name)
        else:
            place = self.folder / "store"
            full_store = Ballast(place) if stack.enter_context(small_disk(place, STORE_BYTES)) else None
            store = Folder(place)
        home = self.folder / f"w{torture.workers - 1}" / "home"
        full_scratch = Ballast(home) if stack.enter_context(small_disk(home, SCRATCH_BYTES)) else None
        return Ground(on.database, on.database.database(), on.broker, store, full_store, full_scratch)

    def add_clients(self, work: Work) -> None:
        """Others, in place of those that there were."""
        self.fleet = replace(self.fleet, clients=make_clients(self.scene, work))

    def farm(self) -> Farm:
        """The farm as an auditor sees it, who keeps no copies that would hide what is damaged. To be closed."""
        mine = {"FARM_HOME": str(self.folder / "auditor"), "FARM_STORE_CACHE": "0"}
        return Farm.open(load({**FARM, **self.scene.environment, **mine}))

    def at_work(self) -> bool:
        """Whether the fleet has begun: before that, faults befall nobody."""
        return self.staffed() and all(any(True for _ in read(member.diary)) for member in self.fleet.clients)

    def staffed(self) -> bool:
        """Whether every worker has come up: one that was started while a service was away has ended in words."""
        with psycopg.connect(self.ground.url) as connection:
            there = set(connection.execute("SELECT host, pid FROM workers").fetchall())
        return all((one.name, one.process.pid if one.process else 0) in there for one in self.fleet.workers)

    def wait(self, condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
        """Keep the fleet's processes going until ``condition``; what has not come about by then is wrong."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.wrong.append(what())
                return
            self.fleet.look()
            time.sleep(TICK_S)

    def end(self) -> None:
        """Ask the workers to stop, and look at what they leave."""
        self.end_reconcile()
        for member in self.fleet.workers:
            member.send(signal.SIGTERM)
        for member in self.fleet.workers:
            status = member.wait(DRAIN_S)
            if status != 0:
                self.wrong.append(f"{member.name} was asked to stop, and ended with {status}")
        self.wrong += audit.processes(self.fleet, self.folder)
        self.wrong += audit.left_in_scratch(self.fleet.workers)

    def begin_reconcile(self) -> None:
        """Upkeep beside those at work: what has lain there for less than ``GRACE_S`` may still be named."""
        place = self.folder / "keeper"
        place.mkdir(exist_ok=True)
        self._keepers.append(orphans.reconcile(environment_of(self.scene, "keeper"), place, GRACE_S))

    def end_reconcile(self) -> None:
        """Wait for upkeep to end. A service that is away ends it in words, with status 4."""
        while self._keepers:
            try:
                orphans.removed(self._keepers.pop())
            except orphans.Ended as error:
                if error.status not in ENDED_WELL or "Traceback" in str(error):
                    self.wrong.append(str(error))

    def reconcile(self) -> int:
        """``farm reconcile``, once, with nobody at work; how many blobs it removed. No orphan may be left."""
        place = self.folder / "keeper"
        place.mkdir(exist_ok=True)
        try:
            removed = orphans.removed(orphans.reconcile(environment_of(self.scene, "keeper"), place, 0.0))
        except orphans.Ended as error:
            self.wrong.append(str(error))
            removed = 0
        left = orphans.find(self.ground.url, self.ground.store.true)
        if left:
            self.wrong.append(f"orphans are left after one reconcile: {left}")
        return removed
