"""Which toolchains a machine has."""

from __future__ import annotations

from importlib import metadata

import pytest

from farm.builders import discover
from farm.builds import FailureKind
from farm.toolchains import Toolchain


def install(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], requires: dict[str, list[str]]) -> None:
    """A machine that has these packages and no others."""

    def version(package: str) -> str:
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda package: requires.get(package))


@pytest.mark.parametrize(
    ("versions", "requires", "expected"),
    [
        ({}, {}, ()),
        ({"tensorrt_rtx_cu13": "1.7.1.116"}, {}, (Toolchain("tensorrt_rtx", "1.7.1.116", 13),)),
        ({"tensorrt_rtx_cu12": "1.4.0.76"}, {}, (Toolchain("tensorrt_rtx", "1.4.0.76", 12),)),
        (
            {"tensorrt": "10.14.1.48"},
            {"tensorrt": ["tensorrt_cu12==10.14.1.48"]},
            (Toolchain("tensorrt", "10.14.1.48", 12),),
        ),
        ({"tensorrt": "10.14.1.48"}, {}, (Toolchain("tensorrt", "10.14.1.48", 13),)),
        (
            {"tensorrt_cu13": "10.14.1.48", "tensorrt_rtx_cu13": "1.7.1.116"},
            {},
            (Toolchain("tensorrt_rtx", "1.7.1.116", 13), Toolchain("tensorrt", "10.14.1.48", 13)),
        ),
    ],
)
def test_toolchains_are_read_from_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
    versions: dict[str, str],
    requires: dict[str, list[str]],
    expected: tuple[Toolchain, ...],
) -> None:
    install(monkeypatch, versions, requires)
    assert discover.installed_toolchains() == expected


def test_the_exporter_is_there_only_when_all_of_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"torch": "2.13.0+cpu", "onnx": "1.23.2", "onnxscript": "0.7.2", "onnx-ir": "1.1.0"}
    install(monkeypatch, whole, {})
    assert discover.exporter_version() == "torch==2.13.0 onnxscript==0.7.2"
    assert discover.missing_for_export() == ()
    install(monkeypatch, {name: whole[name] for name in ("torch", "onnxscript")}, {})
    assert discover.exporter_version() is None
    assert discover.missing_for_export() == ("onnx", "onnx-ir")


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
