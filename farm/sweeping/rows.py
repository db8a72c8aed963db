"""A sweep's results in rows: one for each distinct build of a place, its configurations folded. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm.compilation import FIELDS
from farm.human import size_text, value_text
from farm.sweeping.results import INACTIVE, SweepResults, TrialResult
from farm.sweeps.grid import Dimension, fold

ANY = "any"


@dataclass(frozen=True)
class Row:
    """One row: a result, the trials that share it, and its cell in each dimension (or one text for all of them)."""

    result: TrialResult
    shared: int
    cells: Mapping[str, str] | str


def rows_of(found: SweepResults, every: bool = False) -> list[Row]:
    """One row a distinct build of a place, or one a trial. Two places may share a build (a copy of a model, a GPU and
    its compute capability), and each asked its own question."""
    grid = found.grid
    groups: dict[object, list[TrialResult]] = {}
    for result in found.trials:
        number = result.trial.number
        groups.setdefault(number if every else (result.place, result.same_as or number), []).append(result)
    return [Row(members[0], len(members), _cells(members, grid)) for members in groups.values()]


def _cells(members: Sequence[TrialResult], grid: Sequence[Dimension]) -> dict[str, str] | str:
    points = [point(result, grid) for result in members]
    if len(points) == 1:
        return {name: said(name, value) for name, value in points[0].items()}
    folded = fold(points, grid)
    if folded is None:
        more = f" and {len(points) - 1} more"
        return " ".join(f"{name}={said(name, value)}" for name, value in points[0].items()) + more
    return {d.name: _values(d.name, folded[d.name]) if d.name in folded else _whole(d) for d in grid}


def _whole(dimension: Dimension) -> str:
    return ANY if len(dimension.values) > 1 else said(dimension.name, dimension.values[0])


def said(name: str, value: Any) -> str:
    """A value as one would write it for this setting: numbers of bytes as ``1G``."""
    field = FIELDS.get(name)
    if field is not None and "(bytes)" in field.type and type(value) is int:
        return size_text(value)
    return value_text(value)


def point(result: TrialResult, grid: Sequence[Dimension]) -> dict[str, Any]:
    """A trial's value in each dimension."""
    settings = result.trial.settings
    return {d.name: settings[d.name] if d.name in settings else _absent(d) for d in grid}


def _absent(dimension: Dimension) -> str | None:
    """A trial's value where it has none: it stands last, where that may be (``SweepResults.grid``)."""
    return INACTIVE if dimension.values[-1] == INACTIVE else None


def _values(name: str, values: Sequence[Any]) -> str:
    whole = all(type(value) is int for value in values)
    if whole and len(values) > 2 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}..{values[-1]}"
    return ",".join(said(name, value) for value in values)


def telling(rows: Sequence[Row], grid: Sequence[Dimension]) -> list[Dimension]:
    """The dimensions that tell rows apart; the others made no difference, or do not vary."""
    return [d for d in grid if len({cell(row, d.name) for row in rows}) > 1]


def cell(row: Row, name: str) -> str:
    """A row's cell in one dimension, or the one text that it has for all of them."""
    return row.cells if isinstance(row.cells, str) else row.cells[name]


def label(row: Row, named: Sequence[Dimension]) -> str:
    """The settings of a row in a few words: a boolean by its name where it is set, nothing where it is not."""
    if isinstance(row.cells, str):
        return row.cells
    words = []
    for dimension in named:
        text = cell(row, dimension.name)
        if text == "true":
            words.append(dimension.name)
        elif text not in ("false", ANY, INACTIVE):
            words.append(f"{dimension.name} {text}")
    return ", ".join(words) or "defaults"
