"""A sweep's results as a table: one row for each distinct build, its configurations folded into what matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING

from farm.cli.output import (
    Column,
    Table,
    count_of,
    fancy,
    human_seconds,
    human_size,
    note,
    say,
    short,
    terminal,
)
from farm.sweep_rows import Row, cell, label, rows_of, telling

if TYPE_CHECKING:
    from farm.sweep_results import SweepResults
    from farm.sweeps import Dimension


def show_results(found: SweepResults, every: bool = False) -> None:
    """The table, what failed and why, and the summary."""
    rows = rows_of(found, every)
    _table(rows, found.grid, every).show()
    for result in found.distinct:
        if result.error and result.outcome != "cancelled":
            trial = result.trial
            note(f"farm: {trial.model} for {trial.target}: {result.error}")
            if result.hint:
                note(f"      {result.hint}")
    say(f"{found.sweep.id} {found.state}: {summary(found)}")


def summary(found: SweepResults) -> str:
    """``96 asked, 8 distinct: 6 built, 2 hit; 8 engines; 14.2 s of building, 3 m 10 s saved``."""
    counts = dict(found.counts)
    asked, distinct, engines = (counts.pop(name) for name in ("asked", "distinct", "engines"))
    outcomes = ", ".join(f"{number} {name}" for name, number in counts.items())
    words = [f"{asked:,} asked, {distinct:,} distinct" + (f": {outcomes}" if outcomes else "")]
    made = sum(result.engine is not None for result in found.distinct)
    if engines != made:
        words.append(count_of(engines, "distinct engine"))
    if found.spent >= 0.005:
        words.append(f"{human_seconds(found.spent)} of building")
    if found.saved >= 0.05:
        words.append(f"{human_seconds(found.saved)} saved")
    return "; ".join(words)


# -- the table -----------------------------------------------------------------------------------------------

Cell = Callable[[Row], str]


def _table(rows: Sequence[Row], grid: Sequence[Dimension], every: bool) -> Table:
    """A column for each dimension that tells rows apart. Where those do not fit, what says the same in every row goes
    first, then the wide gaps; and then one column of text holds all dimensions."""
    named = telling(rows, grid)
    if all(not isinstance(row.cells, str) for row in rows):
        columns = [(Column(_heading(d.name)), partial(_named_cell, d.name)) for d in named]
        whole: list[tuple[Column, Cell]] = [*_starts(every), *columns, *_ENDS]
        for kept, gap in ((whole, 2), (_varying(whole, rows), 2), (_varying(whole, rows), 1)):
            table = _filled(kept, rows, gap)
            if table.width <= _room():
                return table
    text = (Column("settings", cut="fold"), lambda row: label(row, named))
    return _filled([*_starts(every), text, *_ENDS], rows, 2)


def _named_cell(name: str, row: Row) -> str:
    return cell(row, name)


def _room() -> int:
    """A pipe has room for everything."""
    return terminal().width if fancy() else 10_000


def _filled(columns: Sequence[tuple[Column, Cell]], rows: Sequence[Row], gap: int) -> Table:
    table = Table([column for column, _ in columns], gap=gap)
    for row in rows:
        table.add(*(make(row) for _, make in columns))
    return table


def _varying(columns: Sequence[tuple[Column, Cell]], rows: Sequence[Row]) -> list[tuple[Column, Cell]]:
    """Without the columns that the summary can do without when they never change: how many share, and the outcome."""
    return [
        (column, make)
        for column, make in columns
        if column.name not in ("", "outcome") or len({make(row) for row in rows}) > 1
    ]


def _starts(every: bool) -> list[tuple[Column, Cell]]:
    return [
        (Column("no" if every else "", right=True), lambda row: _number(row) if every else f"{row.shared}×"),
        (Column("model", cut="tail"), lambda row: PurePath(row.result.trial.model).stem),
        (Column("target"), lambda row: row.result.trial.target),
    ]


def _number(row: Row) -> str:
    return str(row.result.trial.number)


def _size(row: Row) -> str:
    return human_size(row.result.engine.size) if row.result.engine else ""


def _took(row: Row) -> str:
    return human_seconds(row.result.build_seconds) if row.result.engine else ""


def _engine(row: Row) -> str:
    return short(row.result.engine.digest) if row.result.engine else ""


_ENDS: list[tuple[Column, Cell]] = [
    (Column("outcome"), lambda row: row.result.outcome),
    (Column("size", right=True), _size),
    (Column("build", right=True), _took),
    (Column("engine"), _engine),
]


def _heading(name: str) -> str:
    """A setting's long name over several short lines, broken at its underscores."""
    lines: list[str] = []
    for word in name.split("_"):
        if lines and len(lines[-1]) + len(word) < 10:
            lines[-1] += f"_{word}"
        else:
            lines.append(f"_{word}" if lines else word)
    return "\n".join(lines)
