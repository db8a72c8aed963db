"""Look-ups among a million engines: exact and portable, in SQLite and in PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from farm.db.index import SqlIndex
from farm.db.migrate import upgrade
from farm.index import Wanted, WantedPortable
from farm.portability import sortable
from tests.bench.measure import Row, Unavailable, folder, limited, shown, timed
from tests.bench.programs import CACHE
from tests.contract.servers import SERVERS, Server

LIMIT_MS = 2.0
ROUNDS = 4
NAMESPACE = "main"
ENGINE = (
    "INSERT INTO engines (recipe, namespace, key, digest, size, weights, build, created, build_seconds, manifest_json)"
)
PARTS = "INSERT INTO key_parts (key, recipe, graph, model, target, recorded, parts_json)"
SERVING = "INSERT INTO serving (family, place, recipe, namespace, version, portable, breadth)"
TABLES = ("engines", "key_parts", "serving")
PARTS_JSON = json.dumps({"settings": {"optimization_level": 3}, "target": {"capabilities": [89]}})
MANIFEST_JSON = json.dumps({"toolchain": "tensorrt_rtx==1.7.1.116", "bindings": {"inputs": [], "outputs": []}})
FAMILY = 12
"""Engines of one family: three places, in four versions each."""
PLACES = ("sm_86", "sm_89", "sm_120")
VERSIONS = tuple(sortable(version) for version in ("10.2.0", "10.9.0", "10.14.1", "10.15.0"))

Look = tuple[float, float]
"""Milliseconds by the clock and of the processor."""


def in_sqlite(quick: bool) -> Iterator[Row]:
    """In a file that this process alone has open."""
    rows = 100_000 if quick else 1_000_000
    with folder(CACHE) as place:
        url = f"sqlite:///{place / 'farm.db'}"
        SqlIndex(url).close()
        filled = timed(lambda: _fill_sqlite(place / "farm.db", rows))
        size = (place / "farm.db").stat().st_size / 2**30
        yield from _measured("sqlite", url, rows, f"{rows:,} engines, {size:.1f} GiB, filled in {filled:.0f} s", quick)


def in_postgresql(quick: bool) -> Iterator[Row]:
    """On a server on this machine, over TCP; each look-up is a transaction of its own."""
    rows = 100_000 if quick else 1_000_000
    with _database() as url:
        upgrade(url)
        filled = timed(lambda: _fill_postgresql(url, rows))
        yield from _measured("postgresql", url, rows, f"{rows:,} engines, filled in {filled:.0f} s", quick)


@contextmanager
def _database() -> Iterator[str]:
    import psycopg

    for address in SERVERS:
        try:
            psycopg.connect(f"{address}/postgres", connect_timeout=5).close()
        except psycopg.OperationalError:
            continue
        server = Server(address)
        try:
            yield server.database()
        finally:
            server.drop_all()
        return
    raise Unavailable("there is no PostgreSQL here that lets us make databases")


def _measured(kind: str, url: str, rows: int, note: str, quick: bool) -> Iterator[Row]:
    """One look-up after another; each round's share of slow ones, and the best round's."""
    asks = 500 if quick else 2_000
    index = SqlIndex(url)
    try:
        for name, look in (("lookup", _look), ("lookup-portable", _look_portable)):
            look(index, rows, 50, random.Random(99))
            yield from _percentiles(f"{name}-{kind}", look, index, rows, asks, note)
    finally:
        index.close()


def _percentiles(
    name: str, look: Callable[..., list[Look]], index: SqlIndex, rows: int, asks: int, note: str
) -> Iterator[Row]:
    rounds = [look(index, rows, asks, random.Random(number)) for number in range(ROUNDS)]
    how = f"the best of {ROUNDS} rounds of {asks:,} look-ups one by one"
    p50, p50_cpu = (min(_percentile(looks, clock, 50) for looks in rounds) for clock in (0, 1))
    yield shown(f"{name}-p50", p50, "ms", f"{note}; {how}; processor time {p50_cpu:.2f} ms")
    p99, p99_cpu = (min(_percentile(looks, clock, 99) for looks in rounds) for clock in (0, 1))
    worst = max(_percentile(looks, 0, 99) for looks in rounds)
    note = f"{how}; in the worst {worst:.2f} ms; processor time {p99_cpu:.2f} ms"
    yield limited(f"{name}-p99", p99, "ms", LIMIT_MS, note)


def _percentile(looks: list[Look], clock: int, percent: int) -> float:
    return sorted(look[clock] for look in looks)[len(looks) * percent // 100]


def _name(kind: str, number: int) -> str:
    return "sha256:" + hashlib.sha256(f"{kind} {number}".encode()).hexdigest()


def _fill_sqlite(path: Path, rows: int) -> None:
    """Engines straight into the tables: the builds that would have made them are not what is measured. In the order of
    their primary keys and with the other indexes made afterwards, or it would take ten times as long. Each key has two
    recipes with an engine, as two settings of a search would leave."""
    by_recipe = sorted((_name("recipe", n), n) for n in range(rows))
    by_key = sorted((_name("key", n // 2), recipe, n) for recipe, n in by_recipe)
    by_family = sorted((_name("family", n // FAMILY), PLACES[n % 3], recipe, n) for recipe, n in by_recipe)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        indexes = database.execute(
            f"SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN {TABLES}"
        ).fetchall()
        database.execute("BEGIN")
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        engines = (
            (recipe, _name("key", n // 2), _name("plan", n), _name("weights", n // 4), n, MANIFEST_JSON)
            for recipe, n in by_recipe
        )
        database.executemany(f"{ENGINE} VALUES (?, '{NAMESPACE}', ?, ?, 1000, ?, 'b', ?, 1.0, ?)", engines)
        links = ((key, recipe, _name("graph", n // 8), n, PARTS_JSON) for key, recipe, n in by_key)
        database.executemany(f"{PARTS} VALUES (?, ?, ?, 'm.pt2', 'sm_89', ?, ?)", links)
        served = ((family, place, recipe, VERSIONS[n // 3 % 4], n % 2) for family, place, recipe, n in by_family)
        database.executemany(f"{SERVING} VALUES (?, ?, ?, '{NAMESPACE}', ?, ?, 1)", served)
        for _, sql in indexes:
            database.execute(sql)
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _fill_postgresql(url: str, rows: int) -> None:
    """The same rows, made by the server itself. Nothing is analysed: what a table's statistics say lags behind."""
    import psycopg

    def name(kind: str, number: str) -> str:
        return f"'sha256:' || encode(sha256(convert_to('{kind} ' || {number}, 'UTF8')), 'hex')"

    series = f"FROM generate_series(0, {rows - 1}) AS n"
    recipe, key = name("recipe", "n"), name("key", "n / 2")
    columns = f"{key}, {name('plan', 'n')}, 1000, {name('weights', 'n / 4')}, 'b', n, 1.0, '{MANIFEST_JSON}'"
    versions, places = (f"(ARRAY[{', '.join(map(repr, given))}])" for given in (VERSIONS, PLACES))
    served = f"{places}[n % 3 + 1], {recipe}, '{NAMESPACE}', {versions}[n / 3 % 4 + 1], n % 2 = 1, 1"
    with psycopg.connect(url) as connection:
        connection.execute(f"{ENGINE} SELECT {recipe}, '{NAMESPACE}', {columns} {series}")
        parts = f"{name('graph', 'n / 8')}, 'm.pt2', 'sm_89', n, '{PARTS_JSON}'"
        connection.execute(f"{PARTS} SELECT {key}, {recipe}, {parts} {series}")
        connection.execute(f"{SERVING} SELECT {name('family', f'n / {FAMILY}')}, {served} {series}")


