"""For any grid: every point once, every point what the dimensions say, and folding loses nothing."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farm.sweeps.grid import Dimension, SweepSpec, SweptModel, configurations, fold, parse_dimension

CHOICES: dict[str, list[Any]] = {
    "optimization_level": [0, 1, 2, 3, 4, 5, None],
    "tiling_optimization_level": ["none", "fast", "moderate", "full"],
    "disable_tf32": [False, True],
    "sparse_weights": [False, True],
    "workspace_size": [2**20, 2**30],
}

grids = st.lists(st.sampled_from(sorted(CHOICES)), unique=True, max_size=4).flatmap(
    lambda names: st.tuples(
        *(
            st.lists(st.sampled_from(CHOICES[n]), min_size=1, max_size=4, unique=True).map(lambda v, n=n: (n, v))
            for n in names
        )
    )
)
models = st.lists(st.sampled_from(["a.pt2", "b.pt2", "c.onnx"]), min_size=1, unique=True)
targets = st.lists(st.sampled_from(["sm_86", "sm_89", "sm_120"]), min_size=1, unique=True)


def built(grid: tuple[tuple[str, list[Any]], ...], paths: list[str], places: list[str]) -> SweepSpec:
    return SweepSpec(
        models=tuple(SweptModel(path) for path in paths),
        targets=tuple(places),
        grid=tuple(Dimension(name, tuple(values)) for name, values in grid),
    )


@given(grids, models, targets)
def test_every_point_is_asked_exactly_once(
    grid: tuple[tuple[str, list[Any]], ...], paths: list[str], places: list[str]
) -> None:
    spec = built(grid, paths, places)
    found = configurations(spec)
    seen = [(item.model.path, item.target, *((type(v), v) for v in item.varied.values())) for item in found]
    wanted = [
        (path, place, *((type(v), v) for v in point))
        for path in paths
        for place in places
        for point in itertools.product(*(values for _, values in grid))
    ]
    assert seen == wanted
    assert spec.size == len(found)
    assert all(getattr(item.ask().settings, name) == value for item in found for name, value in item.varied.items())


@given(grids)
def test_a_dimension_written_out_reads_back(grid: tuple[tuple[str, list[Any]], ...]) -> None:
    for name, values in grid:
        written = ",".join("none" if value is None else str(value).lower() for value in values)
        assert parse_dimension(f"{name}={written}") == Dimension(name, tuple(values))


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_range_has_both_its_ends(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert parse_dimension(f"optimization_level={low}..{high}").values == tuple(range(low, high + 1))


@given(grids.filter(lambda grid: len(grid) > 0), st.data())
def test_folding_says_exactly_the_points_it_was_given(
    grid: tuple[tuple[str, list[Any]], ...], data: st.DataObject
) -> None:
    dimensions = [Dimension(name, tuple(values)) for name, values in grid]
    every = [
        dict(zip([d.name for d in dimensions], p, strict=True))
        for p in itertools.product(*(d.values for d in dimensions))
    ]
    some = data.draw(st.lists(st.sampled_from(every), min_size=1, unique_by=lambda point: repr(point)))
    folded = fold(some, dimensions)
    if folded is None:
        return
    spelled = itertools.product(*(folded.get(d.name, d.values) for d in dimensions))
    assert {repr(dict(zip([d.name for d in dimensions], p, strict=True))) for p in spelled} == {repr(p) for p in some}
