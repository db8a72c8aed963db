"""Effective settings: what a builder will really be told, and so what keys and recipes hold. Pure.

Implications come first, then what cannot matter vanishes, then each builder's status is applied (DESIGN,
"The key"). The rules here are the ones that the table states in words, field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache

from farm.errors import BadSettings
from farm.settings.kinds import Value
from farm.settings.model import Field, Handling, Json, Role, Stage, Status, json_of, refused, text_of
from farm.settings.table import FIELDS

Values = Mapping[str, Value]
FLOAT32 = frozenset({"float32"})
DEFAULT_LEVEL = 3
"""TensorRT's own optimisation level. Specification: "None (TRT default = 3)"."""

_KEYED = (Role.ENGINE, Role.GRAPH, Role.FORM)
_AUTOCAST = tuple(name for name in FIELDS if name.startswith("autocast_"))
_DLA_SIZES = tuple(name for name in FIELDS if name.startswith("dla_"))
_DENIABLE = ("enabled_precisions",)
_RULING = (
    "optimization_level",
    "use_explicit_typing",
    "enable_autocast",
    "autocast_low_precision_type",
    "enabled_precisions",
    "enable_cross_compile_for_windows",
    "immutable_weights",
    "tiling_optimization_level",
    "enable_resource_partitioning",
    "engine_capability",
    "device",
)
"""What the rules below look at: a sweep varies little of it."""
DEFAULTS: Values = {row.name: row.default for row in FIELDS.values()}
_OFF_FOR_WINDOWS = ("use_python_runtime", "lazy_engine_init", "cache_built_engines", "reuse_cached_engines")


@dataclass(frozen=True)
class Effective:
    """What settings come to with one toolchain.

    ``key`` and ``recipe`` map names to canonical JSON values and go into the digests as they are. ``told``
    is for the builder: every setting that it honours, at its effective value. ``warnings`` and ``refused``
    are sentences for people; ``inert`` names the settings given that this version accepts without effect.
    """

    key: Mapping[str, Json]
    recipe: Mapping[str, Json]
    told: Mapping[str, Json]
    warnings: tuple[str, ...]
    inert: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class _Change:
    """An effective value that is not the given one, and why. ``vanishes`` leaves the field out altogether."""

    value: Value
    why: str
    vanishes: bool = False


@dataclass
class _Draft:
    """An ``Effective`` in the making."""

    key: dict[str, Json] = field(default_factory=dict)
    recipe: dict[str, Json] = field(default_factory=dict)
    told: dict[str, Json] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    inert: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def enter(self, name: str, one: _Draft) -> None:
        """Enter the field that is all of ``one``, in place of what stood there."""
        for mine, its in ((self.key, one.key), (self.recipe, one.recipe), (self.told, one.told)):
            if name in its:
                mine[name] = its[name]
            else:
                mine.pop(name, None)
        self.warnings += one.warnings
        self.inert += one.inert
        self.refused += one.refused

    def copy(self) -> _Draft:
        return _Draft(dict(self.key), dict(self.recipe), dict(self.told))

    def done(self) -> Effective:
        lists = (tuple(self.warnings), tuple(self.inert), tuple(self.refused))
        return Effective(self.key, self.recipe, self.told, *lists)


Changes = Mapping[str, _Change]


def effective_values(values: Values, *, flavour: str, version: str, subgraph: bool = False) -> Effective:
    """The effective form of checked ``values`` for one toolchain; see ``farm.compilation.effective``."""
    draft, ruling = _usual(flavour, version, subgraph).copy(), _ruling(values)
    changes, unusual = _ruled(ruling), _unusual(ruling)
    for name, default, row, handling in _handlings(flavour, version):
        if values[name] is not default or name in unusual:
            draft.enter(name, _settled(row, values, changes.get(name), handling, f"{flavour} {version}", subgraph))
    if not subgraph:
        _need_budget(draft)
    return draft.done()


def _ruling(values: Values) -> tuple[Value, ...]:
    return tuple([values[name] for name in _RULING])


@lru_cache(maxsize=256)
def _ruled(ruling: tuple[Value, ...]) -> Changes:
    """What the rules come to. They are handed the fields of ``_RULING`` alone, so that none reads another unseen."""
    values = dict(zip(_RULING, ruling, strict=True))
    return dict(_implied(values)) | dict(_vanished(values))


@lru_cache(maxsize=256)
def _unusual(ruling: tuple[Value, ...]) -> frozenset[str]:
    """Fields that the rules do not leave as they do where all is at its default."""
    mine, usual = _ruled(ruling), _ruled(_ruling(DEFAULTS))
    return frozenset({*_DENIABLE, *(name for name in {*mine, *usual} if mine.get(name) != usual.get(name))})


@cache
def _handlings(flavour: str, version: str) -> tuple[tuple[str, Value, Field, Handling], ...]:
    """Every field's name and default, itself, and what a builder does with it."""
    return tuple((row.name, row.default, row, row.handling(flavour, version)) for row in FIELDS.values())


