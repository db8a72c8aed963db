"""Which toolchains a machine has, and what else a builder needs."""

from __future__ import annotations

from importlib import metadata

import pytest

from farm.hosts import packages
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
    assert packages.installed_toolchains() == expected


def test_the_exporter_is_there_only_when_all_of_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"torch": "2.13.0+cpu", "onnx": "1.23.2", "onnxscript": "0.7.2", "onnx-ir": "1.1.0"}
    install(monkeypatch, whole, {})
    assert packages.exporter_version() == "torch==2.13.0 onnxscript==0.7.2"
    assert packages.missing_for_export() == ()
    install(monkeypatch, {name: whole[name] for name in ("torch", "onnxscript")}, {})
    assert packages.exporter_version() is None
    assert packages.missing_for_export() == ("onnx", "onnx-ir")
