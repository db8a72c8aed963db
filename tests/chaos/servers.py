"""Servers of the suite's own, to be killed, emptied and started again. They die with this process.

RabbitMQ's server is shared, so there it is a virtual host of the suite's own that is tortured.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

READY_S = 30.0
CRASH_SECONDS = 10.0
LIBC = ctypes.CDLL(None)
"""Loaded before there is a fork: between a fork and its exec, a lock that another thread held is held for ever."""


class NoServer(Exception):
    """A server that the suite needs is not on this machine; the text says which."""


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def program(name: str) -> str:
    """Where a server's program is; also where Debian keeps PostgreSQL's."""
    found = shutil.which(name)
    if found is None:
        beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        found = str(beside[-1]) if beside else None
    if found is None:
        raise NoServer(f"{name} is not installed here")
    return found


def die_with_parent() -> None:
    LIBC.prctl(1, signal.SIGKILL)


def until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_S
    while not ready():
        if time.monotonic() > deadline:
            raise NoServer(f"{what} does not start")
        time.sleep(0.05)


class Postgres:
    """A PostgreSQL server in ``folder``, which no other user must be kept from passing through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "postgresql"
        self.folder.mkdir()
        self.port = free_port()
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:  # its server refuses root
            shutil.chown(self.folder, "postgres", "postgres")
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        made = [program("initdb"), "-D", str(self.folder), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
        self._run([*made, "--locale=C.UTF-8"])
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.wait()

    def _run(self, command: list[str]) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._user)

    @property
    def address(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to start; see ``wait``. Without fsync: the machine does not crash here, only the server does."""
        if self._process is not None:
            return
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", str(self.folder), *flags],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                preexec_fn=die_with_parent,
                **self._user,
            )

    def wait(self) -> None:
        """Until it takes connections."""
        until(self.answers, "PostgreSQL")

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(f"{self.address}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def crash(self) -> None:
        """As ``pg_ctl stop -m immediate``: everybody is thrown out, nothing is written; its start recovers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(CRASH_SECONDS)
            except subprocess.TimeoutExpired:
                # One that is only just starting may miss it; to be killed is no gentler.
                self._process.kill()
                self._process.wait()
            self._process = None

    def cut(self) -> int:
        """End every connection; how many."""
        others = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
        return int(self.sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}"))

    def sql(self, statement: str) -> Any:
        """The first value of the answer, if there is one."""
        import psycopg

        with psycopg.connect(f"{self.address}/postgres", autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def database(self) -> str:
        """The URL of a new database, migrated."""
        from farm.db.migrate import upgrade

        name = f"chaos_{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        url = f"{self.address}/{name}"
        upgrade(url)
        return url

    def stop(self) -> None:
        self.crash()


class Redis:
    """A Redis server that keeps nothing: whoever restarts it has emptied it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        until(self._answers, "Redis")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        if self._process is not None:
            return
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [program("redis-server"), *options, "--dir", str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )

    def _answers(self) -> bool:
        import redis

        try:
            return bool(redis.Redis(port=self.port, socket_timeout=2).ping())
        except redis.RedisError:
            return False

    def crash(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def empty(self) -> None:
        """Once: while one waits for a server that is away, no other fault would begin or end."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        redis.Redis(port=self.port, socket_timeout=2, retry=Retry(NoBackoff(), 0)).flushall()

    def stop(self) -> None:
        self.crash()


class Rabbit:
    """A virtual host on the RabbitMQ server that runs here. Its end closes the connections and forgets the queues."""

    def __init__(self) -> None:
        self.name = f"farm_chaos_{uuid.uuid4().hex[:8]}"
        self._ctl("add_vhost", self.name)
        self._ctl("set_permissions", "-p", self.name, "guest", ".*", ".*", ".*")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:5672/{self.name}"

    def _ctl(self, *words: str) -> str:
        done = subprocess.run([program("rabbitmqctl"), "-q", *words], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise NoServer(f"rabbitmqctl {words[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def crash(self) -> None:
        """Everybody is thrown out, and the queues go."""
        self._ctl("close_all_connections", "--vhost", self.name, "chaos")
        self.empty()

    def start(self) -> None:
        """It has never been away for longer than a connection takes."""

    def empty(self) -> None:
        for queue in self._ctl("list_queues", "-p", self.name, "name").split():
            if queue.startswith("farm"):
                self._ctl("delete_queue", "-p", self.name, queue)

    def stop(self) -> None:
        self._ctl("delete_vhost", self.name)