@cache
def _usual(flavour: str, version: str, subgraph: bool) -> _Draft:
    """What all defaults come to, about which there is nothing to tell: a sweep asks ten thousand times for settings
    that hardly differ from them."""
    draft, changes = _Draft(), _ruled(_ruling(DEFAULTS))
    for name, _, row, handling in _handlings(flavour, version):
        draft.enter(name, _settled(row, DEFAULTS, changes.get(name), handling, "", subgraph))
    return draft.copy()


def _settled(
    row: Field, values: Values, change: _Change | None, handling: Handling, toolchain: str, subgraph: bool
) -> _Draft:
    """What one field comes to; where somebody set it, with what to tell them of ``toolchain``."""
    draft, value = _Draft(), change.value if change else values[row.name]
    if change and change.why and values[row.name] != row.default:
        draft.warnings.append(f"{_shown(row, values[row.name])} {change.why}")
    if not (change and change.vanishes) and not (subgraph and row.stage is Stage.PROGRAM):
        given = row.default not in (value, values[row.name])
        _place(draft, row, value, _or_denied(handling, row, value, values), toolchain if given else None)
    return draft


def _place(draft: _Draft, row: Field, value: Value, handling: Handling, tell: str | None) -> None:
    """Enter one field where its role and the builder's status put it.

    ``tell`` names the toolchain where somebody set the field and is to hear what becomes of it.
    """
    status, plain = handling.status, json_of(value)
    if status is Status.MOOT:
        if tell:
            draft.warnings.append(f"{_shown(row, value)} cannot matter with {tell}: {handling.why}")
        return
    # A refused field of the graph or form is nobody's choice while it has its default: left out, so that a
    # field which a later release adds does not change the keys of builders that cannot use it.
    idle = status is Status.REFUSED and row.role is not Role.ENGINE and value == row.default
    if row.role in _KEYED and not idle:
        draft.key[row.name] = plain
    if status is not Status.INERT and row.role is not Role.WORKFLOW and not idle:
        draft.recipe[row.name] = plain
    if status is Status.HONOURED:
        draft.told[row.name] = plain
    if tell and status is Status.INERT:
        draft.inert.append(row.name)
        draft.warnings.append(f"{_shown(row, value)} has no effect with {tell}: {handling.why}")
    if tell and status is Status.REFUSED:
        draft.refused.append(f"{_shown(row, value)} cannot be honoured by {tell}: {handling.why}")


def _shown(row: Field, value: Value) -> str:
    text = text_of(value)
    return f"{row.name}={text if len(text) <= 60 else text[:57] + '...'}"


def strongly_typed(values: Values) -> bool:
    """Specification: "When enable_autocast=True, use_explicit_typing is automatically set to True"."""
    return bool(values["use_explicit_typing"] or values["enable_autocast"])


def casts(values: Values) -> bool:
    """Specification: "None disables actual casting (no-op even if enable_autocast=True)"."""
    return bool(values["enable_autocast"]) and values["autocast_low_precision_type"] is not None


def on_dla(values: Values) -> bool:
    """Whether the engine is for a DLA, by its capability or by the device."""
    return values["engine_capability"] == "DLA_STANDALONE" or str(values["device"]).startswith("dla")


def _implied(values: Values) -> Iterator[tuple[str, _Change]]:
    """Values that another setting, or the builder's default, decides. No reason: nothing to tell."""
    if values["optimization_level"] is None:
        yield "optimization_level", _Change(DEFAULT_LEVEL, "")
    if strongly_typed(values) and not values["use_explicit_typing"]:
        yield "use_explicit_typing", _Change(True, "gives way: enable_autocast sets it to true")
    if values["enable_autocast"] and not casts(values):
        why = "casts nothing: autocast_low_precision_type is none; set it to float16 or bfloat16"
        yield "enable_autocast", _Change(False, why)
    if not strongly_typed(values):
        yield "enabled_precisions", _Change(_precisions(values) | FLOAT32, "")
    if values["enable_cross_compile_for_windows"]:
        for name in _OFF_FOR_WINDOWS:
            yield name, _Change(False, "is switched off: enable_cross_compile_for_windows does without it")


def _precisions(values: Values) -> frozenset[str]:
    found = values["enabled_precisions"]
    return found if isinstance(found, frozenset) else FLOAT32


def _vanished(values: Values) -> Iterator[tuple[str, _Change]]:
    """Fields that cannot matter beside the others, with the reason to give where one was set."""
    if not casts(values):
        missing = "enable_autocast is off" if not values["enable_autocast"] else "no low-precision type is set"
        yield from _leave_out(_AUTOCAST, f"cannot matter: {missing}")
    if values["immutable_weights"]:
        why = "cannot matter: immutable_weights is true; set it to false to build a refittable engine"
        yield from _leave_out(("refit_identical_engine_weights", "strip_engine_weights"), why)
    if values["tiling_optimization_level"] == "none":
        yield from _leave_out(("l2_limit_for_tiling",), "cannot matter: tiling_optimization_level is none")
    if not values["enable_resource_partitioning"]:
        yield from _leave_out(("cpu_memory_budget",), "cannot matter: enable_resource_partitioning is off")
    if not on_dla(values):
        yield from _leave_out(_DLA_SIZES, "cannot matter: the engine is for no DLA")
    if not str(values["device"]).startswith("dla"):
        yield from _leave_out(("device",), "picks no GPU here: the worker does, and the target says which kind")


