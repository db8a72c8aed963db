"""A blob on its way to a file, such that whoever is cut off may go on where it stopped.

Beside the destination lie, while it comes, the *partial* file and the *mark*: eight bytes that say up to where the
partial file has been written and hashed. The mark follows the bytes, so after a kill at any instant what lies before it
is whole; a power failure may lose bytes before a mark, and the digest finds that out: then all is brought anew. One
process brings; others who want the same file wait for it as long as it gets on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.blobs.alone import alone
from farm.blobs.files import is_blob, sync_folder
from farm.blobs.names import hex_of, name_of

STALLED_S = 30.0
"""Whoever has brought nothing for so long is not waited for."""
BUFFER = 4 * 2**20
_MARK = struct.Struct("<Q")

Tell = Callable[[int], None]
"""Hears of the size of each piece that came, and may raise to stop it all."""


@dataclass
class Coming:
    """A partial file that is open and locked. ``hasher`` has seen its first ``at`` bytes."""

    descriptor: int
    mark: int
    at: int
    hasher: hashlib._Hash

    def reached(self, at: int) -> None:
        """What lies before ``at`` has been written, and the hasher has seen it."""
        os.pwrite(self.mark, _MARK.pack(at), 0)
        self.at = at


def bring_on(digest: str, dest: Path, size: int, bring: Callable[[Coming], None]) -> bool:
    """Have ``bring`` write what is still lacking of a blob of ``size`` bytes, verify it and put it in place. ``False``:
    the bytes are another blob's. Whatever it raises, what has come is kept. ``resumed`` must hold the destination."""
    for _ in range(2):
        with _opened(digest, dest, size) as coming:
            begun = coming.at
            bring(coming)
            if name_of(coming.hasher) == digest:
                os.ftruncate(coming.descriptor, size)
                os.fsync(coming.descriptor)
                _partial(digest, dest).replace(dest)
                sync_folder(dest.parent)
                _forget(dest)
                return True
        _forget(dest)
        if not begun:
            return False
    return False


@contextlib.contextmanager
def _opened(digest: str, dest: Path, size: int) -> Iterator[Coming]:
    partial = _partial(digest, dest)
    with contextlib.ExitStack() as stack:
        target = os.open(partial, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        stack.callback(os.close, target)
        mark = os.open(_mark(partial), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        stack.callback(os.close, mark)
        at, hasher = _seen(target, mark, size)
        yield Coming(target, mark, at, hasher)


def _seen(target: int, mark: int, size: int) -> tuple[int, hashlib._Hash]:
    """How much is there, and its hash."""
    said = os.pread(mark, _MARK.size, 0)
    at = min(_MARK.unpack(said)[0] if len(said) == _MARK.size else 0, os.fstat(target).st_size, size)
    hasher, view = hashlib.sha256(), memoryview(bytearray(BUFFER if at else 0))
    read = 0
    while read < at:
        count = os.preadv(target, [view[: at - read]], read)
        if not count:
            return 0, hashlib.sha256()
        hasher.update(view[:count])
        read += count
    return at, hasher


def resumed(digest: str, dest: Path, get: Callable[[], bool], alone_get: Callable[[], bool]) -> bool:
    """``get`` with the destination held, unless the blob lies there already. ``alone_get`` is for where it cannot be
    held: it brings the blob beside whoever else does."""
    hex_of(digest)
    with alone(_hidden(dest, "lock"), lambda: _progress(digest, dest), STALLED_S) as held:
        if is_blob(digest, dest):
            if held:
                _forget(dest)
            return True
        if not held:
            return alone_get()
        _forget(dest, but=digest)
        return get()


def _progress(digest: str, dest: Path) -> object:
    try:
        found = _partial(digest, dest).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_blocks


def _forget(dest: Path, but: str = "") -> None:
    """Remove what lies beside ``dest`` of blobs on their way to it, except one's."""
    kept = _partial(but, dest).name if but else ""
    for path in dest.parent.glob(f"{_escaped(_hidden(dest, '').name)}*.partial*"):
        if not kept or not path.name.startswith(kept):
            with contextlib.suppress(OSError):
                path.unlink()


def _escaped(text: str) -> str:
    return "".join(f"[{mark}]" if mark in "*?[" else mark for mark in text)


def _hidden(dest: Path, ending: str) -> Path:
    """A name beside ``dest`` that no other destination has."""
    return dest.with_name(f".{dest.name[:100]}-{hashlib.sha256(dest.name.encode()).hexdigest()[:12]}.{ending}")


def _partial(digest: str, dest: Path) -> Path:
    return _hidden(dest, f"{hex_of(digest)[:16]}.partial")


def _mark(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}-mark")
