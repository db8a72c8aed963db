"""Heartbeats: one thread keeps all of a worker's leases alive, and carries what their builds say while they build."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from farm.builders import Cancelled, Watch
from farm.builds import Lease
from farm.errors import LeaseLost, Unavailable
from farm.logging import get_logger
from farm.making import Beat, Making, Sign

log = get_logger(__name__)

DEAF_LEASES = 3
SHARE_OF_TTL = 0.25
"""A lease is extended at the latest when so much of it has gone by."""


class Heart:
    """One lease's. The building thread never touches the database while it builds. When the lease is lost, or the
    build is no longer wanted, or its worker hands it back, ``cancelled`` turns true and the builder kills its child.
    """

    def __init__(self, index: Making, lease: Lease, ttl: float, stopping: threading.Event) -> None:
        self.lease = lease
        self.unwanted = False
        self.lost = False
        self._index, self._ttl, self._stopping = index, ttl, stopping
        self._phase: tuple[str, float | None] = ("start", None)
        self._text: list[str] = []
        self._lock = threading.Lock()
        self._logged, self._log_bytes = hashlib.sha256(), 0
        self._said: tuple[str, float | None] = self._phase
        self._good_until = time.monotonic() + ttl
        self._extended = time.monotonic()

    def watch(self) -> Watch:
        return Watch(report=self._report, log=self._write, cancelled=self.cancelled)

    def cancelled(self) -> bool:
        return self.unwanted or self.lost or self._stopping.is_set()

    def log_digest(self) -> dict[str, Any]:
        """Of all that this attempt has logged, in UTF-8: ``digest`` and ``bytes``. The end of the build's log."""
        with self._lock:
            return {"digest": f"sha256:{self._logged.hexdigest()}", "bytes": self._log_bytes}

    def check(self) -> None:
        """Raise before a commit that could not hold: ``LeaseLost`` or ``Cancelled``."""
        if self.lost:
            raise LeaseLost(f"the lease on build {self.lease.build.id} was lost")
        if self.unwanted:
            raise Cancelled("cancelled")

    def flush(self) -> None:
        """Write out the log so far. ``LeaseLost`` when somebody else has the build."""
        text = self._take_text()
        if text:
            self._index.append_log(self.lease, text)

    # -- for the thread that beats -----------------------------------------------------------------------------

    def wants_to_speak(self, now: float, every: float) -> bool:
        """Whether its next beat should be written: it has news, or the lease needs it."""
        if now - self._extended >= self._ttl * SHARE_OF_TTL:
            return True
        return now - self._extended >= every and (bool(self._text) or self._phase != self._said)

    def beat(self) -> Beat:
        """What to write now."""
        self._said = self._phase
        return Beat(self.lease, *self._said, log=self._take_text())

    def unsaid(self, beat: Beat) -> None:
        """The beat did not reach the database: its text waits for the next."""
        with self._lock:
            self._text.insert(0, beat.log)

    def hear(self, sign: Sign, written: bool) -> None:
        self.unwanted = self.unwanted or sign is Sign.UNWANTED
        self.lost = self.lost or sign is Sign.LOST
        if written:
            self._extended = time.monotonic()
            self._good_until = self._extended + self._ttl

    def deaf(self) -> None:
        """Nobody answers. While the database is away nobody else can take the build either: it goes on for a while
        after the lease is over, and whether it still held is found out when the database is back."""
        self.lost = self.lost or time.monotonic() > self._good_until + DEAF_LEASES * self._ttl

    # -- for the building thread -------------------------------------------------------------------------------

    def _report(self, phase: str, progress: float | None) -> None:
        self._phase = (phase, progress)

    def _write(self, text: str) -> None:
        text = text if text.endswith("\n") else text + "\n"
        with self._lock:
            self._text.append(text)
            data = text.encode("utf-8", "replace")
            self._logged.update(data)
            self._log_bytes += len(data)

    def _take_text(self) -> str:
        with self._lock:
            text, self._text = "".join(self._text), []
        return text


class Hearts:
    """All hearts of one worker. Every ``look`` seconds they hear whether their builds are still wanted; what has news
    is written at most every ``every`` seconds, all of it in one transaction.

    ``tick`` is called about as often as ``look``, from the same thread; it may raise ``Unavailable``.
    """

    def __init__(
        self,
        index: Making,
        ttl: float,
        look: float,
        every: float,
        tick: Callable[[], object] = lambda: None,
    ) -> None:
        self._index, self._ttl, self._look, self._every, self._tick = index, ttl, look, every, tick
        self._held: dict[tuple[str, int], Heart] = {}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="farm-heart", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def hold(self, lease: Lease, stopping: threading.Event) -> Iterator[Heart]:
        """Keep ``lease`` alive until this ends."""
        heart = Heart(self._index, lease, self._ttl, stopping)
        key = (lease.build.id, lease.token)
        with self._lock:
            self._held[key] = heart
        try:
            yield heart
        finally:
            with self._lock:
                self._held.pop(key, None)

    def _run(self) -> None:
        while not self._done.wait(self._look):
            with self._lock:
                held = [heart for heart in self._held.values() if not heart.lost]
            try:
                self._listen(held)
                self._tick()
            except Unavailable as error:
                log.warning("no heartbeat", held=len(held), reason=error.message)
                self._be_deaf(held)
            except Exception:
                # Without this thread every lease of the worker would run out, and whatever it leased next.
                log.exception("defect", held=len(held))
                self._be_deaf(held)

    @staticmethod
    def _be_deaf(held: Sequence[Heart]) -> None:
        for heart in held:
            heart.deaf()

    def _listen(self, held: Sequence[Heart]) -> None:
        now = time.monotonic()
        speaking = [heart for heart in held if heart.wants_to_speak(now, self._every)]
        silent = [heart for heart in held if heart not in speaking]
        if speaking:
            self._speak(speaking)
        if silent:
            for heart, sign in zip(silent, self._index.signs([heart.lease for heart in silent]), strict=True):
                heart.hear(sign, written=False)

    def _speak(self, hearts: Sequence[Heart]) -> None:
        beats = [heart.beat() for heart in hearts]
        try:
            signs = self._index.beat(beats, self._ttl)
        except Unavailable:
            for heart, beat in zip(hearts, beats, strict=True):
                heart.unsaid(beat)
            raise
        for heart, sign in zip(hearts, signs, strict=True):
            heart.hear(sign, written=True)
