"""``python -m tests.support.asker THREADS MODEL TARGET``: clients that ask for one engine at one instant, and wait.

Each thread has a farm of its own, configured by the environment; others build. Prints ``open`` when all have theirs,
asks at a line on standard input, and prints each answer as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from farm.asks import Ask
from farm.db.index import SqlIndex
from farm.db.session import Database
from farm.service import Farm

PATIENCE_S = 120.0


class Elsewhere:
    """Implements ``farm.service.Dispatch`` where other processes build, and look for builds by themselves."""

    def wake(self, counts: Mapping[str, int]) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


def share(farm: Farm, databases: list[Database]) -> None:
    """Use PostgreSQL's connections together with the process's other farms: a server has a hundred, and other tests
    need some of them."""
    assert isinstance(farm.index, SqlIndex)
    if not farm.index.db.sqlite:
        databases.append(farm.index.db)
        if farm.index.db is not databases[0]:
            farm.index.db.close()
            farm.index.db = databases[0]


def main(threads: int, model: str, target: str) -> None:
    answers: list[dict[str, Any]] = []
    opened, asking = threading.Barrier(threads + 1), threading.Barrier(threads + 1)
    databases: list[Database] = []
    opening = threading.Lock()

    def ask() -> None:
        with ExitStack() as stack:
            with opening:
                farm = stack.enter_context(Farm.open())
                farm.dispatch = Elsewhere()
                share(farm, databases)
            opened.wait()
            asking.wait()
            (answer,) = farm.wait(farm.submit([Ask(model, target)]), timeout=PATIENCE_S)
            answers.append(answer.as_json())

    clients = [threading.Thread(target=ask) for _ in range(threads)]
    for client in clients:
        client.start()
    opened.wait()
    print("open", flush=True)
    sys.stdin.readline()
    asking.wait()
    for client in clients:
        client.join()
    for answer in answers:
        print(json.dumps(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
