"""One at a time, among the threads and processes of a machine: kernel locks on files that come and go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_S = 0.02
LONGEST_POLL_S = 0.5


@contextlib.contextmanager
def alone(path: Path, still: Callable[[], object], patience_s: float) -> Iterator[bool]:
    """Hold the lock ``path``; the file goes afterwards.

    ``False`` when it could not be had: the file system has no locks, or its holder shows no sign of life: for
    ``patience_s`` seconds ``still()``, which says how far it is, has said the same. Whoever dies lets go at once;
    whoever is stopped does not, and must not stop others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(path, still, patience_s)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(descriptor)


def _locked(path: Path, still: Callable[[], object], patience_s: float) -> int | None:
    pause, seen, since = POLL_S, still(), time.monotonic()
    while True:
        try:
            descriptor = _try(path)
        except BlockingIOError:
            now = still()
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since >= patience_s:
                return None
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL_S)
        except OSError:
            return None
        else:
            if descriptor is not None:
                return descriptor


def _try(path: Path) -> int | None:
    """A locked descriptor of the file that is at ``path`` now; ``None`` when the one that was locked is gone."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine, there = os.fstat(descriptor), path.stat(follow_symlinks=False)
        if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
            return descriptor
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
