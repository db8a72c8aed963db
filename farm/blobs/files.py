"""Files as blob stores handle them: what is to be stored, and what lies beside its place before it goes there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from farm.blobs.faults import bad_source
from farm.blobs.names import name_of

BUFFER = 4 * 2**20


def source_chunks(source: BinaryIO) -> Iterator[memoryview]:
    while True:
        try:
            chunk = source.read(BUFFER)
        except OSError as error:
            raise bad_source(error, getattr(source, "name", "the source")) from error
        if not chunk:
            return
        yield memoryview(chunk)


def descriptor_chunks(descriptor: int) -> Iterator[memoryview]:
    """A whole open file. The views share one buffer: each is good until the next is asked for."""
    # No larger than the file: to clear four megabytes takes longer than to read a small one.
    buffer = bytearray(min(BUFFER, os.fstat(descriptor).st_size + 1))
    view = memoryview(buffer)
    while count := os.readv(descriptor, [buffer]):
        yield view[:count]


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[BinaryIO]:
    """A file to be stored; never a pipe or a device, which could block for ever."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise bad_source(OSError(errno.EINVAL, "it is not a regular file"), path)
        source = path.open("rb", buffering=0)
    except OSError as error:
        raise bad_source(error, path) from error
    with source:
        yield source


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[int | None]:
    """A descriptor of a regular file; ``None`` where there is none, a symbolic link included."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        yield None
        return
    try:
        yield descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)


def hashed(descriptor: int) -> hashlib._Hash:
    """The hash of a whole open file."""
    hasher = hashlib.sha256()
    for chunk in descriptor_chunks(descriptor):
        hasher.update(chunk)
    return hasher


def is_blob(digest: str, path: Path) -> bool:
    """Whether a file holds the blob. Reads all of it."""
    with open_regular(path) as descriptor:
        if descriptor is None:
            return False
        return name_of(hashed(descriptor)) == digest


@contextlib.contextmanager
def beside(dest: Path) -> Iterator[Path]:
    """A path in the folder of ``dest``. What is left there goes, also when a rename did nothing because ``dest`` was
    another link of the same file."""
    temporary = dest.with_name(f".{dest.name[:100]}-{uuid.uuid4().hex}")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_all(descriptor: int, data: memoryview) -> None:
    """All of it, at the file's position."""
    while data:
        data = data[os.write(descriptor, data) :]


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder; nothing where there is none."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []
