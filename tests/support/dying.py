"""A process that brings a blob and dies on its way: ``python -m tests.support.dying STORE ENDPOINT DIGEST DEST AT``.

``AT`` counts what it does to files (bytes written, syncs, renames, removals); at the first that goes beyond it, the
process kills itself with SIGKILL: in the middle of a write, once as many bytes as fit are written. ``AT`` of -1: it
lives. It prints how many bytes came from the store.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

STEP = 2**20
"""What a sync, a rename or a removal counts, in bytes."""


class Fuse:
    """Counts down, and kills."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int) -> int:
        """How much of ``count`` may still be done. Nothing, and not even that is reached: the process dies."""
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        done = min(count, self.left)
        self.left -= count
        return done


def light(at: int) -> None:
    """Wrap what writes to files, from now on."""
    fuse = Fuse(at)
    pwrite, write = os.pwrite, os.write

    def some(call: Any, descriptor: int, data: Any, *where: int) -> int:
        part = memoryview(data)[: fuse.spend(len(data))]
        return int(call(descriptor, part, *where))

    os.pwrite = lambda descriptor, data, where: some(pwrite, descriptor, data, where)
    os.write = lambda descriptor, data: some(write, descriptor, data)
    for name in ("fsync", "fdatasync", "ftruncate", "unlink"):
        setattr(os, name, _counted(fuse, getattr(os, name)))
    for name in ("replace", "unlink"):
        setattr(Path, name, _counted(fuse, getattr(Path, name)))


def _counted(fuse: Fuse, call: Any) -> Any:
    def wrapped(*given: Any, **named: Any) -> Any:
        fuse.spend(STEP)
        return call(*given, **named)

    return wrapped


def bring(store: Any, digest: str, dest: Path, at: int) -> int:
    """Resume, dying at ``at`` unless that is negative; how many bytes came."""
    came: list[int] = []
    if at >= 0:
        light(at)
    assert store.resume(digest, dest, came.append)
    return sum(came)


def main() -> None:
    where, endpoint, digest, dest, at = sys.argv[1:]
    if where.startswith("s3:"):
        from farm.blobs.s3 import open_s3

        store: Any = open_s3(where, endpoint)
        store.size(digest)  # the client's own files are none of this
    else:
        from farm.blobs.folder import FolderStore

        store = FolderStore(Path(where))
    print(bring(store, digest, Path(dest), int(at)), flush=True)


if __name__ == "__main__":
    main()
