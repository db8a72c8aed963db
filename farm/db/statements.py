"""The statements about builds that run often, each made once per database (``Database.made``).

Parameters that are not columns begin with ``the_``; a parameter that is a column of an UPDATE or an INSERT is
set. Every SELECT … FOR UPDATE locks on PostgreSQL; on SQLite a writer has the database to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Table,
    Text,
    Update,
    and_,
    bindparam,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    union_all,
    update,
)

from farm.builds import BuildState
from farm.collection import GRACE_SECONDS
from farm.db.fence import one_of
from farm.db.models import (
    ACTIVE,
    QUEUED,
    RUNNING,
    attempts,
    builds,
    condemned,
    engines,
    events,
    key_parts,
    nodes,
    serving,
    tried,
    waiters,
    workers,
)
from farm.db.session import Database

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert as OnConflict

# Written out, not as parameters: a planner uses a partial index only when it can read the condition.
IS_ACTIVE: ColumnElement[bool] = literal_column(f"builds.{ACTIVE}")
IS_QUEUED: ColumnElement[bool] = literal_column(f"builds.{QUEUED}")
IS_RUNNING: ColumnElement[bool] = literal_column(f"builds.{RUNNING}")

NO_INDEX = "builds.state || ''"
"""A build's state as an expression, where ids say which builds are meant: else PostgreSQL, which thinks that few wait
or run, goes through all that do for each id rather than look for it."""

AT_REST = {"lease_expires": None, "phase": "", "progress": None}
UNFAILED = {"failure_kind": None, "failure_message": None, "failure_hint": None}
UNSTARTED = {**AT_REST, "worker": None, "node": None, "started": None, "finished": None}

WAITERS: ColumnElement[int] = (
    select(func.count())
    .select_from(waiters)
    .where(waiters.c.build == builds.c.id)
    .correlate(builds)
    .scalar_subquery()
    .label("waiters")
)
COLUMNS: list[ColumnElement[Any]] = [column for column in builds.c if column is not builds.c.request_json]
NEWEST = (builds.c.created.desc(), builds.c.number.desc(), builds.c.id)

THE_BUILD = bindparam("the_build", type_=builds.c.id.type)
THE_TOKEN = bindparam("the_token", type_=builds.c.token.type)

# -- reading ---------------------------------------------------------------------------------------------------


def fetch(db: Database) -> Select[Any]:
    """Builds among ``the_builds``, less their requests."""
    return select(*COLUMNS, WAITERS).where(db.among(builds.c.id, "the_builds")).order_by(*NEWEST)


def fetch_requests(db: Database) -> Select[str, str]:
    return select(builds.c.id, builds.c.request_json).where(db.among(builds.c.id, "the_builds"))


def waiting(db: Database, namespaces: tuple[str, ...] = ()) -> Select[str, int]:
    """Queued and due, by capability."""
    query = select(builds.c.capability, func.count()).where(IS_QUEUED, due(db), *built_for(namespaces))
    return query.group_by(builds.c.capability)


def built_for(namespaces: tuple[str, ...]) -> tuple[ColumnElement[bool], ...]:
    """Builds of the namespaces that these patterns cover; of all, without any."""
    return () if not namespaces or "*" in namespaces else (one_of(builds.c.namespace, namespaces),)


def due(db: Database) -> ColumnElement[bool]:
    return or_(builds.c.not_before.is_(None), builds.c.not_before <= db.now)


def expired(db: Database) -> Select[str]:
    """Running builds whose lease is over, or held by one of ``the_gone``."""
    over = or_(builds.c.lease_expires < db.now, db.among(builds.c.worker, "the_gone"))
    return select(builds.c.id).where(IS_RUNNING, over).order_by(builds.c.id)


# -- holding ---------------------------------------------------------------------------------------------------


def lock(db: Database) -> Select[Any]:
    """A build's row and the time."""
    return select(*COLUMNS, db.now.label("now")).where(builds.c.id == THE_BUILD).with_for_update()


def hold(db: Database) -> Select[Any]:
    """The row of a build that runs under ``the_token``, and the time."""
    return lock(db).where(builds.c.token == THE_TOKEN, IS_RUNNING)


def lock_running(db: Database) -> Select[Any]:
    """The rows of those of ``the_builds`` that run, the time, whether their node has failed lately (``nodes``), whether
    it is recorded what their key was made of (``key_parts``), and whether a former engine of their recipe is listed for
    what it serves (``serving``)."""
    those = (db.among(builds.c.id, "the_builds"), IS_RUNNING)
    blamed = exists().where(nodes.c.name == builds.c.node).label("blamed")
    link = (key_parts.c.key == builds.c.key, key_parts.c.recipe == builds.c.recipe, key_parts.c.trusted)
    linked = exists().where(*link).label("linked")
    listed = (serving.c.recipe == builds.c.recipe, serving.c.namespace == builds.c.namespace)
    served = exists().where(*listed).label("served")
    return (
        select(*COLUMNS, blamed, linked, served, db.now.label("now"))
        .where(*those)
        .order_by(builds.c.id)
        .with_for_update(of=builds)
    )


