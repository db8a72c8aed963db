"""Use: when engines were last handed out, what keys were worth; added up in one transaction a batch."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, select, true, update

from farm.db.engines import Engines
from farm.db.models import engines, usage, uses
from farm.db.rows import clean
from farm.db.session import Database, reads, writes
from farm.usage import Place, Usage

KEPT_ROWS = 500_000
"""Numbers of keys that are kept, about ten a key: those of keys that were not asked for of late go."""
TRIM_ONE_IN = 200
"""How many batches come to one look for what is to go."""


class UsageRows(Engines):
    """The use's part of ``farm.index.Index``; the contract is written there."""

    @writes
    def add_usage(self, connection: Connection, more: Usage) -> None:
        now = self.db.time(connection)
        for name in sorted(more.counters):
            self._count(connection, name, more.counters[name])
        handed = [
            {"recipe": recipe, "namespace": namespace, "used": now, "hits": hits}
            for (recipe, namespace), hits in sorted(more.engines.items())
        ]
        worth = [
            {"key": clean(key), "field": clean(field), "value": more.keys[key][field], "at": now}
            for key in sorted(more.keys)
            for field in sorted(more.keys[key])
        ]
        self.db.each(connection, (_use, uses, handed))
        self.db.each(connection, (_add_up, usage, worth))
        if worth:
            connection.execute(self.db.made(_touch), {"the_keys": self.db.array(more.keys), "now": now})
        if random.random() < 1 / TRIM_ONE_IN:
            self._trim_usage(connection)

    def _trim_usage(self, connection: Connection, kept: int = KEPT_ROWS) -> None:
        """A key's numbers are all of one age, so a key keeps all or none."""
        oldest = select(usage.c.at).order_by(usage.c.at.desc()).offset(kept).limit(1)
        age = connection.execute(oldest).scalar()
        if age is not None:
            connection.execute(delete(usage).where(usage.c.at <= age))

    @reads
    def last_used(self, connection: Connection, places: Collection[Place]) -> dict[Place, float]:
        wanted = set(places)
        if not wanted:
            return {}
        params = {"the_recipes": self.db.array(recipe for recipe, _ in wanted)}
        rows = connection.execute(self.db.made(_last_used), params)
        return {(row.recipe, row.namespace): row.used for row in rows if (row.recipe, row.namespace) in wanted}

    @reads
    def usage(self, connection: Connection, keys: Collection[str]) -> dict[str, Mapping[str, float]]:
        found: dict[str, dict[str, float]] = {}
        rows = connection.execute(self.db.made(_of_keys), {"the_keys": self.db.array(clean(key) for key in keys)})
        for row in rows:
            found.setdefault(row.key, {})[row.field] = row.value
        return dict(found)


def _use(db: Database) -> Any:
    """Of engines that are there alone: one may have been collected since it was handed out."""
    given = db.given(uses, "recipe", "namespace", "used", "hits")
    there = select(given).join(
        engines, (engines.c.recipe == given.c.recipe) & (engines.c.namespace == given.c.namespace)
    )
    insert: Any = db.insert(uses).from_select(["recipe", "namespace", "used", "hits"], there.where(true()))
    more = {"used": insert.excluded.used, "hits": uses.c.hits + insert.excluded.hits}
    return insert.on_conflict_do_update(index_elements=["recipe", "namespace"], set_=more)


def _add_up(db: Database) -> Any:
    given = db.given(usage, "key", "field", "value", "at")
    insert: Any = db.insert(usage).from_select(["key", "field", "value", "at"], select(given).where(true()))
    more = {"value": usage.c.value + insert.excluded.value, "at": insert.excluded.at}
    return insert.on_conflict_do_update(index_elements=["key", "field"], set_=more)


def _touch(db: Database) -> Any:
    return update(usage).where(db.among(usage.c.key, "the_keys")).values(at=bindparam("now", type_=usage.c.at.type))


def _last_used(db: Database) -> Select[Any]:
    return select(uses.c.recipe, uses.c.namespace, uses.c.used).where(db.among(uses.c.recipe, "the_recipes"))


def _of_keys(db: Database) -> Select[Any]:
    return select(usage.c.key, usage.c.field, usage.c.value).where(db.among(usage.c.key, "the_keys"))
