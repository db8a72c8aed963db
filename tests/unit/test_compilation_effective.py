"""Effective settings: each documented rule, and what each builder does with each field."""

from __future__ import annotations

from typing import Any

import pytest

from farm.compilation import FIELDS, CompilationSettings, Effective, Role, Status, effective, status
from farm.errors import BadInput, BadSettings

RTX, TRT, TORCH = ("tensorrt_rtx", "1.7.1.116"), ("tensorrt", "10.14.1"), ("torch_tensorrt", "2.11.0")
ALL = (RTX, TRT, TORCH)
DIGEST = "b3:" + "a" * 64


def at(toolchain: tuple[str, str], **given: Any) -> Effective:
    return effective(CompilationSettings(**given), flavour=toolchain[0], version=toolchain[1])


def same(toolchain: tuple[str, str], one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two settings are one to a builder: key and recipe alike."""
    a, b = at(toolchain, **one), at(toolchain, **other)
    return a.key == b.key and a.recipe == b.recipe


def warned(found: Effective, name: str) -> str:
    lines = [line for line in found.warnings if line.startswith(f"{name}=")]
    assert len(lines) == 1, found.warnings
    return lines[0]


@pytest.mark.parametrize("toolchain", ALL)
def test_defaults_say_nothing_to_anybody(toolchain: tuple[str, str]) -> None:
    found = at(toolchain)
    assert (found.warnings, found.inert, found.refused) == ((), (), ())


@pytest.mark.parametrize("toolchain", ALL)
def test_no_level_is_level_three(toolchain: tuple[str, str]) -> None:
    assert same(toolchain, {}, {"optimization_level": 3})
    assert at(toolchain).key["optimization_level"] == 3
    assert at(toolchain, optimization_level=2).key != at(toolchain).key


ALWAYS = {
    "enabled_precisions",
    "max_aux_streams",
    "version_compatible",
    "optimization_level",
    "disable_tf32",
    "sparse_weights",
    "engine_capability",
    "hardware_compatible",
    "immutable_weights",
    "enable_weight_streaming",
    "tiling_optimization_level",
    "enable_autocast",
    "decompose_attention",
    "disabled_constant_fold_exclusions",
    "attn_bias_is_causal",
}


def test_the_key_holds_every_engine_setting_that_can_matter_and_what_shapes_the_graph_here() -> None:
    assert set(at(RTX).key) == ALWAYS | {"truncate_double"}
    assert set(at(TRT).key) == ALWAYS | {
        "truncate_double",
        "use_explicit_typing",
        "enable_cross_compile_for_windows",
    }
    assert set(at(TORCH).key) > set(at(TRT).key) | {"min_block_size", "torch_executed_ops", "use_fp32_acc"}


def test_the_recipe_holds_what_the_builder_is_told() -> None:
    inert = {"decompose_attention", "disabled_constant_fold_exclusions", "attn_bias_is_causal"}
    levels = {"optimization_level", "tiling_optimization_level", "max_aux_streams", "sparse_weights"}
    assert set(at(RTX).recipe) == (set(at(RTX).key) | {"workspace_size"}) - inert - levels
    assert set(at(TRT).recipe) == (set(at(TRT).key) | {"workspace_size", "num_avg_timing_iters"}) - inert


def test_autocast_sets_explicit_typing() -> None:
    weak = {"enable_autocast": True, "autocast_low_precision_type": "float16", "use_explicit_typing": False}
    found = at(TORCH, **weak)
    assert found.key["use_explicit_typing"] is True
    assert "enable_autocast" in warned(found, "use_explicit_typing")
    assert same(TORCH, weak, weak | {"use_explicit_typing": True})


AUTOCAST: dict[str, Any] = {
    "autocast_excluded_nodes": [".*norm.*"],
    "autocast_excluded_ops": ["aten.softmax.int"],
    "autocast_max_output_threshold": 1024.0,
    "autocast_max_depth_of_reduction": 4,
    "autocast_calibration_dataloader": DIGEST,
}


@pytest.mark.parametrize("toolchain", ALL)
@pytest.mark.parametrize("off", [{}, {"enable_autocast": True}, {"autocast_low_precision_type": "float16"}])
def test_autocast_s_rules_vanish_where_nothing_is_cast(toolchain: tuple[str, str], off: dict[str, Any]) -> None:
    found = at(toolchain, **off, **AUTOCAST)
    assert not [name for name in (*found.key, *found.recipe, *found.told) if name.startswith("autocast_")]
    assert same(toolchain, off | AUTOCAST, {})
    missing = "no low-precision type is set" if "enable_autocast" in off else "enable_autocast is off"
    assert all(missing in warned(found, name) for name in AUTOCAST)
    assert not found.refused


def test_autocast_without_a_low_precision_is_off() -> None:
    assert at(TORCH, enable_autocast=True).key["enable_autocast"] is False
    assert same(TORCH, {"enable_autocast": True}, {})
    assert same(TORCH, {"enable_autocast": True, "use_explicit_typing": False}, {})
    assert "casts nothing" in warned(at(TORCH, enable_autocast=True), "enable_autocast")


@pytest.mark.parametrize("name", AUTOCAST)
def test_autocast_s_rules_are_keyed_where_it_casts(name: str) -> None:
    on = {"enable_autocast": True, "autocast_low_precision_type": "float16"}
    base, changed = at(TORCH, **on), at(TORCH, **on, **{name: AUTOCAST[name]})
    assert changed.key[name] == AUTOCAST[name]
    assert base.key != changed.key and base.recipe != changed.recipe
    assert at(TORCH, **on).key != at(TORCH, **on | {"autocast_low_precision_type": "bfloat16"}).key


@pytest.mark.parametrize("toolchain", ALL)
@pytest.mark.parametrize("name", ["refit_identical_engine_weights", "strip_engine_weights"])
def test_refit_settings_vanish_with_a_warning_when_weights_are_immutable(toolchain: tuple[str, str], name: str) -> None:
    found = at(toolchain, **{name: True})
    assert name not in found.key | found.recipe
    assert "immutable_weights" in warned(found, name)
    assert same(toolchain, {name: True}, {})
    refittable = {"immutable_weights": False}
    assert at(toolchain, **refittable, **{name: True}).key[name] is True
    assert at(toolchain, **refittable).key[name] is False


@pytest.mark.parametrize("toolchain", ALL)
def test_the_l2_limit_vanishes_without_tiling(toolchain: tuple[str, str]) -> None:
    assert same(toolchain, {"l2_limit_for_tiling": 4096}, {})
    assert "tiling_optimization_level" in warned(at(toolchain, l2_limit_for_tiling=4096), "l2_limit_for_tiling")
    tiled = {"tiling_optimization_level": "fast"}
    assert at(toolchain, **tiled).key != at(toolchain, **tiled, l2_limit_for_tiling=4096).key


@pytest.mark.parametrize("name", ["dla_sram_size", "dla_local_dram_size", "dla_global_dram_size"])
def test_dla_sizes_matter_on_a_dla_only(name: str) -> None:
    for toolchain in ALL:
        assert same(toolchain, {name: 4096}, {})
        assert warned(at(toolchain, **{name: 4096}), name)
    for dla in ({"engine_capability": "DLA_STANDALONE"}, {"device": "dla:0"}):
        assert at(TRT, **dla).key != at(TRT, **dla, **{name: 4096}).key
        assert at(TRT, **dla, **{name: 4096}).told[name] == 4096


@pytest.mark.parametrize("toolchain", ALL)
def test_a_gpu_s_number_is_no_part_of_a_key_but_a_dla_core_is(toolchain: tuple[str, str]) -> None:
    assert same(toolchain, {"device": "cuda:1"}, {})
    assert warned(at(toolchain, device="cuda:0"), "device")
    assert at(toolchain, device="dla:0").key != at(toolchain).key
    assert at(toolchain, device="dla:0").key != at(toolchain, device="dla:1").key


def test_partitioning_needs_a_budget_and_a_budget_needs_partitioning() -> None:
    assert same(TORCH, {"cpu_memory_budget": 2**30}, {})
    assert warned(at(TORCH, cpu_memory_budget=2**30), "cpu_memory_budget")
    with pytest.raises(BadSettings, match="cpu_memory_budget"):
        at(TORCH, enable_resource_partitioning=True)
    on = {"enable_resource_partitioning": True}
    assert at(TORCH, **on, cpu_memory_budget=1).key != at(TORCH, **on, cpu_memory_budget=2).key


def test_cross_compiling_for_windows_switches_off_what_it_does_without() -> None:
    off = {
        "use_python_runtime": True,
        "lazy_engine_init": True,
        "cache_built_engines": True,
        "reuse_cached_engines": True,
    }
    windows = {"enable_cross_compile_for_windows": True}
    found = at(TORCH, **windows, **off)
    assert {name: found.told[name] for name in off} == dict.fromkeys(off, False)
    assert all("enable_cross_compile_for_windows" in warned(found, name) for name in off)
    assert same(TORCH, windows | off, windows)
    assert not same(TORCH, windows, {})


@pytest.mark.parametrize("toolchain", [TRT, TORCH])
def test_weak_typing_always_has_float32(toolchain: tuple[str, str]) -> None:
    weak: dict[str, Any] = {"use_explicit_typing": False}
    half, both = weak | {"enabled_precisions": ["float16"]}, weak | {"enabled_precisions": ["float16", "float32"]}
    assert same(toolchain, half, both) and not same(toolchain, half, weak)
    assert at(toolchain, **half).told["enabled_precisions"] == ["float16", "float32"]
    assert not at(toolchain, **half).refused


@pytest.mark.parametrize("toolchain", ALL)
def test_precisions_beside_strong_typing_cannot_be_built_but_keyed(toolchain: tuple[str, str]) -> None:
    found = at(toolchain, enabled_precisions=["float16", "float32"])
    assert len(found.refused) == 1 and found.refused[0].startswith("enabled_precisions=float16,float32")
    assert found.key["enabled_precisions"] == ["float16", "float32"]
    assert "enabled_precisions" not in found.told


def test_torch_tensorrt_that_dropped_precisions_leaves_them_out() -> None:
    new = ("torch_tensorrt", "2.13.0")
    found = at(new, enabled_precisions=["float16"])
    assert "enabled_precisions" not in found.key and not found.refused
    assert warned(found, "enabled_precisions") and same(new, {"enabled_precisions": ["float16"]}, {})


RTX_INERT: dict[str, Any] = {
    "optimization_level": 5,
    "tiling_optimization_level": "full",
    "max_aux_streams": 2,
    "num_avg_timing_iters": 8,
    "sparse_weights": True,
}


@pytest.mark.parametrize("name", RTX_INERT)
def test_what_tensorrt_rtx_ignores_makes_no_second_build(name: str) -> None:
    found = at(RTX, **{name: RTX_INERT[name]})
    assert found.recipe == at(RTX).recipe and name not in found.recipe and name not in found.told
    assert found.inert == (name,) and "no effect" in warned(found, name)
    assert (found.key != at(RTX).key) is (FIELDS[name].role is Role.ENGINE)
    assert status(name, *RTX) is Status.INERT
    assert status(name, *TRT) is Status.HONOURED
    assert at(TRT, **{name: RTX_INERT[name]}).recipe != at(TRT).recipe


def test_an_unmeasured_major_version_is_not_taken_to_be_inert() -> None:
    assert status("optimization_level", "tensorrt_rtx", "1.4.0.76") is Status.INERT
    assert status("optimization_level", "tensorrt_rtx", "2") is Status.HONOURED
    assert status("optimization_level", "tensorrt_rtx", "2.0.0") is Status.HONOURED
    assert at(("tensorrt_rtx", "2.0"), optimization_level=5).recipe["optimization_level"] == 5


@pytest.mark.parametrize(
    "name", ["disable_tf32", "enable_weight_streaming", "version_compatible", "immutable_weights", "truncate_double"]
)
@pytest.mark.parametrize("toolchain", ALL)
def test_what_every_builder_honours(toolchain: tuple[str, str], name: str) -> None:
    value = not FIELDS[name].default
    found = at(toolchain, **{name: value})
    assert found.told[name] is value and found.key[name] is value and found.recipe[name] is value
    assert not found.warnings and not found.refused
    assert not same(toolchain, {name: value}, {})


REFUSED_ON_RTX: dict[str, Any] = {
    "hardware_compatible": True,
    "engine_capability": "SAFETY",
    "enable_cross_compile_for_windows": True,
    "use_fp32_acc": True,
    "use_explicit_typing": False,
    "torch_executed_ops": ["aten.add.Tensor"],
    "enable_resource_partitioning": True,
    "enable_experimental_decompositions": True,
    "use_complex_decomposition": True,
    "fallback_data_dependent_ops": True,
    "device": "dla:0",
}


@pytest.mark.parametrize("name", REFUSED_ON_RTX)
def test_what_tensorrt_rtx_cannot_do_is_refused_and_still_keyed(name: str) -> None:
    found = at(RTX, **{name: REFUSED_ON_RTX[name]})
    assert len(found.refused) == 1 and found.refused[0].startswith(f"{name}=")
    assert found.key[name] == REFUSED_ON_RTX[name] and found.key != at(RTX).key
    assert found.recipe != at(RTX).recipe and name not in found.told


def test_autocast_is_refused_where_the_model_is_converted_as_it_is() -> None:
    for toolchain in (RTX, TRT):
        found = at(toolchain, enable_autocast=True, autocast_low_precision_type="float16")
        assert [line.partition("=")[0] for line in found.refused] == [
            "enable_autocast",
            "autocast_low_precision_type",
        ]
        assert found.key != at(toolchain).key


MOOT: dict[str, Any] = {
    "min_block_size": 1,
    "require_full_compilation": True,
    "use_fast_partitioner": False,
    "assume_dynamic_shape_support": True,
    "offload_module_to_cpu": True,
    "lazy_engine_init": True,
    "use_distributed_mode_trace": True,
    "dynamically_allocate_resources": True,
    "use_python_runtime": True,
    "pass_through_build_failures": True,
    "cache_built_engines": True,
    "timing_cache_path": "/elsewhere.bin",
}


@pytest.mark.parametrize("toolchain", [RTX, TRT])
@pytest.mark.parametrize("name", MOOT)
def test_what_cannot_matter_to_one_engine_is_left_out_with_a_warning(toolchain: tuple[str, str], name: str) -> None:
    found = at(toolchain, **{name: MOOT[name]})
    assert "cannot matter" in warned(found, name) and not found.refused and not found.inert
    assert same(toolchain, {name: MOOT[name]}, {})
    assert name not in found.key | found.recipe | found.told


@pytest.mark.parametrize("name", ["min_block_size", "use_fast_partitioner", "torch_executed_ops", "use_fp32_acc"])
def test_torch_tensorrt_keys_what_cuts_and_converts_the_graph(name: str) -> None:
    value = (MOOT | REFUSED_ON_RTX)[name]
    assert at(TORCH, **{name: value}).key[name] == value
    assert not same(TORCH, {name: value}, {})


def test_an_engine_of_a_subgraph_leaves_out_what_cutting_has_spent() -> None:
    def sub(**given: Any) -> Effective:
        return effective(CompilationSettings(**given), flavour="torch_tensorrt", version="2.11.0", subgraph=True)

    for name in ("min_block_size", "torch_executed_ops", "enable_experimental_decompositions"):
        assert sub(**{name: (MOOT | REFUSED_ON_RTX)[name]}).key == sub().key
    assert sub(enable_resource_partitioning=True).recipe == sub().recipe
    for name in ("use_fp32_acc", "truncate_double", "assume_dynamic_shape_support", "decompose_attention"):
        assert sub(**{name: True}).key != sub().key


def test_search_settings_are_in_the_recipe_only() -> None:
    for toolchain in ALL:
        found = at(toolchain, workspace_size=2**30)
        assert found.key == at(toolchain).key
        assert found.recipe != at(toolchain).recipe and found.told["workspace_size"] == 2**30


@pytest.mark.parametrize("toolchain", ALL)
def test_workflow_settings_are_in_neither(toolchain: tuple[str, str]) -> None:
    assert same(toolchain, {"debug": True}, {})
    assert at(toolchain, debug=True).told["debug"] is True and not at(toolchain, debug=True).warnings


@pytest.mark.parametrize("toolchain", ALL)
def test_a_dry_run_is_no_build(toolchain: tuple[str, str]) -> None:
    found = at(toolchain, dryrun="/tmp/report.txt")
    assert same(toolchain, {"dryrun": True}, {}) and "dryrun" not in found.told
    assert found.refused[0].startswith("dryrun=/tmp/report.txt")


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("decompose_attention", "2.10.0", Status.REFUSED),
        ("decompose_attention", "2.11.0", Status.HONOURED),
        ("enable_autocast", "2.9.0", Status.REFUSED),
        ("enable_autocast", "2.14.0a0", Status.HONOURED),
        ("fallback_data_dependent_ops", "2.12.1", Status.REFUSED),
        ("fallback_data_dependent_ops", "2.13.0", Status.HONOURED),
        ("use_complex_decomposition", "2.13.0", Status.REFUSED),
        ("use_explicit_typing", "2.12.0+cu130", Status.HONOURED),
        ("use_explicit_typing", "2.13.0", Status.REFUSED),
        ("use_python_runtime", "2.13.0", Status.MOOT),
        ("enabled_precisions", "2.13.0", Status.MOOT),
        ("min_block_size", "2.8", Status.HONOURED),
        ("min_block_size", "3.0", Status.HONOURED),
    ],
)
def test_torch_tensorrt_s_fields_came_and_went(name: str, version: str, expected: Status) -> None:
    assert status(name, "torch_tensorrt", version) is expected


def test_unknown_toolchains_and_fields_are_bad_input() -> None:
    with pytest.raises(BadInput, match="tensorflow"):
        status("debug", "tensorflow", "1.0")
    with pytest.raises(BadInput, match="version"):
        effective(CompilationSettings(), flavour="tensorrt", version="latest")
    with pytest.raises(BadSettings, match="did you mean debug"):
        status("debugg", "tensorrt", "10.14")


def test_a_warning_stays_one_line_however_long_the_value() -> None:
    found = at(RTX, torch_executed_ops=[f"aten.op{number}.Tensor" for number in range(500)])
    assert len(found.refused[0]) < 300 and "\n" not in found.refused[0]
