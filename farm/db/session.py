"""Engines and transactions: one method of the index, one transaction.

A read on SQLite begins deferred; a write begins IMMEDIATE, since a transaction that reads first and writes later
would otherwise fail whenever another wrote in between (reference/infrastructure.md, SQL). What ended without
effect for a passing reason (a deadlock, a lost connection before the commit) is run again here; whoever calls
never sees it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

import sqlalchemy
from sqlalchemy import URL, ColumnElement, Connection, Engine, Executable, FromClause, Select, Table, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from farm.db.faults import BUSY_TIMEOUT_S, FOREIGN, PASSING_STATES, place, state_of, translate, worldly
from farm.db.json_text import dump_finite
from farm.errors import BadConfig, Unavailable

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Rows(Sequence[dict[str, Any]]):
    """A row of each item, made when it is sent (``Database.each``)."""

    make: Callable[[Any], dict[str, Any]]
    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[dict[str, Any]]: ...

    def __getitem__(self, at: int | slice) -> dict[str, Any] | Sequence[dict[str, Any]]:
        return Rows(self.make, self.items[at]) if isinstance(at, slice) else self.make(self.items[at])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # Not as a sequence does by itself: it would take an IndexError of ``make``'s for the end of the rows.
        return map(self.make, self.items)


Step = tuple[Callable[..., Any], Table, Sequence[dict[str, Any]]]
"""A statement's maker, the table that it changes, and its rows."""

WRITES = {"farm_writes": True}
GIVEN = "given_"
ROWS_AT_ONCE = 1000
RETRY_DELAYS_S = (0.0, 0.1, 0.3, 1.0, 2.0, 4.0)
MIN_SQLITE = (3, 35, 0)
POOL_SIZE = 5
# A client that stops dead inside a transaction must not hold its locks for ever (issue 4: SIGSTOP of workers).
POSTGRESQL_OPTIONS = (
    "-c application_name=farm -c lock_timeout=30s -c statement_timeout=120s -c idle_in_transaction_session_timeout=60s"
    # Farm's statements touch few rows; compiling one, or starting a worker to help, takes longer than running it.
    " -c jit=off -c max_parallel_workers_per_gather=0"
)

# A server whose machine or network vanished ends no connection: without these a worker would wait for it for hours.
UNLESS_TOLD = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 40_000,
}

DRIVERS_OWN = frozenset({"autocommit", "prepare_threshold", "context", "row_factory", "cursor_factory"})
"""Arguments of psycopg's that are no connection parameters."""

NOT_BY_INDEX = ("sort", "bitmapscan", "seqscan", "hashjoin", "mergejoin")
USE_INDEXES = "SELECT " + ", ".join(f"set_config('enable_{way}', 'off', true)" for way in NOT_BY_INDEX)
LOOKING_OPTIONS = POSTGRESQL_OPTIONS + "".join(f" -c enable_{way}=off" for way in NOT_BY_INDEX)

# SQLite runs inside this process, so the machine's clock is its clock; but its own 'now' counts milliseconds, in
# which many things happen, and what is newest would be anybody's guess.
SQLITE_NOW = "farm_now()"
POSTGRESQL_NOW = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


def parse_url(text: str) -> URL:
    """A database URL, with farm's driver where none is named. ``BadConfig`` for one that cannot be."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise BadConfig(
            f"'{text.rpartition('@')[2]}' is no database URL", "write sqlite:///PATH or postgresql://USER@HOST/NAME"
        ) from error
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise BadConfig(
            f"farm keeps no state in '{url.drivername}'", "use sqlite:///PATH or postgresql://USER@HOST/NAME"
        )
    _check_query(url)
    if url.get_backend_name() == "sqlite" and (not url.database or url.database == ":memory:"):
        raise BadConfig("farm's SQLite database must be a file: several processes share it", "write sqlite:///PATH")
    if "\0" in (url.database or ""):
        raise BadConfig(f"no database is called {url.database!r}", "leave the %00 out of FARM_DATABASE_URL")
    return url


def _check_query(url: URL) -> None:
    """``BadConfig`` for what may not follow the '?': SQLAlchemy passes it on by name, or ignores it with a warning."""
    if url.get_backend_name() == "sqlite" and url.query:
        raise BadConfig(
            f"an SQLite database takes no options, and FARM_DATABASE_URL asks for '{', '.join(url.query)}'",
            "write sqlite:///PATH (a '?' in the path is %3F)",
        )
    if wrong := sorted(DRIVERS_OWN & set(url.query)):
        raise BadConfig(
            f"FARM_DATABASE_URL cannot set '{wrong[0]}', which is farm's own to choose",
            "what may follow the '?' are libpq's connection parameters: sslmode, options, connect_timeout and so on",
        )


def make_engine(url: URL) -> Engine:
    """The engine for ``url``; nothing is connected yet."""
    try:
        if url.get_backend_name() == "sqlite":
            return _sqlite_engine(url)
        return _postgresql_engine(url, POSTGRESQL_OPTIONS)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise BadConfig(
            f"the driver for '{url.drivername}' is not installed here", "pip install 'farm[fleet]'"
        ) from error
    except ArgumentError as error:
        raise BadConfig(f"{place(url)} cannot be asked for: {error}", "correct FARM_DATABASE_URL") from error


def _postgresql_engine(url: URL, options: str, **more: Any) -> Engine:
    """What the URL says comes before what farm would say; its ``options`` are added to farm's."""
    named = {name: value for name, value in UNLESS_TOLD.items() if name not in url.query}
    asked = url.query.get("options", ())
    said = (asked,) if isinstance(asked, str) else asked
    connecting = {**named, "options": " ".join((options, *said))}
    pool = {"pool_size": POOL_SIZE, "max_overflow": POOL_SIZE}
    return sqlalchemy.create_engine(url, connect_args=connecting, **(pool | more))


