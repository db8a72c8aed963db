"""``python -m tests.support.listener BROKER QUEUE…``: a worker's Celery side in a process of its own; it prints a line
for each wake-up, and ends when its standard input does."""

from __future__ import annotations

import sys

from farm.consumer import Consumer
from farm.tasks import Duties, make_app


def main(url: str, *capabilities: str) -> None:
    duties = Duties(lambda: print("build", flush=True), lambda: print("repair", flush=True))
    consumer = Consumer(make_app(url, capabilities), capabilities, duties)
    print("ready" if consumer.start(10.0) else "no broker", flush=True)
    sys.stdin.read()
    consumer.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
