"""A sweep's spec as JSON, and back: what a sweep stores of itself, so that any process can go on with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from farm.asks import GivenProfile
from farm.errors import BadInput
from farm.sweeps.grid import Dimension, Profiles, SweepSpec, SweptModel
from farm.sweeps.objectives import constraints_from_json, objectives_from_json
from farm.sweeps.searches import GRID, Search

ENDED = "ended"
"""Where a stored spec says why no more is tried; a search without it has not come to its end."""


def spec_json(spec: SweepSpec, folder: str = "") -> dict[str, Any]:
    """What is stored with the sweep. ``folder`` is where relative paths of models begin.

    The first part is for reading; ``asked`` is the rest of what ``spec_of`` needs.
    """
    return {
        "models": [model.path for model in spec.models],
        "targets": list(spec.targets),
        "settings": dict(spec.settings),
        "grid": [dimension.as_json() for dimension in spec.dimensions],
        "profiles": sorted({*spec.profiles, *(name for model in spec.models for name in model.profiles)}),
        "search": spec.search.kind,
        "objectives": [objective.as_json() for objective in spec.objectives],
        "constraints": [constraint.as_json() for constraint in spec.constraints],
        "asked": {
            "folder": folder,
            "models": [_model_json(model) for model in spec.models],
            "profiles": _named_json(spec.profiles),
            "priority": spec.priority,
            "max_trials": spec.max_trials,
            "search": spec.search.as_json(),
        },
    }


def spec_of(told: Mapping[str, Any]) -> SweepSpec:
    """The spec that ``spec_json`` made. ``BadInput`` for one that an older farm stored, which says too little."""
    asked = told.get("asked")
    if not asked:
        raise BadInput("an older farm stored this sweep, without what is needed to go on with it", "ask for it again")
    return SweepSpec(
        models=tuple(_model_of(item) for item in asked["models"]),
        targets=tuple(told["targets"]),
        settings=told["settings"],
        grid=tuple(Dimension.from_json(item) for item in told["grid"]),
        profiles=_named_of(asked["profiles"]),
        priority=asked["priority"],
        max_trials=asked["max_trials"],
        search=search_of(told),
        objectives=objectives_from_json(told.get("objectives", ())),
        constraints=constraints_from_json(told.get("constraints", ())),
    )


def search_of(told: Mapping[str, Any]) -> Search:
    """How a stored sweep searches; older ones ask for their whole grid."""
    asked = told.get("asked") or {}
    return Search.from_json(asked["search"]) if "search" in asked else Search(told.get("search", GRID))


def _model_json(model: SweptModel) -> dict[str, Any]:
    return {
        "path": model.path,
        "profiles": _named_json(model.profiles),
        "fixed": _profiles_json(model.fixed),
        "custom_ops": dict(model.custom_ops),
    }


def _model_of(told: Mapping[str, Any]) -> SweptModel:
    return SweptModel(told["path"], _named_of(told["profiles"]), _profiles_of(told["fixed"]), told["custom_ops"])


def _named_json(named: Mapping[str, Profiles]) -> dict[str, Any]:
    return {name: _profiles_json(profiles) for name, profiles in named.items()}


def _named_of(told: Mapping[str, Any]) -> dict[str, Profiles]:
    return {name: _profiles_of(profiles) for name, profiles in told.items()}


def _profiles_json(profiles: Profiles) -> list[dict[str, Any]]:
    return [{end: _shapes_json(getattr(one, end)) for end in ("min", "opt", "max")} for one in profiles]


def _shapes_json(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in shapes.items()}


def _profiles_of(told: Sequence[Mapping[str, Any]]) -> Profiles:
    return tuple(GivenProfile(**{end: _shapes_of(one[end]) for end in ("min", "opt", "max")}) for one in told)


def _shapes_of(told: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in told.items()}
