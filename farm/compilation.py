"""``CompilationSettings``: Torch-TensorRT's settings, by its names, types and defaults. Pure.

One table (``FIELDS``) holds every field; this module is how settings are written, read and compared.
``effective`` says what they come to with a toolchain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from farm.errors import BadSettings
from farm.settings.effective import DEFAULTS, Effective, contradiction, effective_values
from farm.settings.kinds import Bytes, Value, Wrong, short
from farm.settings.model import Field, Handling, Json, Role, Stage, Status, json_of
from farm.settings.table import FIELDS, SEE_ALL, checked, find_field, not_allowed, status

__all__ = [
    "FIELDS",
    "CompilationSettings",
    "Effective",
    "Field",
    "Handling",
    "Json",
    "Role",
    "Stage",
    "Status",
    "effective",
    "parse_value",
    "status",
]

# Fields that some releases of Torch-TensorRT have although they configure its runtime alone.
_RUNTIME_ONLY = frozenset(
    {"runtime_cache_path", "dynamic_shapes_kernel_specialization_strategy", "cuda_graph_strategy"}
)
# What Torch-TensorRT's settings hold besides: a scratch value of its autocast pass.
_SCRATCH = frozenset({"autocast_intermediate_node_outputs"})


@dataclass(frozen=True, init=False, repr=False)
class CompilationSettings:
    """Checked, immutable settings: keywords by Torch-TensorRT's names, everything else at its default.

    ``BadSettings`` names the field, the value and what is allowed, for an unknown name, a wrong value or a
    contradiction. Data types are torch's names (``float16``), operators qualified ones (``aten.add.Tensor``),
    enums their members' names; torch's and Torch-TensorRT's own objects are accepted for them.
    """

    enabled_precisions: frozenset[str]
    min_block_size: int
    torch_executed_ops: frozenset[str]
    require_full_compilation: bool
    device: str | None
    use_python_runtime: bool | None
    pass_through_build_failures: bool
    optimization_level: int | None
    workspace_size: int
    num_avg_timing_iters: int
    max_aux_streams: int | None
    tiling_optimization_level: str
    l2_limit_for_tiling: int
    sparse_weights: bool
    disable_tf32: bool
    truncate_double: bool
    use_fp32_acc: bool
    use_explicit_typing: bool
    enable_autocast: bool
    autocast_low_precision_type: str | None
    autocast_excluded_nodes: frozenset[str]
    autocast_excluded_ops: frozenset[str]
    autocast_max_output_threshold: float
    autocast_max_depth_of_reduction: int | None
    autocast_calibration_dataloader: str | None
    immutable_weights: bool
    refit_identical_engine_weights: bool
    strip_engine_weights: bool
    enable_weight_streaming: bool
    version_compatible: bool
    hardware_compatible: bool
    engine_capability: str
    enable_cross_compile_for_windows: bool
    enable_resource_partitioning: bool
    cpu_memory_budget: int | None
    offload_module_to_cpu: bool
    dynamically_allocate_resources: bool
    use_fast_partitioner: bool
    assume_dynamic_shape_support: bool
    enable_experimental_decompositions: bool
    use_distributed_mode_trace: bool
    dryrun: bool | str
    lazy_engine_init: bool
    debug: bool
    cache_built_engines: bool
    reuse_cached_engines: bool
    timing_cache_path: str
    dla_sram_size: int
    dla_local_dram_size: int
    dla_global_dram_size: int
    decompose_attention: bool
    attn_bias_is_causal: bool
    use_complex_decomposition: bool
    disabled_constant_fold_exclusions: frozenset[str]
    fallback_data_dependent_ops: bool

    def __init__(self, **given: Any) -> None:
        for name in given:
            if name not in FIELDS:
                find_field(name)  # raises with the nearest names …
                raise BadSettings(f"there is no setting '{name}'", "names are written in snake_case here")
        values = {**DEFAULTS, **{name: checked(FIELDS[name], value) for name, value in given.items()}}
        self.__dict__.update(values)  # as ``object.__setattr__`` would, seventy times
        wrong = contradiction(values)
        if wrong is not None:
            raise wrong

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.given().items())
        return f"CompilationSettings({given})"

    @classmethod
    def from_pairs(cls, pairs: Sequence[str]) -> Self:
        """Read ``NAME=VALUE`` texts, as ``-s`` takes them; names in either case. ``BadSettings``.

        ``none``, ``true`` and ``false`` are read as such, sizes take K, M, G and T (binary), sets are
        ``a,b,c`` or a JSON list. A name given twice must have the same value both times.
        """
        found: dict[str, Value] = {}
        for pair in pairs:
            name, equals, text = pair.partition("=")
            if not equals:
                raise BadSettings(f"'{pair}' sets nothing", "write NAME=VALUE, as in optimization_level=5")
            row = find_field(name)
            value = _read(row, text)
            if found.setdefault(row.name, value) != value:
                raise BadSettings(f"{row.name} is given twice, with different values", "give it once")
        return cls(**found)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Read what YAML, TOML or JSON give: names in either case, sets as lists, sizes also as ``"2G"``.

        ``BadSettings`` as for keywords, and where two spellings of one name disagree.
        """
        found: dict[str, Value] = {}
        for name, given in mapping.items():
            if not isinstance(name, str):
                raise BadSettings(f"{short(name)} is no setting's name", SEE_ALL)
            row = find_field(name)
            value = _read(row, given) if _is_size(row, given) else checked(row, given)
            if found.setdefault(row.name, value) != value:
                raise BadSettings(f"{row.name} is given twice, with different values", "give it once")
        return cls(**found)

    @classmethod
    def from_torch_tensorrt(cls, obj: Any) -> Self:
        """Read a live ``torch_tensorrt`` settings object of any release from 2.9 on; never imports torch.

        Fields that its release lacks have their defaults; fields that only configure the runtime are left
        out. A field that farm does not know is ``BadSettings`` unless it has its own default, because what it
        changes could not be keyed. The number of a GPU is left out: it means nothing on another machine.
        """
        found = dict(_attributes(obj))
        unknown = [name for name, value in found.items() if name not in FIELDS and _matters(obj, name, value)]
        if unknown:
            raise BadSettings(
                f"Torch-TensorRT's settings have {', '.join(sorted(unknown))}, which this farm does not know",
                "leave it at its default, or use a farm that knows this release of Torch-TensorRT",
            )
        known = {name: value for name, value in found.items() if name in FIELDS}
        if str(checked(FIELDS["device"], known.get("device"))).startswith("cuda"):
            del known["device"]
        return cls(**known)

    def given(self) -> Mapping[str, Json]:
        """The fields that differ from their defaults, as canonical JSON values, in the table's order."""
        mine = self.__dict__
        return {
            name: json_of(mine[name])
            for name, default in DEFAULTS.items()
            if mine[name] is not default and mine[name] != default
        }

    def as_mapping(self) -> Mapping[str, Json]:
        """Every field as a canonical JSON value, in the table's order."""
        return {name: json_of(value) for name, value in self._values().items()}

    def replace(self, **changes: Any) -> Self:
        """These settings with ``changes``; ``BadSettings`` as for keywords."""
        return type(self)(**{**self._values(), **changes})

    def _values(self) -> dict[str, Value]:
        return dict(self.__dict__)  # in the table's order: ``__init__`` has set them so, and nothing else may


