"""Engines that no lease of this farm's made: what a client built itself, and what somebody vouched for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from farm.builds import Engine
from farm.db import statements
from farm.db.builds import BuildRows
from farm.db.json_text import dump
from farm.db.models import builds, engines, key_parts
from farm.db.rows import parts_row
from farm.db.serving import add_served, forget_served
from farm.db.session import Database, writes
from farm.index import Adoption


class Adopting(BuildRows):
    """Their part of ``farm.index.Index``; the contract is written there."""

    @writes
    def adopt(self, connection: Connection, engine: Engine, terms: Adoption) -> bool:
        self._check_writes([engine.namespace])
        now = self.db.time(connection)
        put = statements.put_engine if terms.replace else _add_engine
        place = (engines.c.recipe == engine.recipe, engines.c.namespace == engine.namespace)
        if not terms.replace and connection.execute(select(engines.c.recipe).where(*place)).first() is not None:
            return False
        rows = [_row(engine, terms, now)]
        self.db.each(connection, (statements.condemn_former, engines, rows if terms.replace else []))
        self.db.each(connection, (put, engines, rows))
        there = connection.execute(select(engines.c.manifest).where(*place)).scalar_one()
        if there != rows[0]["manifest"]:  # of two at once, the other's
            return False
        links = [parts_row(terms.parts, now, self.trusted)] if terms.parts is not None else []
        self.db.each(connection, (statements.add_parts, key_parts, links))
        served = [(engine.recipe, engine.namespace, engine.serves)]
        self.db.each(connection, forget_served(served))
        self.db.each(connection, add_served(served))
        told = select(builds.c.id).where(builds.c.id == engine.build)
        if terms.event and connection.execute(told).first() is not None:
            self._tell(connection, now, terms.event, [engine.build], terms.detail)
        return True


def _row(engine: Engine, terms: Adoption, now: float) -> dict[str, Any]:
    manifest = engine.manifest
    return {
        "recipe": engine.recipe,
        "namespace": engine.namespace,
        "key": str(manifest["key"]),
        "digest": engine.digest,
        "size": engine.size,
        "weights": str(manifest["weights"]),
        "build": engine.build,
        "created": now,
        "build_seconds": engine.build_seconds,
        "graph": str(manifest["parts"].get("graph", "")),
        "capability": terms.capability,
        "manifest": str(manifest.get("manifest") or ""),
        "manifest_json": dump(manifest),
    }


def _add_engine(db: Database) -> Any:
    """Not in place of one that another put at the same time."""
    return statements.adding(db, engines).on_conflict_do_nothing()
