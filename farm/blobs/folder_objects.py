"""Small objects that change, in a folder: files replaced by renaming, one writer at a time by a kernel lock.

The lock is a file of its own, which is never removed; whoever dies with it lets go of it. Readers need none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from farm.blobs.faults import fault
from farm.blobs.files import descriptor_chunks, open_regular, sync_folder, write_all
from farm.blobs.objects import checked, version_of
from farm.store import Versioned


class FolderObjects:
    """``farm.store.VersionedObjects`` in ``root``, which is made by the first write. The file system must have locks
    among all who write there (a local one, NFS 4)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder, self._locks = root / "objects", root / "object-locks"

    def read_versioned(self, name: str) -> Versioned | None:
        path = self._folder / checked(name)
        with self._faults(), open_regular(path) as source:
            if source is None:
                return None
            data = b"".join(bytes(chunk) for chunk in descriptor_chunks(source))
        return Versioned(data, version_of(data))

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        checked(name)
        with self._faults(), self._alone(name) as temporary:
            now = self.read_versioned(name)
            if (now and now.version) != version:
                return None
            self._write(temporary, data)
            temporary.replace(self._folder / name)
            sync_folder(self._folder)
        return version_of(data)

    def _write(self, path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            write_all(descriptor, memoryview(data))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """Hold the name's lock; gives a path to write to, which a writer that died may have used before."""
        for folder in (self._folder, self._locks):
            folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._locks / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self._locks / f"{name}~"
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise fault(error, self.root) from error
