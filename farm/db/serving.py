"""Portable engines: which engine serves which place, and the look-up over that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    Delete,
    Integer,
    Select,
    and_,
    bindparam,
    delete,
    not_,
    or_,
    select,
    tuple_,
)

from farm.builds import Engine
from farm.db import statements
from farm.db.models import engines, serving
from farm.db.rows import engine_from
from farm.db.session import Database, Step, looks
from farm.index import WantedPortable
from farm.portability import Serves

THE_FAMILY = bindparam("the_family", type_=serving.c.family.type)
THE_VERSION = bindparam("the_version", type_=serving.c.version.type)
THE_PORTABLE = bindparam("the_portable", type_=Boolean)
Served = tuple[str, str, Sequence[Serves]]
"""A recipe, its namespace, and for what else its engine serves."""

THE_LIMIT = bindparam("the_limit", type_=Integer)


class Serving:
    """The portable engines' part of ``farm.index.Index``; the contract is written there."""

    db: Database

    @looks
    def find_portable(
        self, connection: Connection, wanted: WantedPortable, namespaces: Sequence[str], limit: int = 8
    ) -> list[Engine]:
        params = {
            "the_family": wanted.family,
            "the_version": wanted.version,
            "the_portable": wanted.portable,
            "the_limit": limit,
            "the_places": self.db.array(wanted.places),
            "the_namespaces": self.db.array(namespaces),
        }
        rows = connection.execute(self.db.made(_portable), params)
        # One that serves two of the places stands in two rows, as near to the first as its best.
        return list({(row.recipe, row.namespace): engine_from(row) for row in rows}.values())


def forget_served(served: Sequence[Served]) -> Step:
    """Forget what former engines of (recipe, namespace) served."""
    return _forget, serving, [{"recipe": recipe, "namespace": namespace} for recipe, namespace, _ in served]


def add_served(served: Sequence[Served]) -> Step:
    """What the engines of (recipe, namespace) serve."""
    return _serve, serving, [_row(one, recipe, namespace) for recipe, namespace, serves in served for one in serves]


def _row(served: Serves, recipe: str, namespace: str) -> dict[str, Any]:
    return {
        "family": served.family,
        "place": served.place,
        "recipe": recipe,
        "namespace": namespace,
        "version": served.version,
        "portable": served.portable,
        "breadth": served.breadth,
    }


def _portable(db: Database) -> Select[Any]:
    same = serving.c.version == THE_VERSION
    older = and_(serving.c.portable, serving.c.version < THE_VERSION)
    return (
        select(engines)
        .join(serving, and_(serving.c.recipe == engines.c.recipe, serving.c.namespace == engines.c.namespace))
        .where(serving.c.family == THE_FAMILY, db.among(serving.c.place, "the_places"), or_(same, older))
        .where(db.among(serving.c.namespace, "the_namespaces"))
        # Portability may be gained by taking another engine, never lost.
        .where(or_(serving.c.portable, not_(THE_PORTABLE)))
        .order_by(same.desc(), serving.c.version.desc(), serving.c.breadth, engines.c.created.desc(), engines.c.recipe)
        .limit(THE_LIMIT)
    )


def _forget(db: Database) -> Delete:
    given = db.given(serving, "recipe", "namespace")
    mine = tuple_(serving.c.recipe, serving.c.namespace)
    return delete(serving).where(mine.in_(select(given.c.recipe, given.c.namespace)))


def _serve(db: Database) -> Any:
    # Whoever has listed the recipe's engine meanwhile has listed the same; or, for another key of the recipe, more than
    # the engine serves that is there now: whoever finds it there judges it by its manifest.
    return statements.adding(db, serving).on_conflict_do_nothing()
