"""What the configuration is told for a set of settings, per flavour."""

from __future__ import annotations

from typing import Any

import pytest

from farm.builders.steps import READ_ELSEWHERE, RULES, UNSET_WORKSPACE, steps
from farm.errors import BadSettings
from farm.settings.model import Status
from farm.settings.table import FIELDS, status

VERSIONS = {"tensorrt": "10.14.1", "tensorrt_rtx": "1.7.1.116"}


def told(settings: dict[str, Any], flavour: str = "tensorrt", os: str = "linux") -> dict[str, Any]:
    """The steps as ``{kind.name: value}``, the workspace left out."""
    found = {f"{step.kind}.{step.name}": step.value for step in steps(settings, flavour, os)}
    return {name: value for name, value in found.items() if name != "pool.WORKSPACE"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"optimization_level": 5}, {"number.builder_optimization_level": 5}),
        ({"optimization_level": 0}, {"number.builder_optimization_level": 0}),
        ({"optimization_level": None}, {}),
        ({"num_avg_timing_iters": 4}, {"number.avg_timing_iterations": 4}),
        ({"max_aux_streams": 0}, {"number.max_aux_streams": 0}),
        ({"max_aux_streams": None}, {}),
        ({"tiling_optimization_level": "full"}, {"enum.tiling_optimization_level": "FULL"}),
        ({"l2_limit_for_tiling": 1024}, {"number.l2_limit_for_tiling": 1024}),
        ({"l2_limit_for_tiling": -1}, {}),
        ({"sparse_weights": True}, {"flag.SPARSE_WEIGHTS": True}),
        ({"disable_tf32": True}, {"flag.TF32": False}),
        ({"disable_tf32": False}, {"flag.TF32": True}),
        ({"immutable_weights": True}, {}),
        ({"immutable_weights": False}, {"flag.REFIT": True}),
        (
            {"immutable_weights": False, "refit_identical_engine_weights": True, "strip_engine_weights": True},
            {"flag.REFIT_IDENTICAL": True, "flag.STRIP_PLAN": True},
        ),
        ({"immutable_weights": True, "strip_engine_weights": True}, {}),
        ({"enable_weight_streaming": True}, {"flag.WEIGHT_STREAMING": True}),
        ({"version_compatible": True}, {"flag.VERSION_COMPATIBLE": True}),
        ({"hardware_compatible": True}, {"enum.hardware_compatibility_level": "AMPERE_PLUS"}),
        ({"engine_capability": "SAFETY"}, {"enum.engine_capability": "SAFETY"}),
        ({"device": "cuda:1"}, {}),
        (
            {"device": "dla:1", "dla_sram_size": 2**20},
            {
                "enum.default_device_type": "DLA",
                "number.DLA_core": 1,
                "flag.GPU_FALLBACK": True,
                "pool.DLA_MANAGED_SRAM": 2**20,
            },
        ),
        ({"dla_sram_size": 2**20}, {}),
        ({"enabled_precisions": ["float16", "float32"], "use_explicit_typing": True}, {}),
        (
            {"enabled_precisions": ["bfloat16", "float16", "float32", "int8"], "use_explicit_typing": False},
            {"flag.BF16": True, "flag.FP16": True, "flag.INT8": True},
        ),
        ({"enable_cross_compile_for_windows": True}, {"enum.runtime_platform": "WINDOWS_AMD64"}),
    ],
)
def test_each_setting_on_plain_tensorrt(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    assert told(settings) == expected


def test_a_stand_alone_dla_has_no_gpu_to_fall_back_to() -> None:
    assert "flag.GPU_FALLBACK" not in told({"engine_capability": "DLA_STANDALONE", "device": "dla:0"})


def test_a_target_on_windows_is_the_same_as_the_setting() -> None:
    assert told({}, os="windows") == told({"enable_cross_compile_for_windows": True})


@pytest.mark.parametrize(
    ("flavour", "settings", "limit"),
    [
        ("tensorrt_rtx", {}, UNSET_WORKSPACE),
        ("tensorrt_rtx", {"workspace_size": 0}, UNSET_WORKSPACE),
        ("tensorrt_rtx", {"workspace_size": 4096}, 4096),
        ("tensorrt", {"workspace_size": 0}, None),
        ("tensorrt", {"workspace_size": 4096}, 4096),
    ],
)
def test_the_workspace_is_always_said(flavour: str, settings: dict[str, Any], limit: int | None) -> None:
    (step,) = steps(settings, flavour)
    assert (step.kind, step.name, step.value) == ("pool", "WORKSPACE", limit)


def test_a_step_that_says_the_default_is_spare() -> None:
    found = {step.setting: step.spare for step in steps({"disable_tf32": False, "sparse_weights": True}, "tensorrt")}
    assert found == {"disable_tf32": True, "sparse_weights": False, "workspace_size": True}


def test_rtx_leaves_the_lean_runtime_out_of_version_compatible_engines() -> None:
    assert told({"version_compatible": True}, "tensorrt_rtx") == {
        "flag.VERSION_COMPATIBLE": True,
        "flag.EXCLUDE_LEAN_RUNTIME": True,
    }


def test_rtx_is_not_told_what_it_does_not_have_while_it_is_at_its_default() -> None:
    assert told({"hardware_compatible": False, "engine_capability": "STANDARD"}, "tensorrt_rtx") == {}
    assert told({"hardware_compatible": True}, "tensorrt_rtx") != {}


def test_a_setting_that_is_not_known_here_is_refused_unless_it_is_at_its_default() -> None:
    steps({"enable_autocast": False}, "tensorrt")
    with pytest.raises(BadSettings, match="enable_autocast"):
        steps({"enable_autocast": True}, "tensorrt")
    with pytest.raises(BadSettings, match="no_such_setting"):
        steps({"no_such_setting": 1}, "tensorrt")


@pytest.mark.parametrize("flavour", sorted(VERSIONS))
def test_every_setting_that_the_table_calls_honoured_is_known_here(flavour: str) -> None:
    honoured = {name for name in FIELDS if status(name, flavour, VERSIONS[flavour]) is Status.HONOURED}
    assert honoured <= set(RULES) | READ_ELSEWHERE
