"""Sweeps: a grid over settings, models, targets and profiles comes to configurations. Pure.

A *dimension* is one setting (or ``profile``) and its values; the grid is their product, for every model and
target. Which configurations are equal in effect is not decided here: their recipes say so (DESIGN, Words).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from farm.asks import Ask, GivenProfile
from farm.compilation import CompilationSettings, parse_value
from farm.errors import BadInput
from farm.sweeps.objectives import Constraint, Objective
from farm.sweeps.searches import GRID, Search

PROFILE = "profile"
"""The dimension whose values are names of profiles rather than values of a setting."""

MAX_TRIALS = 10_000
"""A grid larger than this is taken for a mistake unless ``--max-trials`` allows it."""

_RANGE = re.compile(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*")
_IF = re.compile(r"\s+if\s+")
_AND = re.compile(r"\s+and\s+")

MATTERS_WITH: Mapping[str, tuple[str, frozenset[Any]]] = {
    "l2_limit_for_tiling": ("tiling_optimization_level", frozenset({"none"})),
    "autocast_low_precision_type": ("enable_autocast", frozenset({False})),
    "autocast_max_output_threshold": ("enable_autocast", frozenset({False})),
    "autocast_max_depth_of_reduction": ("enable_autocast", frozenset({False})),
}
"""Settings that cannot matter while another has one of these values (``settings.effective``): where both are varied,
the grid has the first only where it can matter."""

Profiles = tuple[GivenProfile, ...]
"""The optimisation profiles of one engine; one is the rule."""


@dataclass(frozen=True)
class Dimension:
    """One axis of the grid: a setting's name, or ``profile``, and its distinct values in the order given.

    ``when``: the values that other settings must have for this one to be varied at all, by their names.
    """

    name: str
    values: tuple[Any, ...]
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def applies(self, settings: Mapping[str, Any]) -> bool:
        """Whether it is varied where the other settings are these; one that is not varied itself is at no value."""
        return all(
            name in settings and any(_is(settings[name], value) for value in values)
            for name, values in self.when.items()
        )

    def as_json(self) -> dict[str, Any]:
        told = {"name": self.name, "values": list(self.values)}
        return told | ({"when": {name: list(values) for name, values in self.when.items()}} if self.when else {})

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Dimension:
        when = {name: tuple(values) for name, values in told.get("when", {}).items()}
        return cls(told["name"], tuple(told["values"]), when)


@dataclass(frozen=True)
class SweptModel:
    """A model of a sweep. ``profiles`` are its own by name; ``fixed`` those that every configuration has. ``at`` is
    where its file lies, if not at ``path``, the name that it was given by."""

    path: str
    profiles: Mapping[str, Profiles] = field(default_factory=dict)
    fixed: Profiles = ()
    custom_ops: Mapping[str, str] = field(default_factory=dict)
    at: str = ""


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
    search: Search = field(default_factory=Search)
    objectives: tuple[Objective, ...] = ()
    constraints: tuple[Constraint, ...] = ()

    @property
    def places(self) -> int:
        """How many pairs of model and target there are."""
        return len(self.models) * max(1, len(self.targets))

    @property
    def size(self) -> int:
        """How many configurations the grid has; where dimensions depend on others, counted no further than just
        beyond ``max_trials``, and then as if none did."""
        whole = self.places * math.prod(len(dimension.values) for dimension in self.grid)
        if not any(dimension.when for dimension in self.dimensions):
            return whole
        most = self.max_trials // self.places + 1
        counted = sum(1 for _ in itertools.islice(points(self), most))
        return whole if counted == most else counted * self.places

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The grid's dimensions, with what each depends on."""
        varied = {dimension.name: dimension for dimension in self.grid}
        return tuple(_dependent(dimension, varied) for dimension in self.grid)


def _dependent(one: Dimension, varied: Mapping[str, Dimension]) -> Dimension:
    """The dimension, only where it can matter."""
    parent, without = MATTERS_WITH.get(one.name, ("", frozenset()))
    if one.when or parent not in varied:
        return one
    values = tuple(value for value in varied[parent].values if value not in without)
    return replace(one, when={parent: values}) if values and len(values) < len(varied[parent].values) else one


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
            model=self.model.at or self.model.path,
            target=self.target,
            settings=CompilationSettings.from_mapping(self.settings),
            profiles=self.profiles,
            custom_ops=self.model.custom_ops,
            priority=self.priority,
        )


def parse_dimension(text: str) -> Dimension:
    """Read ``NAME=V,V,…`` or ``NAME=a..b`` (both ends included; the two forms mix), and after it ``if OTHER=V,V`` or
    ``if OTHER!=V`` where it depends on another. ``BadInput`` or ``BadSettings`` names what is wrong; every value is
    checked against the setting."""
    text, *conditions = _IF.split(text, maxsplit=1)
    name, equals, values = text.partition("=")
    if not equals or not name.strip():
        raise BadInput(f"'{text}' is no dimension", "write NAME=V,V,… or NAME=a..b, as in optimization_level=0..5")
    found = dimension(name, _parts(values))
    return replace(found, when=_when(conditions[0])) if conditions else found


def _when(text: str) -> dict[str, tuple[Any, ...]]:
    """``a=1,2 and b=x`` as the values that each may have."""
    found = {}
    for part in _AND.split(text):
        name, equals, values = part.partition("=")
        if not equals or not name.strip(" !"):
            raise BadInput(f"'{part}' is no condition", "write NAME=V,V, as in if tiling_optimization_level=fast,full")
        if name.rstrip().endswith("!"):
            raise BadInput(f"'{part}': a condition says what a setting must be", "list the values that it may have")
        one = dimension(name, _parts(values))
        found[one.name] = one.values
    return found


