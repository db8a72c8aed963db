"""Timing caches that a fleet shares: taken before a build, and what it learned merged with whatever is newest.

A scope's cache is a blob; its pointer, a small object that is replaced only by who saw it last, lists the versions.
The blob is written first, the pointer second: a crash between them leaves a blob that nobody names, which ``farm
reconcile`` removes, as it does those that a history has dropped. Who is not first merges again with what then is
newest; so nothing that was acknowledged is lost, however many write at once.

What cannot be used (another version, another device, damaged) is set aside with a warning and a fresh one is begun.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from farm.builders import Merged
from farm.errors import BadInput, CorruptBlob, FarmError, Missing, NotAllowed, Unavailable
from farm.logging import get_logger
from farm.store import BlobStore, VersionedObjects
from farm.timing_history import Author, History, Ran, Scope, Version

log = get_logger(__name__)

SCOPES = "timing-scopes"
"""The object that lists the scopes."""
MOST_BYTES = 256 * 2**20
TRIES = 40
FIRST_PAUSE_S, MOST_PAUSE_S = 0.01, 1.0
LOST = "its bytes are gone from the store, or damaged"

Combine = Callable[[bytes, bytes], Merged]
"""What is stored and what is to be added; both, as ``builders.Merger`` gives it. It may raise any ``FarmError``."""

T = TypeVar("T")


@dataclass(frozen=True)
class Lesson:
    """What somebody learned. ``taken`` is the number of the version that it was learned on top of, ``aside`` why that
    one was not used after all; ``ran`` is the build, for the statistics."""

    data: bytes
    author: Author
    taken: int | None = None
    aside: str = ""
    entries: int | None = None
    ran: Ran | None = None
    why: str = "learned"


@dataclass(frozen=True)
class Learned:
    """``version``: the newest now, which holds what was learned; ``None`` if that was turned away, for the reason
    ``why``. ``written`` says whether it is a new one."""

    version: Version | None
    written: bool = False
    why: str = ""


class TimingCaches:
    """Safe to share between threads and processes: all state is in the store."""

    def __init__(
        self,
        objects: VersionedObjects,
        store: BlobStore,
        *,
        tries: int = TRIES,
        pause: float = FIRST_PAUSE_S,
        clock: Callable[[], float] = time.time,
        trusted: bool = True,
    ) -> None:
        """``trusted``: whether the scopes of trusted namespaces may be written (``NotAllowed`` where not)."""
        self._trusted = trusted
        self._objects, self._store = objects, store
        self._tries, self._pause, self._clock = tries, pause, clock

    # -- reading -----------------------------------------------------------------------------------------------

    def scopes(self) -> list[Scope]:
        """Every scope that ever had a cache. ``FarmError`` when the list is damaged: it is never taken for empty."""
        return self._scopes()[0]

    def history(self, scope: Scope) -> History:
        return self._read(scope)[0]

    def latest(self, scope: Scope) -> tuple[Version, bytes] | None:
        """The newest version whose bytes are there, and they; ``None`` when there is none."""
        for version in self.history(scope).usable:
            data = self._bytes(scope, version)
            if data is not None:
                return version, data
        return None

    def read(self, scope: Scope, number: int | None = None) -> tuple[Version, bytes]:
        """A version and its bytes; ``NoSuchThing`` for a number that is not kept, ``Missing`` when there is nothing."""
        if number is None:
            found = self.latest(scope)
        else:
            version = self.history(scope).find(number)
            data = self._bytes(scope, version)
            found = None if data is None else (version, data)
        if found is None:
            raise Missing(f"{scope} has no such timings: {LOST}", "a build there begins a fresh cache")
        return found

    def named(self) -> set[str]:
        """The digests of all blobs that histories name. Whoever removes blobs asks this as it asks for their rows."""
        return {version.digest for scope in self.scopes() for version in self.history(scope).versions}

    # -- writing -----------------------------------------------------------------------------------------------

    def learn(self, scope: Scope, lesson: Lesson, combine: Combine) -> Learned:
        """Merge with whatever is newest. Once this returns a version, what was learned outlives everybody's crashes.

        ``Unavailable`` when others were first too often, or the store is away; ``combine``'s errors pass through. Then
        it may have been learned or not: it may be learned again.
        """
        check_bounds(lesson.data)
        self._register(scope)
        return self._replaced(scope, lambda history: self._with_lesson(history, lesson, combine))

    def replace(self, scope: Scope, lesson: Lesson) -> Learned:
        """Put a cache on top, merged with nothing."""
        check_bounds(lesson.data)
        self._register(scope)
        return self._replaced(scope, lambda history: self._on_top(history, lesson, lesson.data, lesson.entries))

    def rollback(self, scope: Scope, number: int, author: Author) -> Version:
        """Make version ``number`` the newest again. What builds learn that began from one above it is turned away."""

        def back(history: History) -> tuple[History, Learned]:
            if self._bytes(scope, history.find(number)) is None:
                raise Missing(f"version {number} of {scope} cannot be had: {LOST}", "choose another")
            after = history.rolled_back(number, self._clock(), author)
            return after, Learned(after.versions[-1], True)

        version = self._replaced(scope, back).version
        assert version is not None
        return version

    def _with_lesson(self, history: History, lesson: Lesson, combine: Combine) -> tuple[History, Learned]:
        if lesson.taken is not None and history.is_revoked(lesson.taken):
            return history, Learned(None, why=f"version {lesson.taken}, from which it began, was rolled back")
        if lesson.aside and lesson.taken is not None:
            history = self._set_aside(history, lesson.taken, lesson.aside)
        history, below, merged = self._merged(history, lesson, combine)
        if merged.unfit:
            return history, Learned(None, why=f"what was learned cannot be merged: {merged.why}")
        if lesson.ran is not None:
            history = replace(history, statistics=history.statistics.after(lesson.ran))
        if below is not None and below.digest == digest_of(merged.data):
            return history, Learned(below)
        return self._on_top(history, lesson, merged.data, merged.entries)

    def _merged(self, history: History, lesson: Lesson, combine: Combine) -> tuple[History, Version | None, Merged]:
        """With the newest version that can be merged with; those that cannot are set aside."""
        for version in history.usable:
            data = self._bytes(history.scope, version)
            if data is None:
                history = self._set_aside(history, version.number, LOST)
                continue
            merged = self._both(version, data, lesson, combine)
            if merged.unfit != "theirs":
                return history, version, merged
            history = self._set_aside(history, version.number, merged.why)
        return history, None, Merged(lesson.data, lesson.entries)

    @staticmethod
    def _both(version: Version, data: bytes, lesson: Lesson, combine: Combine) -> Merged:
        """What was learned on top of the newest holds all of it already; unless it shrank, which is not believed."""
        on_top = version.number == lesson.taken and len(lesson.data) >= len(data)
        return Merged(lesson.data, lesson.entries) if on_top or data == lesson.data else combine(data, lesson.data)

    def _on_top(self, history: History, lesson: Lesson, data: bytes, entries: int | None) -> tuple[History, Learned]:
        blob = self._store.put(io.BytesIO(data))
        version = Version(
            number=history.next_number,
            digest=blob.digest,
            size=blob.size,
            when=self._clock(),
            who=lesson.author.who,
            driver=lesson.author.driver,
            entries=entries,
            why=lesson.why,
        )
        return history.with_version(version), Learned(version, True)

    def _set_aside(self, history: History, number: int, why: str) -> History:
        log.warning("a timing cache is set aside", scope=str(history.scope), version=number, reason=why)
        return history.with_aside({number: why})

    # -- objects and blobs -------------------------------------------------------------------------------------

    def _replaced(self, scope: Scope, change: Callable[[History], tuple[History, T]]) -> T:
        """Compare and swap, until nobody else was first."""
        if not (self._trusted or scope.realm):
            raise NotAllowed(f"{scope} is written from trusted namespaces alone", "set FARM_NAMESPACE to one of them")
        for attempt in range(self._tries):
            before, token = self._read(scope)
            after, answer = change(before)
            if after == before or self._objects.write_if(scope.name, after.to_bytes(), token) is not None:
                return answer
            self._wait(attempt)
        raise _too_often(str(scope), self._tries)

    def _read(self, scope: Scope) -> tuple[History, str | None]:
        """A history that cannot be read is begun anew: its blobs cannot be found any more."""
        now = self._objects.read_versioned(scope.name)
        if now is None:
            return History(scope), None
        try:
            return History.from_bytes(now.data), now.version
        except ValueError as error:
            log.warning("a history of timings is damaged and begun anew", scope=str(scope), reason=str(error))
            return History(scope), now.version

    def _bytes(self, scope: Scope, version: Version) -> bytes | None:
        try:
            data = self._store.read(version.digest)
        except CorruptBlob as error:
            log.warning("timings are damaged", scope=str(scope), version=version.number, reason=error.message)
            self._store.quarantine(version.digest)
            return None
        if data is None:
            log.warning("timings are gone", scope=str(scope), version=version.number)
        return data

    def _register(self, scope: Scope) -> None:
        """Before a scope has its first blob it is listed: what is not listed is not looked for by ``named``."""
        for attempt in range(self._tries):
            held, token = self._scopes()
            if scope in held:
                return
            data = json.dumps([one.as_json() for one in (*held, scope)], separators=(",", ":")).encode()
            if self._objects.write_if(SCOPES, data, token) is not None:
                return
            self._wait(attempt)
        raise _too_often(SCOPES, self._tries)

    def _scopes(self) -> tuple[list[Scope], str | None]:
        now = self._objects.read_versioned(SCOPES)
        if now is None:
            return [], None
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return [Scope.from_json(told) for told in json.loads(now.data)], now.version
        raise FarmError(
            f"the list of timing caches ({SCOPES} in the store) is damaged", "restore it, or remove it to begin anew"
        )

    def _wait(self, attempt: int) -> None:
        """Full jitter: those who met must not meet again."""
        time.sleep(random.uniform(0.0, min(MOST_PAUSE_S, self._pause * 2 ** min(attempt, 20))))


def check_bounds(data: bytes) -> None:
    """``BadInput`` for what is no timing cache by its size."""
    if not data:
        raise BadInput("an empty file is no timing cache", "give one that TensorRT wrote")
    if len(data) > MOST_BYTES:
        raise BadInput(
            f"{len(data):,} bytes are no timing cache: the most is {MOST_BYTES:,}", "give one that TensorRT wrote"
        )


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _too_often(what: str, tries: int) -> Unavailable:
    return Unavailable(f"others wrote {what} first, {tries} times in a row", "it is tried again with the next build")
