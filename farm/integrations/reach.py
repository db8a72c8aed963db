"""Calls to a farm that may be down, from a process that has better things to do than wait for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from farm.errors import FarmError

T = TypeVar("T")
log = logging.getLogger("farm.engine_cache")

PAUSE_SECONDS = 60.0
"""A farm that did not answer is not asked again for so long."""


class NotReached(Exception):
    """The farm did not answer in time, or said that it cannot; it has been warned of."""


class Reach:
    """Runs each call in a thread of its own, waits for it no longer than it is worth, and says each trouble once.

    A call that is given up goes on by itself until its own time limits end it: nothing waits for it, not even the
    process's end. Safe to share between threads.
    """

    def __init__(self, pause: float = PAUSE_SECONDS) -> None:
        self._pause = pause
        self._away_until = 0.0
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self.failures = 0

    def call(self, what: str, work: Callable[[], T], seconds: float) -> T:
        """What ``work`` returns. ``NotReached`` when it raises, or takes longer than ``seconds``, or the farm has been
        away a moment ago."""
        if time.monotonic() < self._away_until:
            raise NotReached(what)
        answers: list[T] = []
        faults: list[BaseException] = []

        def run() -> None:
            try:
                answers.append(work())
            except BaseException as fault:  # noqa: BLE001 - it is told below, in the caller's thread
                faults.append(fault)

        thread = threading.Thread(target=run, name="farm-engine-cache", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the process ends, or may start no more threads
            raise NotReached(what) from error
        thread.join(seconds)
        if answers:
            return answers[0]
        self._away(what, faults[0] if faults else None, seconds)
        raise NotReached(what)

    def _away(self, what: str, fault: BaseException | None, seconds: float) -> None:
        self.failures += 1
        self._away_until = time.monotonic() + self._pause
        why = f"it did not answer within {seconds:g} s" if fault is None else told(fault)
        self.warn(f"the farm could not {what}: {why}; Torch-TensorRT builds without it")

    def warn(self, text: str) -> None:
        """Say it, unless it was said before."""
        with self._lock:
            if text in self._said:
                return
            self._said.add(text)
        log.warning("%s", text)


def told(fault: BaseException) -> str:
    """An error in one line: what a ``FarmError`` says, else its type and text."""
    if isinstance(fault, FarmError):
        return fault.message
    return f"{type(fault).__name__}: {fault}".splitlines()[0]
