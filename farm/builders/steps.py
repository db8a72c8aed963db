"""What to tell TensorRT's builder configuration for a set of settings. Pure.

One table serves both flavours. A *step* is one thing to set, and to read back, in the terms of
``IBuilderConfig``: a number, an enum's member, a flag, or a memory pool's limit. A setting that is absent was
found inert or moot before (``compilation.Effective.told``) and leaves no step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from farm.errors import BadSettings
from farm.settings.model import json_of
from farm.settings.table import FIELDS

RTX = "tensorrt_rtx"
UNSET_WORKSPACE = 64 * 2**30
"""What ``workspace_size=0`` (unset, by the specification) becomes on TensorRT-RTX, in bytes: its own default,
said aloud because a build with 0 fails (reference, "Permanent failures")."""

Told: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One thing to tell the configuration.

    ``kind`` is ``number``, ``enum``, ``flag`` or ``pool``; ``name`` the attribute's, flag's or pool's name;
    ``value`` an int, a member's name or a bool, or None to leave it alone and record what it is; ``setting``
    is the name of the setting that it serves, for messages; ``type`` is the enum's class. A step that is
    ``spare`` says what the setting's default says: a version of TensorRT that has no such thing needs none.
    """

    setting: str
    kind: str
    name: str
    value: int | str | bool | None
    type: str = ""
    spare: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


Rule: TypeAlias = Callable[[Any, Told, str], Iterator[Step]]
"""A setting's value, all settings, and the flavour; gives the steps."""


def _number(setting: str, attribute: str, unset: int | None = None) -> Rule:
    """A setting that is one integer of the configuration; ``None`` and ``unset`` leave TensorRT's default."""

    def rule(value: Any, told: Told, flavour: str) -> Iterator[Step]:
        if value is not None and value != unset:
            yield Step(setting, "number", attribute, int(value))

    return rule


def _flag(setting: str, flag: str, inverted: bool = False) -> Rule:
    def rule(value: Any, told: Told, flavour: str) -> Iterator[Step]:
        yield Step(setting, "flag", flag, bool(value) != inverted)

    return rule


def _enum(setting: str, attribute: str, type_: str, members: Mapping[Any, str]) -> Rule:
    def rule(value: Any, told: Told, flavour: str) -> Iterator[Step]:
        yield Step(setting, "enum", attribute, members[value], type_)

    return rule


def _workspace(value: Any, told: Told, flavour: str) -> Iterator[Step]:
    """0 is unset: said aloud on RTX, left to TensorRT (all of the GPU's memory) elsewhere, and recorded."""
    limit = int(value) or (UNSET_WORKSPACE if flavour == RTX else None)
    yield Step("workspace_size", "pool", "WORKSPACE", limit)


def _version_compatible(value: Any, told: Told, flavour: str) -> Iterator[Step]:
    """TensorRT-RTX has no lean runtime to put into the engine and fails unless it is left out."""
    yield Step("version_compatible", "flag", "VERSION_COMPATIBLE", bool(value))
    if value and flavour == RTX:
        yield Step("version_compatible", "flag", "EXCLUDE_LEAN_RUNTIME", True)


def _refit(value: Any, told: Told, flavour: str) -> Iterator[Step]:
    """``immutable_weights=False`` makes an engine refittable; the two other weight settings depend on it."""
    if value:
        return
    identical = bool(told.get("refit_identical_engine_weights", False))
    setting = "refit_identical_engine_weights" if identical else "immutable_weights"
    yield Step(setting, "flag", "REFIT_IDENTICAL" if identical else "REFIT", True)
    if told.get("strip_engine_weights", False):
        yield Step("strip_engine_weights", "flag", "STRIP_PLAN", True)


_PRECISION_FLAGS = {"float16": "FP16", "bfloat16": "BF16", "int8": "INT8", "float8_e4m3fn": "FP8"}


def _precisions(value: Any, told: Told, flavour: str) -> Iterator[Step]:
    """Precisions that a weakly typed network may use; in a strongly typed one they mean nothing."""
    if told.get("use_explicit_typing", True):
        return
    for precision in sorted(value):
        if precision in _PRECISION_FLAGS:
            yield Step("enabled_precisions", "flag", _PRECISION_FLAGS[precision], True)


def _device(value: Any, told: Told, flavour: str) -> Iterator[Step]:
    """A DLA core, with the GPU for what it cannot do, unless the engine must stand alone on it.

    A GPU's number picks a GPU of this machine; the worker has done so by the environment.
    """
    kind, _, number = str(value).partition(":")
    if kind != "dla":
        return
    yield Step("device", "enum", "default_device_type", "DLA", "DeviceType")
    yield Step("device", "number", "DLA_core", int(number))
    if told.get("engine_capability", "STANDARD") == "STANDARD":
        yield Step("device", "flag", "GPU_FALLBACK", True)


