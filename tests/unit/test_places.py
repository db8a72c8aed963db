"""Placement's plain facts: what no machine can build, and where things are built and measured."""

from __future__ import annotations

from typing import Any

import pytest

from farm.placement import cpu_place, measured, measuring_places, served, unsupported
from farm.targets import parse_target
from farm.toolchains import exact_toolchain

RTX, PLAIN = exact_toolchain("tensorrt_rtx==1.7.1.116"), exact_toolchain("tensorrt==10.14.1")


@pytest.mark.parametrize(
    ("target", "settings", "words"),
    [
        ("orin", {"device": "dla:0"}, ""),
        ("xavier", {"engine_capability": "DLA_STANDALONE"}, ""),
        ("l4", {"device": "dla:0"}, "l4 has no DLA"),
        ("thor", {"device": "dla:1"}, "thor has no DLA"),
        ("h100", {"engine_capability": "DLA_STANDALONE"}, "h100 has no DLA"),
        ("h100", {"engine_capability": "SAFETY", "device": "cuda:0"}, ""),
        ("orin", {"hardware_compatible": True}, "Jetson and DRIVE"),
        ("gh200", {"hardware_compatible": True}, ""),
        ("l4/windows", {}, ""),
        ("gh200/windows", {}, "for x86-64, and gh200/windows is aarch64"),
        ("sm_90", {}, ""),
    ],
)
def test_what_no_machine_can_build_with_tensorrt(target: str, settings: dict[str, Any], words: str) -> None:
    found = unsupported(PLAIN, parse_target(target).target, settings)
    assert words in found if words else found == ""


def test_what_tensorrt_rtx_does_not_build_for() -> None:
    assert "does not build for sm_90" in unsupported(RTX, parse_target("sm_89+sm_90").target, {})
    assert unsupported(RTX, parse_target("sm_89").target, {}) == ""


def test_a_jetson_builds_no_hardware_compatible_engines() -> None:
    assert served(PLAIN, "aarch64", "orin", 87) == (f"{PLAIN}/orin/aarch64",)
    assert served(PLAIN, "x86_64", "l4", 89) == (f"{PLAIN}/l4/x86_64", f"{PLAIN}/ampere_plus/x86_64")


@pytest.mark.parametrize("target", ["l4", "sm_89", "sm_86+sm_89"])
@pytest.mark.parametrize("toolchain", [RTX, PLAIN])
def test_what_is_to_run_on_a_gpu_is_measured_by_a_node_that_has_it(target: str, toolchain: Any) -> None:
    wanted = measuring_places(str(toolchain), parse_target(target).target)
    assert set(wanted) & set(measured([RTX, PLAIN], "x86_64", "l4", 89))
    assert not set(wanted) & set(measured([RTX, PLAIN], "x86_64", "h100", 90))
    assert not set(wanted) & set(measured([RTX, PLAIN], "aarch64", "l4", 89))
    assert not set(wanted) & set(measured([RTX, PLAIN], "x86_64"))


def test_every_machine_with_torch_measures_on_its_processors() -> None:
    assert measured([RTX], "aarch64") == (cpu_place("aarch64"),)
    assert measuring_places("torch", parse_target("l4/windows").target) == ()
