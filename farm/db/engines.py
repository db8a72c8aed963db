"""Engines and keys: the look-up, what keys were made of, and the counters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Insert,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    union,
)

from farm.builds import BuildState, Engine
from farm.db import statements
from farm.db.fence import Fenced
from farm.db.json_text import dump
from farm.db.models import builds, counters, engines, events, key_parts, programs
from farm.db.rows import DIGEST, clean, engine_from, parts_from, parts_row, starts, whole_digest
from farm.db.session import Database, Rows, looks, reads, writes
from farm.index import Found, KeyParts, Past, Wanted


class Engines(Fenced):
    """The engines' part of ``farm.index.Index``; the contract is written there."""

    db: Database

    @looks
    def find(self, connection: Connection, wanted: Sequence[Wanted], namespaces: Sequence[str]) -> list[Found | None]:
        """One statement; a second one where the exact recipe has no engine."""
        exact = self._by_recipe(connection, {want.recipe for want in wanted}, namespaces)
        rest = [want for want in wanted if want.recipe not in exact]
        others = self._by_key(connection, rest, namespaces) if rest else {}
        return [_choose(want, exact, others) for want in wanted]

    def _by_recipe(
        self, connection: Connection, recipes: Collection[str], namespaces: Sequence[str]
    ) -> dict[str, tuple[Engine, str]]:
        """The engine of each recipe, and its weights; where several namespaces have one, the first one's."""
        params = {"the_recipes": self.db.array(recipes), "the_namespaces": self.db.array(namespaces)}
        found: dict[str, Row[Any]] = {}
        for row in connection.execute(self.db.made(_of_recipes), params):
            rival = found.setdefault(row.recipe, row)
            if namespaces.index(row.namespace) < namespaces.index(rival.namespace):
                found[row.recipe] = row
        return {recipe: (engine_from(row), row.weights) for recipe, row in found.items()}

    def _by_key(
        self, connection: Connection, wanted: Sequence[Wanted], namespaces: Sequence[str]
    ) -> dict[tuple[str, str | None], Engine]:
        """For each key its newest engine (weights ``None``), and its newest with each of the wanted weights."""
        params = {
            "the_keys": self.db.array(want.key for want in wanted),
            "the_weights": self.db.array(want.weights for want in wanted),
            "the_namespaces": self.db.array(namespaces),
        }
        found: dict[tuple[str, str | None], Engine] = {}
        for row in connection.execute(self.db.made(_best_of_keys), params):
            engine = engine_from(row)
            if row.place == 1:
                found[row.asked, None] = engine
            if row.place_of_weights == 1:
                found[row.asked, row.weights] = engine
        return found

    # -- what keys are made of ---------------------------------------------------------------------------------

    def record_parts(self, parts: Sequence[KeyParts]) -> None:
        """As the contract says. What is known already costs one look, and takes the write lock from nobody."""
        news = self._unrecorded(parts) if parts else []
        if news:
            self._record(news)

    @reads
    def _unrecorded(self, connection: Connection, parts: Sequence[KeyParts]) -> list[KeyParts]:
        recipes = self.db.array(part.recipe for part in parts)
        rows = connection.execute(self.db.made(_links), {"the_recipes": recipes})
        known = {(row.key, row.recipe) for row in rows if row.trusted or not self.trusted}
        news = {(part.key, part.recipe): part for part in parts if (part.key, part.recipe) not in known}
        return [news[link] for link in sorted(news)]

    @writes
    def _record(self, connection: Connection, parts: Sequence[KeyParts]) -> None:
        now = self.db.time(connection)
        rows = Rows(lambda part: parts_row(part, now, self.trusted), parts)
        self.db.each(connection, (statements.add_parts, key_parts, rows))

    @reads
    def parts(self, connection: Connection, prefix: str) -> list[KeyParts]:
        prefix = whole_digest(prefix)
        query = select(key_parts).where(or_(starts(key_parts.c.key, prefix), starts(key_parts.c.recipe, prefix)))
        rows = connection.execute(query.order_by(key_parts.c.recorded.desc(), key_parts.c.key, key_parts.c.recipe))
        return [parts_from(row) for row in rows]

    @reads
    def recent_parts(self, connection: Connection, graph: str | None = None, limit: int = 200) -> list[KeyParts]:
        query = select(key_parts)
        if graph is not None:
            query = query.where(key_parts.c.graph == clean(graph))
        newest = query.order_by(key_parts.c.recorded.desc(), key_parts.c.key, key_parts.c.recipe).limit(limit)
        return [parts_from(row) for row in connection.execute(newest)]

    # -- engines -----------------------------------------------------------------------------------------------

    @writes
    def drop_engine(
        self, connection: Connection, recipe: str, digest: str, reason: str, namespace: str | None = None
    ) -> bool:
        which = [engines.c.recipe == recipe, engines.c.digest == digest, *self._writable(engines.c.namespace)]
        if namespace is not None:
            which.append(engines.c.namespace == namespace)
        return self._drop_engines(connection, which, digest, reason)

    def _drop_engines(
        self, connection: Connection, which: Sequence[ColumnElement[bool]], digest: str, reason: str
    ) -> bool:
        """Forget the engines of which all of ``which`` holds; the builds that made them tell of it."""
        makers = connection.execute(delete(engines).where(*which).returning(engines.c.build)).scalars().all()
        if not makers:
            return False
        self._count(connection, "dropped", {"n": len(makers), reason: len(makers)})
        detail = dump({"why": reason, "engine": digest})
        told = select(builds.c.id, self.db.now, literal("engine dropped"), literal(detail))
        told = told.where(self.db.among(builds.c.id, "the_builds"))
        columns = ["build", "at", "kind", "detail_json"]
        connection.execute(insert(events).from_select(columns, told), {"the_builds": self.db.array(makers)})
        return True

    @reads
    def engines(
        self, connection: Connection, prefix: str = "", limit: int = 1000, namespaces: Sequence[str] = ()
    ) -> list[Engine]:
        query, params = select(engines), {}
        prefix = whole_digest(prefix)
        if not DIGEST.startswith(prefix):
            recipes = connection.execute(_named(prefix)).scalars()
            query = query.where(self.db.among(engines.c.recipe, "the_recipes"))
            params = {"the_recipes": self.db.array(recipes)}
        if namespaces:
            query = query.where(engines.c.namespace.in_(namespaces))
        newest = query.order_by(engines.c.created.desc(), engines.c.recipe, engines.c.namespace).limit(limit)
        return [engine_from(row) for row in connection.execute(newest, params)]

    @reads
    def past(self, connection: Connection, wanted: Collection[tuple[str, str]]) -> Past:
        lately = self.db.made(_lately)
        of_graph = {}
        for capability, graph in sorted(set(wanted)):
            params = {"the_graph": clean(graph), "the_capability": clean(capability)}
            mean = connection.execute(lately, params).scalar()
            if mean is not None:
                of_graph[capability, graph] = float(mean)
        return Past(of_graph, dict(connection.execute(self.db.made(_lately_by_capability)).all()))

    # -- counters ----------------------------------------------------------------------------------------------

    @writes
    def count(self, connection: Connection, name: str, by: Mapping[str, float]) -> None:
        self._count(connection, name, by)

    def _count(self, connection: Connection, name: str, by: Mapping[str, float]) -> None:
        rows = [{"name": clean(name), "field": clean(field), "value": by[field]} for field in sorted(by)]
        if rows:
            connection.execute(self.db.made(_add_up), rows)

    @reads
    def stats(self, connection: Connection) -> dict[str, Any]:
        """``counters`` by name and field; ``engines``; ``blobs`` and ``bytes`` of distinct plans; ``builds`` by
        state, every state named; ``programs`` and ``program_bytes``."""
        blobs = select(engines.c.digest, func.max(engines.c.size).label("size")).group_by(engines.c.digest).subquery()
        plans = select(func.count(), func.coalesce(func.sum(blobs.c.size), 0)).select_from(blobs)
        count, size = connection.execute(plans).one()
        stored = select(func.count(), func.coalesce(func.sum(programs.c.size), 0)).select_from(programs)
        program_count, program_size = connection.execute(stored).one()
        states = select(builds.c.state, func.count()).group_by(builds.c.state)
        by_state: dict[str, int] = dict(connection.execute(states).all())
        return {
            "counters": _counters(connection),
            "engines": connection.execute(select(func.count()).select_from(engines)).scalar_one(),
            "blobs": count,
            "bytes": int(size),
            "builds": {state.value: by_state.get(state.value, 0) for state in BuildState},
            "programs": program_count,
            "program_bytes": int(program_size),
        }


