"""What must stay quick at a million rows is read off an index: SQLite's own plan says so, whatever the clock says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Executable, select

from farm.builds import BuildState
from farm.db import asking, claims, engines, statements
from farm.db.index import SqlIndex
from farm.db.models import builds, key_parts
from farm.db.models import engines as engines_table
from farm.db.rows import starts


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlIndex]:
    index = SqlIndex(f"sqlite:///{tmp_path_factory.mktemp('plans') / 'farm.db'}")
    yield index
    index.close()


def plan(index: SqlIndex, statement: Executable) -> list[str]:
    """The plan's steps, for any parameters."""
    with index.db.engine.connect() as connection:
        compiled: Any = statement.compile(dialect=connection.dialect, compile_kwargs=IN_PLACE)  # type: ignore[attr-defined]
        raw = connection.connection.driver_connection
        assert raw is not None
        rows = raw.execute(f"EXPLAIN QUERY PLAN {compiled}", [None] * len(compiled.positiontup or ()))
        return [row[3] for row in rows]


IN_PLACE = {"render_postcompile": True}
QUICK = [
    (engines._of_recipes, "pk_engines"),
    (engines._links, "ix_key_parts_recipe"),
    (statements.fetch, "pk_builds"),
    (statements.hold, "pk_builds"),
    (statements.expired, "ix_builds_running"),
    (statements.waiting, "ix_builds_due"),
    (claims._active, "uq_builds_active"),
    (claims._known_to_fail, "ix_builds_remembered"),
    (claims._made_already, "pk_engines"),
    (asking._waited_for, "ix_waiters_waiter"),
]
OWN_NAMES = {
    "pk_engines": "sqlite_autoindex_engines_1",
    "pk_builds": "sqlite_autoindex_builds_1",
    "pk_key_parts": "sqlite_autoindex_key_parts_1",
}


@pytest.mark.parametrize(("make", "by"), QUICK, ids=[make.__name__ for make, _ in QUICK])
def test_no_table_is_read_from_end_to_end(index: SqlIndex, make: Any, by: str) -> None:
    steps = plan(index, make(index.db))
    assert any(OWN_NAMES.get(by, by) in step for step in steps)
    assert scans(steps) <= {"ix_builds_due", "ix_builds_running"}


def scans(steps: list[str]) -> set[str]:
    """What is read from end to end; the partial indexes of the queue and of what runs may be."""
    whole = [step for step in steps if step.startswith("SCAN") and "VIRTUAL TABLE" not in step]
    tables = [step for step in whole if "anon" not in step and "ranked" not in step and "SUBQUERY" not in step]
    return {step.rpartition("INDEX ")[2] for step in tables}


def test_a_look_up_by_key_goes_through_links_to_engines(index: SqlIndex) -> None:
    steps = plan(index, engines._best_of_keys(index.db))
    assert any("key_parts" in step and "key=?" in step for step in steps)
    assert any("engines" in step and "recipe=?" in step for step in steps)


def test_the_best_build_is_read_off_in_order(index: SqlIndex) -> None:
    steps = plan(index, statements.best_due(index.db))
    assert any("ix_builds_due" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)


def test_listings_are_read_off_in_order(index: SqlIndex) -> None:
    newest = select(builds.c.id).order_by(builds.c.created.desc(), builds.c.number.desc()).limit(10)
    some = newest.where(builds.c.state.in_([BuildState.FAILED.value]))
    for statement in (newest, some):
        steps = plan(index, statement)
        assert any("ix_builds_created" in step for step in steps) and not any("TEMP B-TREE" in step for step in steps)
    steps = plan(index, select(engines_table.c.digest).order_by(engines_table.c.created.desc()).limit(10))
    assert any("ix_engines_created" in step for step in steps)


def test_shortened_names_are_ranges_of_an_index(index: SqlIndex) -> None:
    for column in (builds.c.id, engines_table.c.digest, engines_table.c.key, key_parts.c.recipe, key_parts.c.key):
        steps = plan(index, select(column).where(starts(column, "ab")))
        assert all(step.startswith("SEARCH") for step in steps)
    steps = plan(index, engines._named("sha256:ab"))
    assert sum(step.startswith("SEARCH") for step in steps) == 4


def test_builds_are_counted_without_a_look_at_them(index: SqlIndex) -> None:
    from sqlalchemy import func

    steps = plan(index, select(builds.c.state, func.count()).group_by(builds.c.state))
    assert any("COVERING INDEX ix_builds_created" in step for step in steps)
