"""What a prebuild manifest asks for: models × targets × the cells of a matrix come to entries. Pure.

An *entry* is one engine that is to be there, named by model, target and *variant* (the matrix's cell; empty without a
matrix), as its lock line is. Settings come from four places, each over the one before: the manifest's, the model's, the
settings profile that the matrix names, the matrix's own values. ``prebuild_file`` reads the file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from farm.asks import Ask, GivenProfile
from farm.compilation import CompilationSettings
from farm.errors import BadInput

PROFILE, SETTINGS = "profile", "settings"
"""Axes whose values are names: of shape variants, of settings profiles. Every other axis is a setting."""
MODEL, TARGET = "model", "target"
MAX_ENTRIES = 10_000

Profiles = tuple[GivenProfile, ...]
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """Where a model comes from: a file; a URL (and the SHA-256 that its bytes must have, if that is given); or a
    script's function, which is run on the client only, and makes one. ``sources`` are the files that it is made from,
    as patterns, for ``--changed-since``."""

    path: str = ""
    url: str = ""
    sha256: str = ""
    script: str = ""
    sources: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.path or self.url or self.script


@dataclass(frozen=True)
class Axis:
    """One axis of a matrix: a name and its distinct values, in the order given."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Model:
    """One model of a manifest. ``line`` is where it stands in the file."""

    name: str
    source: Source
    line: int = 1
    settings: Values = field(default_factory=dict)
    shapes: Profiles = ()
    profiles: Mapping[str, Profiles] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    matrix: tuple[Axis, ...] = ()
    custom_ops: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Selector:
    """Some entries: those whose model, target and axes have one of the values named. Text may hold ``*`` and ``?``."""

    wanted: Mapping[str, tuple[Any, ...]]
    line: int = 1

    def takes(self, facts: Mapping[str, Any]) -> bool:
        """Whether an entry with these facts (its model, its target, its value on each axis) is meant."""
        return all(name in facts and any(_fits(facts[name], one) for one in ones) for name, ones in self.wanted.items())


@dataclass(frozen=True)
class PrebuildSpec:
    """A whole manifest. ``targets`` may be empty (the configured ones); ``toolchain`` is for targets that name none;
    ``pins`` are names under which what was locked is to be kept."""

    file: str
    models: tuple[Model, ...]
    targets: tuple[str, ...] = ()
    settings: Values = field(default_factory=dict)
    settings_profiles: Mapping[str, Values] = field(default_factory=dict)
    profiles: Mapping[str, Profiles] = field(default_factory=dict)
    exclude: tuple[Selector, ...] = ()
    best_effort: tuple[Selector, ...] = ()
    pins: tuple[str, ...] = ()
    toolchain: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Entry:
    """One engine that a manifest asks for. ``required``: whether the prebuild fails without it."""

    model: Model
    target: str
    variant: str = ""
    settings: Values = field(default_factory=dict)
    profiles: Profiles = ()
    required: bool = True
    toolchain: str = ""
    priority: int = 0

    @property
    def name(self) -> tuple[str, str, str]:
        """What its lock line is named by."""
        return self.model.name, self.target, self.variant

    def __str__(self) -> str:
        return f"{self.model.name} for {self.target}" + (f" ({self.variant})" if self.variant else "")

    def ask(self, path: str) -> Ask:
        """What it asks of a farm, its model being at ``path``. ``BadSettings`` when its values contradict each
        other."""
        named = f"@{self.toolchain}" if self.toolchain and "@" not in self.target else ""
        return Ask(
            model=path,
            target=self.target + named,
            settings=CompilationSettings.from_mapping(self.settings),
            profiles=self.profiles,
            custom_ops=self.model.custom_ops,
            priority=self.priority,
        )


