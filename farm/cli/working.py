"""What ``farm worker`` does until it is told to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from farm.cli.output import count_of, note
from farm.cli.session import opened
from farm.errors import Unavailable

if TYPE_CHECKING:
    from farm.config import Config
    from farm.dispatch import Station
    from farm.service import Farm

TICK_SECONDS = 0.5
IDLE_TICKS = 3
"""How often in a row nothing must be left to do before ``--until-idle`` believes it."""
BROKER_SECONDS = 5.0


class Signals:
    """Counts the requests to stop: the first drains, the second hurries."""

    def __init__(self) -> None:
        self.heard = threading.Event()
        self.count = 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        names = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(name, self._hear) for name in names]
        try:
            yield
        finally:
            for name, handler in zip(names, before, strict=True):
                signal.signal(name, handler)

    def _hear(self, number: int, frame: Any) -> None:
        self.count += 1
        self.heard.set()


def work(config: Config, until_idle: bool, gpu: int | None = None) -> dict[str, Any]:
    """Build until a signal comes, or until nothing is left to do; what was done, as a document."""
    from farm.collecting import Routine
    from farm.making import for_making
    from farm.wiring import open_station
    from farm.wiring.upkeep import tidy_when_due

    began = time.monotonic()
    signals = Signals()
    with opened(config, building=True) as farm, signals.caught():
        station, notes = open_station(farm.config, for_making(farm.index), farm.store, gpu)
        farm.care = Routine(lambda: tidy_when_due(farm.config), farm.config.gc_seconds).tick
        for text in notes:
            note(f"farm: {text}")
        try:
            _begin(farm, station)
            reason = _until_done(farm, station, signals, until_idle)
        finally:
            _end(farm, station, signals)
    return {
        "node": config.host,
        "seconds": round(time.monotonic() - began, 3),
        "idle": not signals.count,
        "reason": reason,
    }


def _begin(farm: Farm, station: Station) -> None:
    me, hands = station.crew.worker.me, count_of(station.crew.hands, "build")
    note(f"farm: {me.host} builds {', '.join(me.capabilities) or 'nothing'}; {hands} at once; Ctrl-C ends it")
    if not me.capabilities:
        note("farm: no toolchain that works was found here ('farm doctor' says why)")
    if not station.start(BROKER_SECONDS) and (trouble := station.broker_trouble()):
        note(f"farm: {trouble}; looking for builds every {farm.config.poll_seconds:g} s until it does")


def _until_done(farm: Farm, station: Station, signals: Signals, until_idle: bool) -> str:
    """Keep the farm in repair while its builds are made. ``Unavailable`` where it is to end by itself, and has not been
    able to build for as long as a client bears with that."""
    idle, well = 0, time.monotonic()
    while not (until_idle and idle >= IDLE_TICKS):
        if signals.heard.wait(TICK_SECONDS):
            return "stopped"
        try:
            farm.repair()
            idle = idle + 1 if until_idle and _idle(farm, station) else 0
        except Unavailable as error:
            farm.notify(error.message)
        trouble = station.crew.worker.standby.reason
        well = well if trouble else time.monotonic()
        if until_idle and time.monotonic() - well > farm.config.patience_seconds:
            raise Unavailable(f"nothing could be built here: {trouble}", "what waits is still queued")
    return "nothing left to build"


def _idle(farm: Farm, station: Station) -> bool:
    """Nothing runs here, and nothing waits that this worker could make."""
    if station.crew.free < station.crew.hands:
        return False
    waiting, me = farm.index.waiting(farm.config.realm.serves), station.crew.worker.me
    if any(waiting.get(name) for name in me.capabilities):
        return False
    places = me.detail.get("measures") or ()
    return not places or not any(one.ask.place in places and not one.failure for one in farm.index.awaiting())


def _end(farm: Farm, station: Station, signals: Signals) -> None:
    """Drain; a second signal hands back at once what is unfinished."""
    busy = station.crew.hands - station.crew.free
    if busy:
        grace = farm.config.drain_seconds
        note(f"farm: finishing {count_of(busy, 'build')}, for {grace:g} s at most; again to hand them back now")
    done = threading.Event()
    watcher = threading.Thread(target=_hurry_on_another, args=(station, signals, signals.count, done), daemon=True)
    watcher.start()
    station.stop(farm.config.drain_seconds)
    done.set()


def _hurry_on_another(station: Station, signals: Signals, count: int, done: threading.Event) -> None:
    while not done.wait(0.05):
        if signals.count > count:
            station.crew.worker.hurry()
            return
