"""A crew: one worker's hands. It leases as many builds as hands are free, and makes each in a thread of its own.

Whoever brings the wake-up (Celery, from its own memory or from a broker) calls ``wake``; a crew that is not woken
looks for itself every few seconds, so that losing every message costs seconds and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from farm.builds import Lease
from farm.errors import Unavailable
from farm.logging import get_logger
from farm.worker import BuildWorker

log = get_logger(__name__)

AHEAD_SECONDS = 0.2
"""Builds that are over in no time are leased ahead: so many as this crew makes in so long."""
AHEAD_MOST = 64
STORING_MOST = 48
"""Builds that wait to be stored and recorded; with so many, hands wait for them."""
PATIENCE_SECONDS = 1.0
"""What was leased ahead goes to others once no hand has begun anything for so long: all are at builds that are not over
in no time. While hands go on it is left to them, unless it has waited ``PATIENCE_MOST`` times as long: where a database
is slow, to give builds back and to lease them again would make it slower."""
PATIENCE_MOST = 5


class Crew:
    """``hands`` builds at once for ``worker``; ``poll`` is seconds between looks that nobody asked for.

    A hand is free again once its engine is built: what is left, storing and recording it, is waiting, which many do at
    once, and record together (``ledger``).
    """

    def __init__(self, worker: BuildWorker, hands: int, poll: float) -> None:
        self.worker = worker
        self.hands = hands
        self._poll = poll
        self._busy = 0
        self._storing = 0
        self._measuring = False
        self._ahead: deque[tuple[Lease, float]] = deque()
        self._pace = float("inf")
        self._begun = 0.0
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._leaving = threading.Event()
        self._pool = ThreadPoolExecutor(hands + STORING_MOST, thread_name_prefix="farm-build")
        self._foreman = threading.Thread(target=self._lead, name="farm-foreman", daemon=True)

    @property
    def free(self) -> int:
        """Hands with nothing to do, none of whose builds is still to be stored; none while something is measured."""
        with self._lock:
            return 0 if self._measuring else max(0, self.hands - self._busy - self._storing)

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
        while (self._busy or self._storing or self._ahead) and time.monotonic() < deadline and not self.worker.hurried:
            time.sleep(0.02)
        self.worker.hurry()
        if self._foreman.is_alive():
            self._foreman.join()
        self._pool.shutdown(wait=True)
        self.worker.close()

    def _lead(self) -> None:
        while not self._leaving.is_set():
            try:
                self._look()
            except Exception:
                # Without its foreman a worker would stay on the list, and never build again.
                log.exception("defect")
                self._leaving.wait(self._poll)
        self._return_late(0.0)

    def _look(self) -> None:
        # Cleared before the look: what is woken during it is looked at again.
        self._woken.clear()
        measured = self._measure()
        if not self._take_some() and not measured:
            self._woken.wait(min(self._poll, PATIENCE_SECONDS) if self._ahead else self._poll)
        self._return_late(PATIENCE_SECONDS)

    def _measure(self) -> bool:
        """Measure one thing that awaits it, if nothing is built here now; whether that was done. Builds and
        measurements take turns: nothing is built beside what is measured, and what is built is not waited for by
        builds alone."""
        gauge = self.worker.gauge
        if gauge is None:
            return False
        with self._lock:
            if self._busy or self._ahead or self._leaving.is_set():
                return False
        try:
            lease = gauge.take()
            self._measuring = lease is not None
            if lease is not None:
                gauge.measure(lease, lambda: self._leaving.is_set() or self.worker.hurried)
            return lease is not None
        except Unavailable as error:
            log.warning("nothing is measured", reason=error.message)
            return False
        finally:
            self._measuring = False

    def _take_some(self) -> bool:
        """Lease for the free hands, and ahead; whether it is worth looking again at once."""
        with self._lock:
            wanted = self._wanted()
        try:
            if not wanted or self._must_measure():
                return False
            leases = self.worker.lease(wanted)
        except Unavailable as error:
            log.warning("no leases", reason=error.message)
            return False
        now = time.monotonic()
        with self._lock:
            self._ahead.extend((lease, now) for lease in leases)
            self._begin()
        return 0 < len(leases) < wanted

    def _must_measure(self) -> bool:
        """Whether what awaits measuring has waited for so long that the builds in hand are to end first."""
        gauge = self.worker.gauge
        return gauge is not None and self._busy > 0 and gauge.due()

    def _begin(self) -> None:
        """Give what was leased to free hands. The lock is held."""
        while self._ahead and self._busy < self.hands and self._storing < STORING_MOST:
            self._busy += 1
            self._begun = time.monotonic()
            self._pool.submit(self._make, self._ahead.popleft()[0])

    def _wanted(self) -> int:
        """How many builds to lease now. Ahead of the hands only so many as will be begun in ``AHEAD_SECONDS``, and no
        more before half of those are gone: a lease of thirty takes hardly longer than one of one. The lock is held."""
        ahead = min(AHEAD_MOST, int(self.hands * AHEAD_SECONDS / self._pace))
        if len(self._ahead) > ahead // 2:
            return 0
        return max(0, self.hands + ahead - self._busy - len(self._ahead))

    def _return_late(self, patience: float) -> None:
        """Give back what has waited for a hand for longer than ``patience`` seconds, or for longer than that many times
        where hands have begun others meanwhile."""
        now = time.monotonic()
        late = []
        with self._lock:
            before = now - (patience if self._begun <= now - patience else PATIENCE_MOST * patience)
            while self._ahead and self._ahead[0][1] <= before:
                late.append(self._ahead.popleft()[0])
        for lease in late:
            self.worker.give_back(lease)

    def _make(self, lease: Lease) -> None:
        started = time.monotonic()
        hand = threading.Lock()

        def built() -> None:
            """Free the hand, once."""
            if hand.acquire(blocking=False):
                self._free_hand(time.monotonic() - started)

        try:
            self.worker.make(lease, built)
        finally:
            built()
            with self._lock:
                self._storing -= 1
                self._begin()

    def _free_hand(self, seconds: float) -> None:
        with self._lock:
            self._busy -= 1
            self._storing += 1
            # Slow builds count at once, quick ones little by little.
            pace = seconds if self._pace == float("inf") else 0.8 * self._pace + 0.2 * seconds
            self._pace = max(pace, seconds, 1e-6)
            self._begin()
            wanted = self._wanted()
        if wanted:
            self._woken.set()
