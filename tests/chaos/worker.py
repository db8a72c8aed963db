"""``python -m tests.chaos.worker``: ``farm worker`` with ``ChaosBuilder`` in place of TensorRT.

Configured by the environment as ``farm worker`` is; ends on SIGTERM, after draining. A service that is away while it
starts ends it in words, with status 4: whoever started it does so again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from dataclasses import replace

from farm.config import load
from farm.dispatch import Station
from farm.errors import FarmError, Unavailable
from farm.logging import configure
from farm.repair import Repair
from farm.wiring.backends import gone_workers
from farm.wiring.dispatches import open_dispatch
from tests.chaos.builder import ChaosBuilder
from tests.chaos.twice import send_twice
from tests.chaos.work import QUEUE
from tests.support.noop_worker import open_noop_crew

BROKER_S = 2.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--hands", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--twice", action="store_true", help="send each message twice")
    parser.add_argument("--elsewhere", action="store_true", help="as on another machine: nobody sees that it is dead")
    given = parser.parse_args()
    configure()
    if given.twice:
        send_twice()
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: stop.set())
    try:
        work(given, stop)
    except FarmError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def work(given: argparse.Namespace, stop: threading.Event) -> None:
    config = replace(load(), host=given.name)
    crew = open_noop_crew(config, ChaosBuilder(given.seconds, jitter=0.9), given.hands, (QUEUE,))
    worker = crew.worker
    if given.elsewhere:
        worker.me = replace(worker.me, detail={**worker.me.detail, "vantage": f"machine of {given.name}"})
    index = worker.shop.index
    dispatch = open_dispatch(config, index, worker.shop.cache.store)
    repair = Repair(index, dispatch.wake, lambda: gone_workers(index))
    station = Station(config.broker_url, crew, repair.now)
    station.start(BROKER_S)
    while not stop.wait(0.3):
        try:
            repair.tick()
        except Unavailable as error:
            print(error.message, file=sys.stderr, flush=True)
    station.stop(config.drain_seconds)
    dispatch.stop()
    index.close()


if __name__ == "__main__":
    sys.exit(main())
