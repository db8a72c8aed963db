"""A real server process over an embedded farm, with a worker that builds nothing; and clients that know its address."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from farm.asks import Ask
from farm.config import Config
from farm.db.index import SqlIndex
from farm.service import Farm
from farm.tokens import Scope, make_token
from tests.conftest import FARM, Farms, Ran, clean_environment, eventually

HERE = Path(__file__).parent
MODEL = HERE.parent / "vectors" / "conv.pt2"


@dataclass
class Server:
    """``farm serve`` on a free port of this machine, and what belongs to it."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    url: str = ""
    log: list[str] = field(default_factory=list)

    def start(self, *flags: str, build: bool = False) -> Server:
        """Start it, at the port that it had before if it had one; returns when it answers."""
        port = self.url.rpartition(":")[2] or "0"
        self.process = subprocess.Popen(
            [*FARM, "serve", "--port", port, "--json", *([] if build else ["--no-build"]), *flags],
            env=clean_environment(self.home, **self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True).start()
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, "".join(self.log)
        self.url = json.loads(said)["url"]
        return self

    def _read(self, stream: Any) -> None:
        self.log.extend(stream)

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def index(self) -> contextlib.closing[SqlIndex]:
        """The database itself."""
        return contextlib.closing(SqlIndex(f"sqlite:///{self.home}/farm.db"))

    def token(self, name: str, scope: Scope = Scope.BUILD, namespace: str = "main", lasts: float | None = None) -> str:
        text, token = make_token(name, scope, namespace)
        with self.index() as book:
            book.add_token(token, lasts)
        return text

    def config(self, home: Path, token: str) -> Config:
        return Config(home=home, url=self.url, token=token, patience_seconds=30.0)


@dataclass
class Client:
    """A machine that knows a server's address and has a token, and nothing else."""

    server: Server
    farms: Farms
    token: str

    def run(self, *args: str | Path, timeout: float = 120, **more: str) -> Ran:
        environment = {"FARM_URL": self.server.url, "FARM_TOKEN": self.token} | more
        return self.farms.run(*args, env=environment, timeout=timeout)

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        return self.farms.start(*args, env={"FARM_URL": self.server.url, "FARM_TOKEN": self.token})

    def open(self) -> Farm:
        """The farm, in this process."""
        return Farm.open(self.server.config(self.farms.home, self.token))

    def with_token(self, token: str) -> Client:
        return replace(self, token=token)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for a module's tests: each has tokens, and asks for engines, of its own."""
    home = tmp_path_factory.mktemp("server") / "home"
    server = Server(home, {"FARM_MAX_UPLOAD": "1G", "FARM_TRUSTED_NAMESPACES": "main,release"})
    home.mkdir()
    with server.index():
        pass
    server.start()
    with noop_worker(home):
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def noop_worker(home: Path, *flags: str) -> Iterator[None]:
    """A worker whose engines say what they were to be."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.noop_worker", *flags],
        env=clean_environment(home, PYTHONPATH=os.pathsep.join(sys.path)),
        cwd=HERE.parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()


NAMES = itertools.count(1)


@pytest.fixture
def name() -> str:
    """A token's name that no other test has."""
    return f"client-{os.getpid()}-{next(NAMES)}"


@pytest.fixture
def client(site: Server, tmp_path: Path, name: str) -> Iterator[Client]:
    farms = Farms(tmp_path / "client")
    yield Client(site, farms, site.token(name))
    farms.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A program, beside the client's home."""
    path = tmp_path / "c.pt2"
    path.write_bytes(MODEL.read_bytes())
    return path


PLACES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")


def target(number: int) -> str:
    """One of 63 targets, each of which is another key and another recipe."""
    return "+".join(place for n, place in enumerate(PLACES) if number >> n & 1)


def ask(model: Path, number: int = 8) -> Ask:
    """An ask of a test's own (8: for ``sm_89``)."""
    return Ask(str(model), target(number))


__all__ = ["Client", "Server", "ask", "eventually", "noop_worker", "target"]