def _look(index: SqlIndex, rows: int, asks: int, chance: random.Random) -> list[Look]:
    """A third asks for an exact recipe, a third for a key whose engine another recipe made, a third for what is not
    there; what is found is checked."""
    found = []
    for number in range(asks):
        n, kind = chance.randrange(rows), number % 3
        wanted = (
            Wanted(_name("key", n // 2), _name("recipe", n), _name("weights", n // 4)),
            Wanted(_name("key", n // 2), _name("other recipe", n), _name("weights", n // 4)),
            Wanted(_name("other key", n), _name("other recipe", n), _name("weights", n // 4)),
        )[kind]
        started, spent = time.perf_counter(), time.thread_time()
        (answer,) = index.find([wanted], [NAMESPACE])
        found.append(((time.perf_counter() - started) * 1e3, (time.thread_time() - spent) * 1e3))
        assert (answer is None) == (kind == 2) and (answer is None or answer.exact == (kind == 0))
    return found


def _look_portable(index: SqlIndex, rows: int, asks: int, chance: random.Random) -> list[Look]:
    """Two thirds ask for a place of a family that is there, a third for one that is not."""
    found = []
    for number in range(asks):
        n, missing = chance.randrange(rows), number % 3 == 2
        family = _name("other family" if missing else "family", n // FAMILY)
        wanted = WantedPortable(family, (PLACES[n % 3], "any"), VERSIONS[2])
        started, spent = time.perf_counter(), time.thread_time()
        answer = index.find_portable(wanted, [NAMESPACE])
        found.append(((time.perf_counter() - started) * 1e3, (time.thread_time() - spent) * 1e3))
        assert bool(answer) != missing or n // FAMILY == (rows - 1) // FAMILY
    return found
