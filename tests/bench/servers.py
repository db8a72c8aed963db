"""The servers that a fleet needs, where they run on this machine: a database of its own on PostgreSQL, an empty
database of Redis. ``Unavailable`` says which is not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.measure import Unavailable

POSTGRESQL = os.environ.get("FARM_BENCH_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432")
REDIS = os.environ.get("FARM_BENCH_REDIS", "redis://127.0.0.1:6379")
DATABASES = range(15, 0, -1)


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a new, empty database, which is dropped afterwards."""
    try:
        import psycopg
    except ModuleNotFoundError as error:
        raise Unavailable("psycopg is not installed here") from error
    name = f"farm_bench_{uuid.uuid4().hex[:12]}"
    try:
        with psycopg.connect(f"{POSTGRESQL}/postgres", autocommit=True, connect_timeout=5) as server:
            server.execute(f"CREATE DATABASE {name}")
    except psycopg.Error as error:
        raise Unavailable(f"no PostgreSQL at {POSTGRESQL}: {str(error).splitlines()[0]}") from error
    try:
        yield f"{POSTGRESQL}/{name}"
    finally:
        with psycopg.connect(f"{POSTGRESQL}/postgres", autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def redis() -> Iterator[str]:
    """The URL of a database that nobody uses, which is emptied afterwards."""
    try:
        import redis as client
    except ModuleNotFoundError as error:
        raise Unavailable("redis is not installed here") from error
    try:
        found = next((n for n in DATABASES if client.Redis.from_url(f"{REDIS}/{n}").dbsize() == 0), None)
    except client.RedisError as error:
        raise Unavailable(f"no Redis at {REDIS}: {error}") from error
    if found is None:
        raise Unavailable(f"every database of the Redis at {REDIS} is in use")
    try:
        yield f"{REDIS}/{found}"
    finally:
        client.Redis.from_url(f"{REDIS}/{found}").flushdb()
