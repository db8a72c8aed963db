"""The database's errors, said to people: what happened, to which database, and what to do next.

What is here are faults of the world (unreachable, full, locked, damaged, forbidden). A broken constraint or a
statement that does not parse is a defect of farm's own, and passes through as it is.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from farm.errors import Unavailable

BUSY_TIMEOUT_S = 30.0

FOREIGN = (SQLAlchemyError, sqlite3.Error)

# A transaction that ended this way did nothing, and may do well when it is tried again.
PASSING_STATES = frozenset({"40001", "40P01"})

RESTART = "a newer farm may have upgraded it just now: start this process again; else 'farm doctor'"
_SQLITE = (
    (
        "locked",
        "has been locked by another process for {busy:.0f} s",
        "stop the farm process that hangs, and ask again",
    ),
    ("disk is full", "cannot grow: the disk is full", "free some space, and ask again"),
    ("readonly", "cannot be written to", "make it and its folder writable for this user, or set FARM_HOME"),
    ("unable to open", "cannot be opened", "make its folder, and let this user write to it, or set FARM_HOME"),
    ("not a database", "is not a farm database", "move the file away, and ask again: a new one is made"),
    ("malformed", "is damaged", "move the file away, and ask again: a new one is made, and what is missing is rebuilt"),
    ("disk i/o", "cannot be read or written: the disk reports an error", "check the disk, and 'farm doctor'"),
    ("no such table", "lacks one of farm's tables", RESTART),
    ("no such column", "lacks one of farm's columns", RESTART),
)
_POSTGRESQL = (
    ("password authentication", "refuses the user or the password", "correct them in FARM_DATABASE_URL"),
    ('fatal: role "', "does not know the user", "correct FARM_DATABASE_URL, or create the user"),
    ("invalid connection option", "cannot be asked that way", "correct what follows the '?' in FARM_DATABASE_URL"),
    ("invalid sslmode", "cannot be asked that way", "correct what follows the '?' in FARM_DATABASE_URL"),
    ("does not support ssl", "has no SSL", "correct sslmode in FARM_DATABASE_URL, or set the server up for it"),
    ("does not exist", "lacks what farm needs", "create the database, then run 'farm db upgrade'"),
    ("refused", "is not listening", "start the server, or correct FARM_DATABASE_URL"),
    ("could not translate", "has a host name that nobody knows", "correct FARM_DATABASE_URL"),
    ("name or service not known", "has a host name that nobody knows", "correct FARM_DATABASE_URL"),
    ("too many c", "takes no more connections", "raise max_connections on the server, or run fewer workers"),
    ("remaining connection", "takes no more connections", "raise max_connections on the server, or run fewer workers"),
    ("permission denied", "refuses this user", "grant the user the rights on farm's tables"),
    ("no space left", "is out of room", "free some space on the server, and ask again"),
    ("disk full", "is out of room", "free some space on the server, and ask again"),
    ("read-only", "is read-only (a standby?)", "point FARM_DATABASE_URL at the primary"),
    ("lock timeout", "was locked by another farm process for too long", "look for a hanging process, and ask again"),
    ("statement timeout", "took too long to answer", "look at the server's load, and ask again"),
    ("starting up", "is starting", "ask again in a moment"),
    ("not yet accepting", "is starting", "ask again in a moment"),
    ("shutting down", "is shutting down", "ask again when it is back"),
)


def place(url: URL) -> str:
    """The database in words, without its password."""
    if url.get_backend_name() == "sqlite":
        return f"the database {url.database}"
    return f"the database at {url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"


def worldly(error: BaseException) -> bool:
    """Whether an error of ``FOREIGN`` is a fault of the world, and not a defect of farm's own."""
    return not isinstance(error, IntegrityError | DataError | sqlite3.IntegrityError)


def state_of(error: BaseException) -> str:
    """PostgreSQL's five-letter state of an error, or nothing."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")


def translate(error: BaseException, url: URL) -> Unavailable:
    """The error to raise in place of ``error``."""
    where = place(url)
    if isinstance(error, PoolTimeout):
        return Unavailable(
            f"{where}: too many threads of this process use it at once", "run fewer workers in one process"
        )
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = " ".join(str(original).split())
    known = _SQLITE if url.get_backend_name() == "sqlite" else _POSTGRESQL
    for sign, what, hint in known:
        if sign in said.lower():
            return Unavailable(f"{where} {what.format(busy=BUSY_TIMEOUT_S)} ({said[:200]})", hint)
    return Unavailable(f"{where} failed: {said[:300] or type(original).__name__}", "run 'farm doctor'")
