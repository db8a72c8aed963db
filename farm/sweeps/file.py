"""Reads ``sweep.yaml`` into a ``SweepSpec``: the same names as the flags, checked before anything is built.

::

    models:                      # a list of paths, or names with what belongs to one model alone
      resnet: {path: resnet.pt2, profiles: {small: {max: "x:4x3x64x64"}}}
    targets: [sm_86, sm_89]
    settings: {disable_tf32: true}
    profiles: {small: {min: …, opt: …, max: …}}
    grid:                        # a dimension may depend on others
      optimization_level: 0..5
      tiling_optimization_level: [none, full]
      l2_limit_for_tiling: {values: [1M, 4M], when: {tiling_optimization_level: full}}
      profile: [small]
    search: {kind: tpe, seed: 1, max_trials: 40, max_builds: 20, max_minutes: 60, patience: 8}
    objectives: [latency_p99, engine_size]             # or names with weights
    constraints: {perf_latency_p99: {max: 10}}         # as Model Analyzer writes them

Paths are relative to the file's folder. Errors name the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from farm.asks import GivenProfile
from farm.compilation import CompilationSettings
from farm.errors import BadInput
from farm.profiles import parse_shapes
from farm.sweeps.grid import MAX_TRIALS, Dimension, Profiles, SweepSpec, SweptModel, dimension
from farm.sweeps.objectives import constraints_of, objectives_of
from farm.sweeps.searches import GRID, Search
from farm.yaml_file import Place, line_of, read_yaml

__all__ = ["line_of", "read_sweep"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Profile(_Strict):
    """One optimisation profile: shapes as trtexec writes them, or by input name."""

    min: str | dict[str, Any] = Field(default_factory=dict)
    opt: str | dict[str, Any] = Field(default_factory=dict)
    max: str | dict[str, Any] = Field(default_factory=dict)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class _Model(_Strict):
    path: str
    profiles: dict[str, list[_Profile]] = Field(default_factory=dict)
    custom_ops: dict[str, str] = Field(default_factory=dict)

    @field_validator("profiles", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return {name: _as_list(item) for name, item in value.items()} if isinstance(value, dict) else value


class _Dimension(_Strict):
    """A dimension; ``when`` says what other settings must be for it to be varied."""

    values: list[Any]
    when: dict[str, list[Any]] = Field(default_factory=dict)

    @field_validator("values", mode="before")
    @classmethod
    def _values_are_a_list(cls, value: Any) -> Any:
        return _as_list(value)

    @field_validator("when", mode="before")
    @classmethod
    def _value_is_a_list(cls, value: Any) -> Any:
        return {name: _as_list(item) for name, item in value.items()} if isinstance(value, dict) else value


class _Search(_Strict):
    """``max_trials`` bounds the configurations tried, ``max_builds`` the builds, ``max_minutes`` the time building."""

    kind: str = GRID
    seed: int = Field(default=0, ge=0, lt=1 << 32)
    max_trials: int | None = None
    max_builds: int | None = None
    max_minutes: float | None = None
    patience: int | None = None

    def search(self, most: int | None) -> Search:
        """``most``: what the file allows outside of this part."""
        trials = None if self.kind == GRID else self.max_trials if self.max_trials is not None else most
        return Search(self.kind, self.seed, trials, self.max_builds, self.max_minutes, self.patience)


class _File(_Strict):
    models: dict[str, _Model] = Field(default_factory=dict)
    targets: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, _Dimension] = Field(default_factory=dict)
    profiles: dict[str, list[_Profile]] = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-(1 << 31), lt=1 << 31)
    max_trials: int | None = Field(default=None, ge=1)
    search: _Search = Field(default_factory=_Search)
    objectives: list[Any] | dict[str, Any] = Field(default_factory=list)
    constraints: dict[str, Any] = Field(default_factory=dict)

    @property
    def most(self) -> int | None:
        """How large a grid may be."""
        return (self.max_trials or self.search.max_trials) if self.search.kind == GRID else None

    @field_validator("models", mode="before")
    @classmethod
    def _paths_are_models(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = {str(path): path for path in value}
        if not isinstance(value, dict):
            return value
        return {name: {"path": item} if isinstance(item, str) else item for name, item in value.items()}

    @field_validator("profiles", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return {name: _as_list(item) for name, item in value.items()} if isinstance(value, dict) else value

    @field_validator("grid", mode="before")
    @classmethod
    def _values_are_a_dimension(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item if isinstance(item, dict) else {"values": item} for name, item in value.items()}

    @field_validator("search", mode="before")
    @classmethod
    def _kind_is_a_search(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("objectives", mode="before")
    @classmethod
    def _name_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


def read_sweep(path: Path) -> SweepSpec:
    """The sweep that ``path`` describes. ``BadInput`` says file, line and what is wrong there."""
    text, document = read_yaml(path, "sweep", "as in models: [m.pt2]")
    try:
        parsed = _File.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadInput(*_told(path, text, tuple(first["loc"]), first)) from error
    return _Reader(path, text).spec(parsed)


class _Reader:
    """Turns the checked document into a spec, each error under its line."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def spec(self, parsed: _File) -> SweepSpec:
        settings = self._at(("settings",), lambda: CompilationSettings.from_mapping(parsed.settings).given())
        return SweepSpec(
            models=tuple(self._model(name, model) for name, model in parsed.models.items()),
            targets=tuple(parsed.targets),
            settings=settings,
            grid=tuple(
                self._at(("grid", name), lambda name=name, given=given: _dimension_of(name, given))
                for name, given in parsed.grid.items()
            ),
            profiles=self._profiles(("profiles",), parsed.profiles),
            priority=parsed.priority,
            max_trials=parsed.most or MAX_TRIALS,
            search=self._at(("search",), lambda: parsed.search.search(parsed.max_trials)),
            objectives=self._at(("objectives",), lambda: objectives_of(parsed.objectives)),
            constraints=self._at(("constraints",), lambda: constraints_of(parsed.constraints)),
        )

    def _model(self, name: str, model: _Model) -> SweptModel:
        path = Path(model.path).expanduser()
        return SweptModel(
            path=str(path if path.is_absolute() else self.path.parent / path),
            profiles=self._profiles(("models", name, "profiles"), model.profiles),
            custom_ops=model.custom_ops,
        )

    def _profiles(self, place: Place, named: Mapping[str, Sequence[_Profile]]) -> dict[str, Profiles]:
        return {
            name: tuple(self._at((*place, name), lambda one=one: _profile(one)) for one in several)
            for name, several in named.items()
        }

    def _at(self, place: Place, make: Any) -> Any:
        try:
            return make()
        except BadInput as error:
            line = line_of(self.text, place)
            raise type(error)(f"{self.path}:{line}: {error.message}", error.hint) from error


