"""Reads ``farm.yaml``, the prebuild manifest: checked whole before anything is built, errors under their line.

::

    models:
      resnet: {path: resnet.pt2}                       # or url: …, or script: export.py:function
      gpt: {script: export.py:gpt, settings: fast, targets: [sm_89]}
    targets: [sm_86, sm_89, sm_120]
    toolchain: tensorrt_rtx==1.7.1.116
    settings: {disable_tf32: true}                     # of every engine
    settings_profiles: {fast: {optimization_level: 5}, faster: {inherits: fast, workspace_size: 2G}}
    profiles: {small: {max: "x:4x16"}, large: {max: "x:32x16"}}
    matrix: {profile: [small, large], settings: [fast]}
    exclude: [{model: gpt, profile: large}]
    best_effort: [{target: sm_120}]
    pins: [release]

The pydantic models here are the file's grammar: they validate it, and ``schema`` is made from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from farm.asks import GivenProfile
from farm.compilation import CompilationSettings
from farm.errors import BadInput
from farm.prebuilds.entries import (
    MODEL,
    PROFILE,
    SETTINGS,
    TARGET,
    Axis,
    Model,
    PrebuildSpec,
    Profiles,
    Selector,
    Source,
)
from farm.prebuilds.entries import inherited as inherit
from farm.profiles import parse_shapes
from farm.settings.table import FIELDS
from farm.sweeps.grid import dimension
from farm.targets import parse_target
from farm.toolchains import parse_toolchain
from farm.yaml_file import Lines, Place, read_yaml

T = TypeVar("T")
NOUN = "manifest"
INHERITS = "inherits"
SCRIPT = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*)")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=100)]
"""Names stand in file names, in lock lines and in variants."""
Shapes = str | dict[str, int | str | list[int]]
Settings = dict[str, Any]
Values = str | int | float | bool | None | list[Any]
Text = str | list[str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Shape(_Strict):
    """One optimisation profile: shapes as trtexec writes them (``x:1x3x224x224``), or by input name."""

    min: Shapes = Field(default_factory=dict, description="The smallest shapes.")
    opt: Shapes = Field(default_factory=dict, description="The shapes to optimise for.")
    max: Shapes = Field(default_factory=dict, description="The largest shapes.")


Variant = Shape | list[Shape]


class ManifestModel(_Strict):
    """One model: exactly one of ``path``, ``url`` and ``script``."""

    path: str = Field("", description="A .pt2 or .onnx file, relative to this file's folder.")
    url: str = Field("", description="An http or https URL of such a file.")
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$", description="The SHA-256 that the URL's bytes must have.")
    script: str = Field("", description="FILE.py:FUNCTION: returns an ExportedProgram, or the path of a model file.")
    sources: Text = Field(default_factory=list, description="Files it is made from (patterns), for --changed-since.")
    settings: Name | Settings = Field(default_factory=dict, description="Its own settings, or a settings profile.")
    shapes: Variant = Field(default_factory=list, description="Its optimisation profile, or several.")
    profiles: dict[Name, Variant] = Field(default_factory=dict, description="Shape variants of its own, by name.")
    targets: list[str] = Field(default_factory=list, description="Its own targets, in place of the manifest's.")
    matrix: dict[str, Values] | None = Field(None, description="Its own matrix, in place of the manifest's.")
    custom_ops: dict[str, str] = Field(default_factory=dict, description="Digests of custom operators.")


class Manifest(_Strict):
    """farm.yaml: what is to be built before it is asked for."""

    models: dict[Name, ManifestModel | str] = Field(min_length=1, description="Models by name, or just their paths.")
    targets: list[str] = Field(default_factory=list, description="Where engines must run: sm_89, rtx4090, …")
    toolchain: str = Field("", description="What builds, where a target does not say: tensorrt_rtx==1.7.1.116.")
    settings: Name | Settings = Field(default_factory=dict, description="Settings of every engine.")
    settings_profiles: dict[Name, Settings] = Field(
        default_factory=dict, description="Settings by name; 'inherits' names one or several to start from."
    )
    profiles: dict[Name, Variant] = Field(default_factory=dict, description="Shape variants by name.")
    matrix: dict[str, Values] = Field(
        default_factory=dict, description="Axes: 'profile', 'settings' (their names), or a setting and its values."
    )
    exclude: list[dict[str, Values]] = Field(default_factory=list, description="Cells that are not to be built.")
    best_effort: list[dict[str, Values]] = Field(
        default_factory=list, description="Cells without which the prebuild succeeds all the same."
    )
    pins: Name | list[Name] = Field(default_factory=list, description="Names under which what is locked is kept.")
    priority: int = Field(0, ge=-(1 << 31), lt=1 << 31, description="Higher is sooner.")


def schema() -> dict[str, Any]:
    """The manifest's JSON Schema, for editors; settings by their names, with what each is."""
    found = Manifest.model_json_schema()
    settings = {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {"^[a-z0-9]+(-[a-z0-9]+)+$": {}},
        "properties": {row.name: {"description": row.description} for row in FIELDS.values()}
        | {INHERITS: {"description": "Settings profiles to start from.", "type": ["string", "array"]}},
    }
    found["$defs"]["Settings"] = settings
    found["properties"]["settings_profiles"]["additionalProperties"] = {"$ref": "#/$defs/Settings"}
    for holder in (found, found["$defs"]["ManifestModel"]):
        name = next(one for one in holder["properties"]["settings"]["anyOf"] if one.get("type") == "string")
        holder["properties"]["settings"]["anyOf"] = [name, {"$ref": "#/$defs/Settings"}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def read_manifest(path: Path) -> PrebuildSpec:
    """The manifest that ``path`` holds. ``BadInput`` says file, line and what is wrong there."""
    text, document = read_yaml(path, NOUN, "as in models: {resnet: {path: resnet.pt2}}")
    lines = Lines(text)
    doubled = lines.doubled()
    if doubled:
        raise BadInput(f"{path}:{doubled[0]}: '{doubled[1]}' is there twice", "keep one of them")
    try:
        parsed = Manifest.model_validate(document)
    except ValidationError as error:
        raise _refused(path, lines, document, error) from error
    return _Reader(path, lines).spec(parsed)


class _Reader:
    """Turns the checked document into a spec, each error under its line."""

    def __init__(self, path: Path, lines: Lines) -> None:
        self.path, self.lines = path, lines

    def spec(self, parsed: Manifest) -> PrebuildSpec:
        named = self._settings_profiles(parsed.settings_profiles)
        settings = self._settings((SETTINGS,), parsed.settings, named)
        matrix = self._matrix(("matrix",), parsed.matrix)
        for number, target in enumerate(parsed.targets):
            self._target(("targets", number), target)
        if parsed.toolchain:
            self._at(("toolchain",), lambda: parse_toolchain(parsed.toolchain))
        return PrebuildSpec(
            file=str(self.path),
            models=tuple(self._model(name, model, named, matrix) for name, model in parsed.models.items()),
            targets=_distinct(parsed.targets),
            settings=settings,
            settings_profiles=named,
            profiles=self._profiles(("profiles",), parsed.profiles),
            exclude=self._selectors("exclude", parsed.exclude),
            best_effort=self._selectors("best_effort", parsed.best_effort),
            pins=_distinct(_several(parsed.pins)),
            toolchain=parsed.toolchain,
            priority=parsed.priority,
        )

    def _model(
        self, name: str, model: ManifestModel | str, named: Mapping[str, Any], matrix: tuple[Axis, ...]
    ) -> Model:
        place: Place = ("models", name)
        given = ManifestModel.model_validate({"path": model}) if isinstance(model, str) else model
        for number, target in enumerate(given.targets):
            self._target((*place, "targets", number), target)
        return Model(
            name=name,
            source=self._at(place, lambda: _source(given, self.path.parent)),
            line=self.lines.of(place),
            settings=self._settings((*place, SETTINGS), given.settings, named),
            shapes=self._variant((*place, "shapes"), given.shapes),
            profiles=self._profiles((*place, "profiles"), given.profiles),
            targets=_distinct(given.targets),
            matrix=matrix if given.matrix is None else self._matrix((*place, "matrix"), given.matrix),
            custom_ops=given.custom_ops,
        )

    def _target(self, place: Place, text: str) -> None:
        if text.partition("@")[0].partition("/")[0].strip().lower() == "local":
            line = self.lines.of(place)
            raise BadInput(
                f"{self.path}:{line}: 'local' is another target on every machine",
                "name the GPU, as in rtx4090 or sm_89",
            )
        self._at(place, lambda: parse_target(text))

    def _settings(self, place: Place, given: str | Settings, named: Mapping[str, Any]) -> dict[str, Any]:
        """A settings profile by its name, or values, which may inherit from such profiles."""
        if isinstance(given, str):
            given = {INHERITS: given}
        whole = self._at(place, lambda: inherit({**_as_own(named), "": _own(given)})[""])
        return self._at(place, partial(_given, whole))

    def _settings_profiles(self, given: Mapping[str, Settings]) -> dict[str, Any]:
        own = {name: self._at(("settings_profiles", name), partial(_own, values)) for name, values in given.items()}
        whole = self._at(("settings_profiles",), partial(inherit, own))
        return {name: self._at(("settings_profiles", name), partial(_given, whole[name])) for name in whole}

    def _profiles(self, place: Place, named: Mapping[str, Variant]) -> dict[str, Profiles]:
        return {name: self._variant((*place, name), variant) for name, variant in named.items()}

    def _variant(self, place: Place, variant: Variant) -> Profiles:
        several = variant if isinstance(variant, list) else [variant]
        return tuple(self._at(place, partial(_profile, one)) for one in several)

    def _matrix(self, place: Place, given: Mapping[str, Values]) -> tuple[Axis, ...]:
        axes = tuple(self._at((*place, name), partial(_axis, name, values)) for name, values in given.items())
        for axis in axes:
            if [other.name for other in axes].count(axis.name) > 1:
                raise BadInput(f"{self.path}:{self.lines.of(place)}: the axis {axis.name} is given twice", "keep one")
        return axes

    def _selectors(self, kind: str, given: Sequence[Mapping[str, Values]]) -> tuple[Selector, ...]:
        found = []
        for number, one in enumerate(given):
            place: Place = (kind, number)
            if not one:
                raise BadInput(f"{self.path}:{self.lines.of(place)}: {kind} means everything", "say which cells")
            wanted = {
                _axis_name(name): self._at((*place, name), partial(_wanted, name, values))
                for name, values in one.items()
            }
            found.append(Selector(wanted, self.lines.of(place)))
        return tuple(found)

    def _at(self, place: Place, make: Callable[[], T]) -> T:
        try:
            return make()
        except BadInput as error:
            line = self.lines.of(place)
            raise type(error)(f"{self.path}:{line}: {error.message}", error.hint) from error


def _source(given: ManifestModel, folder: Path) -> Source:
    """``BadInput`` unless the model comes from one place."""
    named = [text for text in (given.path, given.url, given.script) if text]
    if len(named) != 1:
        what = "comes from nowhere" if not named else "comes from several places"
        raise BadInput(f"the model {what}", "give one of path, url (with sha256) and script (FILE.py:FUNCTION)")
    if given.url and urlsplit(given.url).scheme not in ("http", "https"):
        raise BadInput(f"{given.url} is no http or https URL", "give a file by path")
    if given.sha256 and not given.url:
        raise BadInput("sha256 goes with url", "leave it out")
    script = SCRIPT.fullmatch(given.script)
    if given.script and script is None:
        raise BadInput(f"'{given.script}' names no function", "write FILE.py:FUNCTION, as in export.py:resnet")
    return Source(
        path=str(_within(folder, given.path)) if given.path else "",
        url=given.url,
        sha256=given.sha256,
        script=f"{_within(folder, script['file'])}:{script['function']}" if script else "",
        sources=tuple(_several(given.sources)),
    )


def _within(folder: Path, text: str) -> Path:
    path = Path(text).expanduser()
    return path if path.is_absolute() else folder / path


def _own(given: Settings) -> tuple[list[str], Settings]:
    """What a mapping of settings inherits, and its own values."""
    parents = given.get(INHERITS, [])
    if not isinstance(parents, str) and not (
        isinstance(parents, list) and all(isinstance(one, str) for one in parents)
    ):
        raise BadInput(f"'{INHERITS}' names settings profiles", f"as in {INHERITS}: fast")
    return _several(parents), {name: value for name, value in given.items() if name != INHERITS}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the table has them, checked; those that are the default left out."""
    return dict(CompilationSettings.from_mapping(values).given())


def _as_own(named: Mapping[str, Any]) -> dict[str, tuple[list[str], Any]]:
    return {name: ([], values) for name, values in named.items()}


def _axis_name(name: str) -> str:
    return name.strip().replace("-", "_")


def _axis(name: str, values: Values) -> Axis:
    name, several = _axis_name(name), values if isinstance(values, list) else [values]
    if name in (PROFILE, SETTINGS):
        return Axis(name, _names(name, several))
    if name in (MODEL, TARGET):
        raise BadInput(f"the matrix varies settings and shapes, not the {name}", f"list {name}s under '{name}s'")
    found = dimension(name, several)
    return Axis(found.name, found.values)


def _names(axis: str, values: Sequence[Any]) -> tuple[str, ...]:
    if not values or not all(isinstance(value, str) for value in values):
        raise BadInput(f"the axis {axis} takes names", f"as in {axis}: [small, large]")
    return tuple(dict.fromkeys(values))


def _wanted(name: str, values: Values) -> tuple[Any, ...]:
    """A selector's values for one axis, as the axis has them."""
    name, several = _axis_name(name), values if isinstance(values, list) else [values]
    if name in (MODEL, TARGET, PROFILE, SETTINGS):
        return _names(name, several)
    return dimension(name, several).values


def _profile(given: Shape) -> GivenProfile:
    return GivenProfile(min=_shapes(given.min), opt=_shapes(given.opt), max=_shapes(given.max))


def _shapes(given: Shapes) -> Mapping[str, tuple[int, ...]]:
    if isinstance(given, str):
        return parse_shapes(given)
    return {name: _sizes(name, shape) for name, shape in given.items()}


def _sizes(name: str, shape: int | str | list[int]) -> tuple[int, ...]:
    if isinstance(shape, str):
        return parse_shapes(f"'{name}':{shape}")[name]
    return tuple(shape) if isinstance(shape, list) else (shape,)


def _several(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _distinct(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


# -- what pydantic complains of, in farm's words -----------------------------------------------------------------


def _refused(path: Path, lines: Lines, document: Mapping[str, Any], error: ValidationError) -> BadInput:
    """The complaint that goes deepest: of a value that may be two things, what the likelier of the two lacks."""
    found = [(_place(document, one["loc"]), one) for one in error.errors(include_url=False)]
    place, first = max(found, key=lambda pair: (len(pair[0]), pair[1]["type"] == "extra_forbidden"))
    where, name = f"{path}:{lines.of(place)}", ".".join(map(str, place))
    if first["type"] == "extra_forbidden":
        return BadInput(f"{where}: there is no '{name}' in a manifest", f"known here: {', '.join(_fields(place))}")
    if first["type"] == "missing":
        return BadInput(f"{where}: {name} is missing", "'farm prebuild --schema' has the manifest's grammar")
    if first["type"] == "string_pattern_mismatch" and place[-1:] != ("sha256",):
        return BadInput(f"{where}: '{name}' is no name", "a name has letters, digits and any of . _ + -")
    return BadInput(f"{where}: {name}: {first['msg'][:1].lower()}{first['msg'][1:]}")


def _place(document: Any, loc: Sequence[str | int]) -> Place:
    """Pydantic's place, less the branches of unions that it names on its way."""
    place: list[str | int] = []
    for part in loc:
        if _holds(document, part):
            document = document[part]
        elif part not in Manifest.model_fields and part not in ManifestModel.model_fields:
            continue  # a branch's name; anything else is what is missing
        place.append(part)
    return tuple(place)


def _holds(document: Any, part: str | int) -> bool:
    if isinstance(document, list):
        return type(part) is int and part < len(document)
    return isinstance(document, Mapping) and part in document


def _fields(place: Place) -> Sequence[str]:
    if len(place) > 1 and place[0] == "models":
        return list((Shape if len(place) > 3 else ManifestModel).model_fields)
    return list((Shape if len(place) > 2 else Manifest).model_fields)
