"""Torch-TensorRT as a toolchain: it has a name, engines and limits of the TensorRT under it."""

from __future__ import annotations

import pytest

from farm.errors import BadTarget
from farm.identify import Identifier
from farm.placement import ignored, measured, served, unsupported
from farm.targets import Target
from farm.toolchains import Toolchain, exact_toolchain, parse_toolchain

RTX = exact_toolchain("torch_tensorrt==2.13.0+rtx1.7.1.116")
TRT = exact_toolchain("torch_tensorrt==2.11.0+cu12.trt10.14.1.48")


def test_what_is_under_it_is_part_of_its_name() -> None:
    assert (str(RTX), RTX.over, RTX.device_bound) == ("torch_tensorrt==2.13.0+rtx1.7.1.116", "rtx1.7.1.116", False)
    assert (TRT.cuda, TRT.over, TRT.device_bound, exact_toolchain(str(TRT))) == (12, "trt10.14.1.48", True, TRT)
    assert RTX.canonical() != exact_toolchain("torch_tensorrt==2.13.0").canonical()
    assert "over" not in exact_toolchain("tensorrt==10.14.1").canonical()


@pytest.mark.parametrize(
    "text",
    [
        "torch_tensorrt==2.13.0+",
        "torch_tensorrt==2.13.0+cu12.",
        "torch_tensorrt==2.13.0+cu12rtx1.7",
        "torch_tensorrt==2.13.0+.rtx1.7",
        "torch_tensorrt==2.13.0+rtx1.7.cu12",
        "torch_tensorrt==2.13.0+rtx01.7",
        "tensorrt_rtx==1.7.1.116+rtx1.7",
    ],
)
def test_other_texts_name_none(text: str) -> None:
    with pytest.raises(BadTarget):
        parse_toolchain(text)


def test_one_that_is_asked_for_without_it_is_taken_as_it_is_installed() -> None:
    here = Identifier(installed=lambda: [Toolchain("tensorrt_rtx", "1.7.1.116"), RTX], local_gpu=lambda: None)
    assert here.toolchain(parse_toolchain("torch_tensorrt==2.13.0")) == RTX
    assert here.toolchain(parse_toolchain("torch_tensorrt")) == RTX
    assert here.toolchain(parse_toolchain("torch_tensorrt==2.12.0")) == exact_toolchain("torch_tensorrt==2.12.0")
    assert here.toolchain(parse_toolchain(str(TRT))) == TRT


def test_over_tensorrt_rtx_it_builds_what_that_builds() -> None:
    assert served(RTX, "x86_64") == (f"{RTX}/any/x86_64",) and served(TRT, "x86_64") == ()
    assert "sm_90" in unsupported(RTX, Target((90,)), {}) and not unsupported(TRT, Target((90,)), {})
    for settings in (
        {"hardware_compatible": True},
        {"engine_capability": "DLA_STANDALONE"},
        {"enable_cross_compile_for_windows": True},
        {"device": "dla:0"},
    ):
        assert ignored(RTX, settings) and not ignored(TRT, settings)
    assert not ignored(RTX, {"hardware_compatible": False, "engine_capability": "STANDARD"})


def test_its_programs_are_measured_nowhere() -> None:
    plain = exact_toolchain("tensorrt==10.14.1.48")
    assert measured([TRT, plain], "x86_64", "l4", 89) == measured([plain], "x86_64", "l4", 89)