def _sqlite_engine(url: URL) -> Engine:
    import sqlite3

    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise Unavailable(
            f"SQLite {sqlite3.sqlite_version} is too old: farm needs 3.35 or later",
            "use a newer Python or a newer SQLite library, or set FARM_DATABASE_URL to a PostgreSQL database",
        )
    # isolation_level=None: the driver begins nothing by itself; ``_begin`` does.
    engine = sqlalchemy.create_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=-1,
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    """WAL itself is a property of the file, set when it is made (``migrate``)."""
    connection.create_function("farm_now", 0, time.time)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    mode = "IMMEDIATE" if connection.get_execution_options().get("farm_writes") else "DEFERRED"
    connection.exec_driver_sql(f"BEGIN {mode}")


class Database:
    """A database and its connections. Safe to share between threads; not to be carried over a fork."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.engine = make_engine(url)
        self.sqlite = url.get_backend_name() == "sqlite"
        # Writers of one process queue here: SQLite's own way to wait is to sleep up to 100 ms and look again.
        self._writer = threading.Lock()
        self.opened = False
        self._made: dict[object, object] = {}

    @functools.cached_property
    def _looker(self) -> Engine:
        """Connections for look-ups alone. To begin and end a transaction and to ask for indexes in it costs PostgreSQL
        three messages to and fro beside the one or two that matter, and the slowest of a hundred look-ups twice."""
        if self.sqlite:
            return self.engine
        return _postgresql_engine(self.url, LOOKING_OPTIONS, isolation_level="AUTOCOMMIT")

    def look(self, work: Callable[[Connection], T]) -> T:
        """``work`` that only reads, each of its statements by index and for itself: they may see different states."""
        return self._run(lambda: self._once(work, self._looker))

    def run(
        self, work: Callable[[Connection], T], *, writes: bool = False, repeats: bool = False, by_index: bool = False
    ) -> T:
        """``work`` in one transaction, committed when this returns; run again when it passed without effect.
        ``by_index``: as if it began with ``use_indexes``.

        ``Unavailable`` when the database cannot serve. After that a write may or may not have been done only
        where the message says so: the connection broke during the commit. What ``repeats``, since twice comes to the
        same as once, is then run again too.
        """
        engine = self._by_index if by_index else self.engine
        return self._run(lambda: self._once(work, engine, writes=writes, repeats=repeats))

    def _run(self, once: Callable[[], T]) -> T:
        for delay in (*RETRY_DELAYS_S, None):
            try:
                return once()
            except FOREIGN as error:
                if not worldly(error):
                    raise
                if delay is None or not self._passing(error):
                    raise translate(error, self.url) from error
            time.sleep(delay * (0.5 + random.random()))
        raise AssertionError("unreachable")

    def _once(
        self, work: Callable[[Connection], T], engine: Engine, *, writes: bool = False, repeats: bool = False
    ) -> T:
        with self._gate(writes), engine.connect() as connection:
            if writes:
                connection = connection.execution_options(**WRITES)
            result = work(connection)
            try:
                connection.commit()
            except DBAPIError as error:
                if error.connection_invalidated and not repeats:
                    raise Unavailable(
                        "the connection to the database broke during a commit: it may or may not have been done",
                        "look ('farm ls') before asking again",
                    ) from error
                raise
            return result

    @contextlib.contextmanager
    def _gate(self, writes: bool) -> Iterator[None]:
        if not (writes and self.sqlite):
            yield
            return
        if not self._writer.acquire(timeout=BUSY_TIMEOUT_S):
            raise Unavailable(
                f"the database {self.url.database} was busy in this very process for {BUSY_TIMEOUT_S:.0f} s",
                "check whether its disk answers, and ask again",
            )
        try:
            yield
        finally:
            self._writer.release()

    def _passing(self, error: BaseException) -> bool:
        """Whether to try again: deadlocks; and, once it had been reached, a PostgreSQL that is not there now."""
        if self.sqlite or not isinstance(error, DBAPIError):
            return False
        if error.connection_invalidated or state_of(error) in PASSING_STATES:
            return True
        return self.opened and isinstance(error, OperationalError) and not state_of(error)

    def close(self) -> None:
        for engine in {vars(self).get(name, self.engine) for name in ("engine", "_looker", "_by_index")}:
            engine.dispose()

    @functools.cached_property
    def _by_index(self) -> Engine:
        """Connections for transactions that always ask for indexes: to ask in each costs a message to and fro. Two are
        kept, for a worker's leases and for its ends: a server has a hundred, for all of a fleet's processes."""
        return self.engine if self.sqlite else _postgresql_engine(self.url, LOOKING_OPTIONS, pool_size=2)

    def use_indexes(self, connection: Connection) -> None:
        """Until the transaction ends, read queues in the order of their index, and join by index.

        PostgreSQL's statistics lag behind a table that grew a moment ago: taken for small, a queue of 10,000 is read
        whole and sorted at every lease (10 ms), and 200,000 engines are hashed at every look-up (700 ms).
        """
        if not self.sqlite:
            connection.exec_driver_sql(USE_INDEXES)

    # -- what the two dialects write differently ---------------------------------------------------------------

    @property
    def now(self) -> ColumnElement[float]:
        """The database's clock, to be used inside a statement: seconds since the epoch."""
        return sqlalchemy.literal_column(SQLITE_NOW if self.sqlite else POSTGRESQL_NOW, sqlalchemy.Double)

    def time(self, connection: Connection) -> float:
        """The database's clock now."""
        return float(connection.execute(self.made(_clock)).scalar_one())

    def alone(self, connection: Connection, name: str) -> None:
        """Wait until no other transaction is at ``name``, and keep others from it until this one ends. Every writing
        transaction of SQLite's is alone."""
        if not self.sqlite:
            lock = sqlalchemy.func.pg_advisory_xact_lock(sqlalchemy.func.hashtext(name))
            connection.execute(sqlalchemy.select(lock))

    def made(self, make: Callable[..., T], *args: Hashable) -> T:
        """The statement that ``make(database, *args)`` makes, made once.

        To put a statement together and to find it in SQLAlchemy's cache takes 0.3 ms every time, ten times what it
        takes to run one that is kept.
        """
        statement = self._made.get((make, args))
        if statement is None:
            statement = self._made[make, args] = make(self, *args)
        return cast(T, statement)

    def among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """``column`` is one of the values that ``array`` made, to be given as the parameter ``name``: one parameter
        and one statement, however many values there are."""
        if self.sqlite:
            each = sqlalchemy.func.json_each(sqlalchemy.bindparam(name, type_=sqlalchemy.Text)).table_valued("value")
            return column.in_(sqlalchemy.select(each.c.value))
        return column == sqlalchemy.any_(sqlalchemy.bindparam(name, type_=_Texts()))

    def array(self, values: Iterable[str]) -> str:
        """The distinct ``values`` as a parameter for ``among``, in one order: locks taken in it cannot cross."""
        distinct = sorted(set(values))
        return json.dumps(distinct) if self.sqlite else _array_literal(distinct)

    def each(self, connection: Connection, *steps: Step) -> None:
        """Run statements for many rows each: ``(make, table, rows)``, whose statement takes its rows from
        ``given(table, …)``. Several at once must neither touch the same rows nor need each other's effects.

        SQLite gets rows one by one, inside this process; PostgreSQL all rows of all steps in one statement: one by one
        they take ten times as long on either side, and on a busy machine every answer that is waited for counts.
        """
        steps = tuple(step for step in steps if step[2])
        if self.sqlite:
            for make, _, rows in steps:
                connection.execute(self.made(make), [{GIVEN + name: row[name] for name in row} for row in rows])
        elif len(steps) == 1:
            make, table, rows = steps[0]
            chunks = (rows[at : at + ROWS_AT_ONCE] for at in range(0, len(rows), ROWS_AT_ONCE))
            texts = (_as_json(chunk) for chunk in chunks)
            for text in _ahead(texts) if len(rows) > ROWS_AT_ONCE else texts:
                connection.execute(self.made(make), {_rows_of(table): text})
        elif steps:
            together = self.made(_together, *(make for make, _, _ in steps))
            connection.execute(together, {_rows_of(table): _as_json(rows) for _, table, rows in steps})

    def given(self, table: Table, *names: str) -> FromClause:
        """The rows of ``each``, as a table of ``table``'s columns ``names``; on SQLite one of one row."""
        columns = [table.c[name] for name in names]
        if self.sqlite:
            values = (sqlalchemy.bindparam(GIVEN + one.name, type_=one.type).label(one.name) for one in columns)
            return sqlalchemy.select(*values).subquery("given")
        text = sqlalchemy.bindparam(_rows_of(table), type_=sqlalchemy.Text)
        rows = sqlalchemy.func.json_to_recordset(sqlalchemy.cast(text, sqlalchemy.JSON))
        plain = (sqlalchemy.column(column.name, column.type) for column in columns)
        return rows.table_valued(*plain, name="given").render_derived(name="given", with_types=True)

    def insert(self, table: Table) -> Insert:
        """``INSERT`` with ``ON CONFLICT``, which both dialects have under one interface."""
        if self.sqlite:
            from sqlalchemy.dialects import sqlite

            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)  # type: ignore[return-value]


