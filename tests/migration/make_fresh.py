"""Write ``farm/db/fresh.sql``: the schema of a new SQLite database, as the migrations make it. To be run whenever a
migration is added; ``test_fresh.py`` fails until it has been.

    python -m tests.migration.make_fresh
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from farm.db.migrate import BETWEEN, FRESH, HEAD, run_scripts
from farm.db.session import WRITES, make_engine, parse_url

# What a migration writes that is another in each database: the farm's own name (0005).
NAMED = "INSERT INTO notes (name, value) VALUES ('farm', lower(hex(randomblob(16))))"
MADE = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"


def migrated(path: Path) -> None:
    """A new database at ``path``, by the migrations alone."""
    with make_engine(parse_url(f"sqlite:///{path}")).connect() as connection:
        connection = connection.execution_options(**WRITES)
        run_scripts(connection)
        connection.commit()


def schema(path: Path) -> list[str]:
    """What made the tables and indexes of a database, in order, each in one line."""
    with closing(sqlite3.connect(path)) as connection:
        return [" ".join(row[0].split()) for row in connection.execute(MADE)]


def script() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "farm.db"
        migrated(path)
        stamp = f"INSERT INTO alembic_version VALUES ('{HEAD}')"
        return BETWEEN.join([f"-- {HEAD}", *schema(path), NAMED, stamp])


if __name__ == "__main__":
    FRESH.write_text(script(), "utf-8")
