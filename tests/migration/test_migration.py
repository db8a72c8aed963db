"""Old databases upgrade with all that they hold; what cannot be upgraded is left alone, and says why."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from farm.builds import BuildState, FailureKind
from farm.db import migrate, session
from farm.db.index import SqlIndex
from farm.db.migrate import HEAD, REVISIONS, needs_upgrade, upgrade
from farm.db.models import WHERE, metadata
from farm.db.session import make_engine, parse_url
from farm.errors import Unavailable
from farm.making import Offer

HERE = Path(__file__).parent
FROZEN = sorted(HERE.glob("frozen_*.sql"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "farm.db"


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def thaw(frozen: Path, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(frozen.read_text("utf-8"))


def version(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def columns(path: Path, table: str) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


# -- the scripts -----------------------------------------------------------------------------------------------


def test_the_constants_name_the_scripts() -> None:
    """Opening compares with the constant, so that it need not import Alembic."""
    known = ScriptDirectory.from_config(migrate.config())
    assert tuple(script.revision for script in reversed(list(known.walk_revisions()))) == REVISIONS
    assert known.get_current_head() == HEAD


def test_each_revision_that_was_released_is_frozen() -> None:
    assert {path.stem.removeprefix("frozen_") for path in FROZEN} == set(REVISIONS)


def test_the_migrations_make_what_the_models_say(path: Path) -> None:
    assert upgrade(url_of(path)) is True
    with make_engine(parse_url(url_of(path))).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    with closing(sqlite3.connect(path)) as connection:
        made = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL"))
    declared = {index.name: index for table in metadata.tables.values() for index in table.indexes}
    assert set(made) == set(declared)
    for name, index in declared.items():
        condition = f"WHERE {index.info[WHERE]}" if WHERE in index.info else ""
        assert (condition in made[str(name)]) and ("WHERE" in made[str(name)]) == bool(condition)
    assert "priority DESC" in made["ix_builds_due"]


# -- old databases ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_an_old_database_opens_with_all_that_it_holds(frozen: Path, path: Path) -> None:
    thaw(frozen, path)
    index = SqlIndex(url_of(path))
    try:
        assert version(path) == HEAD
        states = {build.request.model: build for build in index.builds()}
        assert {name: build.state for name, build in states.items()} == {
            "built.pt2": BuildState.SUCCEEDED,
            "failed.pt2": BuildState.FAILED,
            "running.pt2": BuildState.RUNNING,
            "queued.pt2": BuildState.QUEUED,
        }
        failed = states["failed.pt2"]
        assert failed.failure and failed.failure.kind is FailureKind.PERMANENT and failed.waiters == 1
        (engine,) = index.engines()
        assert engine.digest == states["built.pt2"].engine and engine.manifest["model"] == "built.pt2"
        assert index.log(states["built.pt2"].id) == ("the log\n", 8)
        assert [event.kind for event in index.events(failed.id)] == ["queued", "leased", "failed"]
        assert [try_.outcome for try_ in index.attempts(failed.id)] == ["permanent"]
        assert {part.model for part in index.recent_parts()} == {"built.pt2", "unbuilt.pt2"}
        assert [worker.id for worker in index.workers()] == ["host:1:a"]
        assert [program.name for program in index.programs()] == ["a.pt2"]
        form = index.form("sha256:p", "torch 2.13")
        assert form and form.graph == "sha256:o"
        (sweep,) = index.sweeps("sfrozen")
        assert [trial.build for trial in sweep.trials] == [states["queued.pt2"].id]
        assert index.stats()["counters"] == {"hit": {"n": 2, "seconds": 1.5}}
    finally:
        index.close()


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.stem)
def test_an_old_database_goes_on_working(frozen: Path, path: Path) -> None:
    thaw(frozen, path)
    index = SqlIndex(url_of(path))
    try:
        (reaped,) = index.reap(["host:1:a"])
        assert reaped.request.model == "running.pt2" and reaped.state is BuildState.QUEUED
        offer = Offer("w", "node", (reaped.request.capability,))
        taken = [(index.lease(offer, 60.0) or [None])[0] for _ in range(3)]
        assert [one.build.request.model if one else None for one in taken] == ["running.pt2", "queued.pt2", None]
    finally:
        index.close()


BLOB = "sha256:" + "5" * 64
DECOY = "sha256:" + "6" * 64


def test_blobs_that_stood_in_json_alone_are_named_by_columns(path: Path) -> None:
    """What was not named would be removed by the next ``farm reconcile``."""
    thaw(HERE / "frozen_0004.sql", path)
    says = json.dumps(f'{{"manifest":"{DECOY}","outline":"{DECOY}","side":"{DECOY}"}}')
    with closing(sqlite3.connect(path)) as connection:
        for table, column, name in (
            ("engines", "manifest_json", "manifest"),
            ("key_parts", "parts_json", "outline"),
            ("forms", "detail_json", "side"),
        ):
            text = f'{{"model":{says},"{name}":"{BLOB}","more":1}}'
            connection.execute(f"UPDATE {table} SET {column} = ?", (text,))
        connection.execute("UPDATE key_parts SET parts_json = '{}' WHERE model = 'unbuilt.pt2'")
        connection.commit()
    index = SqlIndex(url_of(path))
    try:
        assert index.named([BLOB, DECOY]) == {BLOB}
        rows = {table: index.rows(table) for table in ("engines", "key_parts", "forms")}
        assert [row["manifest"] for row in rows["engines"]] == [BLOB]
        assert sorted(row["outline"] for row in rows["key_parts"]) == ["", BLOB]
        assert [row["side"] for row in rows["forms"]] == [BLOB]
        assert len(index.note("farm") or "") == 32
    finally:
        index.close()


# -- a migration to come ---------------------------------------------------------------------------------------

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("builds") as batch:
        batch.add_column(sa.Column("tenant", sa.Text(), nullable=False, server_default="nobody"))
        batch.alter_column("phase", new_column_name="stage")
    op.execute("UPDATE builds SET tenant = 'somebody' WHERE state = 'queued'")
    # the end
"""


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripts with one more revision, which rebuilds the table that most others refer to."""
    scripts = tmp_path / "migrations"
    shutil.copytree(migrate.scripts(), scripts, ignore=shutil.ignore_patterns("__pycache__"))
    for newer in scripts.glob("versions/*.py"):
        if not newer.name.startswith("0001"):
            newer.unlink()
    script = scripts / "versions" / "0002_next.py"
    script.write_text(NEXT)
    monkeypatch.setattr(migrate, "scripts", lambda: scripts)
    monkeypatch.setattr(migrate, "REVISIONS", ("0001", "0002"))
    monkeypatch.setattr(migrate, "HEAD", "0002")
    return script


def test_a_migration_keeps_every_row_and_what_refers_to_it(next_revision: Path, path: Path) -> None:
    thaw(HERE / "frozen_0001.sql", path)
    assert needs_upgrade(url_of(path))
    assert upgrade(url_of(path)) is True
    assert needs_upgrade(url_of(path)) is False and upgrade(url_of(path)) is False
    with closing(sqlite3.connect(path)) as connection:
        tenants = connection.execute("SELECT tenant, count(*) FROM builds GROUP BY tenant ORDER BY tenant").fetchall()
        counts = [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("events", "waiters")]
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    assert tenants == [("nobody", 3), ("somebody", 1)]
    assert counts[0] >= 9 and counts[1] == 4 and broken == []
    assert version(path) == "0002"


def test_a_migration_that_fails_changes_nothing(next_revision: Path, path: Path) -> None:
    thaw(HERE / "frozen_0001.sql", path)
    next_revision.write_text(NEXT.replace("# the end", "raise RuntimeError('half way')"))
    with pytest.raises(RuntimeError, match="half way"):
        upgrade(url_of(path))
    assert version(path) == "0001"
    assert "tenant" not in columns(path, "builds") and "phase" in columns(path, "builds")
    next_revision.write_text(NEXT)
    assert upgrade(url_of(path)) is True


def test_a_migration_that_breaks_a_reference_changes_nothing(next_revision: Path, path: Path) -> None:
    thaw(HERE / "frozen_0001.sql", path)
    next_revision.write_text(NEXT.replace("# the end", 'op.execute("DELETE FROM builds")'))
    with pytest.raises(Unavailable, match="refers to one of 'builds'"):
        upgrade(url_of(path))
    assert version(path) == "0001" and "tenant" not in columns(path, "builds")


# -- opening ---------------------------------------------------------------------------------------------------


def test_a_fresh_home_is_made_and_needs_nothing_more(path: Path) -> None:
    assert needs_upgrade(url_of(path)) and not path.exists()
    SqlIndex(url_of(path)).close()
    assert version(path) == HEAD
    assert needs_upgrade(url_of(path)) is False and upgrade(url_of(path)) is False
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_opening_what_is_up_to_date_imports_no_alembic(path: Path) -> None:
    """Each ``farm`` command opens the database; Alembic would cost it a quarter of a second."""
    SqlIndex(url_of(path)).close()
    body = """
