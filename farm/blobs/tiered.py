"""A folder of this machine in front of another store, so that a node fetches an engine once.

The store behind is the truth: what is stored goes there first, and it alone says what is there. The folder holds
copies of what was last used, up to so many bytes, and never more than half of what its disk would have free without
them: builds need room there too. A blob that was used longest ago goes first (its file's access time
says when that was). A copy is verified when it is handed out, as every blob is; a bad one is fetched anew. Whatever is
wrong with the folder costs time and is logged, and nothing else. Removing a copy takes it from nobody who reads it: an
open file and a hard link keep their bytes.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from farm.blobs.alone import alone
from farm.blobs.folder import FolderStore
from farm.blobs.names import hex_of
from farm.errors import CorruptBlob, FarmError, Unavailable
from farm.logging import get_logger
from farm.store import Blob, BlobStore, Stray, fetch_on

TRIES = 3
STALLED_S = 30.0
"""Whoever has brought no byte for so long is not waited for."""
EVICTING_S = 5.0
BLOCK = 4096
"""Bytes that a file takes on its disk are a multiple of this: a thousand small plans fill a small disk."""
COMING = re.compile(r"\.([0-9a-f]{64})\.")
"""In the names of files that are being brought; a store puts more before and after it while it writes."""
T = TypeVar("T")

log = get_logger(__name__)


class TieredStore:
    """``farm.store.BlobStore``: the folder ``front``, of at most ``max_bytes``, before the store ``back``."""

    def __init__(self, front: Path, back: BlobStore, max_bytes: int) -> None:
        self.back = back
        self.max_bytes = max_bytes
        self._front = FolderStore(front)
        self._coming, self._locks = front / "coming", front / "locks"

    # -- writing -----------------------------------------------------------------------------------------------

    def put(self, source: BinaryIO) -> Blob:
        return self.back.put(source)

    def put_file(self, path: Path, *, link: bool = False) -> Blob:
        """Store a file; a copy stays here, where it is likely to be asked for next."""
        blob = self.back.put_file(path)
        self._keep(blob, lambda: self._front.put_file(path, link=link))
        return blob

    def _keep(self, blob: Blob, store: Callable[[], Blob]) -> None:
        if blob.size > self.max_bytes or self._front_size(blob.digest) is not None:
            return
        if not self._make_room(blob.size):
            return
        kept = self._front_does(store)
        if kept is not None and kept != blob:  # the file is another by now
            self._front_does(lambda: self._front.delete(kept.digest))
        self._make_room()

    # -- reading -----------------------------------------------------------------------------------------------

    def size(self, digest: str) -> int | None:
        return self.back.size(digest)

    def missing(self, digests: Iterable[str]) -> set[str]:
        return self.back.missing(digests)

    def read(self, digest: str) -> bytes | None:
        data = self._healthy(digest, lambda: self._front.read(digest))
        if data is not None:
            return data
        data = self.back.read(digest)
        if data is not None:
            self._keep(Blob(digest, len(data)), lambda: self._front.put(io.BytesIO(data)))
        return data

    def fetch(self, digest: str, dest: Path, *, link: bool = False) -> bool:
        """As the contract says. Of several who want one blob at once on this machine, one brings it."""
        for _ in range(TRIES):
            if self._healthy(digest, lambda: self._front.fetch(digest, dest, link=link)):
                return True
            size = self.back.size(digest)
            if size is None:
                return False
            if size > self.max_bytes or not self._bring(Blob(digest, size)):
                break
        return self.back.fetch(digest, dest, link=link)

    def resume(self, digest: str, dest: Path, tell: Callable[[int], None] = lambda count: None) -> bool:
        """From the folder where it has the blob. Else past it: the destination is this machine's copy."""
        if self._healthy(digest, lambda: self._front.resume(digest, dest, tell)):
            return True
        return fetch_on(self.back, digest, dest, tell)

    def check(self, digest: str, tell: Callable[[int], None] = lambda count: None) -> int | None:
        """The store behind's own blob, never a copy."""
        return self.back.check(digest, tell)

    def blobs(self, start: str = "") -> Iterator[Blob]:
        return self.back.blobs(start)

    def strays(self) -> Iterator[Stray]:
        return self.back.strays()

    def presign(self, digest: str, seconds: int) -> str | None:
        return self.back.presign(digest, seconds)

    def clock(self) -> float:
        return self.back.clock()

    def label(self) -> str | None:
        return self.back.label()

    def set_label(self, text: str) -> str:
        return self.back.set_label(text)

    # -- removing ----------------------------------------------------------------------------------------------

    def delete(self, digest: str, *, before: float = math.inf) -> bool:
        deleted = self.back.delete(digest, before=before)
        if deleted or before == math.inf:
            self._front_does(lambda: self._front.delete(digest))
        return deleted

    def quarantine(self, digest: str) -> bool:
        """The store behind judges its own blob. Copies elsewhere stay: they are verified when they are used."""
        aside = self.back.quarantine(digest)
        if aside:
            self._front_does(lambda: self._front.delete(digest))
        return aside

    def set_aside(self, place: str) -> bool:
        return self.back.set_aside(place)

    def sweep(self) -> int:
        """What the store behind sweeps, and what was being brought here by those who died."""
        found = {match[1] for path in _files(self._coming) if (match := COMING.search(path.name))}
        mine = sum(self._sweep_one(digits) for digits in sorted(found))
        return self.back.sweep() + self._front.sweep() + mine

    def _sweep_one(self, digits: str) -> int:
        with alone(self._locks / digits, lambda: None, 0) as locked:
            return self._clear(digits) if locked else 0

    # -- the folder --------------------------------------------------------------------------------------------

    def _healthy(self, digest: str, get: Callable[[], T | None]) -> T | None:
        """What the folder gives; nothing from a copy that is corrupt, which goes."""
        try:
            found = get()
        except CorruptBlob as error:
            log.warning("a copy on this machine is corrupt; it is fetched anew", blob=digest, reason=error.message)
            self._front_does(lambda: self._front.delete(digest))
            return None
        except Unavailable as error:
            log.warning("the folder before the store cannot be used", reason=error.message)
            return None
        if found:
            self._front.touch(digest)
        return found

    def _front_size(self, digest: str) -> int | None:
        return self._front_does(lambda: self._front.size(digest))

    def _front_does(self, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except (FarmError, OSError) as error:
            log.warning("the folder before the store cannot be used", reason=str(error))
            return None

    def _bring(self, blob: Blob) -> bool:
        """Fetch into the folder, or wait for who does; ``False`` when the folder cannot take it."""
        digits = hex_of(blob.digest)
        try:
            self._coming.mkdir(parents=True, exist_ok=True)
            with alone(self._locks / digits, lambda: self._progress(digits), STALLED_S) as locked:
                if self._front.size(blob.digest) is not None:
                    return True
                if locked:
                    self._clear(digits)
                if not self._make_room(blob.size):
                    return False
                self._bring_alone(blob)
        except OSError as error:
            log.warning("the folder before the store cannot be used", reason=str(error))
            return False
        except Unavailable as error:
            if not isinstance(error.__cause__, OSError):  # the store behind
                raise
            log.warning("the folder before the store cannot be used", reason=error.message)
            return False
        self._make_room()
        return True

    def _bring_alone(self, blob: Blob) -> None:
        path = self._coming / f"0.{hex_of(blob.digest)}.{os.getpid()}-{time.monotonic_ns()}"
        try:
            if self.back.fetch(blob.digest, path):
                self._front.adopt(blob.digest, path)
        finally:
            path.unlink(missing_ok=True)

    def _coming_of(self, digits: str) -> list[Path]:
        return [path for path in _files(self._coming) if f".{digits}." in path.name]

    def _progress(self, digits: str) -> list[tuple[str, int]]:
        found = []
        for path in self._coming_of(digits):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.name, path.stat().st_mtime_ns))
        return found

    def _clear(self, digits: str) -> int:
        """Remove what those who died have left of a blob; its lock must be held."""
        left = self._coming_of(digits)
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _make_room(self, size: int = 0) -> bool:
        """Remove what was used longest ago until there is room for so many bytes; whether there is. Where somebody else
        is at it (and perhaps stopped), it is left to them."""
        blobs = [blob for _, blob in self._uses()]
        if self._fits(blobs, size, self._room(blobs)):
            return True
        with alone(self._locks / "evicting", lambda: None, EVICTING_S) as locked:
            return bool(self._front_does(lambda: self._evict(size))) if locked else True

    def _uses(self) -> list[tuple[float, Blob]]:
        """Every copy, the one that was used longest ago first."""
        return sorted(self._front_does(lambda: list(self._front.uses())) or (), key=lambda use: use[0])

    def _room(self, blobs: Iterable[Blob]) -> float:
        """What copies may take of the disk."""
        try:
            found = os.statvfs(self._front.root)
        except OSError:
            return math.inf
        return (found.f_bavail * found.f_frsize + sum(map(_taken, blobs))) / 2

    def _fits(self, blobs: Sequence[Blob], size: int, room: float) -> bool:
        """Whether so many bytes more would be within both bounds; none more, whether these are."""
        return self._too_many(blobs, size, room) == 0

    def _too_many(self, blobs: Sequence[Blob], size: int, room: float) -> int:
        """How many of ``blobs`` must go, from the first on, for that; one more than there are where none would help."""
        more = [*blobs, Blob("", size)] if size else blobs
        held, taken = sum(blob.size for blob in more), sum(map(_taken, more))
        for count, blob in enumerate(blobs):
            if held <= self.max_bytes and taken <= room:
                return count
            held, taken = held - blob.size, taken - _taken(blob)
        return len(blobs) if held <= self.max_bytes and taken <= room else len(blobs) + 1

    def _evict(self, size: int) -> bool:
        blobs = [blob for _, blob in self._uses()]
        count = self._too_many(blobs, size, self._room(blobs))
        for blob in blobs[:count]:
            self._front.delete(blob.digest)
        return count <= len(blobs)


def _taken(blob: Blob) -> int:
    """Bytes of the disk."""
    return -(-blob.size // BLOCK) * BLOCK


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
