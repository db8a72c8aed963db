"""Files on their way to their place, in a folder of the same file system.

Their writer holds a kernel lock on them: one that can be locked has lost its writer, and goes in the next ``sweep``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from farm.blobs.files import entries

# Between the making of a temporary file and its lock lies an instant; nobody sweeps one so young.
SWEEP_AFTER_S = 60.0
# Where the file system has no locks, age alone tells.
SWEEP_UNLOCKED_AFTER_S = 86_400.0
NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES})
"""What a file system answers on which, or across which, there can be no link."""
T = TypeVar("T")


class Temporaries:
    """The files below ``folder``, which is made by the first of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def file(self) -> Iterator[tuple[Path, int]]:
        """A new locked file: its path and descriptor. It is gone afterwards, unless it was renamed."""
        path = self._folder / f"put-{uuid.uuid4().hex}"
        descriptor = _with_folder(self._folder, lambda: os.open(path, NEW, 0o600))
        try:
            try_lock(descriptor)
            yield path, descriptor
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def link(self, path: Path) -> Iterator[Path]:
        """A new link to a file, gone afterwards unless it was renamed; a path of nothing where there can be none. The
        file's time is now: the old ones are swept away."""
        temporary = self._folder / f"put-{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.utime(path, follow_symlinks=False)
        try:
            _with_folder(self._folder, lambda: os.link(path, temporary, follow_symlinks=False))
        except OSError as error:
            if error.errno not in NO_LINK | {errno.ENOENT}:
                raise
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def place(self, word: str) -> Path:
        """A path that nothing has yet, to rename a file to whose lock the caller holds."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{word}-{uuid.uuid4().hex}"

    def sweep(self) -> int:
        """Remove what writers left that were killed. Never in the way: what cannot be removed stays."""
        count = 0
        with contextlib.suppress(OSError):
            for entry in entries(self._folder):
                path = Path(entry.path)
                if _abandoned(path):
                    path.unlink(missing_ok=True)
                    count += 1
        return count


def try_lock(descriptor: int) -> bool | None:
    """Lock a file; False when somebody else has it, ``None`` where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _abandoned(path: Path) -> bool:
    """Whether a temporary file's writer is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        age = time.time() - os.fstat(descriptor).st_mtime
        locked = try_lock(descriptor)
        return age > (SWEEP_UNLOCKED_AFTER_S if locked is None else SWEEP_AFTER_S) and locked is not False
    finally:
        os.close(descriptor)


def _with_folder(folder: Path, act: Callable[[], T]) -> T:
    """``act`` in ``folder``, which is made where it is not yet there."""
    try:
        return act()
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        return act()
