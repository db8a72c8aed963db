"""Under what conditions something was measured: what a GPU says of itself meanwhile, again and again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from farm.builders import Watch
from farm.errors import Unavailable
from farm.hosts.readings import GpuState, gpu_state

LOOK_SECONDS = 0.5
"""A look takes about 20 ms of a processor and nothing of the GPU."""
TIMED = frozenset({"measure"})
"""Phases of a measurement in which what holds the clocks down matters."""


@dataclass
class Conditions:
    """What was seen of the GPU ``uuid`` (empty: there is none, and nothing is seen) while it was timed."""

    uuid: str = ""
    throttled: set[str] = field(default_factory=set)
    clocks: list[int] = field(default_factory=list)
    temperatures: list[int] = field(default_factory=list)
    looks: int = 0
    _looked: float = 0.0

    def watch(self, inner: Watch) -> Watch:
        """``inner``, and a look at the GPU now and then while something is timed on it."""

        def report(phase: str, progress: float | None) -> None:
            inner.report(phase, progress)
            if self.uuid and phase in TIMED and time.monotonic() - self._looked >= LOOK_SECONDS:
                self._looked = time.monotonic()
                self.look()

        return replace(inner, report=report)

    def look(self) -> None:
        """One look; a GPU that does not answer is not seen."""
        try:
            self.take(gpu_state(self.uuid))
        except Unavailable:
            return

    def take(self, state: GpuState) -> None:
        self.looks += 1
        self.throttled.update(state.throttled)
        if state.clock is not None:
            self.clocks.append(state.clock)
        if state.temperature is not None:
            self.temperatures.append(state.temperature)

    def as_json(self) -> Mapping[str, Any]:
        """Clocks in MHz and temperatures in °C, least and most; nothing where nothing was seen."""
        if not self.looks:
            return {}
        told: dict[str, Any] = {"looks": self.looks, "throttled": sorted(self.throttled)}
        for name, seen in (("clock", self.clocks), ("temperature", self.temperatures)):
            if seen:
                told[name] = [min(seen), max(seen)]
        return told
