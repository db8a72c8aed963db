"""``python -m tests.support.noop_worker``: ``farm worker`` with ``NoopBuilder`` in place of TensorRT.

Configured by the environment as ``farm worker`` is; ends on SIGTERM, after draining. Prints ``ready`` when it builds.
"""

from __future__ import annotations

import argparse
import signal
import threading
from dataclasses import replace

from farm.builders import Limits
from farm.cache import EngineCache
from farm.cli import collect_seldom
from farm.config import Config, load
from farm.crew import Crew
from farm.dispatch import Station
from farm.errors import Unavailable
from farm.forms import Forms
from farm.ledger import Ledger
from farm.namespaces import queues
from farm.repair import Repair
from farm.wiring.backends import (
    belong_together,
    gone_workers,
    open_identifier,
    open_index,
    open_signer,
    open_store,
    open_trust,
)
from farm.wiring.dispatches import open_dispatch
from farm.wiring.workers import SAY_SECONDS
from farm.worker import BuildWorker, Workshop
from tests.support.noop import NoopBuilder

QUEUE = "tensorrt_rtx==1.7.1.116/any/x86_64"


def open_noop_crew(config: Config, builder: NoopBuilder, hands: int, serves: tuple[str, ...]) -> Crew:
    """Hands around ``builder``, on the configured index and store."""
    index, store = open_index(config), open_store(config)
    worker = BuildWorker(
        Workshop(
            index=index,
            cache=EngineCache(index, store, config.realm, Ledger(index), signer=open_signer(config)),
            forms=Forms(
                index, store, config.scratch, builder, Limits(), open_signer(config), open_trust(config), config.realm
            ),
            builder=builder,
            identifier=open_identifier(config),
            serves=queues(serves, config.realm.is_trusted),
            namespaces=config.realm.serves,
            detail={"builds_for": list(config.realm.serves)},
            scratch=config.scratch,
            host=config.host,
            lease_seconds=config.lease_seconds,
            beat_seconds=config.beat_seconds,
            say_seconds=SAY_SECONDS,
            slots=hands,
            sound=lambda: belong_together(index, store),
        )
    )
    return Crew(worker, hands, config.poll_seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="noop")
    parser.add_argument("--hands", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--flaky", type=float, default=0.0)
    parser.add_argument("--serves", action="append")
    given = parser.parse_args()
    collect_seldom()
    config = replace(load(), host=given.name)
    builder = NoopBuilder(given.seconds, given.jitter, given.flaky)
    crew = open_noop_crew(config, builder, given.hands, tuple(given.serves or [QUEUE]))
    index = crew.worker.shop.index
    dispatch = open_dispatch(config, index, crew.worker.shop.cache.store)
    repair = Repair(index, dispatch.wake, lambda: gone_workers(index))
    station = Station(config.broker_url, crew, repair.now)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: stop.set())
    station.start(5.0)
    print("ready", flush=True)
    while not stop.wait(0.5):
        try:
            repair.tick()
        except Unavailable as error:
            print(error.message, flush=True)
    station.stop(config.drain_seconds)
    dispatch.stop()
    index.close()


if __name__ == "__main__":
    main()
