"""What a farm of no-op builds is measured against, as processes: ``python -m tests.bench.contestant KIND …``.

``celery BROKER QUEUE``: a Celery worker whose task does nothing. ``pairs DATABASE TABLE``: threads that lease a row
(``FOR UPDATE SKIP LOCKED``), commit, finish it, and commit; psycopg 3 and nothing else. Each says ``ready`` once all
is imported, begins at a line on standard input, and at the next prints when it began its first and ended its last.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence

NOTHING = "bench.nothing"

LEASE = """
UPDATE {table} SET state = 'running', worker = %s
WHERE id = (SELECT id FROM {table} WHERE state = 'queued' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id
"""
FINISH = "UPDATE {table} SET state = 'done' WHERE id = %s"

Times = list[tuple[float, float]]


def celery(hands: int, broker: str, queue: str) -> Times:
    """No-op tasks from ``queue``, until a line comes; when each began and ended."""
    from celery import Celery

    app = Celery("bench", broker=broker, set_as_current=False)
    app.conf.update(task_ignore_result=True, task_default_queue=queue, worker_enable_remote_control=False)
    times: Times = []

    @app.task(name=NOTHING, shared=False)  # type: ignore[untyped-decorator]
    def nothing() -> None:
        now = time.time()
        times.append((now, now))

    app.finalize()
    app.set_default()
    controller = app.WorkController(
        app=app,
        hostname=f"{queue}-{time.monotonic_ns()}@localhost",
        pool_cls="threads",
        concurrency=hands,
        queues=[queue],
        without_heartbeat=True,
        without_mingle=True,
        without_gossip=True,
        loglevel="ERROR",
    )
    begin()
    threading.Thread(target=controller.start, daemon=True).start()
    sys.stdin.readline()
    return times


def pairs(hands: int, database: str, table: str) -> Times:
    """Rows of ``table`` leased and finished by so many threads, until none is left; then a line is awaited."""
    import psycopg

    lease, finish = LEASE.format(table=table), FINISH.format(table=table)
    times: Times = []

    def work(connection: psycopg.Connection[tuple[int]], name: str) -> None:
        while True:
            started = time.time()
            row = connection.execute(lease, [name]).fetchone()
            connection.commit()
            if row is None:
                return
            connection.execute(finish, row)
            connection.commit()
            times.append((started, time.time()))

    connections = [psycopg.connect(database) for _ in range(hands)]
    begin()
    threads = [
        threading.Thread(target=work, args=(connection, f"w{number}")) for number, connection in enumerate(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdin.readline()
    return times


def begin() -> None:
    """Wait for the start."""
    print("ready", flush=True)
    sys.stdin.readline()


KINDS: dict[str, Callable[[int, str, str], Times]] = {"celery": celery, "pairs": pairs}


def main(words: Sequence[str]) -> None:
    kind, hands, where, what = words
    times = KINDS[kind](int(hands), where, what)
    print(len(times), min((one[0] for one in times), default=0.0), max((one[1] for one in times), default=0.0))


if __name__ == "__main__":
    main(sys.argv[1:])
