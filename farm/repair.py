"""Repair: whatever was accepted is built, though workers, messages and databases fail in between.

``Repair.tick`` runs wherever a farm process lives, and by Celery beat; safe anywhere, any number of times, at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping

from farm.errors import Unavailable
from farm.making import Making

EVERY_SECONDS = 1.0
CROWD = 8
"""With more processes than this at repair, each does so less often: together they do it as often as so many."""
CALM_SECONDS = 5.0
"""After the database was away nobody is declared lost for so long: workers must be heard again first. A process that
has only just started cannot know whether it was: a supervisor starts workers again and again until it is back."""


class Repair:
    """Ends what vanished workers held, and wakes workers for what waits. Not safe to share between threads."""

    def __init__(
        self,
        index: Making,
        wake: Callable[[Mapping[str, int]], object],
        gone_workers: Callable[[], Collection[str]],
        every: float = EVERY_SECONDS,
        calm: float = 0.0,
    ) -> None:
        """``calm``: for so many seconds from now nobody is declared lost."""
        self._index, self._wake, self._gone, self._every = index, wake, gone_workers, every
        self._due = 0.0
        self._calm_until = time.monotonic() + calm

    def tick(self) -> None:
        """Repair, if it is time. ``Unavailable`` when the database cannot be reached."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + self._every
        try:
            self.now()
            self._due = now + self._every * self._crowd()
        except Unavailable:
            self._calm_until = time.monotonic() + CALM_SECONDS
            raise

    def now(self) -> None:
        """Repair at once."""
        if time.monotonic() >= self._calm_until:
            self._index.reap(self._gone())
        self._wake(self._index.wakes(self._every / 2))

    def _crowd(self) -> float:
        """By how much less often than alone this process needs to look."""
        there = sum(worker.fresh for worker in self._index.workers())
        return max(1.0, there / CROWD) * (0.9 + 0.2 * random.random()) if there > CROWD else 1.0