# -- leasing ---------------------------------------------------------------------------------------------------


IN_TURN = (builds.c.priority.desc(), builds.c.turn, builds.c.created, builds.c.number)
LONG_SECONDS = 60.0
"""A build that has waited for so long is leased to a worker that has not the memory free yet, and waits there."""


def best_due(db: Database, namespaces: tuple[str, ...] = ()) -> Select[Any]:
    """The queued builds of ``the_capability``, for ``namespaces``, that fit ``the_…`` offer, the best first, read off
    ``ix_builds_due`` in that order; at most ``the_count``, and none while ``the_node`` is set aside."""
    memory, gpu_memory = bindparam("the_memory", type_=BigInteger), bindparam("the_gpu_memory", type_=BigInteger)
    free, gpu_free = bindparam("the_free", type_=BigInteger), bindparam("the_gpu_free", type_=BigInteger)
    node = bindparam("the_node", type_=tried.c.node.type)
    failed_here = exists().where(tried.c.build == builds.c.id, tried.c.node == node, tried.c.kind == "node")
    aside = exists().where(nodes.c.name == node, nodes.c.aside_until > db.now)
    return (
        select(builds.c.id)
        .where(
            IS_QUEUED,
            builds.c.capability == bindparam("the_capability", type_=builds.c.capability.type),
            due(db),
            builds.c.memory <= memory,
            builds.c.gpu_memory <= gpu_memory,
            or_(builds.c.memory <= free, builds.c.created < db.now - LONG_SECONDS),
            # However long it has waited: what takes a GPU's memory is somebody else, and may keep it, while another
            # node's GPU is free.
            builds.c.gpu_memory <= gpu_free,
            ~failed_here,
            ~aside,
            *built_for(namespaces),
        )
        .order_by(*IN_TURN)
        .limit(bindparam("the_count", type_=Integer))
    )


def heads(db: Database, namespaces: tuple[str, ...] = ()) -> Select[Any]:
    """The place in its queue of the best that is due, for one of ``the_…`` queues."""
    return best_due(db, namespaces).add_columns(builds.c.priority, builds.c.turn, builds.c.created, builds.c.number)


def start(db: Database, namespaces: tuple[str, ...] = ()) -> Update:
    """Run the best builds that nobody has locked, by ``the_worker`` for ``the_ttl`` seconds, each under a new token."""
    # No key update: a row that somebody is only joining counts as free.
    # A common table expression: a subquery may be run again for each row, and lock more than it should.
    chosen = best_due(db, namespaces).with_for_update(key_share=True, skip_locked=True, of=builds).cte("chosen")
    values = {
        "state": BuildState.RUNNING.value,
        "token": builds.c.token + 1,
        "attempts": builds.c.attempts + 1,
        "worker": bindparam("the_worker", type_=builds.c.worker.type),
        "node": bindparam("the_node", type_=builds.c.node.type),
        "started": db.now,
        "lease_expires": db.now + bindparam("the_ttl", type_=builds.c.lease_expires.type),
        "not_before": None,
    }
    return (
        update(builds)
        .where(builds.c.id == chosen.c.id, _may_become(BuildState.RUNNING, NO_INDEX))
        .values(values)
        .returning(*builds.c, WAITERS)
    )


def lease(db: Database, namespaces: tuple[str, ...] = ()) -> Select[Any]:
    """``start``, its attempts and its events in one statement, which SQLite has no words for."""
    started = start(db, namespaces).cte("started")
    attempt = select(started.c.id, started.c.token, started.c.attempts, started.c.worker, started.c.started)
    detail = cast(func.json_build_object("worker", started.c.worker, "attempt", started.c.attempts), Text)
    event = select(started.c.id, started.c.started, literal("leased", Text), detail)
    noted = attempts.insert().from_select(ATTEMPT, attempt).cte("noted")
    told = events.insert().from_select(EVENT, event).cte("told")
    return select(started).add_cte(noted, told)


def holdings(db: Database) -> Select[Any]:
    """How those of ``the_builds`` that run are held."""
    columns = (builds.c.id, builds.c.token, builds.c.cancel_requested, builds.c.log_size)
    return select(*columns).where(db.among(builds.c.id, "the_builds"), IS_RUNNING).order_by(builds.c.id)


def hold_all(db: Database) -> Select[Any]:
    return holdings(db).with_for_update()


def extend(db: Database) -> Update:
    """Extend the leases of ``the_builds``, whose rows are locked, by ``the_ttl`` seconds from now."""
    until = db.now + bindparam("the_ttl", type_=builds.c.lease_expires.type)
    return update(builds).where(db.among(builds.c.id, "the_builds")).values(lease_expires=until)


def see(db: Database) -> Update:
    """``the_worker`` was heard of."""
    worker = bindparam("the_worker", type_=workers.c.id.type)
    return update(workers).where(workers.c.id == worker).values(seen=db.now)


# -- changing --------------------------------------------------------------------------------------------------


