"""A sweep's results as a table: one row for each distinct build, its configurations folded into what matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

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
    value_text,
)
from farm.sweeps import Dimension, fold

if TYPE_CHECKING:
    from farm.sweep_results import SweepResults, TrialResult

ANY = "any"


@dataclass(frozen=True)
class Row:
    """One row: a result, the trials that share it, and its cell in each dimension (or one text for all of them)."""

    result: TrialResult
    shared: int
    cells: Mapping[str, str] | str


def rows_of(found: SweepResults, every: bool = False) -> list[Row]:
    """One row a distinct build, or one a trial."""
    grid = found.grid
    groups: dict[int, list[TrialResult]] = {}
    for result in found.trials:
        number = result.trial.number
        groups.setdefault(number if every else result.same_as or number, []).append(result)
    return [Row(members[0], len(members), _cells(members, grid)) for members in groups.values()]


def _cells(members: Sequence[TrialResult], grid: Sequence[Dimension]) -> dict[str, str] | str:
    points = [point(result, grid) for result in members]
    if len(points) == 1:
        return {name: value_text(value) for name, value in points[0].items()}
    folded = fold(points, grid)
    if folded is None:
        more = f" and {len(points) - 1} more"
        return " ".join(f"{name}={value_text(value)}" for name, value in points[0].items()) + more
    return {d.name: _values(folded[d.name]) if d.name in folded else _whole(d) for d in grid}


def _whole(dimension: Dimension) -> str:
    return ANY if len(dimension.values) > 1 else value_text(dimension.values[0])


def point(result: TrialResult, grid: Sequence[Dimension]) -> dict[str, Any]:
    """A trial's value in each dimension."""
    return {dimension.name: result.trial.settings.get(dimension.name) for dimension in grid}


def _values(values: Sequence[Any]) -> str:
    whole = all(type(value) is int for value in values)
    if whole and len(values) > 2 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}..{values[-1]}"
    return ",".join(value_text(value) for value in values)


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
    words.append(count_of(engines, "engine"))
    if found.spent >= 0.005:
        words.append(f"{human_seconds(found.spent)} of building")
    if found.saved >= 0.05:
        words.append(f"{human_seconds(found.saved)} saved")
    return "; ".join(words)


def _table(rows: Sequence[Row], grid: Sequence[Dimension], every: bool) -> Table:
    """A column for each dimension that tells rows apart, while they fit; else one column of text."""
    telling = [d for d in grid if len({_cell(row, d.name) for row in rows}) > 1]
    wide = _with_columns(rows, telling, every)
    return wide if wide.width <= _room() and _all_cells(rows) else _with_text(rows, telling, every)


def _all_cells(rows: Sequence[Row]) -> bool:
    return all(not isinstance(row.cells, str) for row in rows)


def _cell(row: Row, name: str) -> str:
    return row.cells if isinstance(row.cells, str) else row.cells[name]


def _room() -> int:
    """A pipe has room for everything."""
    return terminal().width if fancy() else 10_000


def _ends(row: Row) -> tuple[str, ...]:
    result = row.result
    engine = result.engine
    return (
        result.outcome,
        human_size(engine.size) if engine else "",
        human_seconds(result.build_seconds) if engine else "",
        short(engine.digest) if engine else "",
    )


_ENDS = (Column("outcome"), Column("size", right=True), Column("build", right=True), Column("engine"))


def _starts(row: Row, every: bool) -> tuple[str, ...]:
    trial = row.result.trial
    number = str(trial.number) if every else f"{row.shared}×"
    return (number, PurePath(trial.model).stem, trial.target)


def _with_columns(rows: Sequence[Row], grid: Sequence[Dimension], every: bool) -> Table:
    named = [Column(_heading(dimension.name)) for dimension in grid]
    table = Table([*_heads(every), *named, *_ENDS])
    for row in rows:
        table.add(*_starts(row, every), *(_cell(row, dimension.name) for dimension in grid), *_ends(row))
    return table


def _heads(every: bool) -> tuple[Column, ...]:
    return (Column("no" if every else "", right=True), Column("model", cut="tail"), Column("target"))


def _with_text(rows: Sequence[Row], grid: Sequence[Dimension], every: bool) -> Table:
    table = Table([*_heads(every), Column("settings", cut="fold"), *_ENDS])
    for row in rows:
        said = [f"{d.name}={_cell(row, d.name)}" for d in grid if _cell(row, d.name) != ANY]
        text = row.cells if isinstance(row.cells, str) else " ".join(said)
        table.add(*_starts(row, every), text or "as given", *_ends(row))
    return table


def _heading(name: str) -> str:
    """A setting's long name over several short lines, broken at its underscores."""
    lines: list[str] = []
    for word in name.split("_"):
        if lines and len(lines[-1]) + len(word) < 10:
            lines[-1] += f"_{word}"
        else:
            lines.append(f"_{word}" if lines else word)
    return "\n".join(lines)