def _dla_pool(setting: str, pool: str) -> Rule:
    def rule(value: Any, told: Told, flavour: str) -> Iterator[Step]:
        if on_dla(told):
            yield Step(setting, "pool", pool, int(value))

    return rule


def on_dla(told: Told) -> bool:
    return told.get("engine_capability") == "DLA_STANDALONE" or str(told.get("device")).startswith("dla:")


_TILING = {"none": "NONE", "fast": "FAST", "moderate": "MODERATE", "full": "FULL"}
_CAPABILITY = {"STANDARD": "STANDARD", "SAFETY": "SAFETY", "DLA_STANDALONE": "DLA_STANDALONE"}
_HARDWARE = {False: "NONE", True: "AMPERE_PLUS"}

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "optimization_level": _number("optimization_level", "builder_optimization_level"),
        "workspace_size": _workspace,
        "num_avg_timing_iters": _number("num_avg_timing_iters", "avg_timing_iterations"),
        "max_aux_streams": _number("max_aux_streams", "max_aux_streams"),
        "tiling_optimization_level": _enum(
            "tiling_optimization_level", "tiling_optimization_level", "TilingOptimizationLevel", _TILING
        ),
        "l2_limit_for_tiling": _number("l2_limit_for_tiling", "l2_limit_for_tiling", unset=-1),
        "sparse_weights": _flag("sparse_weights", "SPARSE_WEIGHTS"),
        "disable_tf32": _flag("disable_tf32", "TF32", inverted=True),
        "enabled_precisions": _precisions,
        "immutable_weights": _refit,
        "enable_weight_streaming": _flag("enable_weight_streaming", "WEIGHT_STREAMING"),
        "version_compatible": _version_compatible,
        "hardware_compatible": _enum(
            "hardware_compatible", "hardware_compatibility_level", "HardwareCompatibilityLevel", _HARDWARE
        ),
        "engine_capability": _enum("engine_capability", "engine_capability", "EngineCapability", _CAPABILITY),
        "device": _device,
        "dla_sram_size": _dla_pool("dla_sram_size", "DLA_MANAGED_SRAM"),
        "dla_local_dram_size": _dla_pool("dla_local_dram_size", "DLA_LOCAL_DRAM"),
        "dla_global_dram_size": _dla_pool("dla_global_dram_size", "DLA_GLOBAL_DRAM"),
    }
)
"""Setting → rule. Steps are told in this order: TensorRT checks some settings against earlier ones."""

READ_ELSEWHERE = frozenset(
    {
        "refit_identical_engine_weights",
        "strip_engine_weights",
        "use_explicit_typing",
        "truncate_double",
        "debug",
        "enable_cross_compile_for_windows",
    }
)
"""Settings that another setting's rule, or the job's other parts, take care of."""

UNSAID = frozenset({"hardware_compatible", "engine_capability"})
"""Settings that TensorRT-RTX does not have: asking for their defaults only earns a warning in its log."""


def steps(told: Told, flavour: str, os: str = "linux") -> tuple[Step, ...]:
    """What to tell the configuration for ``told``, in order. ``os`` is the target's.

    ``BadSettings`` for a setting that this builder knows no way to honour and that is not at its default: it
    is never dropped in silence. The workspace is always said, also where the settings leave it out.
    """
    _refuse_unknown(told)
    full = {"workspace_size": 0, **told}
    found: list[Step] = []
    for setting, rule in RULES.items():
        if setting in full and not (flavour == RTX and setting in UNSAID and _at_default(setting, full)):
            spare = _at_default(setting, full)
            found.extend(replace(step, spare=spare) for step in rule(full[setting], full, flavour))
    if os == "windows" or told.get("enable_cross_compile_for_windows", False):
        setting = "enable_cross_compile_for_windows"
        found.append(Step(setting, "enum", "runtime_platform", "WINDOWS_AMD64", "RuntimePlatform"))
    return tuple(found)


TIMING_FLAGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "share": (),
        "off": (),
        "editable": ("EDITABLE_TIMING_CACHE",),
        # The three together: TensorRT must time nothing anew, and nothing that was compiled before may hide a miss.
        "strict": ("EDITABLE_TIMING_CACHE", "DISABLE_COMPILATION_CACHE", "ERROR_ON_TIMING_CACHE_MISS"),
    }
)
"""``FARM_TIMING`` → the builder's flags."""


def timing_steps(mode: str) -> tuple[Step, ...]:
    return tuple(Step("FARM_TIMING", "flag", flag, True) for flag in TIMING_FLAGS[mode])


def _refuse_unknown(told: Told) -> None:
    for setting, value in told.items():
        if setting in RULES or setting in READ_ELSEWHERE or _at_default(setting, told):
            continue
        raise BadSettings(
            f"{setting}={value!r} cannot be honoured by the tensorrt builder",
            "leave it at its default, or build with torch_tensorrt",
        )


def _at_default(setting: str, told: Told) -> bool:
    return setting in FIELDS and told[setting] == json_of(FIELDS[setting].default)
