"""Which file is this, and has it changed? Identity by device, inode, size, mtime and ctime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from farm.errors import BadProgram


class FileIdentity(NamedTuple):
    """A file's identity; times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """The identity in ``status``."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def refuse_change(path: Path, before: FileIdentity, status: os.stat_result) -> None:
    """``BadProgram`` if ``path`` is no longer the file that it was."""
    if FileIdentity.of(status) != before:
        raise BadProgram(f"{path} changed while it was read", "Ask again once the file is complete.")
