"""Sweeps: a grid over settings, models, targets and profiles comes to configurations. Pure.

A *dimension* is one setting (or ``profile``) and its values; the grid is their product, for every model and
target. Which configurations are equal in effect is not decided here: their recipes say so (DESIGN, Words).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from farm.asks import Ask, GivenProfile
from farm.compilation import CompilationSettings, parse_value
from farm.errors import BadInput

PROFILE = "profile"
"""The dimension whose values are names of profiles rather than values of a setting."""

MAX_TRIALS = 10_000
"""A grid larger than this is taken for a mistake unless ``--max-trials`` allows it."""

_RANGE = re.compile(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*")

Profiles = tuple[GivenProfile, ...]
"""The optimisation profiles of one engine; one is the rule."""


@dataclass(frozen=True)
class Dimension:
    """One axis of the grid: a setting's name, or ``profile``, and its distinct values in the order given."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class SweptModel:
    """A model of a sweep. ``profiles`` are its own by name; ``fixed`` those that every configuration has."""

    path: str
    profiles: Mapping[str, Profiles] = field(default_factory=dict)
    fixed: Profiles = ()
    custom_ops: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepSpec:
    """What a sweep asks for. ``settings`` hold for every configuration; ``targets`` may be empty (configured ones)."""

    models: tuple[SweptModel, ...]
    targets: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: tuple[Dimension, ...] = ()
    profiles: Mapping[str, Profiles] = field(default_factory=dict)
    priority: int = 0
    max_trials: int = MAX_TRIALS

    @property
    def size(self) -> int:
        """How many configurations the grid has."""
        places = len(self.models) * max(1, len(self.targets))
        return places * math.prod(len(dimension.values) for dimension in self.grid)

    def as_json(self) -> dict[str, Any]:
        """What is stored with the sweep: enough to say later what was asked."""
        return {
            "models": [model.path for model in self.models],
            "targets": list(self.targets),
            "settings": dict(self.settings),
            "grid": [{"name": dimension.name, "values": list(dimension.values)} for dimension in self.grid],
            "profiles": sorted({*self.profiles, *(name for model in self.models for name in model.profiles)}),
            "search": "grid",
        }


@dataclass(frozen=True)
class Configuration:
    """One point of the grid. ``varied`` is its value in each dimension, by name; ``profile`` is a name or empty."""

    number: int
    model: SweptModel
    target: str
    settings: Mapping[str, Any]
    varied: Mapping[str, Any]
    profiles: Profiles
    priority: int = 0

    def ask(self) -> Ask:
        """What it asks of a farm. ``BadSettings`` when its values contradict each other."""
        return Ask(
            model=self.model.path,
            target=self.target,
            settings=CompilationSettings.from_mapping(self.settings),
            profiles=self.profiles,
            custom_ops=self.model.custom_ops,
            priority=self.priority,
        )


def parse_dimension(text: str) -> Dimension:
    """Read ``NAME=V,V,…`` or ``NAME=a..b`` (both ends included; the two forms mix). ``BadInput`` or ``BadSettings``
    names what is wrong; every value is checked against the setting."""
    name, equals, values = text.partition("=")
    if not equals or not name.strip():
        raise BadInput(f"'{text}' is no dimension", "write NAME=V,V,… or NAME=a..b, as in optimization_level=0..5")
    return dimension(name, [part.strip() for part in values.split(",") if part.strip()])


def dimension(name: str, values: Iterable[Any]) -> Dimension:
    """A dimension from values as text (ranges spelled out) or as YAML gives them, each checked and kept once."""
    name = name.strip().replace("-", "_")
    every = itertools.chain.from_iterable(_spelled_out(name, value) for value in values)
    found = _once_each(value if name == PROFILE else _checked(name, value) for value in every)
    if not found:
        raise BadInput(f"the dimension {name} has no values", f"write {name}=V,V,… or leave it out")
    return Dimension(name, tuple(found))


