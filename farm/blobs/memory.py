"""Blobs in memory, for tests and for what lives no longer than its process."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from farm.blobs.faults import bad_source
from farm.blobs.names import corrupt, hex_of, name_of
from farm.store import Blob, Stray

PIECE = 2**20


class MemoryStore:
    """``farm.store.BlobStore`` in a mapping."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}
        self._put_at: dict[str, float] = {}
        self._label: str | None = None
        self._lock = threading.Lock()

    def put(self, source: BinaryIO) -> Blob:
        data = b"".join(iter(lambda: source.read(PIECE), b""))
        digest = name_of(hashlib.sha256(data))
        with self._lock:
            self._held[digest] = data
            self._put_at[digest] = self.clock()
        return Blob(digest, len(data))

    def put_file(self, path: Path, *, link: bool = False) -> Blob:
        try:
            with path.open("rb") as source:
                return self.put(source)
        except OSError as error:
            raise bad_source(error, path) from error

    def size(self, digest: str) -> int | None:
        hex_of(digest)
        data = self._held.get(digest)
        return None if data is None else len(data)

    def missing(self, digests: Iterable[str]) -> set[str]:
        return {digest for digest in digests if self.size(digest) is None}

    def read(self, digest: str) -> bytes | None:
        hex_of(digest)
        data = self._held.get(digest)
        if data is not None and name_of(hashlib.sha256(data)) != digest:
            raise corrupt(digest, "memory")
        return data

    def fetch(self, digest: str, dest: Path, *, link: bool = False) -> bool:
        data = self.read(digest)
        if data is None:
            return False
        temporary = dest.with_name(f".{dest.name}.part")
        temporary.write_bytes(data)
        temporary.replace(dest)
        return True

    def delete(self, digest: str, *, before: float = math.inf) -> bool:
        hex_of(digest)
        with self._lock:
            if self._put_at.get(digest, 0.0) >= before:
                return False
            return self._held.pop(digest, None) is not None

    def check(self, digest: str, tell: Callable[[int], None] = lambda count: None) -> int | None:
        data = self.read(digest)
        if data is None:
            return None
        tell(len(data))
        return len(data)

    def blobs(self, start: str = "") -> Iterator[Blob]:
        with self._lock:
            held = [Blob(digest, len(data), self._put_at[digest]) for digest, data in self._held.items()]
        return iter([blob for blob in held if hex_of(blob.digest).startswith(start)])

    def strays(self) -> Iterator[Stray]:
        return iter(())

    def set_aside(self, place: str) -> bool:
        return False

    def clock(self) -> float:
        return time.time()

    def label(self) -> str | None:
        return self._label

    def set_label(self, text: str) -> str:
        with self._lock:
            self._label = self._label or text
            return self._label

    def quarantine(self, digest: str) -> bool:
        hex_of(digest)
        with self._lock:
            data = self._held.get(digest)
            if data is None or name_of(hashlib.sha256(data)) == digest:
                return False
            del self._held[digest]
            return True

    def presign(self, digest: str, seconds: int) -> str | None:
        hex_of(digest)
        return None

    def sweep(self) -> int:
        return 0
