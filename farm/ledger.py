"""Successes written together: builds that end at one time share a transaction, and its wait for the disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from farm.builds import Engine, Lease
from farm.errors import LeaseLost, Unavailable
from farm.making import Making


@dataclass
class _Entry:
    lease: Lease
    engine: Engine
    held: bool = False
    error: Exception | None = None
    done: bool = False


class Ledger:
    """``Making.succeed`` for many threads. Whoever finds nobody writing writes for all who wait by then; so one that
    comes alone waits for nothing, and many at once for one transaction instead of one each."""

    def __init__(self, index: Making) -> None:
        self._index = index
        self._waiting: list[_Entry] = []
        self._lock = threading.Lock()
        self._writer = threading.Lock()

    def succeed(self, lease: Lease, engine: Engine) -> None:
        """As ``Making.succeed``; ``LeaseLost`` and ``Unavailable`` reach the thread whose build they concern."""
        entry = _Entry(lease, engine)
        with self._lock:
            self._waiting.append(entry)
        with self._writer:
            if not entry.done:
                with self._lock:
                    batch, self._waiting = self._waiting, []
                self._write(batch)
        if entry.error is not None:
            raise entry.error
        if not entry.held:
            raise LeaseLost(f"the lease on build {lease.build.id} is no longer held", "nothing was committed")

    def _write(self, batch: Sequence[_Entry]) -> None:
        try:
            held = self._index.succeed_all([(entry.lease, entry.engine) for entry in batch])
            for entry, answer in zip(batch, held, strict=True):
                entry.held = answer
        except Unavailable as error:
            for entry in batch:
                entry.error = error
        except Exception as error:  # noqa: BLE001 - handed to the thread whose entry it is
            self._write_alone(batch, error)
        finally:
            for entry in batch:
                entry.done = True

    def _write_alone(self, batch: Sequence[_Entry], error: Exception) -> None:
        """One entry's defect must not end the builds of the others."""
        if len(batch) == 1:
            batch[0].error = error
            return
        for entry in batch:
            self._write([entry])
