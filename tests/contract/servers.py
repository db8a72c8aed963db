"""PostgreSQL for the contract suites: databases of their own on a server that runs, or the reason why not."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import NoReturn

import pytest

PREFIX = "farm_test_"
SERVERS = ("postgresql://postgres@127.0.0.1:5432", "postgresql://root@127.0.0.1:5432")


def reachable_server() -> str:
    """The first server that lets us make databases. A missing one is a skip here, and a failure in CI."""
    psycopg = pytest.importorskip("psycopg")
    reasons = []
    for server in SERVERS:
        try:
            with psycopg.connect(f"{server}/postgres", connect_timeout=5):
                return server
        except psycopg.OperationalError as error:
            reasons.append(f"{server}: {str(error).splitlines()[0]}")
    return absent("PostgreSQL", "; ".join(reasons))


def absent(name: str, reason: str) -> NoReturn:
    """A server that is not there is a skip on a laptop, and a failure in CI."""
    message = f"no {name} to test with: {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def needed(name: str, ask: Callable[[], object], refused: type[Exception]) -> None:
    """Go on if the server answers."""
    try:
        ask()
    except refused as error:
        absent(name, str(error))


class Server:
    """Makes databases, and drops them at the end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._made: list[str] = []

    def sql(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(f"{self.address}/postgres", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def database(self) -> str:
        """A new and empty database's URL."""
        name = f"{PREFIX}{int(time.time())}_{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        self._made.append(name)
        return f"{self.address}/{name}"

    def drop_leftovers(self) -> None:
        """Those of test runs that were killed, at least a day ago."""
        import psycopg

        with psycopg.connect(f"{self.address}/postgres", autocommit=True) as connection:
            names = [str(row[0]) for row in connection.execute("SELECT datname FROM pg_database").fetchall()]
        made = {name: name.removeprefix(PREFIX).partition("_")[0] for name in names if name.startswith(PREFIX)}
        self._made += [name for name, at in made.items() if at.isdigit() and int(at) < time.time() - 86_400]

    def drop_all(self) -> None:
        for name in self._made:
            self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def empty(url: str) -> None:
    """Much quicker than TRUNCATE where there is little to remove."""
    import psycopg

    from farm.db.models import metadata

    with psycopg.connect(url) as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(f"DELETE FROM {table.name}")
