"""What a fleet costs: builds that take no time at all, beside bare Celery and bare lease-and-finish pairs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from farm.asks import Ask, Outcome
from farm.compilation import CompilationSettings
from farm.config import Config
from farm.db.index import SqlIndex
from farm.db.migrate import upgrade
from farm.dispatch import EmbeddedDispatch
from farm.service import Farm
from farm.wiring import open_farm
from tests.bench import servers
from tests.bench.contestant import NOTHING
from tests.bench.measure import Row, Times, Unavailable, beside, clean, folder, limited, output, shown, timed
from tests.bench.programs import ROOT, kept
from tests.support.noop import NoopBuilder
from tests.support.noop_worker import QUEUE, open_noop_crew

PROCESSES = 2
HANDS = 16
LEAST_SHARE = 0.6
SUBMIT_LIMIT_S = 5.0
TARGET = "sm_89@tensorrt_rtx==1.7.1.116"
TIMEOUT_S = 300.0
# Neither peer stores anything; so the store that the farm is compared with is in memory, and one on a disk is shown.
MEMORY = Path("/dev/shm")
DISK = Path(tempfile.gettempdir())
IDLE_S = 20.0
SUM = """
SELECT count(*), min(attempts.started), max(builds.finished) FROM attempts JOIN builds ON builds.id = attempts.build
WHERE builds.created > :since AND outcome = 'succeeded'
"""


def overhead(quick: bool) -> Iterator[Row]:
    """Builds that cost nothing, by a fleet; beside what its broker and its database do alone."""
    rounds, count = (2, 1000) if quick else (4, 3000)
    with ExitStack() as stack:
        database, broker = stack.enter_context(servers.postgresql()), stack.enter_context(servers.redis())
        farm = stack.enter_context(working_fleet(database, broker, MEMORY if MEMORY.is_dir() else DISK))
        contestants: Sequence[Callable[[int], float]] = (
            partial(celery_seconds, broker),
            partial(pairs_seconds, database),
            partial(farm_seconds, farm),
        )
        found = [[one(count) / count for one in contestants] for _ in range(rounds)]
        idle = idle_transactions(farm)
    yield from _overhead_rows(*(Times(tuple(each)) for each in zip(*found, strict=True)), count=count)
    note = f"transactions of one of {PROCESSES} workers that find nothing to do, by pg_stat_database in {IDLE_S:g} s"
    yield shown("fleet-idle-worker", idle / PROCESSES, "1/s", note)


def on_disk(quick: bool) -> Iterator[Row]:
    """The same fleet with its store in a folder on a disk: two files a build, each synced, and so are their folders."""
    rounds, count = (2, 1000) if quick else (3, 3000)
    with ExitStack() as stack:
        database, broker = stack.enter_context(servers.postgresql()), stack.enter_context(servers.redis())
        farm = stack.enter_context(working_fleet(database, broker, DISK))
        found = [(celery_seconds(broker, count) / count, farm_seconds(farm, count) / count) for _ in range(rounds)]
    celery, farms = (Times(tuple(each)) for each in zip(*found, strict=True))
    note = f"{1 / farms.least:.0f} builds/s, {celery.least / farms.least:.0%} of bare Celery's {1 / celery.least:.0f}/s"
    yield shown("fleet-noop-build-on-disk", farms.least * 1e3, "ms", f"{note}; {farms.said(1e3, 'ms')}")


def _overhead_rows(celery: Times, pairs: Times, farms: Times, *, count: int) -> Iterator[Row]:
    how = f"{count:,} each, {PROCESSES} processes of {HANDS} threads, in turns"
    yield shown("fleet-bare-celery", celery.least * 1e3, "ms", f"{1 / celery.least:.0f}/s; {celery.said(1e3, 'ms')}")
    yield shown("fleet-bare-pairs", pairs.least * 1e3, "ms", f"{1 / pairs.least:.0f}/s; {pairs.said(1e3, 'ms')}")
    name, slower = max(("bare Celery", celery), ("bare pairs", pairs), key=lambda one: one[1].least)
    share = slower.least / farms.least
    note = f"{1 / farms.least:.0f} builds/s, {share:.0%} of {name}'s {1 / slower.least:.0f}/s; {how}"
    note += f"; {farms.said(1e3, 'ms')}"
    yield beside("fleet-noop-build", farms.least * 1e3, "ms", name, slower.least * 1e3, 1 / LEAST_SHARE, note)


def embedded(quick: bool) -> Iterator[Row]:
    """The same builds by an embedded farm: SQLite, and Celery over its memory transport, in the asker's process."""
    count = 500 if quick else 2000
    with folder(DISK) as place, open_farm(Config(home=place / "home", host="bench")) as farm:
        crew = partial(open_noop_crew, farm.config, NoopBuilder(), HANDS, (QUEUE,))
        farm.dispatch = EmbeddedDispatch(crew, lambda: None)
        build = partial(farm_seconds, farm)
        build(50)
        times = Times(tuple(build(count) / count for _ in range(3)))
    note = f"{1 / times.least:.0f} builds/s, {count:,} by one process that also waits for them"
    yield shown("embedded-noop-build", times.least * 1e3, "ms", f"{note}; {times.said(1e3, 'ms')}")