def _parts(values: str) -> list[str]:
    return [part.strip() for part in values.split(",") if part.strip()]


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
    check(spec)
    places = itertools.product(places_of(spec), list(points(spec)))
    return [
        configuration(spec, number, model, target, point)
        for number, ((model, target), point) in enumerate(places, start=1)
    ]


def places_of(spec: SweepSpec) -> list[tuple[SweptModel, str]]:
    """Every model with every target; the target is empty where the configured ones are meant."""
    return list(itertools.product(spec.models, spec.targets or ("",)))


def points(spec: SweepSpec) -> Iterator[dict[str, Any]]:
    """Every point of the grid, the last dimension fastest: the value of each dimension that applies there."""
    dimensions = spec.dimensions
    ordered = _after_what_they_depend_on(dimensions)
    if list(ordered) == list(dimensions):
        yield from _expand(ordered, {}, spec.settings)
        return
    for point in _expand(ordered, {}, spec.settings):
        yield {one.name: point[one.name] for one in dimensions if one.name in point}


def _expand(
    dimensions: Sequence[Dimension], point: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    if not dimensions:
        yield dict(point)
        return
    first, *rest = dimensions
    if not first.applies({**settings, **point}):
        yield from _expand(rest, point, settings)
        return
    for value in first.values:
        yield from _expand(rest, {**point, first.name: value}, settings)


def _after_what_they_depend_on(dimensions: Sequence[Dimension]) -> list[Dimension]:
    """The same, each behind those that it depends on. ``BadInput`` when some depend on each other."""
    names = {one.name for one in dimensions}
    done: list[Dimension] = []
    waiting = list(dimensions)
    while waiting:
        placed = {one.name for one in done}
        ready = next((one for one in waiting if (set(one.when) & names) <= placed), None)
        if ready is None:
            raise BadInput(f"{waiting[0].name} depends on itself", "leave out one of the conditions")
        waiting.remove(ready)
        done.append(ready)
    return done


def configuration(
    spec: SweepSpec, number: int, model: SweptModel, target: str, varied: Mapping[str, Any]
) -> Configuration:
    """The configuration at one point of the grid."""
    settings = {**spec.settings, **{name: value for name, value in varied.items() if name != PROFILE}}
    profiles = _profiles(spec, model, varied[PROFILE]) if PROFILE in varied else model.fixed
    return Configuration(number, model, target, settings, varied, profiles, spec.priority)


TILING = ("none", "fast", "moderate", "full")


def effort(one: Configuration) -> tuple[float, ...]:
    """How hard the builder is told to search, least first: tiling, level, averaged timings. Cheap builds go first: the
    dearer ones find their timings in the cache."""
    given = one.settings
    tiling = given.get("tiling_optimization_level", "none")
    level = given.get("optimization_level")
    return (
        float(TILING.index(tiling)) if tiling in TILING else 0.0,
        3.0 if level is None else float(level),
        float(given.get("num_avg_timing_iters") or 0),
    )


def _profiles(spec: SweepSpec, model: SweptModel, name: str) -> Profiles:
    found = model.profiles.get(name, spec.profiles.get(name))
    if found is None:
        known = sorted({*model.profiles, *spec.profiles})
        raise BadInput(
            f"{model.path} has no profile '{name}'",
            f"known: {', '.join(known)}" if known else "name profiles in the sweep's file (-c), under 'profiles'",
        )
    return found


def check(spec: SweepSpec) -> None:
    """``BadInput`` for a sweep that contradicts itself."""
    if not spec.models:
        raise BadInput("a sweep needs a model", "give the path of a .pt2 or .onnx file, or 'models' in the -c file")
    names = [dimension.name for dimension in spec.grid]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"the dimension {name} is given twice", "give all its values in one")
        if name in spec.settings:
            raise BadInput(f"{name} is both fixed and varied", "leave it out of the settings, or out of the grid")
        _check_conditions(spec, next(one for one in spec.grid if one.name == name))
    if spec.search.kind == GRID and spec.size > spec.max_trials:
        raise BadInput(
            f"the grid has {spec.size:,} configurations, more than {spec.max_trials:,}",
            f"make it smaller, or allow it with --max-trials {spec.size}",
        )
    CompilationSettings.from_mapping(spec.settings)


def _check_conditions(spec: SweepSpec, one: Dimension) -> None:
    known = {*spec.settings, *(other.name for other in spec.grid if other.name != one.name)}
    for name in one.when:
        if name not in known:
            raise BadInput(
                f"{one.name} depends on {name}, which the sweep does not set", f"vary {name}, or give it with -s"
            )


def fold(points: Sequence[Mapping[str, Any]], grid: Sequence[Dimension]) -> dict[str, tuple[Any, ...]] | None:
    """Say a group of grid points by what matters: the values of each dimension that the group does not cover whole.

    ``{}`` when the group is the whole grid. ``None`` when it is no product of values (then the points must be
    listed): nothing shorter would say it truly.
    """
    present = [
        (
            dimension,
            tuple(
                value for value in dimension.values if any(_is(point.get(dimension.name), value) for point in points)
            ),
        )
        for dimension in grid
    ]
    if math.prod(len(values) for _, values in present) != len(points):
        return None
    return {dimension.name: values for dimension, values in present if len(values) < len(dimension.values)}


def _is(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
