"""Grids: their grammar, their product, and how a group of points is said shortly."""

from __future__ import annotations

import pytest

from farm.asks import GivenProfile
from farm.errors import BadInput, BadSettings
from farm.sweeps.grid import (
    Dimension,
    SweepSpec,
    SweptModel,
    configurations,
    dimension,
    fold,
    parse_dimension,
)

ONE = SweptModel("m.pt2")


def spec(*grid: str, **more: object) -> SweepSpec:
    return SweepSpec(models=(ONE,), targets=("sm_89",), grid=tuple(map(parse_dimension, grid)), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("optimization_level=0..5", (0, 1, 2, 3, 4, 5)),
        ("optimization-level=3", (3,)),
        ("optimization_level=none,2..3", (None, 2, 3)),
        ("tiling_optimization_level=none,fast", ("none", "fast")),
        ("disable_tf32=true,false", (True, False)),
        ("workspace_size=1G,2G", (2**30, 2**31)),
        ("optimization_level=1,1,2,1..2", (1, 2)),
        ("profile=small, large", ("small", " large")),
    ],
)
def test_a_dimension_is_read(text: str, values: tuple[object, ...]) -> None:
    if "profile" in text:
        values = tuple(str(value).strip() for value in values)
    found = parse_dimension(text)
    assert found.values == values
    assert found.name == text.partition("=")[0].replace("-", "_")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("optimization_level", "optimization_level"),
        ("=1,2", "NAME=V"),
        ("optimization_level=", "no values"),
        ("optimization_level=5..0", "0..5"),
        ("optimization_level=0..6", "6"),
        ("optimization_level=0..99999999", "99999999"),
        ("autocast_max_output_threshold=0.5..2.5", "whole numbers"),
        ("optimisation_level=1", "optimization_level"),
        ("tiling_optimization_level=none,faster", "faster"),
    ],
)
def test_a_wrong_dimension_says_what_is_wrong(text: str, names: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_dimension(text)
    assert names in str(error.value)


def test_true_and_one_are_two_values() -> None:
    assert dimension("cpu_memory_budget", ["1", "2"]).values == (1, 2)
    with pytest.raises(BadSettings):
        dimension("optimization_level", [True])


def test_the_grid_is_the_product_with_the_last_dimension_fastest() -> None:
    asked = SweepSpec(
        models=(ONE, SweptModel("n.pt2")),
        targets=("sm_86", "sm_89"),
        grid=(parse_dimension("optimization_level=1,2"), parse_dimension("disable_tf32=false,true")),
    )
    found = configurations(asked)
    assert len(found) == asked.size == 16
    assert [item.number for item in found] == list(range(1, 17))
    first = [(item.model.path, item.target, *item.varied.values()) for item in found[:5]]
    assert first == [
        ("m.pt2", "sm_86", 1, False),
        ("m.pt2", "sm_86", 1, True),
        ("m.pt2", "sm_86", 2, False),
        ("m.pt2", "sm_86", 2, True),
        ("m.pt2", "sm_89", 1, False),
    ]


def test_without_a_grid_each_model_and_target_is_one_configuration() -> None:
    found = configurations(SweepSpec(models=(ONE,), targets=("sm_86", "sm_89")))
    assert [(item.target, dict(item.varied)) for item in found] == [("sm_86", {}), ("sm_89", {})]


def test_fixed_settings_go_into_every_configuration() -> None:
    found = configurations(spec("optimization_level=1,2", settings={"disable_tf32": True}))
    assert [dict(item.settings) for item in found] == [
        {"disable_tf32": True, "optimization_level": 1},
        {"disable_tf32": True, "optimization_level": 2},
    ]
    assert found[0].ask().settings.disable_tf32 is True


def test_a_models_own_profile_goes_before_the_common_one() -> None:
    own, common = GivenProfile(max={"x": (4, 8)}), GivenProfile(max={"x": (2, 8)})
    asked = SweepSpec(
        models=(SweptModel("m.pt2", profiles={"small": (own,)}), SweptModel("n.pt2")),
        grid=(Dimension("profile", ("small",)),),
        profiles={"small": (common,)},
    )
    assert [item.profiles for item in configurations(asked)] == [(own,), (common,)]


def test_a_profile_that_a_model_lacks_is_named() -> None:
    asked = SweepSpec(models=(ONE,), grid=(Dimension("profile", ("tiny",)),), profiles={"small": ()})
    with pytest.raises(BadInput) as error:
        configurations(asked)
    assert "m.pt2 has no profile 'tiny'" in str(error.value)
    assert "small" in error.value.hint


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (SweepSpec(models=()), "needs a model"),
        (spec("optimization_level=1", "optimization_level=2"), "given twice"),
        (spec("optimization_level=1,2", settings={"optimization_level": 3}), "both fixed and varied"),
        (spec("optimization_level=0..5", max_trials=5), "--max-trials 6"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(asked: SweepSpec, names: str) -> None:
    with pytest.raises(BadInput) as error:
        configurations(asked)
    assert names in str(error.value)


GRID = (Dimension("a", (1, 2, 3)), Dimension("b", (False, True)))


def points(*pairs: tuple[int, bool]) -> list[dict[str, object]]:
    return [{"a": a, "b": b} for a, b in pairs]


def test_the_whole_grid_folds_to_nothing() -> None:
    assert fold(points(*((a, b) for a in (1, 2, 3) for b in (False, True))), GRID) == {}


def test_only_the_dimensions_that_are_not_covered_are_said() -> None:
    assert fold(points((1, True), (2, True), (3, True)), GRID) == {"b": (True,)}
    assert fold(points((1, False), (2, False), (1, True), (2, True)), GRID) == {"a": (1, 2)}


def test_a_group_that_is_no_product_is_not_folded() -> None:
    assert fold(points((1, False), (2, True)), GRID) is None


def test_one_and_true_are_told_apart_when_folding() -> None:
    mixed = (Dimension("a", (1, True)),)
    assert fold([{"a": True}], mixed) == {"a": (True,)}
