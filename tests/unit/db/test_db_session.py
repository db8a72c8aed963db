"""Transactions: what is run again, what is not, and how foreign errors are said."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from farm.db import session
from farm.db.faults import place, translate, worldly
from farm.db.session import Database, parse_url
from farm.errors import BadConfig, LeaseLost, Unavailable

SERVER = parse_url("postgresql://someone:secret@db.example:5433/farm")
FILE = parse_url("sqlite:////var/lib/farm/farm.db")


class Refused(Exception):
    """An error as PostgreSQL's driver raises it."""

    def __init__(self, said: str, state: str | None = None) -> None:
        super().__init__(said)
        self.sqlstate = state


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(parse_url(f"sqlite:///{tmp_path / 'some.db'}"))
    database.run(lambda connection: connection.execute(text("CREATE TABLE seen (n INTEGER UNIQUE)")), writes=True)
    return database


def add(connection: Connection, n: int) -> None:
    connection.execute(text("INSERT INTO seen VALUES (:n)"), {"n": n})


def seen(database: Database) -> list[int]:
    return list(database.run(lambda connection: connection.execute(text("SELECT n FROM seen")).scalars().all()))


# -- URLs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_means_its_third_driver(scheme: str) -> None:
    assert parse_url(f"{scheme}://u@h/d").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "postgresql://u:secret@h:port/d", "mysql://h/d", "sqlite://", "sqlite:///:memory:", "http://h"],
)
def test_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse_url(url)
    assert "sqlite:///" in caught.value.hint and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://u:secret@h/d?port=x", "non-integer port"),
        ("postgresql://u:secret@h/d?prepare_threshold=0", "prepare_threshold"),
        ("postgresql://u:secret@h/d?autocommit=1", "autocommit"),
        ("sqlite:////tmp/farm.db?mode=ro", "takes no options"),
        ("sqlite:////tmp/a%00b.db", "x00"),
    ],
)
def test_what_a_database_cannot_be_asked(url: str, says: str) -> None:
    """SQLAlchemy would pass it on to what then fails, or ignore it with a warning."""
    with pytest.raises(BadConfig, match=says) as caught:
        Database(parse_url(url))
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_missing_is_named() -> None:
    with pytest.raises(BadConfig, match="not installed") as caught:
        Database(parse_url("postgresql+asyncpg2://h/d"))
    assert "farm[fleet]" in caught.value.hint


def test_a_password_is_never_shown() -> None:
    assert place(SERVER) == "the database at db.example:5433/farm"
    error = OperationalError("SELECT", {}, Refused("password authentication failed"))
    assert "secret" not in str(translate(error, SERVER))


# -- transactions ----------------------------------------------------------------------------------------------


def test_what_fails_leaves_nothing(database: Database) -> None:
    def work(connection: Connection) -> None:
        add(connection, 1)
        raise LeaseLost("another has it")

    with pytest.raises(LeaseLost):
        database.run(work, writes=True)
    assert seen(database) == []


def test_a_broken_rule_is_a_defect_and_no_fault_of_the_world(database: Database) -> None:
    def work(connection: Connection) -> None:
        add(connection, 1)
        add(connection, 1)

    with pytest.raises(IntegrityError):
        database.run(work, writes=True)
    assert seen(database) == []
    assert not worldly(IntegrityError("s", {}, Refused("x"))) and not worldly(DataError("s", {}, Refused("x")))
    assert worldly(OperationalError("s", {}, Refused("x"))) and worldly(sqlite3.DatabaseError("x"))


def test_references_are_held(database: Database) -> None:
    def work(connection: Connection) -> Any:
        return connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one()

    assert database.run(work) == 1


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_deadlock_is_run_again_from_its_beginning(database: Database, state: str) -> None:
    database.sqlite = False
    tries: list[int] = []

    def work(connection: Connection) -> int:
        tries.append(1)
        add(connection, len(tries))
        if len(tries) < 3:
            raise OperationalError("UPDATE", {}, Refused("deadlock detected", state))
        return len(tries)

    assert database.run(work, writes=True) == 3
    assert seen(database) == [3]


def test_a_server_that_comes_back_was_never_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))
    database.sqlite = False
    answers = [Refused("connection refused")] * 3

    def work(connection: Connection) -> str:
        if answers:
            raise OperationalError("SELECT", {}, answers.pop())
        return "here"

    with pytest.raises(Unavailable):
        database.run(work)
    assert len(answers) == 2, "a server that was never reached is not waited for"
    database.opened = True
    assert database.run(work) == "here"


