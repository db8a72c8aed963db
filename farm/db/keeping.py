"""Programs, their forms, and sweeps: what is written once and read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, select, update

from farm.db import statements
from farm.db.fence import Fenced
from farm.db.json_text import dump, load
from farm.db.models import forms, programs, sweeps
from farm.db.models import trials as table
from farm.db.rows import clean, form_from, program_from, program_row, starts, trial_from, trial_row, whole_digest
from farm.db.session import Database, reads, writes
from farm.errors import NoSuchThing, NotAllowed
from farm.index import StoredProgram, Sweep, Trial
from farm.making import StoredForm
from farm.namespaces import UNTRUSTED


class Keeping(Fenced):
    """The programs' and sweeps' part of ``farm.index.Index``; the contract is written there."""

    db: Database

    @writes
    def put_program(self, connection: Connection, program: StoredProgram) -> None:
        """A program that is known keeps the name that it first came by; it is used again."""
        now = self.db.time(connection)
        row = program_row(program) | {"created": now, "used": now}
        insert = self.db.insert(programs).values(**row)
        connection.execute(insert.on_conflict_do_update(index_elements=["digest"], set_={"used": now}))

    @reads
    def programs(self, connection: Connection, prefix: str = "", limit: int = 1000) -> list[StoredProgram]:
        query = select(programs)
        if prefix:
            query = query.where(starts(programs.c.digest, whole_digest(prefix)))
        newest = query.order_by(programs.c.created.desc(), programs.c.digest).limit(limit)
        return [program_from(row) for row in connection.execute(newest)]

    @writes
    def put_form(self, connection: Connection, form: StoredForm) -> None:
        """A later form takes the former one's place: it was made because the former one's bytes were gone."""
        if not self.trusted and not form.exporter.endswith(UNTRUSTED):
            raise NotAllowed("ONNX forms that trusted workers take are put by trusted workers alone")
        values: dict[str, Any] = {
            "graph": form.graph,
            "data": form.data,
            "side": str(form.detail.get("side") or ""),
            "detail_json": dump(form.detail),
            "created": self.db.time(connection),
            "size": form.size,
        }
        insert = self.db.insert(forms).values(program=form.program, exporter=form.exporter, **values)
        connection.execute(insert.on_conflict_do_update(index_elements=["program", "exporter"], set_=values))

    @reads
    def form(self, connection: Connection, program: str, exporter: str) -> StoredForm | None:
        which = (forms.c.program == program, forms.c.exporter == exporter)
        row = connection.execute(select(forms).where(*which)).first()
        return form_from(row) if row else None

    # -- sweeps ------------------------------------------------------------------------------------------------

    @writes
    def put_sweep(self, connection: Connection, sweep: Sweep) -> None:
        """New, or in place of what the sweep was; the time of its first submission, and its cancellation, stay."""
        spec = dump(sweep.spec)
        values = {"id": sweep.id, "created": self.db.time(connection), "spec_json": spec, "cancelled": sweep.cancelled}
        change = {"spec_json": spec} | ({"cancelled": True} if sweep.cancelled else {})
        insert = self.db.insert(sweeps).values(**values)
        connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=change))
        connection.execute(delete(table).where(table.c.sweep == sweep.id))
        self.db.each(connection, (_add_trial, table, [trial_row(sweep.id, trial) for trial in sweep.trials]))

    @reads
    def sweeps(self, connection: Connection, prefix: str = "", limit: int = 100) -> list[Sweep]:
        query = select(sweeps)
        if prefix:
            query = query.where(starts(sweeps.c.id, prefix))
        rows = connection.execute(query.order_by(sweeps.c.created.desc(), sweeps.c.id).limit(limit)).all()
        whole = _trials(connection, rows[0].id) if prefix and len(rows) == 1 else ()
        return [Sweep(row.id, row.created, load(row.spec_json), whole, row.cancelled) for row in rows]

    @writes
    def add_trials(self, connection: Connection, sweep: str, trials: Sequence[Trial]) -> bool:
        """The sweep's row is locked first: of two that append at once, the second sees what the first wrote."""
        row = self._locked_sweep(connection, sweep)
        numbers = [trial.number for trial in trials]
        taken = select(table.c.number).where(table.c.sweep == row.id, table.c.number.in_(numbers)).limit(1)
        if row.cancelled or connection.execute(taken).first():
            return False
        self.db.each(connection, (_add_trial, table, [trial_row(row.id, trial) for trial in trials]))
        return True

    @writes
    def change_trials(self, connection: Connection, sweep: str, trials: Sequence[Trial]) -> None:
        row = self._locked_sweep(connection, sweep)
        for trial in trials:
            change = {"asked": trial.asked, "build": trial.build, "error": clean(trial.error)}
            mine = (table.c.sweep == row.id, table.c.number == trial.number)
            connection.execute(update(table).where(*mine).values(**change))

    @writes
    def end_sweep(self, connection: Connection, sweep: str, why: str) -> None:
        row = self._locked_sweep(connection, sweep)
        spec = load(row.spec_json)
        if bool(spec.get("ended")) != bool(why):
            values = {"spec_json": dump({**spec, "ended": why})}
            connection.execute(update(sweeps).where(sweeps.c.id == row.id).values(**values))

    def _locked_sweep(self, connection: Connection, sweep: str) -> Any:
        row = connection.execute(select(sweeps).where(sweeps.c.id == clean(sweep)).with_for_update()).first()
        if row is None:
            raise NoSuchThing(f"no sweep is called '{sweep}'", "'farm ls sweeps' lists them")
        return row

    @writes
    def cancel_sweep(self, connection: Connection, sweep: str) -> None:
        change = update(sweeps).where(sweeps.c.id == clean(sweep)).values(cancelled=True)
        if connection.execute(change).rowcount == 0:
            raise NoSuchThing(f"no sweep is called '{sweep}'", "'farm ls sweeps' lists them")


def _add_trial(db: Database) -> Any:
    return statements.adding(db, table)


def _trials(connection: Connection, sweep: str) -> tuple[Trial, ...]:
    query = select(table).where(table.c.sweep == sweep).order_by(table.c.number)
    return tuple(trial_from(row) for row in connection.execute(query))
