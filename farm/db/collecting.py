"""Collection as rows: what there is, what protects it, and what is condemned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.types import JSON

from farm.collection import Kind, Thing, toolchain_of
from farm.db.engines import Engines
from farm.db.holding import NAMING, beyond
from farm.db.json_text import dump
from farm.db.models import builds, condemned, engines, events, forms, key_parts, pins, programs, uses
from farm.db.session import Database, reads, writes
from farm.db.statements import IS_ACTIVE
from farm.leaving import Condemned, Protected
from farm.upkeep import PAGE, Place

Blobs = Iterable[tuple[str, str, int]]
"""Blobs to condemn: digest, kind and size."""
COLLECTED = "collected"


class CollectingRows(Engines):
    """The first part of ``farm.leaving.Leaving``, and ``Index.hold_blobs``; the contracts are written there."""

    # -- what there is -----------------------------------------------------------------------------------------

    @reads
    def protected(self, connection: Connection) -> Protected:
        rows = connection.execute(select(pins).where(is_live(self.db))).all()
        active = connection.execute(select(builds.c.recipe, builds.c.namespace).where(IS_ACTIVE))
        return Protected(
            now=self.db.time(connection),
            pins={blob: row.name for row in rows for blob in (row.digest, row.program) if blob},
            pinned={(row.recipe, row.namespace): row.name for row in rows},
            building=frozenset((recipe, namespace) for recipe, namespace in active),
            needed=_needed(self.db, connection),
        )

    @reads
    def weighed(self, connection: Connection, kind: Kind, after: Place = (), limit: int = PAGE) -> list[Thing]:
        query, key, thing = _WEIGHED[kind]
        return [thing(row) for row in connection.execute(beyond(query(), key, after).limit(limit))]

    # -- what goes ---------------------------------------------------------------------------------------------

    @writes
    def condemn(self, connection: Connection, things: Sequence[Thing], grace: float) -> list[Thing]:
        things = [thing for thing in things if self._may_remove(thing)]
        if not things:
            return []
        gone = _REMOVED[things[0].kind](self, connection, things, grace)
        self._condemn(connection, (_blobs_of(thing) for thing in gone), grace)
        return gone

    def _may_remove(self, thing: Thing) -> bool:
        """Programs and forms are everybody's: trusted engines are built again from them."""
        return self._may_write(thing.place[1]) if thing.kind is Kind.ENGINE else self.trusted

    def _remove_engines(self, connection: Connection, things: Sequence[Thing], grace: float) -> list[Thing]:
        """Locked before they are judged: who pins one holds a lock on its row, and a statement that begins after that
        sees the pin."""
        recipes = {"the_recipes": self.db.array(thing.place[0] for thing in things)}
        connection.execute(self.db.made(_lock_engines), recipes)
        which = tuple_(engines.c.recipe, engines.c.namespace, engines.c.build)
        mine = which.in_([(*thing.place, thing.version) for thing in things])
        change = delete(engines).where(mine, *_may_go(self.db, grace)).returning(engines.c.recipe, engines.c.namespace)
        places = {tuple(row) for row in connection.execute(change)}
        gone = [thing for thing in things if thing.place in places]
        if gone:
            self._tell_collected(connection, gone)
        return gone

    def _tell_collected(self, connection: Connection, gone: Sequence[Thing]) -> None:
        self._count(connection, "dropped", {"n": len(gone), COLLECTED: len(gone)})
        told = select(builds.c.id, self.db.now, literal("engine dropped"), literal(dump({"why": COLLECTED})))
        told = told.where(self.db.among(builds.c.id, "the_builds"))
        columns = ["build", "at", "kind", "detail_json"]
        makers = {"the_builds": self.db.array(thing.version for thing in gone)}
        connection.execute(insert(events).from_select(columns, told), makers)

    def _remove_forms(self, connection: Connection, things: Sequence[Thing], grace: float) -> list[Thing]:
        needed = _needed(self.db, connection)
        return [thing for thing in things if thing.place[0] not in needed and self._remove_form(connection, thing)]

    def _remove_form(self, connection: Connection, thing: Thing) -> bool:
        which = (forms.c.program == thing.place[0], forms.c.exporter == thing.place[1])
        same = forms.c.created == float(thing.version)
        return connection.execute(delete(forms).where(*which, same)).rowcount > 0

    def _remove_programs(self, connection: Connection, things: Sequence[Thing], grace: float) -> list[Thing]:
        needed = _needed(self.db, connection) | set(
            connection.execute(select(pins.c.program).where(is_live(self.db))).scalars()
        )
        return [thing for thing in things if thing.place[0] not in needed and self._remove_program(connection, thing)]

    def _remove_program(self, connection: Connection, thing: Thing) -> bool:
        which = (programs.c.digest == thing.place[0], programs.c.used == float(thing.version))
        return connection.execute(delete(programs).where(*which)).rowcount > 0

    def _condemn(self, connection: Connection, blobs: Iterable[Blobs], grace: float) -> None:
        """Note blobs, whose rows go in this transaction, as condemned; what is so already, for as long again."""
        now = self.db.time(connection)
        found = {blob: (kind, size) for some in blobs for blob, kind, size in some if blob}
        rows = [
            {"blob": blob, "kind": found[blob][0], "size": found[blob][1], "since": now, "until": now + grace}
            for blob in sorted(found)
        ]
        if rows:
            connection.execute(self.db.made(_add_condemned), [{**row, "going": False} for row in rows])

    # -- what is condemned -------------------------------------------------------------------------------------

    @reads
    def condemned(self, connection: Connection) -> tuple[int, int, int]:
        due = func.coalesce(func.sum(case((_is_due(self.db), 1), else_=0)), 0)
        query = select(func.count(), func.coalesce(func.sum(condemned.c.size), 0), due).select_from(condemned)
        count, size, ready = connection.execute(query).one()
        return count, int(size), int(ready)

    @writes
    def take_condemned(self, connection: Connection, limit: int) -> list[Condemned]:
        some = select(condemned.c.blob).where(_is_due(self.db)).order_by(condemned.c.blob).limit(limit)
        # A common table expression: a subquery may be run again for each row, and lock more than it should.
        chosen = some.with_for_update(skip_locked=True).cte("chosen")
        # Looked at once more: who held one meanwhile has it.
        which = (condemned.c.blob.in_(select(chosen.c.blob)), _is_due(self.db))
        change = update(condemned).where(*which).values(going=True)
        rows = connection.execute(change.returning(condemned.c.blob, *_TOLD))
        return [Condemned(row.blob, row.kind, row.size, row.until) for row in rows]

    @writes
    def spare(self, connection: Connection, blobs: Collection[str]) -> None:
        change = delete(condemned).where(self.db.among(condemned.c.blob, "the_blobs"), condemned.c.going)
        connection.execute(change, {"the_blobs": self.db.array(blobs)})

    @writes
    def postpone(self, connection: Connection, blobs: Collection[str], seconds: float) -> None:
        those = (self.db.among(condemned.c.blob, "the_blobs"), condemned.c.going)
        change = update(condemned).where(*those).values(going=False, until=self.db.now + seconds)
        connection.execute(change, {"the_blobs": self.db.array(blobs)})

    @reads
    def named_elsewhere(self, connection: Connection, blobs: Collection[str]) -> set[str]:
        if not blobs:
            return set()
        self.db.use_indexes(connection)
        return set(connection.execute(self.db.made(_elsewhere), {"the_blobs": self.db.array(blobs)}).scalars())

    def hold_blobs(self, blobs: Collection[str], seconds: float) -> set[str]:
        """As the contract says. Most of the time nothing is condemned, which a look finds out without a write."""
        return self._hold_condemned(blobs, seconds) if self._condemned_among(blobs) else set()

    @reads
    def _condemned_among(self, connection: Connection, blobs: Collection[str]) -> bool:
        query = self.db.made(_is_condemned)
        return connection.execute(query, {"the_blobs": self.db.array(blobs)}).first() is not None

    @writes
    def _hold_condemned(self, connection: Connection, blobs: Collection[str], seconds: float) -> set[str]:
        those, until = self.db.among(condemned.c.blob, "the_blobs"), self.db.now + seconds
        params = {"the_blobs": self.db.array(blobs)}
        longer = update(condemned).where(those, ~condemned.c.going, condemned.c.until < until).values(until=until)
        connection.execute(longer, params)
        return set(connection.execute(select(condemned.c.blob).where(those, condemned.c.going), params).scalars())


