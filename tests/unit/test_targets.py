"""Targets: the grammar, the catalogue, and what binds an engine."""

import pytest

from farm.errors import BadTarget
from farm.gpus import GPUS, Gpu, find_gpu
from farm.targets import Target, canonical_target, parse_target
from farm.toolchains import Toolchain, parse_toolchain

RTX = Toolchain("tensorrt_rtx", "1.7.1.116")
TRT = Toolchain("tensorrt", "10.14.1")


@pytest.mark.parametrize(
    ("text", "capabilities", "gpu", "os", "arch"),
    [
        ("sm_89", (89,), None, "linux", "x86_64"),
        ("sm89", (89,), None, "linux", "x86_64"),
        ("8.9", (89,), None, "linux", "x86_64"),
        ("12.0", (120,), None, "linux", "x86_64"),
        ("sm_89+sm_86+sm_89", (86, 89), None, "linux", "x86_64"),
        ("rtx4090", (89,), "rtx4090", "linux", "x86_64"),
        ("RTX 4090", (89,), "rtx4090", "linux", "x86_64"),
        ("NVIDIA GeForce RTX 4090", (89,), "rtx4090", "linux", "x86_64"),
        ("NVIDIA H100 80GB HBM3", (90,), "h100", "linux", "x86_64"),
        ("NVIDIA A100-SXM4-80GB", (80,), "a100", "linux", "x86_64"),
        ("NVIDIA GeForce RTX 3060 12GB", (86,), "rtx3060", "linux", "x86_64"),
        ("NVIDIA RTX 6000 Ada Generation", (89,), "rtx6000ada", "linux", "x86_64"),
        ("NVIDIA L4", (89,), "l4", "linux", "x86_64"),
        ("orin", (87,), "orin", "linux", "aarch64"),
        ("sm_89/windows", (89,), None, "windows", "x86_64"),
        ("sm_89@tensorrt_rtx/windows", (89,), None, "windows", "x86_64"),
        ("sm_87/arm64", (87,), None, "linux", "aarch64"),
        ("rtx4090+a10", (86, 89), None, "linux", "x86_64"),
    ],
)
def test_what_users_write(text: str, capabilities: tuple[int, ...], gpu: str | None, os: str, arch: str) -> None:
    target = parse_target(text).target
    assert target == Target(capabilities, gpu, os, arch)


@pytest.mark.parametrize("name", sorted(GPUS))
def test_every_catalogued_gpu_reads_back(name: str) -> None:
    target = parse_target(name).target
    assert parse_target(str(target)).target == target


@pytest.mark.parametrize("text", ["sm_86+sm_89", "sm_89/windows", "sm_87/aarch64", "orin", "gh200/x86_64"])
def test_canonical_text_reads_back(text: str) -> None:
    target = parse_target(text).target
    assert parse_target(str(target)).target == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sm_",
        "sm_9",
        "sm_999",
        "rtx9999",
        "sm_89/solaris",
        "sm_89+",
        "sm_89@cuda",
        "sm_8９",
        "sm_89@tensorrt_rtx==١.٢",
        "sm_89@tensorrt_rtx==1.07",
        "😀",
    ],
)
def test_nonsense_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadTarget) as caught:
        parse_target(text)
    assert caught.value.hint


def test_toolchain_in_a_target() -> None:
    request = parse_target("sm_89@tensorrt_rtx==1.7.1.116")
    assert request.toolchain == parse_toolchain("tensorrt_rtx==1.7.1.116")
    assert request.toolchain is not None and request.toolchain.exact() == RTX
    assert parse_target("l4@tensorrt").toolchain == parse_toolchain("tensorrt")


def test_local_needs_a_gpu() -> None:
    with pytest.raises(BadTarget, match="no NVIDIA GPU"):
        parse_target("local")
    assert parse_target("local", lambda: Gpu("l4", 89)).target == Target((89,), "l4")


def test_rtx_engines_are_bound_to_capabilities_not_gpus() -> None:
    l4, rtx4090 = parse_target("l4").target, parse_target("rtx4090").target
    assert canonical_target(l4, RTX, False) == canonical_target(rtx4090, RTX, False)
    assert canonical_target(l4, RTX, False) != canonical_target(parse_target("a10").target, RTX, False)
    assert canonical_target(l4, RTX, False) != canonical_target(parse_target("sm_86+sm_89").target, RTX, False)


def test_tensorrt_engines_are_bound_to_the_gpu() -> None:
    l4, rtx4090 = parse_target("l4").target, parse_target("rtx4090").target
    assert canonical_target(l4, TRT, False) != canonical_target(rtx4090, TRT, False)
    with pytest.raises(BadTarget, match="too vague"):
        canonical_target(parse_target("sm_89").target, TRT, False)


def test_hardware_compatible_frees_ampere_and_newer() -> None:
    targets = [parse_target(text).target for text in ("sm_89", "l4", "a100", "sm_120")]
    assert len({str(canonical_target(target, TRT, True)) for target in targets}) == 1
    with pytest.raises(BadTarget, match="older"):
        canonical_target(parse_target("t4").target, TRT, True)


def test_windows_is_another_target() -> None:
    linux, windows = parse_target("sm_89").target, parse_target("sm_89/windows").target
    assert canonical_target(linux, RTX, False) != canonical_target(windows, RTX, False)


def test_unknown_gpu_has_suggestions() -> None:
    with pytest.raises(BadTarget) as caught:
        parse_target("rtx409")
    assert "rtx4090" in caught.value.hint
    assert find_gpu("nothing of the kind") is None
