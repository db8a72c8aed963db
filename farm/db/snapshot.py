"""A copy of an embedded farm's database, taken without a change to it, and brought to this release's schema."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from farm.db.faults import translate
from farm.db.session import parse_url
from farm.errors import Unavailable

TRIES = 5
NO_TABLE = "no such table"


def snapshot(database: Path, copy: Path) -> str:
    """Write ``database`` as it stands to ``copy``; returns the farm's own name, empty where it is older than names.

    ``Unavailable`` when it cannot be read, or does not stand still.
    """
    try:
        for _ in range(TRIES):
            if _copied(database, copy):
                return _name(copy)
    except sqlite3.Error as error:
        raise translate(error, parse_url(f"sqlite:///{database}")) from error
    raise Unavailable(f"the database {database} is being written to all the time", "stop what uses it, and ask again")


def _copied(database: Path, copy: Path) -> bool:
    """Whoever merely opens a database that has a write-ahead log leaves files beside it, unless it is said to be
    immutable; which one is that nobody has open, and that has not changed when the copy is done."""
    log = database.with_name(database.name + "-wal")
    quiet = not log.exists()
    before = database.stat()
    mode = "immutable=1" if quiet else "mode=ro"
    copy.unlink(missing_ok=True)
    address = f"{database.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(address, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    after = database.stat()
    return not quiet or (
        not log.exists() and (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    )


def _name(copy: Path) -> str:
    with closing(sqlite3.connect(copy)) as connection:
        try:
            row = connection.execute("SELECT value FROM notes WHERE name = 'farm'").fetchone()
        except sqlite3.OperationalError as error:
            if NO_TABLE not in str(error):
                raise
            return ""
    return str(row[0]) if row else ""