_TOLD = (condemned.c.kind, condemned.c.size, condemned.c.until)


def is_live(db: Database) -> ColumnElement[bool]:
    """Of a pin: that it has not expired."""
    return or_(pins.c.expires.is_(None), pins.c.expires > db.now)


def _is_due(db: Database) -> ColumnElement[bool]:
    return or_(condemned.c.going, condemned.c.until <= db.now)


UNTOLD = r"\\(\\|u(0000|d[89a-f][0-9a-f]{2}))"
"""In JSON: the escapes beside which PostgreSQL reads nothing, NUL and surrogates (a model's name may be any bytes), and
the backslash that is escaped itself, so that what follows it is not taken for one of them."""


def _needed(db: Database, connection: Connection) -> frozenset[str]:
    """The programs of active builds."""
    if db.sqlite:
        program: ColumnElement[Any] = func.json_extract(builds.c.request_json, "$.program")
    else:
        readable = func.regexp_replace(builds.c.request_json, UNTOLD, "?", "gi")
        program = cast(readable, JSON)["program"].as_string()
    return frozenset(connection.execute(select(program).where(IS_ACTIVE).distinct()).scalars())


def _may_go(db: Database, grace: float) -> tuple[ColumnElement[bool], ...]:
    """Of an engine: that nothing has come to protect it."""
    place = (engines.c.recipe, engines.c.namespace)
    same = and_(pins.c.recipe == place[0], pins.c.namespace == place[1])
    active = exists().where(builds.c.recipe == place[0], builds.c.namespace == place[1], IS_ACTIVE)
    lately = exists().where(uses.c.recipe == place[0], uses.c.namespace == place[1], uses.c.used >= db.now - grace)
    return (
        engines.c.created < db.now - grace,
        ~exists().where(same, is_live(db)),
        ~exists().where(pins.c.digest == engines.c.digest, is_live(db)),
        ~active,
        ~lately,
    )


