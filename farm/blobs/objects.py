"""Small objects that change: their names, and the backend in memory."""

from __future__ import annotations

import hashlib
import re
import threading

from farm.errors import BadInput
from farm.store import Versioned

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}")


def checked(name: str) -> str:
    """The name, which is one segment of a path and of a URL; ``BadInput`` for anything else."""
    if not NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no object's name", "a name is up to 200 letters, digits and '. _ + = -'")
    return name


def version_of(data: bytes) -> str:
    """Where a backend has no token of its own, the bytes' hash is one."""
    return hashlib.sha256(data).hexdigest()


class MemoryObjects:
    """``farm.store.VersionedObjects`` in a mapping."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def read_versioned(self, name: str) -> Versioned | None:
        data = self._held.get(checked(name))
        return None if data is None else Versioned(data, version_of(data))

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        with self._lock:
            now = self.read_versioned(name)
            if (now and now.version) != version:
                return None
            self._held[name] = data
            return version_of(data)
