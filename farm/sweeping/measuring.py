"""Has a sweep's engines measured where its objectives or constraints ask for what only a device can tell.

What is asked for stays asked for, whoever goes away: a node that joins later measures it, and the sweep's answer has it
from then on.
"""

from __future__ import annotations

import time
from pathlib import PurePath

from farm.index import Sweep
from farm.measurements import MeasuringAsk
from farm.measuring import Wish, engine_asks
from farm.service import Farm
from farm.sweeping.results import SweepResults, TrialResult
from farm.sweeps.objectives import METRICS

POLL_SECONDS = 0.2


class Measures:
    """What one process has had measured for a sweep."""

    def __init__(self, farm: Farm, sweep: Sweep) -> None:
        self._farm = farm
        judged = [*sweep.spec.get("objectives", ()), *sweep.spec.get("constraints", ())]
        self._wanted = any(METRICS[item["metric"]].measured for item in judged)
        self._asks: dict[str, list[MeasuringAsk]] = {}

    def ask(self, found: SweepResults) -> int:
        """Ask for what has been built and not measured; how many engines are being measured, or will be by a worker
        that is there. Those that nobody can measure now are not waited for."""
        if not self._wanted:
            return 0
        engines = {r.engine.digest: r for r in found.distinct if r.engine and r.measured is None}
        new = {digest: asks_of(result) for digest, result in engines.items() if digest not in self._asks}
        self._farm.index.await_measuring([ask for asks in new.values() for ask in asks])
        self._asks |= new
        return self._underway({ask.id for digest in engines for ask in self._asks[digest]})

    def _underway(self, ids: set[str]) -> int:
        if not ids:
            return 0
        served = {
            place for one in self._farm.index.workers() if one.fresh for place in one.detail.get("measures") or ()
        }
        waits = [one for one in self._farm.index.awaiting(ids) if not one.failure]
        return len({one.ask.engine for one in waits if one.worker or one.ask.place in served})

    def wait(self, found: SweepResults) -> bool:
        """Wait while anything is being measured; whether there was anything to wait for."""
        if not self.ask(found):
            return False
        self._farm.dispatch.start()
        while self.ask(found):
            self._farm.repair()
            time.sleep(POLL_SECONDS)
        return True


def asks_of(result: TrialResult) -> list[MeasuringAsk]:
    """Where an engine may be measured: on each kind of device that it is for; with eager PyTorch beside it."""
    engine = result.engine
    if engine is None or not {"program", "target", "toolchain"} <= set(engine.manifest):
        return []
    return engine_asks(engine, PurePath(result.trial.model).suffix.lstrip("."), Wish())