def _counters(connection: Connection) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, field, value in connection.execute(select(counters).order_by(counters.c.name, counters.c.field)):
        found.setdefault(name, {})[field] = value
    return found


def _choose(
    want: Wanted, exact: Mapping[str, tuple[Engine, str]], others: Mapping[tuple[str, str | None], Engine]
) -> Found | None:
    if want.recipe in exact:
        engine, weights = exact[want.recipe]
        return Found(engine, exact=True, same_weights=weights == want.weights)
    if (want.key, want.weights) in others:
        return Found(others[want.key, want.weights], exact=False, same_weights=True)
    newest = others.get((want.key, None))
    return Found(newest, exact=False, same_weights=False) if newest else None


def _of_recipes(db: Database) -> Select[Any]:
    there = db.among(engines.c.namespace, "the_namespaces")
    return select(engines).where(db.among(engines.c.recipe, "the_recipes"), there)


def _best_of_keys(db: Database) -> Select[Any]:
    """Of the engines under each of ``the_keys`` the newest, and the newest with each of ``the_weights``.

    Equally new ones are told apart by recipe and namespace, so that every asker gets the same.
    """
    newest = (engines.c.created.desc(), engines.c.recipe, engines.c.namespace)
    by_key = func.row_number().over(partition_by=key_parts.c.key, order_by=newest)
    by_weights = func.row_number().over(partition_by=[key_parts.c.key, engines.c.weights], order_by=newest)
    columns = (key_parts.c.key.label("asked"), by_key.label("place"), by_weights.label("place_of_weights"))
    ranked = (
        select(engines, *columns)
        .join(key_parts, key_parts.c.recipe == engines.c.recipe)
        .where(db.among(key_parts.c.key, "the_keys"), db.among(engines.c.namespace, "the_namespaces"))
        # The engine's own key was computed by its worker; what else a recipe serves, not everybody is believed.
        .where(or_(key_parts.c.trusted, engines.c.key == key_parts.c.key))
        .subquery()
    )
    same = and_(ranked.c.place_of_weights == 1, db.among(ranked.c.weights, "the_weights"))
    return select(ranked).where(or_(ranked.c.place == 1, same))


