"""A worker that cannot reach what every build needs stands by: it takes nothing until it can again.

Otherwise one machine with a wrong secret, a mistyped ``FARM_STORE_URL`` or a dead link fails in no time what healthy
ones could have made: a build has three tries, and a worker whose builds fail at once is always free for the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from farm.errors import BadInput, Unavailable
from farm.logging import get_logger

log = get_logger(__name__)

FIRST_S, MOST_S = 1.0, 30.0
"""Pauses between looks whether it works again; they double."""


class Standby:
    """``sound`` raises ``Unavailable`` or ``BadInput`` while builds cannot be made here. Safe among threads."""

    def __init__(self, sound: Callable[[], object], changed: Callable[[], object] = lambda: None) -> None:
        self._sound, self._changed = sound, changed
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.reason = ""
        """Why nothing is taken; empty while all is well."""

    def look(self) -> bool:
        """Whether this machine is well, looked at now, after a failure that may be its own. Where it is not, it is
        looked at again and again until it is."""
        reason = self._trouble()
        if reason and self._begin(reason):
            log.warning("no builds are taken until this works again", reason=reason)
        return not reason

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _trouble(self) -> str:
        try:
            self._sound()
        except (Unavailable, BadInput) as error:
            return error.message
        return ""

    def _begin(self, reason: str) -> bool:
        with self._lock:
            first = not self.reason
            self.reason = reason
            if first:
                self._thread = threading.Thread(target=self._wait, name="farm-standby", daemon=True)
                self._thread.start()
        self._changed()
        return first

    def _wait(self) -> None:
        pause = FIRST_S
        while not self._stopped.wait(pause):
            reason = self._trouble()
            pause = min(MOST_S, 2 * pause)
            with self._lock:
                self.reason = reason
            if not reason:
                log.warning("builds are taken again")
                self._changed()
                return
