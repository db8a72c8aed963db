"""Rows: one a distinct build, saying what matters and nothing else."""

from __future__ import annotations

from farm.index import Sweep, Trial
from farm.sweeping.results import SweepResults, TrialResult
from farm.sweeping.rows import label, rows_of, telling

GRID = [
    {"name": "optimization_level", "values": [1, 2, 3]},
    {"name": "disable_tf32", "values": [False, True]},
    {"name": "workspace_size", "values": [2**30]},
]


def results(*groups: list[tuple[int, bool]]) -> SweepResults:
    """Trials of the given (level, tf32) points; each group is one distinct build."""
    made: list[TrialResult] = []
    for number, points in enumerate(groups):
        first = len(made) + 1
        for level, tf32 in points:
            settings = {"optimization_level": level, "disable_tf32": tf32, "workspace_size": 2**30}
            trial = Trial(len(made) + 1, "m.pt2", "sm_89", settings, f"k{number}", f"r{number}")
            made.append(TrialResult(trial, "built", same_as=None if trial.number == first else first))
    return SweepResults(Sweep("s", 0.0, {"grid": GRID}), tuple(made))


BY_TF32 = results([(1, False), (2, False), (3, False)], [(1, True), (2, True), (3, True)])


def test_a_row_is_a_distinct_build_and_inert_dimensions_are_any() -> None:
    rows = rows_of(BY_TF32)
    assert [(row.shared, row.cells) for row in rows] == [
        (3, {"optimization_level": "any", "disable_tf32": "false", "workspace_size": "1G"}),
        (3, {"optimization_level": "any", "disable_tf32": "true", "workspace_size": "1G"}),
    ]
    assert [dimension.name for dimension in telling(rows, BY_TF32.grid)] == ["disable_tf32"]


def test_labels_name_what_is_set_and_leave_out_what_is_not() -> None:
    rows = rows_of(BY_TF32)
    named = telling(rows, BY_TF32.grid)
    assert [label(row, named) for row in rows] == ["defaults", "disable_tf32"]


def test_every_configuration_on_its_own_when_asked_for() -> None:
    rows = rows_of(BY_TF32, every=True)
    assert [row.result.trial.number for row in rows] == [1, 2, 3, 4, 5, 6] and {row.shared for row in rows} == {1}


def test_values_next_to_each_other_are_a_range() -> None:
    rows = rows_of(results([(1, False), (2, False), (3, False)], [(1, True), (2, True)], [(3, True)]))
    assert [row.cells["optimization_level"] for row in rows if isinstance(row.cells, dict)] == ["any", "1,2", "3"]


def test_a_group_that_is_no_product_is_said_by_its_first_point() -> None:
    (row, _) = rows_of(results([(1, False), (2, True)], [(1, True), (2, False)]))
    assert row.cells == "optimization_level=1 disable_tf32=false workspace_size=1G and 1 more"
    assert label(row, []) == row.cells