def _blobs_of(thing: Thing) -> Blobs:
    sizes = (thing.size, *(0 for _ in thing.blobs[1:]))
    return ((blob, thing.kind.value, size) for blob, size in zip(thing.blobs, sizes, strict=True))


def _lock_engines(db: Database) -> Select[Any]:
    query = select(engines.c.recipe).where(db.among(engines.c.recipe, "the_recipes"))
    return query.order_by(engines.c.recipe, engines.c.namespace).with_for_update()


def _add_condemned(db: Database) -> Any:
    add = db.insert(condemned)
    later = case((condemned.c.until > add.excluded.until, condemned.c.until), else_=add.excluded.until)
    return add.on_conflict_do_update(index_elements=["blob"], set_={"until": later, "going": False})


def _elsewhere(db: Database) -> Any:
    others = (column for column in NAMING if column.table is not condemned)
    return union_all(*(select(column).where(db.among(column, "the_blobs")) for column in others))


def _is_condemned(db: Database) -> Select[str]:
    return select(condemned.c.blob).where(db.among(condemned.c.blob, "the_blobs")).limit(1)


# -- rows as things --------------------------------------------------------------------------------------------


def _engines() -> Select[Any]:
    columns = (engines.c.recipe, engines.c.namespace, engines.c.digest, engines.c.manifest, engines.c.size)
    more = (
        engines.c.build,
        engines.c.created,
        engines.c.capability,
        uses.c.used,
        key_parts.c.model,
        key_parts.c.target,
    )
    link = and_(key_parts.c.key == engines.c.key, key_parts.c.recipe == engines.c.recipe)
    same = and_(uses.c.recipe == engines.c.recipe, uses.c.namespace == engines.c.namespace)
    return select(*columns, *more).select_from(engines.outerjoin(uses, same).outerjoin(key_parts, link))


def _programs() -> Select[Any]:
    return select(programs)


def _forms() -> Select[Any]:
    columns = [column for column in forms.c if column is not forms.c.detail_json]
    of = forms.outerjoin(programs, programs.c.digest == forms.c.program)
    return select(*columns, programs.c.used, programs.c.created.label("stored"), programs.c.name).select_from(of)


def _engine(row: Row[Any]) -> Thing:
    return Thing(
        kind=Kind.ENGINE,
        place=(row.recipe, row.namespace),
        version=row.build,
        blobs=tuple(blob for blob in (row.digest, row.manifest) if blob),
        size=row.size,
        created=row.created,
        used=row.used or 0.0,
        namespace=row.namespace,
        toolchain=toolchain_of(row.capability),
        name=f"{row.model} for {row.target}" if row.model else "",
    )


def _program(row: Row[Any]) -> Thing:
    return Thing(
        kind=Kind.PROGRAM,
        place=(row.digest,),
        version=repr(row.used),
        blobs=(row.digest,),
        size=row.size,
        created=row.created,
        used=row.used,
        name=row.name,
    )


def _form(row: Row[Any]) -> Thing:
    """A form is of use as long as its program is."""
    return Thing(
        kind=Kind.FORM,
        place=(row.program, row.exporter),
        version=repr(row.created),
        blobs=tuple(blob for blob in (row.graph, row.data, row.side) if blob),
        size=row.size,
        created=row.created,
        used=max(row.used or 0.0, row.stored or 0.0),
        name=row.name or "",
    )


_WEIGHED: Mapping[Kind, tuple[Callable[[], Select[Any]], Any, Callable[[Row[Any]], Thing]]] = {
    Kind.ENGINE: (_engines, engines.primary_key.columns, _engine),
    Kind.PROGRAM: (_programs, programs.primary_key.columns, _program),
    Kind.FORM: (_forms, forms.primary_key.columns, _form),
}
_REMOVED: Mapping[Kind, Callable[[CollectingRows, Connection, Sequence[Thing], float], list[Thing]]] = {
    Kind.ENGINE: CollectingRows._remove_engines,
    Kind.PROGRAM: CollectingRows._remove_programs,
    Kind.FORM: CollectingRows._remove_forms,
}
