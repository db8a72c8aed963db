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
    listed,
    note,
    say,
    short,
    terminal,
)
from farm.sweeping.rows import Row, cell, label, rows_of, said, telling
from farm.sweeps.objectives import METRICS, Metric

if TYPE_CHECKING:
    from farm.sweeping.answer import PlaceAnswer
    from farm.sweeping.results import SweepResults


MOST_ANSWERS = 4
"""Answers that are shown whole; of more, one line each."""


def show_results(found: SweepResults, every: bool = False) -> None:
    """The table, what failed and why, and the summary."""
    rows = rows_of(found, every)
    _table(rows, found, every).show()
    for result in found.distinct:
        if result.error and result.outcome != "cancelled":
            trial = result.trial
            note(f"farm: {trial.model} for {trial.target}: {result.error}")
            if result.hint:
                note(f"      {result.hint}")
    say(f"{found.sweep.id} {found.state}: {summary(found)}")


def show_answers(found: Sequence[PlaceAnswer]) -> None:
    """For each model, target and profile: what to ship with, and what each setting does; of many, the recommendations
    alone. Nothing where nothing was varied."""
    shown = [answer for answer in found if len(answer.results) > 1 or answer.ranking.broken]
    for answer in shown:
        say()
        say(answer.name)
        whole = len(shown) <= MOST_ANSWERS
        for text in [*answer.sentences(), *sensitivity_lines(answer)] if whole else answer.sentences()[:1]:
            say(f"  {text}")
    if len(shown) > MOST_ANSWERS:
        unknown = {metric.name: metric for answer in shown for metric in answer.ranking.unknown}
        say()
        if unknown:
            say(f"not known yet, for want of a node that measures: {', '.join(unknown)}")
        say("--report has the second choices and what each setting does")


def sensitivity_lines(answer: PlaceAnswer) -> list[str]:
    """``optimization_level: latency_p50 up to 14 % worse; best 4 …``, the strongest first."""
    lines = []
    for one in answer.sensitivity:
        if not one.none:
            means = ", ".join(
                f"{said(one.dimension, value)} {one.metric.said(mean)}" for value, mean, _ in one.means[:6]
            )
            lines.append(f"{one.dimension}: {one.effect:.1%} between best and worst {one.metric.name} (mean {means})")
    idle = [one for one in answer.sensitivity if one.none]
    if idle:
        verb = "makes" if len(idle) == 1 else "make"
        lines.append(f"{listed([one.dimension for one in idle])} {verb} no difference to {idle[0].metric.name}")
    return lines


def summary(found: SweepResults) -> str:
    """``96 asked, 8 distinct: 6 built, 2 hit; 8 engines; 14.2 s of building, 3 m 10 s saved``."""
    counts = dict(found.counts)
    asked, distinct, engines = (counts.pop(name) for name in ("asked", "distinct", "engines"))
    outcomes = ", ".join(f"{number} {name}" for name, number in counts.items())
    words = [f"{asked:,} asked, {distinct:,} distinct" + (f": {outcomes}" if outcomes else "")]
    made = sum(result.engine is not None for result in found.distinct)
    if engines != made:
        words.append(count_of(engines, "distinct engine"))
    if found.ended:
        words.append(found.ended)
    if found.spent >= 0.005:
        words.append(f"{human_seconds(found.spent)} of building")
    if found.saved >= 0.05:
        words.append(f"{human_seconds(found.saved)} saved")
    return "; ".join(words)


# -- the table -----------------------------------------------------------------------------------------------

Cell = Callable[[Row], str]


def _table(rows: Sequence[Row], found: SweepResults, every: bool) -> Table:
    """A column for each dimension that tells rows apart. Where those do not fit, what says the same in every row goes
    first, then the wide gaps; and then one column of text holds all dimensions."""
    named, ends = telling(rows, found.grid), _ends(found)
    if all(not isinstance(row.cells, str) for row in rows):
        columns = [(Column(_heading(d.name)), partial(_named_cell, d.name)) for d in named]
        whole: list[tuple[Column, Cell]] = [*_starts(every), *columns, *ends]
        for kept, gap in ((whole, 2), (_varying(whole, rows), 2), (_varying(whole, rows), 1)):
            table = _filled(kept, rows, gap)
            if table.width <= _room():
                return table
    text = (Column("settings", cut="fold"), lambda row: label(row, named))
    return _filled([*_starts(every), text, *ends], rows, 2)


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


def _ends(found: SweepResults) -> list[tuple[Column, Cell]]:
    """What came out: the metrics that the sweep is after and has measured, then size, build time and engine."""
    names = list(dict.fromkeys([item["metric"] for item in found.sweep.spec.get("objectives", ())]
                               + [item["metric"] for item in found.sweep.spec.get("constraints", ())]))  # fmt: skip
    wanted = [METRICS[name] for name in names or ["latency_p50"] if METRICS[name].measured]
    known = [metric for metric in wanted if any(metric.name in result.values for result in found.distinct)]
    return [
        (Column("outcome"), lambda row: row.result.outcome),
        *((Column(_heading(metric.name), right=True), partial(_measured, metric)) for metric in known),
        (Column("size", right=True), _size),
        (Column("build", right=True), _took),
        (Column("engine"), _engine),
    ]


def _measured(metric: Metric, row: Row) -> str:
    value = row.result.values.get(metric.name)
    return "" if value is None else metric.said(value)


def _heading(name: str) -> str:
    """A setting's long name over several short lines, broken at its underscores."""
    lines: list[str] = []
    for word in name.split("_"):
        if lines and len(lines[-1]) + len(word) < 10:
            lines[-1] += f"_{word}"
        else:
            lines.append(f"_{word}" if lines else word)
    return "\n".join(lines)
