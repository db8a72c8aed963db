"""Admission: how many builds may share this machine's memory at once, and its GPU's."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from farm.builders import Cancelled, Watch
from farm.hosts.probe import memory
from farm.hosts.readings import free_memory

POLL_SECONDS = 0.2
"""How often one that waits looks whether memory has come free by other means than a build's end; a reading of what the
machine has free serves for as long (it takes several files: 0.4 ms)."""
SHARE = 0.8
"""Of the machine's memory, what builds may be expected to take together."""


class Admission:
    """Lets builds in while their expected peaks fit into what is free, in the order in which they came: one that waits
    holds back those that came later, so that many small ones cannot starve it. One is always let in when none is.

    ``capacity`` and ``available`` are bytes of main memory for builds, in all and now; ``gpu_capacity`` and
    ``gpu_available`` those of the GPU (0: no GPU, or nothing is known).
    """

    def __init__(
        self,
        capacity: int | None = None,
        available: Callable[[], int] = free_memory,
        gpu_capacity: int = 0,
        gpu_available: Callable[[], int] = lambda: 0,
    ) -> None:
        self.capacity = int(memory() * SHARE) if capacity is None else capacity
        self.gpu_capacity = gpu_capacity
        self._read, self._gpu_available = available, gpu_available
        self._reading = (-POLL_SECONDS, 0)
        self._lock = threading.Condition()
        self._held: dict[object, int] = {}
        self._queue: list[object] = []

    def free(self) -> int:
        """Bytes that could be admitted now; everything, when nothing is held."""
        with self._lock:
            if not self._held and not self._queue:
                return self.capacity
            return self._room()

    def gpu_free(self) -> int:
        """Bytes that the GPU has free now, whoever uses it; 0 where there is none, or nothing is known."""
        return self._gpu_available() if self.gpu_capacity else 0

    def _room(self) -> int:
        """Bytes that are neither promised nor in use."""
        return max(0, min(self.capacity - sum(self._held.values()), self._available()))

    def _available(self) -> int:
        now = time.monotonic()
        if now - self._reading[0] >= POLL_SECONDS:
            self._reading = (now, self._read())
        return self._reading[1]

    @contextlib.contextmanager
    def hold(self, need: int, gpu_need: int, watch: Watch) -> Iterator[None]:
        """Wait until ``need`` bytes fit, and ``gpu_need`` bytes of the GPU's, then hold them. ``Cancelled`` while
        waiting."""
        me = object()
        with self._lock:
            self._queue.append(me)
        try:
            with self._lock:
                while waits_for := self._admit(me, need, gpu_need):
                    if watch.cancelled():
                        raise Cancelled("cancelled")
                    watch.report(f"waiting for {waits_for}", None)
                    self._lock.wait(POLL_SECONDS)
            yield
        finally:
            with self._lock:
                self._held.pop(me, None)
                if me in self._queue:
                    self._queue.remove(me)
                self._lock.notify_all()

    def _admit(self, me: object, need: int, gpu_need: int) -> str:
        """Let ``me`` in, or say what it waits for. The lock is held."""
        if self._queue[0] is not me:
            return "memory"
        if self._held and need > self._room():
            return "memory"
        # Others may use the GPU: a build that was told it may take so much would fail, or be mistimed.
        if gpu_need > self._gpu_available() > 0:
            return "GPU memory"
        self._queue.remove(me)
        self._held[me] = need
        # Whoever came next may fit as well.
        self._lock.notify_all()
        return ""