class _Texts(sqlalchemy.types.UserDefinedType[str]):
    """``TEXT[]``, given as the text of one: the driver takes 5 µs for each item of a list."""

    cache_ok = True
    render_bind_cast = True

    def get_col_spec(self, **_: Any) -> str:
        return "TEXT[]"


def _array_literal(values: Sequence[str]) -> str:
    """As PostgreSQL writes an array of texts down, each of them in quotes."""
    text = "\0".join(values)
    if text.count("\0") >= len(values) > 0:  # no text of PostgreSQL's holds one, so none is equal to these
        return _array_literal([value for value in values if "\0" not in value])
    if '"' in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '{"' + text.replace("\0", '","') + '"}' if values else "{}"


def _rows_of(table: Table) -> str:
    return f"the_rows_of_{table.name}"


def _as_json(rows: Sequence[dict[str, Any]]) -> str:
    return dump_finite(rows if isinstance(rows, list) else list(rows))


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """``items``, each made by a thread while the one before it is used: half of a long insert's time is the server's,
    the other half goes into writing rows down."""
    with ThreadPoolExecutor(1) as pool:
        coming = _coming(pool, items)
        while (item := coming()) is not None:
            coming = _coming(pool, items)
            yield item


def _coming(pool: ThreadPoolExecutor, items: Iterator[T]) -> Callable[[], T | None]:
    """What waits for the next of ``items``; or makes it, where there is no thread to be had: a process whose main
    thread has ended begins none for the others, which write all the same."""
    try:
        return pool.submit(next, items, None).result
    except RuntimeError:
        return functools.partial(next, items, None)


