"""A fleet on this machine: ``up`` (in the foreground, until Ctrl-C), ``env`` (what a shell needs), ``down``.

It stands on a PostgreSQL and a broker that run already, starts an S3 server, migrates, and runs Celery beat and two
workers that are not alike. All that it keeps is in one folder (``.fleet``), a database and a corner of the broker.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from local_processes import GaveUp, Process, stop_all
from local_services import (
    Database,
    Ended,
    S3Server,
    Trouble,
    empty_broker,
    find_broker,
    find_postgresql,
    free_ports,
    hidden,
    prepare_broker,
)
from make_bucket import ensure_bucket

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "farm"
DATABASE = "farm_fleet"
DRAIN_S = 15
WORKER_STOP_S = DRAIN_S + 5.0
READY_S = 90.0
DOWN_S = 60.0
TICK_S = 0.2
WORKERS: dict[str, dict[str, str]] = {
    "cpu-a": {"FARM_CONCURRENCY": "2"},
    "cpu-b": {"FARM_CONCURRENCY": "1", "FARM_BUILD_MEMORY": "4G", "FARM_BUILD_TIMEOUT": "600"},
}
"""Two workers that are not alike: one builds two at once without bounds, one a single build within its bounds."""


@dataclass(frozen=True)
class Fleet:
    """What one folder's fleet consists of; kept in ``fleet.json`` between runs."""

    state: Path
    postgres: str
    database: str
    broker: str
    ports: dict[str, int]
    access_key: str
    secret_key: str

    @property
    def db(self) -> Database:
        return Database(self.postgres, self.database, self.state)

    @property
    def s3(self) -> S3Server:
        return S3Server(self.state / "s3", self.ports, self.access_key, self.secret_key)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a farm process one of this fleet's."""
        return {
            "FARM_DATABASE_URL": self.db.url,
            "FARM_BROKER_URL": self.broker,
            "FARM_STORE_URL": f"s3://{BUCKET}/v1",
            "FARM_S3_ENDPOINT_URL": self.s3.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def process_environment(self, home: str, **extra: str) -> dict[str, str]:
        """Ours, without what the user has set for another farm."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("FARM_", "AWS_"))}
        return {**ours, **self.environment, "FARM_HOME": str(self.state / home), "PYTHONUNBUFFERED": "1", **extra}

    def exports(self) -> str:
        """Lines for a shell to evaluate."""
        client = {**self.environment, "FARM_HOME": str(self.state / "client")}
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in client.items())


def main() -> int:
    arguments = parse(sys.argv[1:])
    state = Path(arguments.state).absolute()
    try:
        if arguments.command == "env":
            return show_environment(state)
        if arguments.command == "down":
            return take_down(state)
        return bring_up(state, arguments)
    except (Trouble, GaveUp) as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="local_fleet.py", description=__doc__)
    parser.add_argument("--state", default=str(ROOT / ".fleet"), help="the folder that keeps it (default: .fleet)")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring the fleet up; Ctrl-C takes its processes down again")
    up.add_argument("--postgres", default="", metavar="URL", help="postgresql://USER@HOST:PORT")
    up.add_argument("--database", default="", metavar="NAME", help=f"the database to make on it (default: {DATABASE})")
    up.add_argument("--broker", default="", metavar="URL", help="redis://HOST:PORT/NUMBER or amqp://…")
    up.add_argument(
        "--second-python",
        default=sys.executable,
        metavar="PATH",
        help="the second worker's interpreter: another environment brings another toolchain",
    )
    commands.add_parser("env", help="print the exports that let a shell talk to it")
    commands.add_parser("down", help="stop it, and remove all that it keeps")
    return parser.parse_args(arguments)


# -- env and down --------------------------------------------------------------------------------------------


def show_environment(state: Path) -> int:
    print(load(state).exports(), end="")
    return 0


def load(state: Path) -> Fleet:
    try:
        return Fleet(state=state, **json.loads((state / "fleet.json").read_text("utf-8")))
    except FileNotFoundError:
        raise Trouble(f"there is no fleet in {state}: 'make fleet' makes one") from None


def save(fleet: Fleet) -> None:
    """Readable to its owner alone: there are keys in it."""
    kept = {name: value for name, value in vars(fleet).items() if name != "state"}
    for name, text in (("fleet.json", json.dumps(kept, indent=1)), ("fleet.env", fleet.exports())):
        (fleet.state / name).touch(mode=0o600)
        (fleet.state / name).write_text(text, "utf-8")


def take_down(state: Path) -> int:
    if not (state / "fleet.json").exists():
        print(f"there is no fleet in {state}")
        return 0
    stop_running(state)
    with held(state):
        fleet = load(state)
        fleet.db.drop()
        empty_broker(fleet.broker)
        shutil.rmtree(state)
    print(f"removed: the database '{fleet.database}', what was in {hidden(fleet.broker)}, {state}")
    return 0


def stop_running(state: Path) -> None:
    """Ask a fleet that runs from ``state`` to stop, and wait until it has."""
    lock = state / "lock"
    deadline = time.monotonic() + DOWN_S
    asked = False
    while True:
        with contextlib.suppress(Trouble), held(state):
            return
        if not asked:
            with contextlib.suppress(ValueError, ProcessLookupError):
                os.kill(int(lock.read_text() or "x"), signal.SIGTERM)
                asked = True
        if time.monotonic() > deadline:
            raise Trouble(f"the fleet in {state} does not stop (see {lock} for its process)")
        time.sleep(TICK_S)


@contextlib.contextmanager
def held(state: Path) -> Iterator[None]:
    """The folder for this process alone; the kernel lets go of it however this process ends."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Trouble(f"a fleet runs from {state} already: 'make fleet-env' says how to talk to it") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
        lock.truncate(0)


# -- up ------------------------------------------------------------------------------------------------------


class Signals:
    """How often somebody asked for the end: once is in order, twice is in a hurry."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def hurry(self) -> bool:
        return self.count > 1


def bring_up(state: Path, arguments: argparse.Namespace) -> int:
    signals = Signals()
    with held(state):
        fleet = prepared(state, arguments)
        running = Running(fleet, signals, arguments.second_python)
        try:
            running.start()
            running.stay()
        except Ended:
            pass
        finally:
            running.stop()
    say("stopped; 'make fleet' goes on where this ended, 'make fleet-down' removes it")
    return 0


def prepared(state: Path, arguments: argparse.Namespace) -> Fleet:
    """The services found and made ready; the keys, ports and names of last time where there was one."""
    fresh = not (state / "fleet.json").exists()
    last = {} if fresh else json.loads((state / "fleet.json").read_text("utf-8"))
    fleet = Fleet(
        state=state,
        postgres=find_postgresql(arguments.postgres or last.get("postgres", "")),
        database=database_name(arguments.database, last.get("database", "")),
        broker=find_broker(arguments.broker or last.get("broker", "")),
        ports=free_ports(last.get("ports", {}), state),
        access_key=last.get("access_key") or secrets.token_hex(10),
        secret_key=last.get("secret_key") or secrets.token_hex(20),
    )
    fleet.s3.command()
    prepare_broker(fleet.broker)
    fleet.db.ensure(fresh)
    fleet.s3.folder.mkdir(exist_ok=True)
    (state / "logs").mkdir(exist_ok=True)
    save(fleet)
    say(f"database {hidden(fleet.db.url)}, broker {hidden(fleet.broker)}, S3 {fleet.s3.endpoint}; all else in {state}")
    return fleet


def database_name(given: str, last: str) -> str:
    if given and last and given != last:
        raise Trouble(f"this fleet has the database '{last}'; 'make fleet-down' first, to begin with '{given}'")
    return given or last or DATABASE


class Running:
    """The processes, in the order in which they are started; they are stopped the other way round."""

    def __init__(self, fleet: Fleet, signals: Signals, second_python: str) -> None:
        self.fleet, self.signals = fleet, signals
        self.s3 = self._process("s3", fleet.s3.command(), fleet.s3.environment, echo=False)
        beat = [sys.executable, "-m", "celery", "-A", "farm.celery_app", "beat", "--pidfile=", "--schedule=schedule"]
        self.beat = self._process("beat", beat, {}, echo=False)
        pythons = dict(zip(WORKERS, (sys.executable, second_python), strict=True))
        self.workers = [
            self._process(
                name,
                [pythons[name], "-m", "farm", "worker", "--name", name, "--concurrency", limits["FARM_CONCURRENCY"]],
                {**limits, "FARM_DRAIN_SECONDS": str(DRAIN_S)},
                stop_s=WORKER_STOP_S,
            )
            for name, limits in WORKERS.items()
        ]

    def _process(
        self, name: str, command: list[str], extra: dict[str, str], echo: bool = True, stop_s: float = 10.0
    ) -> Process:
        environment = self.fleet.process_environment(name, **extra)
        home, log = self.fleet.state / name, self.fleet.state / "logs" / f"{name}.log"
        return Process(name, command, environment, home, log, echo, stop_s)

    @property
    def _begun(self) -> list[Process]:
        return [process for process in (self.s3, self.beat, *self.workers) if process.running is not None]

    def start(self) -> None:
        """Each when what it needs is there."""
        self.s3.start()
        self.fleet.s3.wait(self._look_after)
        os.environ.update(self.fleet.s3.environment)
        self._make_bucket()
        self._migrate()
        for process in (self.beat, *self.workers):
            process.start()
        self._wait_for_workers()
        say(f"up: {' and '.join(WORKERS)} build. Ctrl-C stops all of it. In another shell:")
        print('  eval "$(make -s fleet-env)" && farm build MODEL.onnx -t sm_86 && farm nodes', flush=True)

    def _make_bucket(self) -> None:
        try:
            ensure_bucket(BUCKET, self.fleet.s3.endpoint)
        except (BotoCoreError, ClientError) as error:
            if self.s3.alive:
                raise Trouble(f"the S3 server at {self.fleet.s3.endpoint} makes no bucket: {error}") from error
            raise Trouble(
                f"another S3 server took {self.fleet.s3.endpoint} at the same moment ({error}):\n"
                "start again: 'make fleet' then looks for other ports"
            ) from error

    def _migrate(self) -> None:
        done = self._farm("db", "upgrade")
        if done.returncode != 0:
            raise Trouble(f"the database could not be migrated: {done.stderr.strip()}")

    def _farm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of farm's, to its end; not in our process group, so that Ctrl-C leaves it alone."""
        command = [sys.executable, "-m", "farm", *arguments]
        environment = self.fleet.process_environment("client")
        cwd = self.fleet.state
        return subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300, start_new_session=True
        )

    def _wait_for_workers(self) -> None:
        """Until both are registered."""
        deadline = time.monotonic() + READY_S
        while not set(WORKERS) <= self._registered():
            self._look_after()
            if time.monotonic() > deadline:
                raise Trouble(f"the workers did not register within {READY_S:.0f} s:\n{self.workers[0].last_lines()}")
            time.sleep(TICK_S)

    def _registered(self) -> set[str]:
        done = self._farm("nodes", "--json")
        documents: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
        return {str(document["node"]) for document in documents}

    def stay(self) -> None:
        """Until somebody asks for the end (``Ended``)."""
        while True:
            self._look_after()
            time.sleep(TICK_S)

    def _look_after(self) -> None:
        if self.signals.count:
            raise Ended
        for process in self._begun:
            process.watch(say)
        self._show()

    def _show(self) -> None:
        for process in self._begun:
            lines = process.new_lines()
            for line in lines if process.echo else ():
                print(f"{process.name:>6} | {line}", flush=True)

    def stop(self) -> None:
        """Workers first, which need all the others to hand back what they do not finish."""
        say(f"stopping (workers finish or hand back within {DRAIN_S} s; Ctrl-C again for now)")
        stop_all([[self.beat, *self.workers], [self.s3]], self.signals.hurry, self._show)


def say(text: str) -> None:
    print(f"fleet: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