def test_a_server_that_stays_away_is_said_to_be(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))
    database.sqlite, database.opened, database.url = False, True, SERVER
    tries: list[int] = []

    def work(connection: Connection) -> None:
        tries.append(1)
        raise OperationalError("SELECT", {}, Refused("connection to server failed: Connection refused"))

    with pytest.raises(Unavailable, match="is not listening") as caught:
        database.run(work)
    assert len(tries) == 4 and "FARM_DATABASE_URL" in caught.value.hint


def test_a_full_disk_is_not_tried_again(database: Database) -> None:
    database.sqlite, database.opened = False, True
    tries: list[int] = []

    def work(connection: Connection) -> None:
        tries.append(1)
        raise OperationalError("INSERT", {}, Refused("could not extend file: No space left on device", "53100"))

    with pytest.raises(Unavailable):
        database.run(work, writes=True)
    assert len(tries) == 1


# -- words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "what", "next_"),
    [
        ("database is locked", "locked by another process", "stop the farm process"),
        ("database or disk is full", "the disk is full", "free some space"),
        ("attempt to write a readonly database", "cannot be written to", "writable"),
        ("unable to open database file", "cannot be opened", "folder"),
        ("file is not a database", "is not a farm database", "move the file away"),
        ("database disk image is malformed", "is damaged", "move the file away"),
        ("disk I/O error", "the disk reports an error", "check the disk"),
        ("no such column: builds.stage", "lacks one of farm's columns", "start this process again"),
        ("something that nobody foresaw", "something that nobody foresaw", "farm doctor"),
    ],
)
def test_sqlites_errors_in_words(said: str, what: str, next_: str) -> None:
    error = translate(OperationalError("SELECT 1", {}, sqlite3.OperationalError(said)), FILE)
    assert "/var/lib/farm/farm.db" in error.message and what in error.message and next_ in error.hint
    assert "\n" not in error.message and "SELECT" not in error.message


@pytest.mark.parametrize(
    ("said", "what", "next_"),
    [
        ('FATAL:  password authentication failed for user "x"', "refuses the user", "FARM_DATABASE_URL"),
        ('FATAL:  database "farm" does not exist', "lacks what farm needs", "create the database"),
        ("connection failed: Connection refused", "not listening", "start the server"),
        ("FATAL:  sorry, too many clients already", "no more connections", "max_connections"),
        ("canceling statement due to lock timeout", "locked by another", "hanging process"),
        ("cannot execute INSERT in a read-only transaction", "is read-only", "primary"),
        ("FATAL:  the database system is not yet accepting connections", "is starting", "in a moment"),
        ("could not extend file: No space left on device", "out of room", "free some space"),
    ],
)
def test_postgresqls_errors_in_words(said: str, what: str, next_: str) -> None:
    error = translate(OperationalError("SELECT 1", {}, Refused(said)), SERVER)
    assert "db.example:5433/farm" in error.message and what in error.message and next_ in error.hint


def test_a_crowded_process_in_words() -> None:
    assert "run fewer workers" in translate(PoolTimeout("QueuePool limit"), SERVER).hint


def test_no_row_is_taken_for_the_last_because_it_cannot_be_made() -> None:
    made = session.Rows(lambda n: {"n": [10, 11][n]}, [0, 1, 2])
    with pytest.raises(IndexError):
        list(made)
    assert list(session.Rows(lambda n: {"n": n}, range(5))[1:3]) == [{"n": 1}, {"n": 2}]


def test_rows_are_written_ahead_of_their_use_and_an_error_comes_where_they_are_used() -> None:
    begun: list[int] = []

    def items() -> Iterator[str]:
        for n in range(4):
            begun.append(n)
            if n == 2:
                raise ValueError("of the third")
            yield str(n)

    coming = session._ahead(items())
    assert next(coming) == "0" and next(coming) == "1"
    with pytest.raises(ValueError, match="of the third"):
        next(coming)
    assert begun == [0, 1, 2]


def test_rows_are_written_where_no_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process whose main thread has ended, or at its limit of threads: at once, or from some time on."""
    submit, left = ThreadPoolExecutor.submit, [0]

    def refusing(pool: ThreadPoolExecutor, *call: Any) -> Any:
        if not left[0]:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        left[0] -= 1
        return submit(pool, *call)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refusing)
    for some in range(6):
        left[0] = some
        assert list(session._ahead(iter("abcd"))) == list("abcd")
