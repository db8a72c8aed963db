"""The heartbeat of one lease: it keeps the lease alive, and carries what the build says while it builds."""

from __future__ import annotations

import threading
import time

from farm.builders import Cancelled, Watch
from farm.builds import Lease
from farm.errors import LeaseLost, Unavailable
from farm.index import Index
from farm.logging import get_logger

log = get_logger(__name__)


class Heart:
    """Beats for one lease from a thread of its own, and carries what the build says: phase, progress, log.

    The building thread never touches the database while it builds. When the lease is lost, or the build is no
    longer wanted, or the worker stops, ``cancelled`` turns true and the builder kills its child.
    """

    def __init__(self, index: Index, lease: Lease, ttl: float, every: float, stopping: threading.Event) -> None:
        self._index, self._lease, self._ttl, self._every = index, lease, ttl, every
        self._stopping = stopping
        self._phase: tuple[str, float | None] = ("start", None)
        self._text: list[str] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._good_until = time.monotonic() + ttl
        self._thread = threading.Thread(target=self._beat, name=f"beat-{lease.build.id}", daemon=True)
        self.unwanted = False
        self.lost = False

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()

    def watch(self) -> Watch:
        return Watch(report=self._report, log=self._write, cancelled=self.cancelled)

    def cancelled(self) -> bool:
        return self.unwanted or self.lost or self._stopping.is_set()

    def check(self) -> None:
        """Raise before a commit that could not hold: ``LeaseLost`` or ``Cancelled``."""
        if self.lost:
            raise LeaseLost(f"the lease on build {self._lease.build.id} was lost")
        if self.unwanted:
            raise Cancelled("cancelled")

    def flush(self) -> None:
        """Write out the log so far. ``LeaseLost`` when somebody else has the build."""
        with self._lock:
            text, self._text = "".join(self._text), []
        if text:
            self._index.append_log(self._lease, text)

    def _report(self, phase: str, progress: float | None) -> None:
        self._phase = (phase, progress)

    def _write(self, text: str) -> None:
        with self._lock:
            self._text.append(text if text.endswith("\n") else text + "\n")

    def _beat(self) -> None:
        while not self._done.wait(self._every):
            try:
                self.flush()
                self.unwanted = self._index.beat(self._lease, self._ttl, *self._phase) or self.unwanted
                self._good_until = time.monotonic() + self._ttl
            except LeaseLost:
                self.lost = True
                return
            except Unavailable as error:
                # The lease may live on in a database that cannot be reached; nobody can tell once it has expired.
                log.warning("no heartbeat", build=self._lease.build.id, reason=error.message)
                if time.monotonic() > self._good_until:
                    self.lost = True
                    return
