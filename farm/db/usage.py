"""Use: when engines were last handed out, what keys were worth; added up in one transaction a batch."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select, true

from farm.db import statements
from farm.db.engines import Engines
from farm.db.models import counters, engines, usage, uses
from farm.db.rows import clean
from farm.db.session import ROWS_AT_ONCE, Database, reads, writes
from farm.usage import Place, Usage

KEPT_ROWS = 500_000
"""Numbers of keys that are kept, about ten a key: those of keys that were not asked for of late go."""
TRIM_ONE_IN = 200
"""How many batches come to one look for what is to go."""


class UsageRows(Engines):
    """The use's part of ``farm.index.Index``; the contract is written there."""

    @writes
    def add_usage(self, connection: Connection, more: Usage) -> None:
        handed = [
            {"recipe": recipe, "namespace": namespace, "hits": hits}
            for (recipe, namespace), hits in sorted(more.engines.items())
        ]
        worth = [
            {"key": clean(key), "field": clean(field), "value": more.keys[key][field]}
            for key in sorted(more.keys)
            for field in sorted(more.keys[key])
        ]
        counted = [
            {"name": clean(name), "field": clean(field), "value": more.counters[name][field]}
            for name in sorted(more.counters)
            for field in sorted(more.counters[name])
        ]
        if max(len(handed), len(worth), len(counted)) <= ROWS_AT_ONCE:
            self.db.each(connection, (_use, uses, handed), (_add_up, usage, worth), (_count, counters, counted))
        else:
            for step in ((_use, uses, handed), (_add_up, usage, worth), (_count, counters, counted)):
                self.db.each(connection, step)
        if random.random() < 1 / TRIM_ONE_IN:
            self._trim_usage(connection)

    def _trim_usage(self, connection: Connection, kept: int = KEPT_ROWS) -> None:
        """A key keeps all of its numbers or none."""
        oldest = select(usage.c.at).order_by(usage.c.at.desc()).offset(kept).limit(1)
        age = connection.execute(oldest).scalar()
        if age is not None:
            old = select(usage.c.key).group_by(usage.c.key).having(func.max(usage.c.at) <= age)
            connection.execute(delete(usage).where(usage.c.key.in_(old)))

    @reads
    def last_used(self, connection: Connection, places: Collection[Place]) -> dict[Place, float]:
        wanted = set(places)
        if not wanted:
            return {}
        params = {"the_recipes": self.db.array(recipe for recipe, _ in wanted)}
        rows = connection.execute(self.db.made(_last_used), params)
        return {(row.recipe, row.namespace): row.used for row in rows if (row.recipe, row.namespace) in wanted}

    @reads
    def best_keys(self, connection: Connection, limit: int = 20) -> list[str]:
        most = select(usage.c.key).where(usage.c.field == "seconds").order_by(usage.c.value.desc(), usage.c.key)
        return list(connection.execute(most.limit(limit)).scalars())

    @reads
    def usage(self, connection: Connection, keys: Collection[str]) -> dict[str, Mapping[str, float]]:
        found: dict[str, dict[str, float]] = {}
        rows = connection.execute(self.db.made(_of_keys), {"the_keys": self.db.array(clean(key) for key in keys)})
        for row in rows:
            found.setdefault(row.key, {})[row.field] = row.value
        return dict(found)


def _use(db: Database) -> Any:
    """Of engines that are there alone: one may have been collected since it was handed out."""
    given = db.given(uses, "recipe", "namespace", "hits")
    there = select(given.c.recipe, given.c.namespace, db.now, given.c.hits).join(
        engines, (engines.c.recipe == given.c.recipe) & (engines.c.namespace == given.c.namespace)
    )
    insert: Any = db.insert(uses).from_select(["recipe", "namespace", "used", "hits"], there.where(true()))
    more = {"used": insert.excluded.used, "hits": uses.c.hits + insert.excluded.hits}
    return insert.on_conflict_do_update(index_elements=["recipe", "namespace"], set_=more)


def _add_up(db: Database) -> Any:
    given = db.given(usage, "key", "field", "value")
    rows = select(given, db.now).where(true())
    insert: Any = db.insert(usage).from_select(["key", "field", "value", "at"], rows)
    more = {"value": usage.c.value + insert.excluded.value, "at": insert.excluded.at}
    return insert.on_conflict_do_update(index_elements=["key", "field"], set_=more)


def _count(db: Database) -> Any:
    insert: Any = statements.adding(db, counters)
    more = {"value": counters.c.value + insert.excluded.value}
    return insert.on_conflict_do_update(index_elements=["name", "field"], set_=more)


def _last_used(db: Database) -> Select[Any]:
    return select(uses.c.recipe, uses.c.namespace, uses.c.used).where(db.among(uses.c.recipe, "the_recipes"))


def _of_keys(db: Database) -> Select[Any]:
    return select(usage.c.key, usage.c.field, usage.c.value).where(db.among(usage.c.key, "the_keys"))