def _together(db: Database, *makes: Callable[..., Any]) -> Executable:
    """Several changes as one statement. PostgreSQL makes those that nothing reads the last first; here they are made,
    and lock rows, in the order given, as they do where they are statements of their own."""
    parts = [db.made(make).cte(f"step{number}") for number, make in enumerate(makes)]
    return sqlalchemy.select(sqlalchemy.literal_column("1")).add_cte(*reversed(parts))


def _clock(db: Database) -> Select[float]:
    return sqlalchemy.select(db.now)


class OnDatabase(Protocol):
    """What has a database: the parts of ``SqlIndex``."""

    db: Database


S = TypeVar("S", bound=OnDatabase)


def reads(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method in one reading transaction of its own, whose connection it gets."""

    @functools.wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.db.run(lambda connection: method(self, connection, *args, **kwargs))

    return run


def looks(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a look-up, whose statements need no common state; it gets a connection that reads by index."""

    @functools.wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.db.look(lambda connection: method(self, connection, *args, **kwargs))

    return run


def writes(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method in one writing transaction of its own, whose connection it gets."""

    @functools.wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.db.run(lambda connection: method(self, connection, *args, **kwargs), writes=True)

    return run


def writes_by_index(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """``writes`` that read by index (``Database.use_indexes``)."""

    @functools.wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.db.run(lambda connection: method(self, connection, *args, **kwargs), writes=True, by_index=True)

    return run


def repeats(method: Callable[Concatenate[S, Connection, P], T]) -> Callable[Concatenate[S, P], T]:
    """``writes`` that come to the same when they are done twice: also where nobody knows whether they were."""

    @functools.wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.db.run(lambda connection: method(self, connection, *args, **kwargs), writes=True, repeats=True)

    return run
