"""Nodes: who is there and how busy, which ones fail, and on which a build has failed before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Row, Select, bindparam, case, delete, func, select

from farm.builds import Failure, FailureKind
from farm.db.json_text import load
from farm.db.models import builds, nodes, tried, workers
from farm.db.rows import clean
from farm.db.session import Database, reads, writes
from farm.db.statements import IS_RUNNING
from farm.index import FRESH_SECONDS, NodeHealth
from farm.placement import Needs, Seat, elsewhere

BLAMES = 3
"""So many failures in a row of which a node is to blame set it aside."""
ASIDE_SECONDS = 600.0
BLAMED = "builds that failed there succeeded elsewhere"


class Nodes:
    """The nodes' part of ``farm.index.Index``; the contract is written there."""

    db: Database

    @reads
    def seats(self, connection: Connection) -> list[Seat]:
        return seats(self.db, connection)

    @reads
    def tried(self, connection: Connection, build: str) -> dict[str, str]:
        return _tried(self.db, connection, build)

    @reads
    def health(self, connection: Connection) -> list[NodeHealth]:
        rows = connection.execute(select(nodes).where(nodes.c.failures > 0).order_by(nodes.c.name))
        return [NodeHealth(row.name, row.failures, row.aside_until, row.why) for row in rows]

    @writes
    def trust_node(self, connection: Connection, name: str) -> bool:
        return connection.execute(delete(nodes).where(nodes.c.name == clean(name))).rowcount > 0


def seats(db: Database, connection: Connection) -> list[Seat]:
    """Every worker that is listed, with how much it has to do."""
    busy: Counter[str] = Counter(dict(connection.execute(db.made(_running_by_worker)).all()))
    aside = dict(connection.execute(db.made(_aside)).all())
    return [_seat(row, busy[row.id], aside) for row in connection.execute(db.made(_there))]


def _seat(row: Row[Any], busy: int, aside: dict[str, float]) -> Seat:
    detail = load(row.detail_json)
    return Seat(
        worker=row.id,
        node=row.host,
        capabilities=tuple(load(row.capabilities_json)),
        slots=int(detail.get("slots", 1)),
        busy=busy,
        memory=int(detail.get("build_memory", 0)),
        gpu_memory=int(detail.get("gpu_memory", 0)),
        fresh=bool(row.fresh),
        namespaces=tuple(detail.get("builds_for", ())),
        draining=detail.get("state") == "draining",
        gpu_free=int(detail.get("gpu_free", 0)),
        trouble=str(detail.get("trouble") or ""),
        aside=time.strftime("%H:%M:%S", time.localtime(aside[row.host])) if row.host in aside else "",
    )


def note_failure(db: Database, connection: Connection, row: Row[Any], failure: Failure) -> None:
    """Remember on which node an attempt of a build failed, where that may be the node's doing. The row is locked."""
    if row.node and failure.kind in (FailureKind.NODE, FailureKind.LOST):
        values = {"build": row.id, "node": row.node, "kind": failure.kind.value}
        connection.execute(db.made(_note_tried), values)


def can_go_elsewhere(db: Database, connection: Connection, row: Row[Any]) -> bool:
    """Whether a node that is there now, and on which the build has not failed, could take it."""
    failed = frozenset(node for node, kind in _tried(db, connection, row.id).items() if kind == FailureKind.NODE)
    needs = Needs(row.capability, row.memory, row.gpu_memory, failed, row.namespace)
    return elsewhere(needs, seats(db, connection))


def settle_blame(db: Database, connection: Connection, rows: Sequence[Row[Any]]) -> None:
    """Builds have succeeded: the nodes on which they had failed before are to blame for that, and the nodes that made
    them are well. Nodes are locked by name, always in that order."""
    again = [row.id for row in rows if row.attempts > 1]
    well = {row.node for row in rows if row.node}
    if not again and not any(row.blamed for row in rows):
        return
    blamed: Counter[str] = Counter()
    if again:
        blamed.update(connection.execute(db.made(_failed_before), {"the_builds": db.array(again)}).scalars())
    for name in sorted(well | blamed.keys()):
        if name in blamed and name not in well:
            connection.execute(db.made(_blame), {"name": name, "failures": blamed[name], "why": BLAMED})
    if well:
        connection.execute(db.made(_well), {"the_nodes": db.array(well)})


def _tried(db: Database, connection: Connection, build: str) -> dict[str, str]:
    return dict(connection.execute(db.made(_tried_of), {"the_build": clean(build)}).all())


def _tried_of(_db: Database) -> Select[str, str]:
    return select(tried.c.node, tried.c.kind).where(tried.c.build == bindparam("the_build", type_=tried.c.build.type))


def _failed_before(db: Database) -> Select[str]:
    return select(tried.c.node).where(db.among(tried.c.build, "the_builds"))


def _note_tried(db: Database) -> Any:
    """A failure of the node weighs more than a loss: it is never overwritten by one."""
    insert: Any = db.insert(tried)
    worse = insert.excluded.kind == FailureKind.NODE.value
    return insert.on_conflict_do_update(
        index_elements=["build", "node"], set_={"kind": insert.excluded.kind}, where=worse
    )


def _blame(db: Database) -> Insert:
    """Add to a node's failures in a row; enough of them set it aside."""
    insert: Any = db.insert(nodes)
    failures = nodes.c.failures + insert.excluded.failures
    aside = case((failures >= BLAMES, db.now + ASIDE_SECONDS), else_=None)
    change = {"failures": failures, "aside_until": aside, "why": insert.excluded.why}
    return insert.on_conflict_do_update(index_elements=["name"], set_=change)  # type: ignore[no-any-return]


def _well(db: Database) -> Delete:
    """Only those that were blamed have a row, so that a success of a healthy node writes nothing."""
    over = nodes.c.aside_until.is_(None) | (nodes.c.aside_until < db.now)
    return delete(nodes).where(db.among(nodes.c.name, "the_nodes"), over)


def _running_by_worker(_db: Database) -> Select[str, int]:
    return select(builds.c.worker, func.count()).where(IS_RUNNING).group_by(builds.c.worker)


def _aside(db: Database) -> Select[str, float]:
    return select(nodes.c.name, nodes.c.aside_until).where(nodes.c.aside_until > db.now)


def _there(db: Database) -> Select[Any]:
    fresh = (workers.c.seen > db.now - FRESH_SECONDS).label("fresh")
    return select(workers.c.id, workers.c.host, workers.c.capabilities_json, workers.c.detail_json, fresh)
