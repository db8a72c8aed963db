"""``farm.lock`` on disk: read if it is there, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from farm.errors import BadInput, Unavailable
from farm.prebuilds.lock import LockEntry, format_lock, parse_lock

MAX_BYTES = 256 << 20
BEGINS = format_lock([]).strip().encode()


def read_lock(path: Path, needed: bool = True) -> tuple[LockEntry, ...]:
    """The file's entries. ``BadInput`` for one that is no lock file or, unless it is not ``needed``, is not there."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise BadInput(f"{path} is larger than a lock file may be", "give the path of farm.lock")
        return parse_lock(content.decode("utf-8"))
    except FileNotFoundError as error:
        if not needed:
            return ()
        raise BadInput(f"{path}: there is no such file", "'farm prebuild' writes it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}", "give the path of farm.lock") from error


def read_old_lock(path: Path) -> tuple[tuple[LockEntry, ...], str]:
    """The entries of a file that is about to be written anew, none where there is none; and what is wrong with it, such
    as a merge that git could not finish. ``BadInput`` for what is no lock file of this schema at all, and must stay."""
    try:
        return read_lock(path, needed=False), ""
    except BadInput as error:
        with path.open("rb") as file:
            begins = file.read(len(BEGINS)) == BEGINS
        if not begins:
            raise
        return (), error.message


def write_lock(path: Path, entries: Sequence[LockEntry]) -> bool:
    """Write the file anew, unless it says the same already; whether that was needed. ``Unavailable``."""
    text = format_lock(entries).encode("utf-8")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.is_file() and path.read_bytes() == text:
            return False
        partial.write_bytes(text)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Unavailable(f"{path} cannot be written: {error.strerror}", "choose another --lock file") from error
    return True
