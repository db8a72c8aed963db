"""What has been read of a file before, so that a second look at a multi-GB program takes milliseconds.

One small JSON document for each file, by the file's identity. Not trusted: files that changed within the last
two seconds of the clock (a second change could keep the same times), files whose times lie in the future, and
files on network file systems, whose times are another machine's. A document that cannot be read is forgotten.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from farm.canonical import encode
from farm.programs.identity import FileIdentity

RECENT_NS = 2_000_000_000
KEPT = 2048
_MOUNTS = Path("/proc/self/mountinfo")
_REMOTE_NAMES = (
    "9p afs beegfs ceph cifs coda davfs fuse gfs gluster gpfs lustre ncp nfs ocfs2 orangefs smb vboxsf virtiofs"
    " webdav wekafs"
)
_REMOTE = tuple(_REMOTE_NAMES.split())


class WeightsMemory:
    """Documents in ``folder``, at most ``KEPT`` of them. Safe with several processes: each document is
    replaced atomically, and a lost one only costs reading the file again."""

    def __init__(self, folder: Path, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.folder = folder
        self._clock_ns = clock_ns

    def recall(self, path: Path, context: Sequence[Any]) -> Mapping[str, Any] | None:
        """What was remembered of ``path`` as it is now, read with ``context``; None if nothing, or not trusted."""
        try:
            identity = FileIdentity.of(path.stat())
            document = json.loads(self._place(identity, context).read_bytes())
            known = all(self._unchanged(Path(other), since) for other, since in document["files"])
            content: Mapping[str, Any] = document["content"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return content if known and self.trusts(identity) else None

    def remember(self, files: Mapping[Path, FileIdentity], context: Sequence[Any], content: Mapping[str, Any]) -> bool:
        """Remember ``content`` of ``files`` (the program first, then what it refers to). False if it may not."""
        if not all(self.trusts(identity) for identity in files.values()):
            return False
        identity = next(iter(files.values()))
        document = {"files": [[str(path), list(one)] for path, one in files.items()], "content": content}
        with contextlib.suppress(OSError):
            self._write(self._place(identity, context), json.dumps(document).encode())
            return True
        return False

    def trusts(self, identity: FileIdentity) -> bool:
        """Whether a file's identity says that its content has not changed."""
        changed = max(identity.mtime_ns, identity.ctime_ns)
        return self._clock_ns() - changed > RECENT_NS and not is_remote(identity.device)

    def _unchanged(self, path: Path, since: Sequence[int]) -> bool:
        return list(FileIdentity.of(path.stat())) == list(since)

    def _place(self, identity: FileIdentity, context: Sequence[Any]) -> Path:
        name = hashlib.sha256(encode([list(identity), list(context), code_identity()])).hexdigest()
        return self.folder / f"{name}.json"

    def _write(self, place: Path, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(temporary).replace(place)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        with os.scandir(self.folder) as entries:
            found = [(entry.stat().st_mtime_ns, entry.path) for entry in entries]
        for _, path in sorted(found)[: max(0, len(found) - KEPT)]:
            Path(path).unlink(missing_ok=True)


@cache
def code_identity() -> str:
    """Changes whenever farm's code for reading programs does: what older code remembered is not for newer."""
    folder = Path(__file__).parent
    sources = sorted([*folder.glob("*.py"), *folder.glob("*.json"), *folder.parent.glob("graph*.py")])
    seen = [[path.name, status.st_size, status.st_mtime_ns] for path in sources if (status := path.stat())]
    return hashlib.sha256(encode(seen)).hexdigest()


def is_remote(device: int) -> bool:
    """Whether a device is a network file system, or cannot be told."""
    kind = _kinds(_MOUNTS).get(device) or _kinds.__wrapped__(_MOUNTS).get(device)
    return kind is None or kind.startswith(_REMOTE)


@cache
def _kinds(mounts: Path) -> Mapping[int, str]:
    """File system type of each mounted device."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        fields = line.split(" ")
        major, _, minor = fields[2].partition(":")
        found[os.makedev(int(major), int(minor))] = fields[fields.index("-") + 1]
    return found
