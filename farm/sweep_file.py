"""Reads ``sweep.yaml`` into a ``SweepSpec``: the same names as the flags, checked before anything is built.

::

    models:                      # a list of paths, or names with what belongs to one model alone
      resnet: {path: resnet.pt2, profiles: {small: {max: "x:4x3x64x64"}}}
    targets: [sm_86, sm_89]
    settings: {disable_tf32: true}
    profiles: {small: {min: …, opt: …, max: …}}
    grid: {optimization_level: 0..5, profile: [small]}

Paths are relative to the file's folder. Errors name the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from farm.asks import GivenProfile
from farm.compilation import CompilationSettings
from farm.errors import BadInput
from farm.profiles import parse_shapes
from farm.sweeps import MAX_TRIALS, Profiles, SweepSpec, SweptModel, dimension
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


class _File(_Strict):
    models: dict[str, _Model] = Field(default_factory=dict)
    targets: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    profiles: dict[str, list[_Profile]] = Field(default_factory=dict)
    priority: int = Field(default=0, ge=-(1 << 31), lt=1 << 31)
    max_trials: int = Field(default=MAX_TRIALS, ge=1)

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
    def _value_is_a_list(cls, value: Any) -> Any:
        return {name: _as_list(item) for name, item in value.items()} if isinstance(value, dict) else value


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
                self._at(("grid", name), lambda name=name, values=values: dimension(name, values))
                for name, values in parsed.grid.items()
            ),
            profiles=self._profiles(("profiles",), parsed.profiles),
            priority=parsed.priority,
            max_trials=parsed.max_trials,
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
        return f"{where}: there is no '{name}' in a sweep", f"known here: {', '.join(known.model_fields)}"
    if error["type"] == "missing":
        return f"{where}: {name} is missing", ""
    return f"{where}: {name}: {error['msg'].lower()}", ""
