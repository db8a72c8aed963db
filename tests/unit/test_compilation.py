"""Settings as they are written and read: keywords, NAME=VALUE, files, live Torch-TensorRT objects."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
import types
import typing

import pytest

from farm.compilation import FIELDS, CompilationSettings, Role, parse_value
from farm.errors import BadSettings

DIGEST = "sha256:" + "0" * 64

# The specification's page, in its order, with its defaults.
SPECIFIED = {
    "enabled_precisions": ["float32"],
    "min_block_size": 5,
    "torch_executed_ops": [],
    "require_full_compilation": False,
    "device": None,
    "use_python_runtime": False,
    "pass_through_build_failures": False,
    "optimization_level": None,
    "workspace_size": 0,
    "num_avg_timing_iters": 1,
    "max_aux_streams": None,
    "tiling_optimization_level": "none",
    "l2_limit_for_tiling": -1,
    "sparse_weights": False,
    "disable_tf32": False,
    "truncate_double": False,
    "use_fp32_acc": False,
    "use_explicit_typing": True,
    "enable_autocast": False,
    "autocast_low_precision_type": None,
    "autocast_excluded_nodes": [],
    "autocast_excluded_ops": [],
    "autocast_max_output_threshold": 512.0,
    "autocast_max_depth_of_reduction": None,
    "autocast_calibration_dataloader": None,
    "immutable_weights": True,
    "refit_identical_engine_weights": False,
    "strip_engine_weights": False,
    "enable_weight_streaming": False,
    "version_compatible": False,
    "hardware_compatible": False,
    "engine_capability": "STANDARD",
    "enable_cross_compile_for_windows": False,
    "enable_resource_partitioning": False,
    "cpu_memory_budget": None,
    "offload_module_to_cpu": False,
    "dynamically_allocate_resources": False,
    "use_fast_partitioner": True,
    "assume_dynamic_shape_support": False,
    "enable_experimental_decompositions": False,
    "use_distributed_mode_trace": False,
    "dryrun": False,
    "lazy_engine_init": False,
    "debug": False,
    "cache_built_engines": False,
    "reuse_cached_engines": False,
    "timing_cache_path": "/tmp/torch_tensorrt_engine_cache/timing_cache.bin",
    "dla_sram_size": 2**20,
    "dla_local_dram_size": 2**30,
    "dla_global_dram_size": 2**29,
}
NEWER = {
    "decompose_attention": False,
    "attn_bias_is_causal": True,
    "use_complex_decomposition": False,
    "disabled_constant_fold_exclusions": [],
    "fallback_data_dependent_ops": False,
}
ENGINE_INVARIANT = [
    "enabled_precisions",
    "max_aux_streams",
    "version_compatible",
    "optimization_level",
    "disable_tf32",
    "sparse_weights",
    "engine_capability",
    "hardware_compatible",
    "refit_identical_engine_weights",
    "immutable_weights",
    "enable_weight_streaming",
    "tiling_optimization_level",
    "l2_limit_for_tiling",
    "enable_autocast",
    "autocast_low_precision_type",
    "autocast_excluded_nodes",
    "autocast_excluded_ops",
    "autocast_max_output_threshold",
    "autocast_max_depth_of_reduction",
    "autocast_calibration_dataloader",
    "decompose_attention",
    "disabled_constant_fold_exclusions",
    "attn_bias_is_causal",
]


def test_the_table_has_the_specification_s_fields_in_order_with_its_defaults() -> None:
    assert list(FIELDS) == [*SPECIFIED, *NEWER]
    found = CompilationSettings().as_mapping()
    assert list(found) == list(FIELDS)
    assert found == SPECIFIED | NEWER
    assert all(type(found[name]) is type(value) for name, value in (SPECIFIED | NEWER).items())


def test_the_engine_role_is_the_engine_invariant_list() -> None:
    assert {name for name, row in FIELDS.items() if row.role is Role.ENGINE} == set(ENGINE_INVARIANT)


def test_the_class_declares_the_fields_of_the_table() -> None:
    assert [field.name for field in dataclasses.fields(CompilationSettings)] == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_declared_types_admit_the_defaults(name: str) -> None:
    declared = typing.get_type_hints(CompilationSettings)[name]
    members = typing.get_args(declared) if typing.get_origin(declared) is not frozenset else ()
    allowed = {typing.get_origin(kind) or kind for kind in members or (declared,)}
    assert type(getattr(CompilationSettings(), name)) in allowed


@pytest.mark.parametrize("name", FIELDS)
def test_every_row_says_what_people_need(name: str) -> None:
    row = FIELDS[name]
    assert row.description.endswith(".") and len(row.description) <= 110 and "\n" not in row.description
    assert row.rule and row.source and row.type and row.allowed and row.group
    for handling in (row.tensorrt, row.tensorrt_rtx, row.torch_tensorrt, row.dropped):
        assert handling.status == "honoured" or handling.why


def test_settings_are_frozen_comparable_and_show_what_was_given() -> None:
    settings = CompilationSettings(optimization_level=4, torch_executed_ops={"aten.add.Tensor"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.optimization_level = 5  # type: ignore[misc]
    assert settings == CompilationSettings(torch_executed_ops=["aten::add.Tensor"], optimization_level=4)
    assert len({settings, settings.replace(), settings.replace(debug=True)}) == 2
    assert repr(settings) == ("CompilationSettings(torch_executed_ops=['aten.add.Tensor'], optimization_level=4)")


def test_replace_keeps_the_rest_and_checks() -> None:
    settings = CompilationSettings(optimization_level=4, debug=True)
    assert settings.replace(debug=False).given() == {"optimization_level": 4}
    assert settings.given() == {"optimization_level": 4, "debug": True}
    with pytest.raises(BadSettings, match="optimization_level"):
        settings.replace(optimization_level=6)


WRONG = [
    ("optimization_level", 6),
    ("optimization_level", -1),
    ("optimization_level", True),
    ("optimization_level", 3.0),
    ("optimization_level", "3"),
    ("debug", 1),
    ("debug", "true"),
    ("debug", None),
    ("workspace_size", -1),
    ("workspace_size", 2**63),
    ("workspace_size", None),
    ("num_avg_timing_iters", 0),
    ("max_aux_streams", -1),
    ("min_block_size", 0),
    ("tiling_optimization_level", "max"),
    ("tiling_optimization_level", None),
    ("l2_limit_for_tiling", -2),
    ("enabled_precisions", {"float64"}),
    ("enabled_precisions", "float16"),
    ("enabled_precisions", [16]),
    ("torch_executed_ops", ["add"]),
    ("torch_executed_ops", ["aten.add tensor"]),
    ("torch_executed_ops", {"aten.add.Tensor": 1}),
    ("autocast_low_precision_type", "int8"),
    ("autocast_low_precision_type", "float32"),
    ("autocast_excluded_nodes", ["("]),
    ("autocast_excluded_nodes", [3]),
    ("autocast_max_output_threshold", float("nan")),
    ("autocast_max_output_threshold", float("inf")),
    ("autocast_max_output_threshold", -1.0),
    ("autocast_max_output_threshold", True),
    ("autocast_max_output_threshold", 10**400),
    ("autocast_max_depth_of_reduction", -1),
    ("autocast_calibration_dataloader", NotImplemented),
    ("autocast_calibration_dataloader", "sha256:short"),
    ("engine_capability", "FAST"),
    ("engine_capability", 0),
    ("cpu_memory_budget", 0),
    ("dla_sram_size", 0),
    ("device", "cpu"),
    ("device", "dla"),
    ("device", 0),
    ("dryrun", ""),
    ("dryrun", None),
    ("timing_cache_path", ""),
    ("disabled_constant_fold_exclusions", [""]),
    ("optimization_level", 10**5000),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: repr(value)[:30] if value != 10**5000 else "huge")
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: object) -> None:
    with pytest.raises(BadSettings) as caught:
        CompilationSettings(**{name: value})
    assert caught.value.message.startswith(f"{name} = ")
    assert FIELDS[name].allowed in caught.value.message
    assert "\n" not in caught.value.message and caught.value.hint
    assert caught.value.exit_code == 2


def test_the_message_for_a_wrong_value_reads_well() -> None:
    with pytest.raises(BadSettings) as caught:
        CompilationSettings(optimization_level=9)
    assert caught.value.message == "optimization_level = 9: it must be an integer from 0 to 5, or none"
    with pytest.raises(BadSettings, match=r"'a\(' is no regular expression"):
        CompilationSettings(autocast_excluded_nodes=["ok", "a("])


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optimisation_level", "optimization_level"),
        ("optimization_lvl", "optimization_level"),
        ("min_blocksize", "min_block_size"),
        ("enabled_precision", "enabled_precisions"),
        ("DEBUG", "debug"),
    ],
)
def test_an_unknown_name_brings_the_nearest_one(name: str, meant: str) -> None:
    by_keyword, by_pair = {name: 1}, [f"{name}=1"]
    for read in (
        lambda: CompilationSettings(**by_keyword),
        lambda: CompilationSettings.from_mapping(by_keyword),
        lambda: CompilationSettings.from_pairs(by_pair),
    ):
        with pytest.raises(BadSettings, match=f"no setting '{name}'; did you mean .*{meant}"):
            read()


def test_keywords_are_snake_case_only() -> None:
    with pytest.raises(BadSettings, match="snake_case"):
        CompilationSettings(**{"optimization-level": 3})


CONTRADICTIONS = [
    ({"use_fp32_acc": True, "use_explicit_typing": False}, "strong typing"),
    ({"enable_weight_streaming": True, "use_explicit_typing": False}, "strong typing"),
    ({"fallback_data_dependent_ops": True, "require_full_compilation": True}, "PyTorch"),
    ({"enable_cross_compile_for_windows": True, "engine_capability": "DLA_STANDALONE"}, "Windows"),
    ({"enable_cross_compile_for_windows": True, "device": "dla:0"}, "Windows"),
    ({"engine_capability": "SAFETY", "device": "dla:1"}, "SAFETY"),
]


@pytest.mark.parametrize(("together", "why"), CONTRADICTIONS)
def test_contradictions_name_both_settings(together: dict[str, object], why: str) -> None:
    with pytest.raises(BadSettings, match=f"contradiction.*{why}") as caught:
        CompilationSettings(**together)
    assert all(name in caught.value.message for name in together)
    for left_out in together:
        CompilationSettings(**{name: value for name, value in together.items() if name != left_out})


def test_autocast_lifts_a_contradiction_because_it_sets_explicit_typing() -> None:
    settings = CompilationSettings(use_fp32_acc=True, use_explicit_typing=False, enable_autocast=True)
    assert settings.use_fp32_acc


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("optimization_level=5", 5),
        ("optimization-level=5", 5),
        ("optimization_level=none", None),
        ("optimization_level=NULL", None),
        ("workspace_size=2G", 2**31),
        ("workspace_size=512m", 2**29),
        ("workspace_size=1.5K", 1536),
        ("workspace_size=16MiB", 2**24),
        ("workspace_size=4096", 4096),
        ("cpu_memory_budget=8G", 2**33),
        ("l2_limit_for_tiling=-1", -1),
        ("l2_limit_for_tiling=256K", 2**18),
        ("tiling_optimization_level=none", "none"),
        ("tiling_optimization_level=Full", "full"),
        ("debug=true", True),
        ("debug=off", False),
        ("use_python_runtime=none", None),
        ("dryrun=true", True),
        ("dryrun=/tmp/report=1.txt", "/tmp/report=1.txt"),
        ("enabled_precisions=half,fp32,torch.int8", ["float16", "float32", "int8"]),
        ("enabled_precisions=none", ["float32"]),
        ("torch_executed_ops=torch.ops.aten.add.Tensor, aten::mul", ["aten.add.Tensor", "aten.mul"]),
        ("torch_executed_ops=", []),
        ("torch_executed_ops=[]", []),
        ("autocast_excluded_nodes=.*norm.*,x{1,2}", [".*norm.*", "x{1,2}"]),
        ('autocast_excluded_nodes=["a,b","c"]', ["a,b", "c"]),
        ("autocast_excluded_nodes=[ab]_norm", ["[ab]_norm"]),
        ("autocast_low_precision_type=bf16", "bfloat16"),
        ("autocast_max_output_threshold=1e3", 1000.0),
        ("autocast_max_output_threshold=-0.0", 0.0),
        ("autocast_max_depth_of_reduction=none", None),
        (f"autocast_calibration_dataloader={DIGEST}", DIGEST),
        ("engine_capability=safety", "SAFETY"),
        ("device=gpu:1", "cuda:1"),
        ("device=cuda", None),
        ("device=DLA:0", "dla:0"),
    ],
)
def test_pairs(pair: str, value: object) -> None:
    name = pair.partition("=")[0].replace("-", "_")
    found = CompilationSettings.from_pairs([pair]).as_mapping()[name]
    assert found == value and type(found) is type(value)
    assert parse_value(pair.partition("=")[0], pair.partition("=")[2]) == value


@pytest.mark.parametrize(
    "pair",
    [
        "optimization_level",
        "optimization_level=",
        "optimization_level=3K",
        "optimization_level=2.5",
        "workspace_size=2X",
        "workspace_size=0.3",
        "workspace_size=-2G",
        "debug=maybe",
        "tiling_optimization_level=null",
        "torch_executed_ops=a,,b",
        "autocast_excluded_nodes=(",
        "autocast_max_output_threshold=nan",
        "timing_cache_path=",
        "=3",
        "workspace_size=" + "9" * 5000,
    ],
)
def test_pairs_that_say_nothing_usable(pair: str) -> None:
    with pytest.raises(BadSettings):
        CompilationSettings.from_pairs([pair])


def test_a_pair_may_be_repeated_but_not_contradicted() -> None:
    same = CompilationSettings.from_pairs(["workspace_size=1G", "workspace-size=1024M"])
    assert same.workspace_size == 2**30
    with pytest.raises(BadSettings, match="given twice"):
        CompilationSettings.from_pairs(["debug=true", "debug=false"])
    with pytest.raises(BadSettings, match="given twice"):
        CompilationSettings.from_mapping({"min-block-size": 3, "min_block_size": 4})


def test_mappings_take_what_files_give() -> None:
    settings = CompilationSettings.from_mapping(
        {"workspace_size": "2G", "min-block-size": 1, "torch_executed_ops": ["aten.add.Tensor"], "dryrun": "r.txt"}
    )
    assert settings.given() == {
        "min_block_size": 1,
        "torch_executed_ops": ["aten.add.Tensor"],
        "workspace_size": 2**31,
        "dryrun": "r.txt",
    }


@pytest.mark.parametrize(
    "mapping",
    [{"optimization_level": "3"}, {"debug": "true"}, {"workspace_size": "lots"}, {3: 4}, {"debug": None}],
)
def test_mappings_are_strict_about_types(mapping: dict[str, object]) -> None:
    with pytest.raises(BadSettings):
        CompilationSettings.from_mapping(mapping)


class FakeDtype(enum.Enum):
    f16 = enum.auto()
    f32 = enum.auto()


class FakeCapability(enum.Enum):
    STANDARD = enum.auto()
    DLA_STANDALONE = enum.auto()


class FakeOverload:
    """Writes itself as ``torch.ops`` overloads do."""

    def __str__(self) -> str:
        return "aten.softmax.int"


class FakeHigherOrder:
    namespace, _name = "higher_order", "cond"

    def __str__(self) -> str:
        return "cond"


@dataclasses.dataclass
class FakeDevice:
    device_type: object
    gpu_id: int = 0
    dla_core: int = -1
    allow_gpu_fallback: bool = False


class FakeDeviceType(enum.Enum):
    GPU = enum.auto()
    DLA = enum.auto()


@dataclasses.dataclass
class Live211:
    """The fields of a release that still had precisions, cut down."""

    enabled_precisions: set[FakeDtype] = dataclasses.field(default_factory=lambda: {FakeDtype.f32})
    optimization_level: int | None = None
    torch_executed_ops: set[object] = dataclasses.field(default_factory=set)
    engine_capability: FakeCapability = FakeCapability.STANDARD
    device: FakeDevice = dataclasses.field(default_factory=lambda: FakeDevice(FakeDeviceType.GPU, 3))
    use_explicit_typing: bool = True
    autocast_max_output_threshold: float = 512
    autocast_calibration_dataloader: object = None
    runtime_cache_path: str = "/anywhere"
    brand_new: int = 7


def test_a_live_object_of_defaults_is_the_default() -> None:
    assert CompilationSettings.from_torch_tensorrt(Live211()) == CompilationSettings()


def test_a_live_object_brings_its_own_kinds_of_value() -> None:
    live = Live211(
        enabled_precisions={FakeDtype.f16, FakeDtype.f32},
        torch_executed_ops={FakeOverload(), FakeHigherOrder(), "torch.ops.aten.mul.Tensor", sys.getsizeof},
        engine_capability=FakeCapability.DLA_STANDALONE,
        device=FakeDevice(FakeDeviceType.DLA, 0, 1),
        use_explicit_typing=False,
    )
    assert CompilationSettings.from_torch_tensorrt(live).given() == {
        "enabled_precisions": ["float16", "float32"],
        "torch_executed_ops": ["aten.mul.Tensor", "aten.softmax.int", "higher_order.cond", "sys.getsizeof"],
        "device": "dla:1",
        "use_explicit_typing": False,
        "engine_capability": "DLA_STANDALONE",
    }


def test_a_live_object_with_a_setting_that_farm_cannot_key_is_refused() -> None:
    with pytest.raises(BadSettings, match="brand_new"):
        CompilationSettings.from_torch_tensorrt(Live211(brand_new=8))


def test_what_only_configures_the_runtime_is_left_out_of_a_live_object() -> None:
    live = Live211(runtime_cache_path="/somewhere/else", optimization_level=2)
    live._private = 1  # type: ignore[attr-defined]
    assert CompilationSettings.from_torch_tensorrt(live).given() == {"optimization_level": 2}


def test_an_object_without_declared_fields_is_read_by_its_attributes() -> None:
    live = types.SimpleNamespace(optimization_level=2, autocast_intermediate_node_outputs={}, _cache=3)
    assert CompilationSettings.from_torch_tensorrt(live).given() == {"optimization_level": 2}
    with pytest.raises(BadSettings, match="brand_new"):
        CompilationSettings.from_torch_tensorrt(types.SimpleNamespace(brand_new=7))
    with pytest.raises(BadSettings, match="device = "):
        CompilationSettings.from_torch_tensorrt(types.SimpleNamespace(device="cpu"))


def test_calibration_data_needs_a_declared_digest() -> None:
    class Loader:
        farm_digest = DIGEST

    live = CompilationSettings.from_torch_tensorrt(Live211(autocast_calibration_dataloader=Loader()))
    assert live.autocast_calibration_dataloader == DIGEST
    with pytest.raises(BadSettings, match="declare a digest"):
        CompilationSettings.from_torch_tensorrt(Live211(autocast_calibration_dataloader=[1, 2]))


@pytest.mark.torch
def test_torch_s_own_objects_are_recognised() -> None:
    torch = pytest.importorskip("torch")
    import operator

    settings = CompilationSettings(
        use_explicit_typing=False,
        enabled_precisions={torch.float16, torch.float8_e4m3fn},
        torch_executed_ops={torch.ops.aten.add.Tensor, torch.ops.aten.relu, operator.getitem},
        autocast_excluded_ops={torch.ops.aten.softmax.int, torch.ops.higher_order.cond},
        autocast_low_precision_type=torch.bfloat16,
        device=torch.device("cuda:1"),
    )
    assert settings.given() == {
        "enabled_precisions": ["float16", "float8_e4m3fn"],
        "torch_executed_ops": ["_operator.getitem", "aten.add.Tensor", "aten.relu"],
        "device": "cuda:1",
        "use_explicit_typing": False,
        "autocast_low_precision_type": "bfloat16",
        "autocast_excluded_ops": ["aten.softmax.int", "higher_order.cond"],
    }


def test_importing_the_settings_imports_nothing_heavy() -> None:
    heavy = "('torch', 'tensorrt', 'pydantic', 'difflib')"
    code = f"import sys, farm.compilation; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
