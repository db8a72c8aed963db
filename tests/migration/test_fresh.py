"""A new database is made from ``fresh.sql`` without Alembic, and is what the migrations would have made."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from farm.db import migrate
from farm.db.migrate import FRESH, HEAD, upgrade
from tests.migration.make_fresh import migrated, schema, script


def test_the_script_is_what_the_migrations_come_to() -> None:
    assert FRESH.read_text("utf-8") == script(), "run: python -m tests.migration.make_fresh"


def test_a_new_database_is_as_if_migrated(tmp_path: Path) -> None:
    made, other = tmp_path / "made.db", tmp_path / "migrated.db"
    assert upgrade(f"sqlite:///{made}") is True
    migrated(other)
    assert schema(made) == schema(other)
    with closing(sqlite3.connect(made)) as one, closing(sqlite3.connect(other)) as two:
        assert sorted(one.iterdump()) != [] and _rows(one) == _rows(two) == [(HEAD,)]
        filled = [table for table in _tables(one) if one.execute(f"SELECT count(*) FROM {table}").fetchone()[0]]
        assert filled == [table for table in _tables(two) if two.execute(f"SELECT count(*) FROM {table}").fetchone()[0]]
        names = [dict(database.execute("SELECT name, value FROM notes")) for database in (one, two)]
    assert [list(name) for name in names] == [["farm"], ["farm"]]
    assert all(re.fullmatch("[0-9a-f]{32}", name["farm"]) for name in names) and names[0] != names[1]


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]


def _rows(connection: sqlite3.Connection) -> list[tuple[str]]:
    return connection.execute("SELECT version_num FROM alembic_version").fetchall()


def test_it_is_made_without_alembic(tmp_path: Path) -> None:
    code = f"""
import sys
from farm.db.index import SqlIndex
SqlIndex("sqlite:///{tmp_path / "farm.db"}").close()
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_script_of_another_revision_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration was added and the script forgotten: slower, but right."""
    old = tmp_path / "fresh.sql"
    old.write_text(FRESH.read_text("utf-8").replace(f"-- {HEAD}", "-- 0000"))
    monkeypatch.setattr(migrate, "FRESH", old)
    made, other = tmp_path / "made.db", tmp_path / "migrated.db"
    assert upgrade(f"sqlite:///{made}") is True
    migrated(other)
    assert schema(made) == schema(other)