RECENT = 50


def _lately(_db: Database) -> Select[float]:
    """The mean of the newest builds of ``the_graph`` in ``the_capability``."""
    of = (
        engines.c.graph == bindparam("the_graph", type_=engines.c.graph.type),
        engines.c.capability == bindparam("the_capability", type_=engines.c.capability.type),
    )
    newest = select(engines.c.build_seconds).where(*of).order_by(engines.c.created.desc()).limit(RECENT).subquery()
    return select(func.avg(newest.c.build_seconds))


def _lately_by_capability(_db: Database) -> Select[str, float]:
    columns = (engines.c.capability, engines.c.build_seconds)
    newest = select(*columns).order_by(engines.c.created.desc()).limit(4 * RECENT).subquery()
    return select(newest.c.capability, func.avg(newest.c.build_seconds)).group_by(newest.c.capability)


def _links(db: Database) -> Select[Any]:
    columns = (key_parts.c.key, key_parts.c.recipe, key_parts.c.trusted)
    return select(*columns).where(db.among(key_parts.c.recipe, "the_recipes"))


def _add_up(db: Database) -> Insert:
    add = db.insert(counters)
    more = {"value": counters.c.value + add.excluded.value}
    return add.on_conflict_do_update(index_elements=["name", "field"], set_=more)


def _named(prefix: str) -> CompoundSelect[str]:
    """The recipes of the engines whose digest, recipe or key starts so; a look at each index, not at each row."""
    return union(
        select(engines.c.recipe).where(starts(engines.c.digest, prefix)),
        select(engines.c.recipe).where(starts(engines.c.recipe, prefix)),
        select(engines.c.recipe).where(starts(engines.c.key, prefix)),
        select(key_parts.c.recipe).where(starts(key_parts.c.key, prefix)),
    )