def submitting(quick: bool) -> Iterator[Row]:
    """A sweep of 10,000 builds, from the command to its end with every build queued; and what of it is ``submit``."""
    count = 2000 if quick else 10_000
    with ExitStack() as stack:
        database, broker = stack.enter_context(servers.postgresql()), stack.enter_context(servers.redis())
        farm = stack.enter_context(fleet(database, broker, stack.enter_context(folder(DISK))))
        wanted, spent = asks(count), time.process_time()
        inside = timed(lambda: farm.submit(wanted, keep=True, exact=True))
        note = f"Farm.submit of {count:,} asks to PostgreSQL; processor time {time.process_time() - spent:.2f} s"
        yield limited("submit-to-postgresql", inside, "s", SUBMIT_LIMIT_S, note)
        grid = f"workspace_size={2**20}..{2**20 + count - 1}"
        words = ["sweep", kept("small"), "-t", TARGET, "-g", grid, "--max-trials", count, "--no-wait", "--json"]
        whole = timed(lambda: output([sys.executable, "-m", "farm", *words], environment(farm.config), cwd=ROOT))
        note = f"'farm sweep --no-wait' of {count:,} configurations as a process, from start to end"
        yield limited("sweep-to-postgresql", whole, "s", SUBMIT_LIMIT_S, note)


# -- the farm ----------------------------------------------------------------------------------------------------


@contextmanager
def fleet(database: str, broker: str, place: Path) -> Iterator[Farm]:
    """A client of a fleet on new servers."""
    upgrade(database)
    with open_farm(Config(home=place / "home", database_url=database, broker_url=broker, host="bench")) as farm:
        yield farm


@contextmanager
def working_fleet(database: str, broker: str, where: Path) -> Iterator[Farm]:
    """The same with ``PROCESSES`` workers, which have built some already: programs are opened, connections made."""
    with ExitStack() as stack:
        farm = stack.enter_context(fleet(database, broker, stack.enter_context(folder(where))))
        for number in range(PROCESSES):
            stack.enter_context(noop_worker(farm.config, number))
        farm_seconds(farm, 200)
        yield farm


def environment(config: Config) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "FARM_HOME": str(config.home),
        "FARM_DATABASE_URL": config.database_url,
        "FARM_BROKER_URL": config.broker_url,
    }


