"""Writes down what the cache was worth, in batches and beside the work: no look-up and no hand-out waits for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from farm.errors import Unavailable
from farm.index import Index
from farm.usage import Usage

EVERY_SECONDS = 5.0
MOST_PENDING = 100_000
"""Numbers that are held while the database is away; then they are dropped, the work goes on."""


class Recorder:
    """Safe between threads. Its own thread lives only while something waits to be written."""

    def __init__(self, index: Index, every: float = EVERY_SECONDS) -> None:
        self._index, self._every = index, every
        self._pending = Usage()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def adding(self) -> Iterator[Usage]:
        """What is to be added to; written within ``every`` seconds, or by ``flush``."""
        with self._lock:
            yield self._pending
            if self._pending and self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="farm-recorder", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write what waits, now. ``Unavailable`` when the database is away: then it waits on."""
        with self._writing:
            with self._lock:
                batch, self._pending = self._pending, Usage()
            if not batch:
                return
            try:
                self._index.add_usage(batch)
            except Unavailable:
                with self._lock:
                    if len(self._pending) + len(batch) <= MOST_PENDING:
                        self._pending.merge(batch)
                raise

    def close(self) -> None:
        """Write what waits, if that can be: of somebody who may only read, nothing is recorded."""
        self._closed.set()
        with contextlib.suppress(Unavailable):
            self.flush()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._every):
            with contextlib.suppress(Unavailable):
                self.flush()
            with self._lock:
                if not self._pending:
                    self._thread = None
                    return
