"""Whether an installed toolchain works."""

from __future__ import annotations

import pytest

from farm.builders import discover
from farm.builds import FailureKind
from farm.toolchains import Toolchain


def test_a_toolchain_that_works_says_so(standin: None) -> None:
    found = discover.probe(Toolchain("tensorrt", "10.14.1.48"))
    assert found.works and found.failure is None


def test_one_that_does_not_says_why(standin: None) -> None:
    driverless = discover.probe(Toolchain("tensorrt", "10.14.1.48"), {"STANDIN_NO_DRIVER": "1"})
    assert driverless.failure is not None and driverless.failure.kind is FailureKind.NODE
    assert "CUDA initialization failure" in driverless.failure.message
    other = discover.probe(Toolchain("tensorrt", "11.0.0.1"))
    assert other.failure is not None and "10.14.1.48" in other.failure.message


def test_one_that_is_not_installed_says_so() -> None:
    found = discover.probe(Toolchain("tensorrt", "10.14.1.48"))
    if found.works:
        pytest.skip("this machine has plain TensorRT")
    assert found.failure is not None and found.failure.kind is FailureKind.NODE