@contextmanager
def noop_worker(config: Config, number: int) -> Iterator[subprocess.Popen[str]]:
    """A worker of ``HANDS`` hands on ``config``'s servers."""
    words = [sys.executable, "-m", "tests.support.noop_worker", "--name", f"noop-{number}", "--hands", str(HANDS)]
    process = subprocess.Popen(words, env=clean(environment(config)), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise Unavailable("a worker did not start")
        yield process
    finally:
        process.terminate()
        process.wait(60)


def asks(count: int) -> list[Ask]:
    """So many asks of one program, each for a recipe that nobody has asked for before."""
    model, first = str(kept("small")), uuid.uuid4().int % 2**40 + 2**20
    return [Ask(model, TARGET, CompilationSettings(workspace_size=first + n)) for n in range(count)]


def farm_seconds(farm: Farm, count: int) -> float:
    """From the first lease of ``count`` new builds to the last success, by the database's clock."""
    index = farm.index
    assert isinstance(index, SqlIndex)
    since = index.db.run(index.db.time)
    answers = farm.submit(asks(count), keep=True, exact=True)
    assert all(answer.outcome is Outcome.QUEUED for answer in answers)
    farm.dispatch.start()
    deadline = time.monotonic() + TIMEOUT_S
    while sum(index.waiting().values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    ended = farm.wait(answers, timeout=TIMEOUT_S)
    assert all(answer.outcome is Outcome.BUILT for answer in ended), "not every build succeeded"
    return _seconds(index, since, count)


def _seconds(index: SqlIndex, since: float, count: int) -> float:
    from sqlalchemy import text

    done, first, last = index.db.run(lambda connection: connection.execute(text(SUM), {"since": since}).one())
    assert done == count, f"{done} attempts of {count} builds"
    return float(last - first)


def idle_transactions(farm: Farm) -> float:
    """Transactions a second that a fleet's workers cost while nothing is to be done."""
    from sqlalchemy import text

    index = farm.index
    assert isinstance(index, SqlIndex)
    query = text("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")

    def transactions() -> int:
        return int(index.db.run(lambda connection: connection.execute(query).scalar_one()))

    time.sleep(5.0)  # what was busy has told the server's statistics
    before = transactions()
    time.sleep(IDLE_S)
    return (transactions() - before) / IDLE_S


# -- its peers ---------------------------------------------------------------------------------------------------


def celery_seconds(broker: str, count: int) -> float:
    """From the first of ``count`` tasks that lie in the broker to the last."""
    from celery import Celery

    queue = f"bench-{uuid.uuid4().hex[:8]}"
    app = Celery("bench", broker=broker, set_as_current=False)
    with app.producer_or_acquire() as producer:
        for _ in range(count):
            app.send_task(NOTHING, queue=queue, producer=producer, ignore_result=True)
    depth = partial(_depth, broker, queue)
    seconds = raced("celery", broker, queue, count, lambda: depth() == 0)
    app.close()
    return seconds


def _depth(broker: str, queue: str) -> int:
    import redis

    with redis.Redis.from_url(broker) as client:
        return int(client.llen(queue)) + int(client.hlen("unacked"))


def pairs_seconds(database: str, count: int) -> float:
    """From the first lease of ``count`` rows to the last finish."""
    import psycopg

    table = f"bench_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, state text NOT NULL, worker text)")
        connection.execute(f"CREATE INDEX ON {table} (id) WHERE state = 'queued'")
        connection.execute(f"INSERT INTO {table} SELECT n, 'queued' FROM generate_series(1, {count}) AS n")
        connection.execute(f"ANALYZE {table}")
        seconds = raced("pairs", database, table, count, lambda: True)
        connection.execute(f"DROP TABLE {table}")
    return seconds


def raced(kind: str, where: str, what: str, count: int, over: Callable[[], bool]) -> float:
    """``PROCESSES`` contestants of one kind at ``count`` things; from the first's beginning to the last's end."""
    words = [sys.executable, "-m", "tests.bench.contestant", kind, str(HANDS), where, what]
    runners = [
        subprocess.Popen(words, env=clean(None), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    try:
        for runner in runners:
            assert runner.stdout is not None and runner.stdout.readline().strip() == "ready"
        for runner in runners:
            _tell(runner)
        deadline = time.monotonic() + TIMEOUT_S
        while not over() and time.monotonic() < deadline:
            time.sleep(0.1)
        done = [runner.communicate("end\n", timeout=TIMEOUT_S)[0].split() for runner in runners]
    finally:
        for runner in runners:
            runner.kill()
            runner.wait()
    assert sum(int(one[0]) for one in done) == count, f"{kind}: {done} of {count}"
    busy = [one for one in done if int(one[0])]
    return max(float(one[2]) for one in busy) - min(float(one[1]) for one in busy)


def _tell(runner: subprocess.Popen[str]) -> None:
    assert runner.stdin is not None
    runner.stdin.write("go\n")
    runner.stdin.flush()