def parse_value(name: str, text: str) -> Json:
    """One value from the command line's text, as canonical JSON. ``BadSettings`` if it is not allowed."""
    return json_of(_read(find_field(name), text))


def effective(settings: CompilationSettings, *, flavour: str, version: str, subgraph: bool = False) -> Effective:
    """What ``settings`` come to with one toolchain: its key's and recipe's part, and what to tell people.

    ``flavour`` is ``tensorrt``, ``tensorrt_rtx`` (one engine of the whole program, through ONNX) or
    ``torch_tensorrt``, and ``version`` the toolchain's own. ``subgraph=True`` leaves out what lowering and
    partitioning have spent, for an engine of one of Torch-TensorRT's subgraphs. ``BadSettings`` only for
    resource partitioning without a budget, which no key can hold; ``BadInput`` for an unknown flavour.
    """
    return effective_values(settings._values(), flavour=flavour, version=version, subgraph=subgraph)


def _read(row: Field, text: str) -> Value:
    try:
        return row.kind.check(row.kind.read(text.strip()))
    except Wrong as wrong:
        raise not_allowed(row, text, wrong) from None


def _is_size(row: Field, given: object) -> bool:
    """Whether ``given`` is text for a number of bytes: the only numbers that files may write as text."""
    kind = getattr(row.kind, "inner", row.kind)
    return isinstance(kind, Bytes) and isinstance(given, str)


def _attributes(obj: Any) -> Iterator[tuple[str, Any]]:
    names = getattr(obj, "__dataclass_fields__", None) or vars(obj)
    for name in names:
        if name not in _RUNTIME_ONLY | _SCRATCH and not name.startswith("_") and hasattr(obj, name):
            yield name, getattr(obj, name)


def _matters(obj: Any, name: str, value: Any) -> bool:
    """Whether an unknown field was set: it is not what the object's own class gives by default."""
    own = getattr(obj, "__dataclass_fields__", {}).get(name)
    if own is None:
        return True
    made = own.default_factory() if callable(own.default_factory) else own.default
    return bool(value != made)