def _leave_out(names: tuple[str, ...], why: str) -> Iterator[tuple[str, _Change]]:
    for name in names:
        yield name, _Change(FIELDS[name].default, why, vanishes=True)


def _or_denied(handling: Handling, row: Field, value: Value, values: Values) -> Handling:
    """``handling``, or a refusal where a setting that is honoured as such cannot be beside the others.

    Precisions beside strong typing: Torch-TensorRT 2.9–2.12 raise, and TensorRT itself rejects precision
    flags on a strongly typed network.
    """
    honoured = handling.status is Status.HONOURED
    if not honoured or row.name not in _DENIABLE or not strongly_typed(values):
        return handling
    return refused(
        "use_explicit_typing is true, so precisions come from the model: cast it before exporting, or set "
        "use_explicit_typing=false"
    )


def _need_budget(draft: _Draft) -> None:
    """DESIGN: partitioning needs an explicit ``cpu_memory_budget``; "what is free here" is no key."""
    if draft.told.get("enable_resource_partitioning") and draft.told.get("cpu_memory_budget") is None:
        raise BadSettings(
            "enable_resource_partitioning = true needs a cpu_memory_budget: how the model is cut would "
            "otherwise depend on the memory that happens to be free",
            "set it in bytes, as in cpu_memory_budget=8G",
        )


@dataclass(frozen=True)
class Contradiction:
    """Values that exclude each other once implications are drawn. ``dla`` stands for any DLA core."""

    together: Mapping[str, Value]
    why: str
    hint: str
    source: str

    def holds(self, values: Values) -> bool:
        return all(_is(values, name, wanted) for name, wanted in self.together.items())

    def error(self, values: Values) -> BadSettings:
        shown = " with ".join(_shown(FIELDS[name], values[name]) for name in self.together)
        return BadSettings(f"{shown} is a contradiction: {self.why}", self.hint)


def contradiction(values: Values) -> BadSettings | None:
    """The error for what in ``values`` excludes each other; ``None`` where nothing does."""
    found = _contradicted(tuple([values[name] for name in _CONTRADICTING]))
    return None if found is None else found.error(values)


@lru_cache(maxsize=256)
def _contradicted(some: tuple[Value, ...]) -> Contradiction | None:
    """The first contradiction, told by the fields that any of them is about."""
    values = dict(zip(_CONTRADICTING, some, strict=True))
    return next((entry for entry in CONTRADICTIONS if entry.holds(values)), None)


def _is(values: Values, name: str, wanted: Value) -> bool:
    if name == "use_explicit_typing":
        return strongly_typed(values) is wanted
    if name == "device":
        return str(values["device"]).startswith("dla")
    return values[name] == wanted


CONTRADICTIONS = (
    Contradiction(
        {"use_fp32_acc": True, "use_explicit_typing": False},
        "accumulating in float32 requires strong typing",
        "leave use_explicit_typing at true, or leave use_fp32_acc out",
        'Specification: "Requires use_explicit_typing=True".',
    ),
    Contradiction(
        {"enable_weight_streaming": True, "use_explicit_typing": False},
        "weight streaming requires strong typing",
        "leave use_explicit_typing at true, or leave enable_weight_streaming out",
        "Torch-TensorRT 2.9–2.12 raise for it.",
    ),
    Contradiction(
        {"fallback_data_dependent_ops": True, "require_full_compilation": True},
        "the one leaves operators to PyTorch, the other forbids it",
        "choose one of them",
        "Torch-TensorRT raises for it.",
    ),
    Contradiction(
        {"enable_cross_compile_for_windows": True, "engine_capability": "DLA_STANDALONE"},
        "no Windows machine has a DLA",
        "choose one of them",
        'Specification, of DLA: "only relevant when compiling for Jetson or DRIVE platforms".',
    ),
    Contradiction(
        {"enable_cross_compile_for_windows": True, "device": "dla"},
        "no Windows machine has a DLA",
        "choose one of them",
        'Specification, of DLA: "only relevant when compiling for Jetson or DRIVE platforms".',
    ),
    Contradiction(
        {"engine_capability": "SAFETY", "device": "dla"},
        "SAFETY is for kernels of the GPU",
        "use engine_capability=DLA_STANDALONE for a DLA, or a GPU as device",
        'Specification: "Restrict kernel selection to safe GPU kernels (SAFETY)".',
    ),
)
_CONTRADICTING = tuple(sorted({"enable_autocast", *(name for entry in CONTRADICTIONS for name in entry.together)}))
"""What they are about; strong typing is a matter of autocast, too."""
