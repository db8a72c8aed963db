"""Scratch space on this machine: folders named after the pid of whoever made them, so that what a killed process left
is known for that, and goes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

FULL_PERCENT = 99.0


class Scratch:
    """A worker's folders below ``root``: one for each of its threads, empty whenever it is taken. To make a folder and
    to remove it again takes longer than all other files of a small build."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._own = threading.local()
        self._folders: list[Path] = []

    def open(self) -> None:
        """Have a place to make folders in, without what others left in it that were killed."""
        self.root.mkdir(parents=True, exist_ok=True)
        remove_orphans(self.root, "build-*-*", "forms/form-*-*")

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """This thread's folder, empty; what was put into it is gone afterwards."""
        folder: Path | None = getattr(self._own, "folder", None)
        if folder is None or not folder.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            folder = self._own.folder = Path(tempfile.mkdtemp(prefix=f"build-{os.getpid()}-", dir=self.root))
            self._folders.append(folder)
        try:
            yield folder
        finally:
            empty(folder)

    def close(self) -> None:
        """Remove the folders; call when none is in use any more."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def is_full(self) -> bool:
        """Whether hardly anything can be written there."""
        try:
            return psutil.disk_usage(str(self.root)).percent >= FULL_PERCENT
        except OSError:
            return False


def remove_orphans(folder: Path, *patterns: str) -> None:
    """Remove the folders of processes that are gone: those that match a pattern and are called ``WORD-PID-…``."""
    for orphan in [path for pattern in patterns for path in folder.glob(pattern)]:
        pid = orphan.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(orphan, ignore_errors=True)


def empty(folder: Path) -> None:
    """Remove all that lies in a folder; where that cannot be, the folder too."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    Path(entry.path).unlink()
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
