"""Look-ups among a million engines, in SQLite."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from farm.db.index import SqlIndex
from farm.index import Wanted
from tests.bench.measure import Row, folder, limited, shown, timed
from tests.bench.programs import CACHE

LIMIT_MS = 2.0
ROUNDS = 4
NAMESPACE = "main"
ENGINE = (
    "INSERT INTO engines (recipe, namespace, key, digest, size, weights, build, created, build_seconds, manifest_json)"
)
PARTS = "INSERT INTO key_parts (key, recipe, graph, model, target, recorded, parts_json)"


def among_a_million(quick: bool) -> Iterator[Row]:
    """One ``find`` each: a third asks for an exact recipe, a third for a key whose engine another recipe made, a
    third for what is not there. Each key has two recipes with an engine, as two settings of a search would leave."""
    rows, asks = (100_000, 500) if quick else (1_000_000, 2_000)
    with folder(CACHE) as place:
        url = f"sqlite:///{place / 'farm.db'}"
        SqlIndex(url).close()
        filled = timed(lambda: _fill(place / "farm.db", rows))
        index = SqlIndex(url)
        rounds = [_look(index, rows, asks, random.Random(number)) for number in range(ROUNDS)]
        index.close()
        size = (place / "farm.db").stat().st_size / 2**30
    how = f"the best of {ROUNDS} rounds of {asks:,} look-ups one by one"
    p50, p50_cpu = (min(_percentile(looks, clock, 50) for looks in rounds) for clock in (0, 1))
    note = f"{rows:,} engines, {size:.1f} GiB, filled in {filled:.0f} s; {how}; processor time {p50_cpu:.2f} ms"
    yield shown("lookup-p50", p50, "ms", note)
    p99, p99_cpu = (min(_percentile(looks, clock, 99) for looks in rounds) for clock in (0, 1))
    worst = max(_percentile(looks, 0, 99) for looks in rounds)
    note = f"{how}; in the worst {worst:.2f} ms; processor time {p99_cpu:.2f} ms"
    yield limited("lookup-p99", p99, "ms", LIMIT_MS, note)


def _percentile(looks: list[tuple[float, float]], clock: int, percent: int) -> float:
    return sorted(look[clock] for look in looks)[len(looks) * percent // 100]


def _name(kind: str, number: int) -> str:
    return "sha256:" + hashlib.sha256(f"{kind} {number}".encode()).hexdigest()


def _fill(path: Path, rows: int) -> None:
    """Engines straight into the tables: the builds that would have made them are not what is measured. In the order of
    their primary keys and with the other indexes made afterwards, or it would take ten times as long."""
    parts = json.dumps({"settings": {"optimization_level": 3}, "target": {"capabilities": [89]}})
    manifest = json.dumps({"toolchain": "tensorrt_rtx==1.7.1.116", "bindings": {"inputs": [], "outputs": []}})
    by_recipe = sorted((_name("recipe", n), n) for n in range(rows))
    by_key = sorted((_name("key", n // 2), recipe, n) for recipe, n in by_recipe)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        indexes = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            " AND tbl_name IN ('engines', 'key_parts')"
        ).fetchall()
        database.execute("BEGIN")
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        engines = (
            (recipe, _name("key", n // 2), _name("plan", n), _name("weights", n // 4), n, manifest)
            for recipe, n in by_recipe
        )
        database.executemany(f"{ENGINE} VALUES (?, '{NAMESPACE}', ?, ?, 1000, ?, 'b', ?, 1.0, ?)", engines)
        links = ((key, recipe, _name("graph", n // 8), n, parts) for key, recipe, n in by_key)
        database.executemany(f"{PARTS} VALUES (?, ?, ?, 'm.pt2', 'sm_89', ?, ?)", links)
        for _, sql in indexes:
            database.execute(sql)
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _look(index: SqlIndex, rows: int, asks: int, chance: random.Random) -> list[tuple[float, float]]:
    """Milliseconds of each, by the clock and of the processor; what is found is checked."""
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