def _dimension_of(name: str, given: _Dimension) -> Dimension:
    found = dimension(name, given.values)
    when = (dimension(other, values) for other, values in given.when.items())
    return replace(found, when={one.name: one.values for one in when})


def _profile(given: _Profile) -> GivenProfile:
    return GivenProfile(min=_shapes(given.min), opt=_shapes(given.opt), max=_shapes(given.max))


def _shapes(given: str | Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
    if isinstance(given, str):
        return parse_shapes(given)
    return {name: _shape(name, shape) for name, shape in given.items()}


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    sizes = shape.split("x") if isinstance(shape, str) else shape if isinstance(shape, list) else [shape]
    try:
        return tuple(int(size) for size in sizes)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: {shape} is no shape", "write 1x3x224x224, or [1, 3, 224, 224]") from error


def _told(path: Path, text: str, place: Place, error: Any) -> tuple[str, str]:
    """Message and hint for pydantic's first complaint, in farm's words where they are plainer."""
    name = ".".join(str(part) for part in place)
    where = f"{path}:{line_of(text, place)}"
    if error["type"] == "extra_forbidden":
        known: type[BaseModel] = _Model if len(place) == 3 and place[0] == "models" else _File
        known = _Profile if "profiles" in place[:-1] else known
        known = _Search if place[0] == "search" and len(place) == 2 else known
        known = _Dimension if place[0] == "grid" and len(place) == 3 else known
        return f"{where}: there is no '{name}' in a sweep", f"known here: {', '.join(known.model_fields)}"
    if error["type"] == "missing":
        return f"{where}: {name} is missing", ""
    return f"{where}: {name}: {error['msg'].lower()}", ""
