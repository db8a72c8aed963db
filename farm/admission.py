"""Admission: how many builds may share this machine's memory at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import psutil

from farm.builders import Cancelled, Watch

POLL_SECONDS = 0.2
SHARE = 0.8
"""Of the machine's memory, what builds may be expected to take together."""


class Admission:
    """Lets builds in while their expected peaks fit into free memory; one is always let in, so none starves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}

    @contextlib.contextmanager
    def hold(self, need: int, watch: Watch) -> Iterator[None]:
        """Wait until ``need`` bytes fit, then hold them. ``Cancelled`` while waiting."""
        me = threading.get_ident()
        while not self._admit(me, need):
            if watch.cancelled():
                raise Cancelled("cancelled")
            watch.report("waiting for memory", None)
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(me, None)

    def _admit(self, me: int, need: int) -> bool:
        with self._lock:
            if self._held and sum(self._held.values()) + need > psutil.virtual_memory().total * SHARE:
                return False
            if self._held and need > psutil.virtual_memory().available:
                return False
            self._held[me] = need
            return True