def _once_each(values: Iterable[Any]) -> list[Any]:
    """The first of equal values. ``True`` and ``1`` are equal to Python, and two values to a setting."""
    found: list[Any] = []
    plain: set[tuple[type, Any]] = set()
    for value in values:
        if isinstance(value, Hashable):
            known = (type(value), value) in plain
            plain.add((type(value), value))
        else:
            known = any(type(value) is type(other) and value == other for other in found)
        if not known:
            found.append(value)
    return found


def _spelled_out(name: str, value: Any) -> Iterable[Any]:
    match = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str) and ".." in value and name != PROFILE:
            raise BadInput(
                f"{name}={value}: a range is a..b with whole numbers", "write the values out, as in 0.5,0.75"
            )
        return [value]
    low, high = int(match[1]), int(match[2])
    if low > high:
        raise BadInput(f"{name}={value}: the range is empty", f"write {name}={high}..{low}")
    if high - low >= MAX_TRIALS:
        raise BadInput(f"{name}={value}: the range has {high - low + 1} values", "give fewer")
    return [str(number) for number in range(low, high + 1)]


def _checked(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return parse_value(name, value)
    return CompilationSettings.from_mapping({name: value}).as_mapping()[name]


def configurations(spec: SweepSpec) -> list[Configuration]:
    """Every point of the grid: models, then targets, then the dimensions in their order, the last one fastest.

    ``BadInput`` for a grid that is too large, a setting that is both fixed and varied, a dimension given twice, or
    a profile that a model lacks.
    """
    _check(spec)
    points = list(itertools.product(*(dimension.values for dimension in spec.grid)))
    names = [dimension.name for dimension in spec.grid]
    places = itertools.product(spec.models, spec.targets or ("",), points)
    return [
        _configuration(spec, number, model, target, dict(zip(names, point, strict=True)))
        for number, (model, target, point) in enumerate(places, start=1)
    ]


def _configuration(
    spec: SweepSpec, number: int, model: SweptModel, target: str, varied: Mapping[str, Any]
) -> Configuration:
    settings = {**spec.settings, **{name: value for name, value in varied.items() if name != PROFILE}}
    profiles = _profiles(spec, model, varied[PROFILE]) if PROFILE in varied else model.fixed
    return Configuration(number, model, target, settings, varied, profiles, spec.priority)


def _profiles(spec: SweepSpec, model: SweptModel, name: str) -> Profiles:
    found = model.profiles.get(name, spec.profiles.get(name))
    if found is None:
        known = sorted({*model.profiles, *spec.profiles})
        raise BadInput(
            f"{model.path} has no profile '{name}'",
            f"known: {', '.join(known)}" if known else "name profiles in the sweep's file (-c), under 'profiles'",
        )
    return found


def _check(spec: SweepSpec) -> None:
    if not spec.models:
        raise BadInput("a sweep needs a model", "give the path of a .pt2 or .onnx file, or 'models' in the -c file")
    names = [dimension.name for dimension in spec.grid]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"the dimension {name} is given twice", "give all its values in one")
        if name in spec.settings:
            raise BadInput(f"{name} is both fixed and varied", "leave it out of the settings, or out of the grid")
    if spec.size > spec.max_trials:
        raise BadInput(
            f"the grid has {spec.size:,} configurations, more than {spec.max_trials:,}",
            f"make it smaller, or allow it with --max-trials {spec.size}",
        )
    CompilationSettings.from_mapping(spec.settings)


def fold(points: Sequence[Mapping[str, Any]], grid: Sequence[Dimension]) -> dict[str, tuple[Any, ...]] | None:
    """Say a group of grid points by what matters: the values of each dimension that the group does not cover whole.

    ``{}`` when the group is the whole grid. ``None`` when it is no product of values (then the points must be
    listed): nothing shorter would say it truly.
    """
    present = [
        (
            dimension,
            tuple(value for value in dimension.values if any(_is(point[dimension.name], value) for point in points)),
        )
        for dimension in grid
    ]
    if math.prod(len(values) for _, values in present) != len(points):
        return None
    return {dimension.name: values for dimension, values in present if len(values) < len(dimension.values)}


def _is(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
