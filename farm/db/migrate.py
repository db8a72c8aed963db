"""The schema's version: told by one SELECT, raised by Alembic, which is imported only where there is work.

An embedded SQLite database migrates itself when it is opened, under a lock beside its file. A new one is made from
``fresh.sql``, which is what all migrations come to (a test holds them equal), since Alembic takes longer to import
than all else that a short command does. A fleet's PostgreSQL is migrated by ``farm db upgrade`` alone, under an
advisory lock. Every migration is one transaction in both.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import OperationalError, ProgrammingError

from farm.db.faults import BUSY_TIMEOUT_S, FOREIGN, place, state_of, translate, worldly
from farm.db.session import WRITES, make_engine, parse_url
from farm.errors import Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
"""Every revision, oldest first; a test holds it equal to the scripts'."""
HEAD = REVISIONS[-1]
FRESH = Path(__file__).with_name("fresh.sql")
BETWEEN = "\n\n"
"""Between the statements of ``FRESH``, the first of which is a comment that names its revision."""

LOCK_POLL_S = 0.05
MIGRATION_TIMEOUT_S = 600.0
# Any number serves, as long as nothing else in the database locks it: "farm" in ASCII.
ADVISORY_LOCK = 0x6661726D
UNDEFINED_TABLE = "42P01"


def needs_upgrade(url: str) -> bool:
    """Whether the database lacks a revision of this farm's. ``Unavailable`` when it cannot be reached, is not
    farm's, or was made by a newer farm."""
    parsed = parse_url(url)
    if _is_absent(parsed):
        return True
    with _engine(parsed) as engine, engine.connect() as connection:
        return behind(connection, parsed)


def upgrade(url: str) -> bool:
    """Bring the database to ``HEAD``, making it where it is not; False when nothing was to do.

    Safe however many processes do so at once: one does, the others wait. A migration that fails changes nothing.
    """
    parsed = parse_url(url)
    with _engine(parsed) as engine:
        if parsed.get_backend_name() == "sqlite":
            return _upgrade_sqlite(engine, parsed)
        with engine.begin() as connection:
            _lock_postgresql(connection)
            if not behind(connection, parsed):
                return False
            run_scripts(connection)
            return True


def revision(connection: Connection) -> str | None:
    """The schema's revision; ``None`` for a database without farm's tables. One SELECT where they are there."""
    try:
        # A failing statement spoils PostgreSQL's whole transaction, unless a savepoint holds it.
        with connection.begin_nested():
            return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    except (OperationalError, ProgrammingError) as error:
        if "no such table" in str(error.orig) or state_of(error) == UNDEFINED_TABLE:
            return None
        raise


def behind(connection: Connection, url: URL) -> bool:
    """Whether the schema is older than ``HEAD``. ``Unavailable`` when it is newer than this farm knows."""
    found = revision(connection)
    if found is None:
        _require_empty(connection, url)
        return True
    if found not in REVISIONS:
        raise Unavailable(
            f"{place(url)} was made by a newer farm (its schema is {found}, this farm knows {HEAD})",
            "upgrade farm on this machine, or point FARM_HOME or FARM_DATABASE_URL elsewhere",
        )
    return found != HEAD


def needs_wal(connection: Connection) -> bool:
    """Whether an SQLite file has lost its write-ahead log: restored from a dump, perhaps."""
    if connection.dialect.name != "sqlite":
        return False
    return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()) != "wal"


def scripts() -> Path:
    """Where the migrations lie: inside an installed wheel, else at the top of the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def config() -> Config:
    """Alembic's configuration, without a file."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    return settings


@contextlib.contextmanager
def _engine(url: URL) -> Iterator[Engine]:
    engine = make_engine(url)
    try:
        yield engine
    except FOREIGN as error:
        if not worldly(error):
            raise
        raise translate(error, url) from error
    finally:
        engine.dispose()


def _is_absent(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and not Path(url.database or "").exists()


def _require_empty(connection: Connection, url: URL) -> None:
    """Never make tables in the file of another program."""
    if url.get_backend_name() != "sqlite":
        return
    others = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 3").scalars().all()
    if others:
        raise Unavailable(
            f"{place(url)} belongs to another program (it has the table {others[0]})",
            "point FARM_DATABASE_URL or FARM_HOME elsewhere",
        )


def _upgrade_sqlite(engine: Engine, url: URL) -> bool:
    path = Path(url.database or "")
    with _locked(path.with_name(path.name + ".lock"), url), engine.connect() as connection:
        _set_wal(connection)
        # Rebuilding a table drops the old one, which must not take the rows that refer to it along.
        _pragma(connection, "foreign_keys = OFF")
        connection = connection.execution_options(**WRITES)
        if not behind(connection, url):
            return False
        if revision(connection) is not None or not _make_fresh(connection):
            run_scripts(connection)
        _check_references(connection, url)
        connection.commit()
        return True


def _make_fresh(connection: Connection) -> bool:
    """Make the newest schema in an empty database; False where ``fresh.sql`` is of another revision."""
    first, *statements = FRESH.read_text("utf-8").split(BETWEEN)
    if first != f"-- {HEAD}":
        return False
    for statement in statements:
        connection.exec_driver_sql(statement)
    return True


def _set_wal(connection: Connection) -> None:
    """Readers and one writer at once; a property of the file. Cannot be set inside a transaction."""
    if _pragma(connection, "journal_mode") != "wal":
        _pragma(connection, "journal_mode = WAL")


def _pragma(connection: Connection, text: str) -> Any:
    """Run a PRAGMA outside any transaction, straight on the driver."""
    raw = connection.connection.driver_connection
    assert raw is not None
    row = raw.execute(f"PRAGMA {text}").fetchone()
    return row[0] if row else None


def _check_references(connection: Connection, url: URL) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise Unavailable(
            f"{place(url)} was not upgraded: a row of '{broken[0]}' refers to one of '{broken[2]}' that is not there",
            "nothing was changed; restore a backup, or move the file away to begin anew",
        )


@contextlib.contextmanager
def _locked(path: Path, url: URL) -> Iterator[None]:
    """Hold the lock beside the database; the kernel lets go of it when its holder dies."""
    try:
        lock = path.open("a")
    except OSError as error:
        raise Unavailable(
            f"{place(url)} cannot be made: {error.strerror}: {path}",
            "make its folder, and let this user write to it, or set FARM_HOME",
        ) from error
    with lock:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while not _try_lock(lock.fileno()):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{place(url)} is being upgraded by another process since {BUSY_TIMEOUT_S:.0f} s",
                    "wait until it is done, and ask again",
                )
            time.sleep(LOCK_POLL_S)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_postgresql(connection: Connection) -> None:
    """Held until the transaction ends. A migration of a large table may take longer than a query may."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(MIGRATION_TIMEOUT_S)}s'")
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")


def run_scripts(connection: Connection) -> None:
    """Every migration that the database lacks, in the connection's transaction."""
    from alembic import command

    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")
