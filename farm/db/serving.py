"""Portable engines: which engine serves which place, and the look-up over that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, Connection, Delete, Insert, Integer, Select, and_, bindparam, delete, not_, or_, select

from farm.builds import Engine
from farm.db.models import engines, serving
from farm.db.rows import engine_from
from farm.db.session import Database, reads
from farm.index import WantedPortable
from farm.portability import Serves

THE_FAMILY = bindparam("the_family", type_=serving.c.family.type)
THE_VERSION = bindparam("the_version", type_=serving.c.version.type)
THE_PORTABLE = bindparam("the_portable", type_=Boolean)
THE_LIMIT = bindparam("the_limit", type_=Integer)
THE_RECIPE = bindparam("the_recipe", type_=serving.c.recipe.type)
THE_NAMESPACE = bindparam("the_namespace", type_=serving.c.namespace.type)


class Serving:
    """The portable engines' part of ``farm.index.Index``; the contract is written there."""

    db: Database

    @reads
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
        self.db.use_indexes(connection)
        rows = connection.execute(self.db.made(_portable), params)
        # One that serves two of the places stands in two rows, as near to the first as its best.
        return list({(row.recipe, row.namespace): engine_from(row) for row in rows}.values())


def put_serving(db: Database, connection: Connection, served: Sequence[tuple[str, str, Sequence[Serves]]]) -> None:
    """What the engines of (recipe, namespace) serve, in place of what their predecessors served."""
    those = [{"the_recipe": recipe, "the_namespace": namespace} for recipe, namespace, _ in sorted(served, key=_name)]
    connection.execute(db.made(_forget), those)
    rows = [_row(one, recipe, namespace) for recipe, namespace, serves in sorted(served, key=_name) for one in serves]
    if rows:
        connection.execute(db.made(_serve), rows)


def _name(served: tuple[str, str, Sequence[Serves]]) -> tuple[str, str]:
    return served[0], served[1]


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
    return delete(serving).where(serving.c.recipe == THE_RECIPE, serving.c.namespace == THE_NAMESPACE)


def _serve(db: Database) -> Insert:
    return db.insert(serving)
