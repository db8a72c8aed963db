"""A crew: one worker's hands. It leases as many builds as hands are free, and makes each in a thread of its own.

Whoever brings the wake-up (Celery, from its own memory or from a broker) calls ``wake``; a crew that is not woken
looks for itself every few seconds, so that losing every message costs seconds and nothing else.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from farm.builds import Lease
from farm.errors import Unavailable
from farm.logging import get_logger
from farm.worker import BuildWorker

log = get_logger(__name__)


class Crew:
    """``hands`` builds at once for ``worker``; ``poll`` is seconds between looks that nobody asked for."""

    def __init__(self, worker: BuildWorker, hands: int, poll: float) -> None:
        self.worker = worker
        self.hands = hands
        self._poll = poll
        self._busy = 0
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._leaving = threading.Event()
        self._pool = ThreadPoolExecutor(hands, thread_name_prefix="farm-build")
        self._foreman = threading.Thread(target=self._lead, name="farm-foreman", daemon=True)

    @property
    def free(self) -> int:
        """Hands with nothing to do."""
        with self._lock:
            return self.hands - self._busy

    def start(self) -> None:
        """Show up among the workers and begin to look for builds."""
        self.worker.open()
        self._woken.set()
        self._foreman.start()

    def wake(self) -> None:
        """Something may wait; returns at once."""
        self._woken.set()

    def leave(self) -> None:
        """Take no more builds; those in hand go on. Returns at once."""
        self._leaving.set()
        self.worker.leave()
        self._woken.set()

    def stop(self, grace: float = 0.0) -> None:
        """Take no more builds, give those in hand ``grace`` seconds to end, then hand the rest back to the queue.
        Returns when no child runs any more and the worker is no longer listed."""
        self.leave()
        deadline = time.monotonic() + grace
        while self._busy and time.monotonic() < deadline and not self.worker.hurried:
            time.sleep(0.02)
        self.worker.hurry()
        if self._foreman.is_alive():
            self._foreman.join()
        self._pool.shutdown(wait=True)
        self.worker.close()

    def _lead(self) -> None:
        while not self._leaving.is_set():
            # Cleared before the look: what is woken during it is looked at again.
            self._woken.clear()
            if not self._take_some():
                self._woken.wait(self._poll)

    def _take_some(self) -> bool:
        """Lease for the free hands; whether it is worth looking again at once."""
        free = self.free
        if not free:
            return False
        try:
            leases = self.worker.lease(free)
        except Unavailable as error:
            log.warning("no leases", reason=error.message)
            return False
        for lease in leases:
            with self._lock:
                self._busy += 1
            self._pool.submit(self._make, lease)
        return 0 < len(leases) < free

    def _make(self, lease: Lease) -> None:
        try:
            self.worker.make(lease)
        finally:
            with self._lock:
                self._busy -= 1
            self._woken.set()
