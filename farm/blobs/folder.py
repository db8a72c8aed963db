"""Blobs in a folder: ``sha256/ab/abcd…`` below the root, read-only files named by the SHA-256 of their bytes.

A blob is written to ``tmp/`` on the same file system, synced, and renamed into place, so that a reader sees the
whole blob or none, whenever the writer dies; ``temporary`` has these files. Nothing in here trusts a file's name:
whatever is handed out has been hashed on its way.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from farm.blobs.faults import fault
from farm.blobs.files import (
    beside,
    descriptor_chunks,
    entries,
    hashed,
    is_blob,
    open_regular,
    open_source,
    source_chunks,
    sync_folder,
    write_all,
)
from farm.blobs.names import HEX, PREFIX, corrupt, hex_of, name_of
from farm.blobs.temporary import NO_LINK, Temporaries, try_lock
from farm.errors import BadInput, Unavailable
from farm.store import LABEL, Blob, Stray

if TYPE_CHECKING:
    from farm.blobs.resuming import Coming

TWO = re.compile(r"[0-9a-f]{2}")


class FolderStore:
    """``farm.store.BlobStore`` in the folder ``root``, which is made by the first ``put``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temporaries = Temporaries(root / "tmp")
        self.sweep()

    # -- writing -----------------------------------------------------------------------------------------------

    def put(self, source: BinaryIO) -> Blob:
        """Store a stream. ``Unavailable``: the folder cannot take it. ``BadInput``: the source cannot be read."""
        with self._faults(), self._temporaries.file() as (path, target):
            hasher, size = _copy(source_chunks(source), target)
            os.fchmod(target, 0o444)
            os.fsync(target)
            blob = Blob(name_of(hasher), size)
            self._publish(path, self._path(blob.digest))
            return blob

    def put_file(self, path: Path, *, link: bool = False) -> Blob:
        """Store a file's bytes; as ``put``. With ``link`` the file is read-only afterwards."""
        linked = self._put_link(path) if link else None
        if linked is not None:
            return linked
        with open_source(path) as source:
            return self.put(source)

    def _put_link(self, path: Path) -> Blob | None:
        """The very file under the blob's name; ``None`` where that cannot be: it lies on another file system, or is
        another user's. Hashed through the new link, so that what is renamed into place is what was hashed."""
        with self._faults(), self._temporaries.link(path) as temporary, open_regular(temporary) as source:
            if source is None or os.fstat(source).st_uid != os.geteuid():
                return None
            try_lock(source)
            hasher = hashed(source)
            os.fchmod(source, 0o444)
            os.fsync(source)
            blob = Blob(name_of(hasher), os.fstat(source).st_size)
            self._publish(temporary, self._path(blob.digest))
            return blob

    def _publish(self, temporary: Path, path: Path) -> None:
        """Rename into place, over a blob of the same name too: its bytes are the same, or rotten and healed now."""
        folder = path.parent
        try:
            temporary.replace(path)
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)
            for above in (folder.parent, self.root):
                sync_folder(above)
            temporary.replace(path)
        except IsADirectoryError:
            self._put_aside(path)
            temporary.replace(path)
        sync_folder(folder)

    def _put_aside(self, path: Path) -> None:
        """Away with what is no blob; ``FileNotFoundError`` when it is gone."""
        aside = self.root / "quarantine" / f"stray-{uuid.uuid4().hex}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.rename(aside)

    def adopt(self, digest: str, path: Path) -> None:
        """Take a file of this file system for a blob, by renaming. Its bytes must have been verified and synced; who
        reads the blob verifies them again."""
        with self._faults():
            path.chmod(0o444)
            self._publish(path, self._path(digest))

    # -- reading -----------------------------------------------------------------------------------------------

    def size(self, digest: str) -> int | None:
        with self._faults():
            found = _regular(self._path(digest))
            return None if found is None else found.st_size

    def missing(self, digests: Iterable[str]) -> set[str]:
        return {digest for digest in digests if self.size(digest) is None}

    def read(self, digest: str) -> bytes | None:
        with self._faults(), self._opened(digest) as source:
            if source is None:
                return None
            data = b"".join(bytes(chunk) for chunk in descriptor_chunks(source))
        if name_of(hashlib.sha256(data)) != digest:
            raise corrupt(digest, str(self.root))
        return data

    def open(self, digest: str) -> BinaryIO | None:
        """The blob's bytes as they lie here, for whoever verifies them where they arrive; ``None``: it is not there."""
        with self._faults(), self._opened(digest) as source:
            return None if source is None else os.fdopen(os.dup(source), "rb", buffering=0)

    def fetch(self, digest: str, dest: Path, *, link: bool = False) -> bool:
        """As the contract says. A copy is writable by its owner; a link is read-only, as the store's file is."""
        if link:
            linked = self._fetch_link(digest, dest)
            if linked is not None:
                return linked
        return self._fetch_copy(digest, dest)

    def resume(self, digest: str, dest: Path, tell: Callable[[int], None] = lambda count: None) -> bool:
        from farm.blobs.resuming import bring_on, resumed  # only pulls resume, and every command has a store

        def get() -> bool:
            with self._opened(digest) as source:
                if source is None:
                    return False
                size = os.fstat(source).st_size
                if not bring_on(digest, dest, size, lambda coming: _copy_on(source, coming, tell)):
                    raise corrupt(digest, str(self.root))
            return True

        with self._faults(dest.parent):
            return resumed(digest, dest, get, lambda: self._fetch_copy(digest, dest))

    def _fetch_copy(self, digest: str, dest: Path) -> bool:
        with self._faults(dest.parent), self._opened(digest) as source:
            if source is None:
                return False
            with beside(dest) as temporary:
                target = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
                try:
                    hasher, _ = _copy(descriptor_chunks(source), target)
                    os.fsync(target)
                finally:
                    os.close(target)
                self._hand_out(digest, hasher, temporary, dest)
        return True

    def _fetch_link(self, digest: str, dest: Path) -> bool | None:
        """A hard link, verified through the link itself: what is renamed into place is what was hashed. ``None``
        where the file system cannot link."""
        with self._faults(dest.parent), beside(dest) as temporary:
            try:
                os.link(self._path(digest), temporary, follow_symlinks=False)
            except FileNotFoundError:
                if dest.parent.is_dir():
                    return False
                raise
            except OSError as error:
                if error.errno in NO_LINK:
                    return None
                raise
            with open_regular(temporary) as source:
                if source is None:
                    return False
                hasher = hashed(source)
            self._hand_out(digest, hasher, temporary, dest)
        return True

    def _hand_out(self, digest: str, hasher: hashlib._Hash, temporary: Path, dest: Path) -> None:
        if name_of(hasher) != digest:
            raise corrupt(digest, str(self.root))
        temporary.replace(dest)

    def check(self, digest: str, tell: Callable[[int], None] = lambda count: None) -> int | None:
        with self._faults(), self._opened(digest) as source:
            if source is None:
                return None
            hasher, size = hashlib.sha256(), 0
            for chunk in descriptor_chunks(source):
                hasher.update(chunk)
                size += len(chunk)
                tell(len(chunk))
        if name_of(hasher) != digest:
            raise corrupt(digest, str(self.root))
        return size

    def blobs(self, start: str = "") -> Iterator[Blob]:
        with self._faults():
            for folder in entries(self.root / "sha256"):
                if folder.name[: len(start)] != start:
                    continue
                for entry in entries(Path(folder.path)):
                    if HEX.fullmatch(entry.name) and entry.name[:2] == folder.name:
                        found = _regular(Path(entry.path))
                        if found is not None:
                            yield Blob(PREFIX + entry.name, found.st_size, found.st_mtime)

    def strays(self) -> Iterator[Stray]:
        """What lies below ``sha256/`` beside the blobs."""
        with self._faults():
            for folder in entries(self.root / "sha256"):
                if not (TWO.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)):
                    yield Stray(f"sha256/{folder.name}", f"{_kind(folder)} where folders of blobs belong")
                    continue
                for entry in entries(Path(folder.path)):
                    named = HEX.fullmatch(entry.name) and entry.name[:2] == folder.name
                    if not (named and entry.is_file(follow_symlinks=False)):
                        what = "in a blob's place" if named else "under a name that no blob has there"
                        yield Stray(f"sha256/{folder.name}/{entry.name}", f"{_kind(entry)} {what}")

    def set_aside(self, place: str) -> bool:
        parts = place.split("/")
        if parts[0] != "sha256" or not 2 <= len(parts) <= 3 or not set(parts).isdisjoint({"", ".", ".."}):
            raise BadInput(f"{place!r} is no place among blobs", "give what 'strays' named")
        with self._faults():
            try:
                self._put_aside(self.root.joinpath(*parts))
            except FileNotFoundError:
                return False
            return True

    # -- the store itself --------------------------------------------------------------------------------------

    def clock(self) -> float:
        """The file system's clock, which is a server's where the folder is mounted from one."""
        with self._faults(), self._temporaries.file() as (_, descriptor):
            return os.fstat(descriptor).st_mtime

    def label(self) -> str | None:
        with self._faults():
            try:
                return (self.root / LABEL).read_text("utf-8").strip() or None
            except FileNotFoundError:
                return None

    def set_label(self, text: str) -> str:
        with self._faults(), self._temporaries.file() as (path, descriptor):
            os.write(descriptor, f"{text}\n".encode())
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)
            _place(path, self.root / LABEL)
            sync_folder(self.root)
        label = self.label()
        if label is None:
            raise Unavailable(f"the store's folder {self.root}: its label is gone again", f"look at {LABEL} in it")
        return label

    def uses(self) -> Iterator[tuple[float, Blob]]:
        """Every blob, and when it was last used: read by a file system that notes that, or ``touch``-ed."""
        for blob in self.blobs():
            with contextlib.suppress(FileNotFoundError):
                yield self._path(blob.digest).lstat().st_atime, blob

    def touch(self, digest: str) -> None:
        """Note that a blob was used just now, as far as this user may. Its time of change stays."""
        with contextlib.suppress(OSError):
            path = self._path(digest)
            os.utime(path, ns=(time.time_ns(), path.lstat().st_mtime_ns), follow_symlinks=False)

    # -- removing ----------------------------------------------------------------------------------------------

    def delete(self, digest: str, *, before: float = math.inf) -> bool:
        path = self._path(digest)
        with self._faults():
            if before < math.inf:
                return self._delete_old(path, before)
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            return True

    def _delete_old(self, path: Path, before: float) -> bool:
        """Put the file aside and look at its age there: what was renamed into place meanwhile is put back. The lock
        says that the file aside is not abandoned."""
        with open_regular(path) as descriptor:
            if descriptor is None or os.fstat(descriptor).st_mtime >= before:
                return False
            try_lock(descriptor)
            aside = self._temporaries.place("old")
            try:
                path.rename(aside)
            except FileNotFoundError:
                return False
            if aside.lstat().st_mtime >= before:
                aside.rename(path)
                return False
            aside.unlink(missing_ok=True)
            return True

    def quarantine(self, digest: str) -> bool:
        """Move the blob to ``quarantine/``, unless its bytes are right (healed meanwhile): then it is put back."""
        path, aside = self._path(digest), self.root / "quarantine" / f"{hex_of(digest)}-{uuid.uuid4().hex}"
        with self._faults():
            aside.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.rename(aside)
            except FileNotFoundError:
                return False
            if not is_blob(digest, aside):
                return True
            aside.rename(path)
            return False

    def presign(self, digest: str, seconds: int) -> str | None:
        hex_of(digest)
        return None

    def sweep(self) -> int:
        """Remove what writers left that were killed. Never in the way: what cannot be removed stays."""
        return self._temporaries.sweep()

    # -- parts -------------------------------------------------------------------------------------------------

    def _path(self, digest: str) -> Path:
        digits = hex_of(digest)
        return self.root / f"sha256/{digits[:2]}/{digits}"

    @contextlib.contextmanager
    def _opened(self, digest: str) -> Iterator[int | None]:
        with open_regular(self._path(digest)) as descriptor:
            yield descriptor

    @contextlib.contextmanager
    def _faults(self, dest: Path | None = None) -> Iterator[None]:
        """Say what the operating system reports in words: of the store's folder, or of ``dest``."""
        try:
            yield
        except OSError as error:
            raise fault(error, self.root, dest) from error


def _copy(chunks: Iterable[memoryview], target: int) -> tuple[hashlib._Hash, int]:
    """Write and hash; returns the hash and the number of bytes."""
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
        write_all(target, chunk)
    return hasher, size


def _copy_on(source: int, coming: Coming, tell: Callable[[int], None]) -> None:
    """Write what is lacking of an open file to a partial one."""
    os.lseek(source, coming.at, os.SEEK_SET)
    os.lseek(coming.descriptor, coming.at, os.SEEK_SET)
    for chunk in descriptor_chunks(source):
        coming.hasher.update(chunk)
        write_all(coming.descriptor, chunk)
        coming.reached(coming.at + len(chunk))
        tell(len(chunk))


def _place(path: Path, dest: Path) -> None:
    """Give a file its name, unless that is taken: a rename would replace what another has written meanwhile."""
    try:
        os.link(path, dest)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        if not dest.exists():
            path.replace(dest)


def _regular(path: Path) -> os.stat_result | None:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "a symbolic link"
    if entry.is_dir(follow_symlinks=False):
        return "a folder"
    return "a file" if entry.is_file(follow_symlinks=False) else "a pipe, socket or device"