import sys
from farm.db.index import SqlIndex
from farm.index import Wanted
print(SqlIndex(sys.argv[1]).find([Wanted("sha256:k", "sha256:r")], ["main"]))
heavy = {"alembic", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql", "psycopg", "torch", "celery"} & set(sys.modules)
print(sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", body, url_of(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["[None]", "[]"]


def test_many_processes_open_a_fresh_home_at_once(path: Path) -> None:
    body = """
import sys
from farm.db.index import SqlIndex
sys.stdin.readline()
index = SqlIndex(sys.argv[1])
index.count("opened", {"n": 1})
"""
    children = [
        subprocess.Popen([sys.executable, "-c", body, url_of(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors.decode()
    assert SqlIndex(url_of(path)).stats()["counters"] == {"opened": {"n": 4}}


def test_a_file_restored_from_a_dump_gets_its_log_back(path: Path) -> None:
    thaw(HERE / f"frozen_{HEAD}.sql", path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    SqlIndex(url_of(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    SqlIndex(url_of(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    for act in (SqlIndex, needs_upgrade, upgrade):
        with pytest.raises(Unavailable, match="newer farm") as caught:
            act(url_of(path))
        assert "upgrade farm" in caught.value.hint
    assert version(path) == "9999"


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE photos (id INTEGER)")
    for act in (SqlIndex, upgrade):
        with pytest.raises(Unavailable, match="another program"):
            act(url_of(path))
    with closing(sqlite3.connect(path)) as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["photos"]


@pytest.mark.parametrize(
    "text", [b"this is a text file, and no database at all " * 200, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_file_that_is_no_database(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    for act in (SqlIndex, needs_upgrade, upgrade):
        with pytest.raises(Unavailable) as caught:
            act(url_of(path))
        assert str(path) in caught.value.message and "move the file away" in caught.value.hint
    assert path.read_bytes() == text


def test_a_damaged_database_says_so(path: Path) -> None:
    thaw(HERE / f"frozen_{HEAD}.sql", path)
    SqlIndex(url_of(path)).close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * (size - 4096 * 3))
    with pytest.raises(Unavailable, match=str(path)) as caught:
        index = SqlIndex(url_of(path))
        index.engines()
        index.builds()
    assert "move the file away" in caught.value.hint


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be") as caught:
        SqlIndex(url_of(tmp_path / "nowhere" / "farm.db"))
    assert "folder" in caught.value.hint


def test_a_database_that_stays_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SqlIndex(url_of(path)).close()
    monkeypatch.setattr(session, "BUSY_TIMEOUT_S", 0.2)
    index = SqlIndex(url_of(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert index.stats()["engines"] == 0, "readers never wait"
        with pytest.raises(Unavailable, match="locked by another process"):
            index.count("hit", {"n": 1})
    index.count("hit", {"n": 1})
    assert index.stats()["counters"] == {"hit": {"n": 1}}


def test_a_full_disk_loses_nothing_that_was_kept(path: Path) -> None:
    """SQLite's own page limit stands in for a small disk."""
    index = SqlIndex(url_of(path))
    index.count("hit", {"n": 1})

    def limit(connection: sqlite3.Connection, pages: int) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with index.db.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        limit(raw, 1)
    with pytest.raises(Unavailable, match="full") as caught:
        index.count("x" * 1_000_000, {"n": 1})
    assert "free some space" in caught.value.hint
    with index.db.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        limit(raw, 1_000_000)
    index.count("hit", {"n": 1})
    assert index.stats()["counters"] == {"hit": {"n": 2}}
