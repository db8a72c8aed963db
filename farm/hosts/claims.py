"""One worker per GPU: a kernel lock on a file that every worker of this machine finds.

The lock is held in every place that can be had, so that two workers meet in any one that they share, whatever
their users and ``FARM_HOME``s: ``/run/lock`` and ``/tmp`` first, the farm's own folder last. The kernel lets go
when the holder and what it forked are gone. Files stay behind: to remove one would let two workers hold a lock of
that name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from farm.errors import Unavailable

PLACES = (Path("/run/lock"), Path("/tmp"))
"""Known to all users: see ``_open`` for the care that this takes."""
FOLDER = "farm-gpus"
MAX_HOLDER = 4096
"""Bytes of a lock file that are read: anybody may write into it."""


class Claim:
    """A GPU held by this process until ``release``, the end of a ``with`` block, or its death."""

    def __init__(self, uuid: str, opened: contextlib.ExitStack) -> None:
        self.uuid = uuid
        self._opened = opened

    def release(self) -> None:
        self._opened.close()

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim_gpu(uuid: str, folder: Path, node: str = "", places: Sequence[Path] = PLACES) -> Claim:
    """Hold the GPU or MIG device ``uuid`` for this process. ``folder`` is the farm's own, ``node`` its name there.

    ``Unavailable`` names the process that holds it, or says that no lock could be had anywhere.
    """
    name = re.sub(r"[^\w-]", "_", uuid) + ".lock"
    with contextlib.ExitStack() as opened:
        held: list[int] = []
        for place, mode in [*((place, 0o1777) for place in places), (folder, 0o700)]:
            descriptor = _open(place / FOLDER, name, mode)
            if descriptor is not None:
                opened.callback(os.close, descriptor)
                held += [descriptor] if _lock(descriptor, uuid) else []
        if not held:
            text = f"GPU {uuid} cannot be claimed: no lock can be had in {', '.join(map(str, (*places, folder)))}"
            raise Unavailable(text, "let this user write to one of them")
        for descriptor in held:
            _sign(descriptor, node)
        return Claim(uuid, opened.pop_all())


def _open(folder: Path, name: str, mode: int) -> int | None:
    """The lock file, for anybody to open who may enter the folder; ``None`` where that cannot be.

    Others may write to these folders: no link is followed, and a file that is also something else is left alone.
    """
    with contextlib.suppress(OSError):
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        within = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        stack.callback(os.close, within)
        descriptor = _file(name, within)
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            return descriptor
        os.close(descriptor)
    return None


def _file(name: str, within: int) -> int:
    """Another user's file in a sticky folder may not be opened with ``O_CREAT`` (fs.protected_regular), so making it
    and opening it are two steps. The lock needs no leave to write, except on network file systems."""
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR):
        with contextlib.suppress(OSError):
            descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666, dir_fd=within)
            if flags & os.O_CREAT:
                os.fchmod(descriptor, 0o666)
            return descriptor
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=within)


def _lock(descriptor: int, uuid: str) -> bool:
    """Whether it is locked now: not where the file system has no locks. ``Unavailable`` when another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = f"GPU {uuid} is taken by {_holder(descriptor)}"
        raise Unavailable(text, "one worker serves a GPU: stop that one, or give this one another with --gpu") from None
    except OSError:
        return False
    return True


def _sign(descriptor: int, node: str) -> None:
    """Say who holds it. A file of another user's that may only be read stays as it is: the lock holds all the same."""
    told = json.dumps({"pid": os.getpid(), "node": node or socket.gethostname()}).encode()
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, told, 0)


def _holder(descriptor: int) -> str:
    """Who wrote that it holds the file, in words that are safe to print."""
    try:
        told = json.loads(os.pread(descriptor, MAX_HOLDER, 0))
        pid, node = int(told["pid"]), str(told["node"])
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
    return f"process {pid} of node {''.join(letter for letter in node if letter.isprintable())[:200]}"