def move(_db: Database, after: BuildState) -> Update:
    """Change a build's state as ``BuildState.may`` allows; ``the_token`` is the fence."""
    where = (builds.c.id == THE_BUILD, builds.c.token == THE_TOKEN, _may_become(after))
    return update(builds).where(*where).values(state=after.value)


def _may_become(after: BuildState, state: str = "builds.state") -> ColumnElement[bool]:
    before = [one.value for one in BuildState if one.may(after)]
    return literal_column(f"{state} IN ({', '.join(repr(name) for name in before)})")


def succeed(db: Database) -> Update:
    """``move`` to success, for each of the given builds."""
    given = db.given(builds, "id", "token", "finished", "engine")
    may = _may_become(BuildState.SUCCEEDED, NO_INDEX)
    where = (builds.c.id == given.c.id, builds.c.token == given.c.token, may)
    values = {**AT_REST, **UNFAILED, "finished": given.c.finished, "engine": given.c.engine}
    return update(builds).where(*where).values(state=BuildState.SUCCEEDED.value, **values)


def end_attempts(db: Database) -> Update:
    given = db.given(attempts, "build", "token", "finished", "outcome")
    where = (attempts.c.build == given.c.build, attempts.c.token == given.c.token)
    return update(attempts).where(*where).values(finished=given.c.finished, outcome=given.c.outcome)


def change(_db: Database) -> Update:
    """Change anything but the state of ``the_build``."""
    return update(builds).where(builds.c.id == THE_BUILD)


def end_attempt(_db: Database) -> Update:
    return update(attempts).where(attempts.c.build == THE_BUILD, attempts.c.token == THE_TOKEN)


# -- adding, by ``Database.each`` --------------------------------------------------------------------------------

ATTEMPT = ("build", "token", "number", "worker", "started")
EVENT = ("build", "at", "kind", "detail_json")
BLOBS = ("digest", "manifest")
"""The columns of an engine that name its blobs."""


def add_attempt(db: Database) -> Any:
    return adding(db, attempts, ATTEMPT)


def add_event(db: Database) -> Any:
    return adding(db, events, EVENT)


def add_waiter(db: Database) -> Any:
    return adding(db, waiters).on_conflict_do_nothing()


def add_build(db: Database) -> Any:
    names = ("id", "namespace", "recipe", "key", "capability", "priority", "tenant", "flow", "turn", "memory")
    more = ("gpu_memory", "request_json", "state", "created", "number")
    return adding(db, builds, names + more).on_conflict_do_nothing()


def add_parts(db: Database) -> Any:
    """What is known already stays; but who may say so makes a link trusted that was not."""
    insert = adding(db, key_parts)
    better = insert.excluded.trusted & ~key_parts.c.trusted
    return insert.on_conflict_do_update(index_elements=["key", "recipe"], set_={"trusted": true()}, where=better)


def condemn_former(db: Database) -> Any:
    """The blobs of those engines whose place the given ones take with others: whoever was promised one may fetch it
    yet, for a grace period (``farm.collecting``)."""
    given = db.given(engines, "recipe", "namespace", "digest", "manifest")
    same = and_(engines.c.recipe == given.c.recipe, engines.c.namespace == given.c.namespace)
    columns = [label for name in BLOBS for label in (engines.c[name].label(name), given.c[name].label(f"new_{name}"))]
    # Read once: what is given is long. Locked before anything is condemned, as collection locks them: engines first.
    replaced = select(engines.c.size, *columns).join(given, same)
    both = replaced.with_for_update(key_share=True, of=engines).cte("replaced")
    former = [
        select(both.c[name].label("blob"), size.label("size")).where(both.c[name] != both.c[f"new_{name}"])
        for name, size in zip(BLOBS, (both.c.size, literal(0, BigInteger)), strict=True)
    ]
    # One plan may be several recipes'; and a statement may insert it only once.
    blobs = union_all(*former).subquery("former")
    told = (blobs.c.blob, literal("engine", Text), func.max(blobs.c.size), db.now, db.now + GRACE_SECONDS, false())
    each = select(*told).where(blobs.c.blob != "").group_by(blobs.c.blob).order_by(blobs.c.blob)
    insert: OnConflict = db.insert(condemned).from_select([column.name for column in condemned.c], each)
    until = case((condemned.c.until > insert.excluded.until, condemned.c.until), else_=insert.excluded.until)
    later = {"until": until, "going": False}
    return insert.on_conflict_do_update(index_elements=["blob"], set_=later)


def put_engine(db: Database) -> Any:
    """The engine in place of the recipe's former one in its namespace."""
    insert = adding(db, engines)
    new = {column.name: insert.excluded[column.name] for column in engines.c if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=["recipe", "namespace"], set_=new)


def adding(db: Database, table: Table, names: Sequence[str] = ()) -> OnConflict:
    """Insert the given rows, of all columns or of ``names``; in their order, which is that of the locks."""
    names = names or table.c.keys()
    # Without a condition SQLite takes the ON of ON CONFLICT for a join's.
    insert: OnConflict = db.insert(table).from_select(list(names), select(db.given(table, *names)).where(true()))
    return insert