def entries(spec: PrebuildSpec, default_targets: Sequence[str] = ()) -> tuple[Entry, ...]:
    """Every entry, in the manifest's order: models, then targets, then the matrix's cells, the last axis fastest.

    ``BadInput``, with the line where there is one, for a manifest without targets, a name that nothing has, a selector
    that means nothing, and more entries than any manifest has.
    """
    made = [one for model in spec.models for one in _of_model(spec, model, spec.targets or tuple(default_targets))]
    for selector in (*spec.exclude, *spec.best_effort):
        if not any(selector.takes(facts) for _, facts in made):
            told = ", ".join(f"{name}: {_listed(values)}" for name, values in selector.wanted.items())
            raise BadInput(f"{spec.file}:{selector.line}: nothing is meant by {told}", "correct it, or leave it out")
    return tuple(
        _entry(spec, model, facts)
        for model, facts in made
        if not any(selector.takes(facts) for selector in spec.exclude)
    )


def _of_model(spec: PrebuildSpec, model: Model, targets: tuple[str, ...]) -> list[tuple[Model, Mapping[str, Any]]]:
    """The cells of one model, excluded ones too: each is its model, its target and its value on each axis."""
    places = model.targets or targets
    if not places:
        raise BadInput(f"{spec.file}: no targets are named", "as in targets: [sm_86, sm_89]")
    size = len(places) * math.prod(len(axis.values) for axis in model.matrix)
    if size > MAX_ENTRIES:
        raise BadInput(f"{spec.file}:{model.line}: {model.name} has {size:,} entries", f"{MAX_ENTRIES:,} are the most")
    names = [axis.name for axis in model.matrix]
    return [
        (model, {MODEL: model.name, TARGET: target, **dict(zip(names, cell, strict=True))})
        for target in places
        for cell in itertools.product(*(axis.values for axis in model.matrix))
    ]


def _entry(spec: PrebuildSpec, model: Model, facts: Mapping[str, Any]) -> Entry:
    varied = {axis.name: facts[axis.name] for axis in model.matrix}
    named = _known(spec, model, "settings profile", varied.get(SETTINGS), spec.settings_profiles) or {}
    own = {name: value for name, value in varied.items() if name not in (PROFILE, SETTINGS)}
    shapes = _known(spec, model, "profile", varied.get(PROFILE), {**spec.profiles, **model.profiles})
    return Entry(
        model=model,
        target=facts[TARGET],
        variant=",".join(_cell(name, value) for name, value in varied.items()),
        settings={**spec.settings, **model.settings, **named, **own},
        profiles=model.shapes if shapes is None else shapes,
        required=not any(selector.takes(facts) for selector in spec.best_effort),
        toolchain=spec.toolchain,
        priority=spec.priority,
    )


def _known(spec: PrebuildSpec, model: Model, noun: str, name: str | None, known: Mapping[str, Any]) -> Any:
    """What is called ``name``; ``None`` when nothing was named. ``BadInput`` for a name that nothing has."""
    if name is None or name in known:
        return None if name is None else known[name]
    raise BadInput(
        f"{spec.file}:{model.line}: {model.name} has no {noun} '{name}'",
        f"known: {', '.join(sorted(known))}" if known else f"name {noun}s in {spec.file}",
    )


def _cell(name: str, value: Any) -> str:
    """How a variant says one axis: a name as it is, a setting with its value."""
    return str(value) if name in (PROFILE, SETTINGS) else f"{name}={_said(value)}"


def _said(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _listed(values: Sequence[Any]) -> str:
    return " or ".join(map(_said, values))


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return fnmatchcase(value, wanted)
    return type(value) is type(wanted) and bool(value == wanted)


def inherited(own: Mapping[str, tuple[Sequence[str], Values]]) -> dict[str, Values]:
    """Settings profiles with what they inherit: each name's parents, in their order, and its own values over them.

    ``BadInput`` for a parent that is not there, or that inherits from its own child.
    """
    done: dict[str, Values] = {}

    def whole(name: str, path: tuple[str, ...]) -> Values:
        if name in path:
            raise BadInput(f"settings profiles inherit in a circle: {' → '.join((*path, name))}", "break it")
        if name not in own:
            raise BadInput(f"there is no settings profile '{name}'", f"known: {', '.join(sorted(own))}" if own else "")
        if name not in done:
            parents, values = own[name]
            merged: dict[str, Any] = {}
            for parent in parents:
                merged |= whole(parent, (*path, name))
            done[name] = merged | dict(values)
        return done[name]

    return {name: whole(name, ()) for name in own}
