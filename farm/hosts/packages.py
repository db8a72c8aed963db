"""Which toolchains, and what else a builder needs, are installed on this machine: read from packages' metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import metadata

from farm.toolchains import DEFAULT_CUDA, TORCH_TENSORRT, Toolchain

CUDA_MAJORS = (13, 12, 11)
BUILT_BY_FLAVOUR = ("tensorrt_rtx", "tensorrt")
EXPORTER_PACKAGES = ("torch", "onnx", "onnxscript", "onnx-ir")
_CUDA_SUFFIX = re.compile(r"_cu(\d+)")


def installed_toolchains() -> tuple[Toolchain, ...]:
    """The toolchains whose packages are installed: TensorRT-RTX, TensorRT, then Torch-TensorRT over either.

    An installed package may still not work here: see ``builders.discover.probe``.
    """
    found = {flavour: _installed(flavour) for flavour in BUILT_BY_FLAVOUR}
    return tuple(chain for chain in (*found.values(), *_torch_tensorrts(found)) if chain is not None)


def _torch_tensorrts(under: Mapping[str, Toolchain | None]) -> Iterator[Toolchain]:
    """Torch-TensorRT runs over TensorRT-RTX where the distribution that provides it is named so."""
    for package, flavour in (("torch-tensorrt-rtx", "tensorrt_rtx"), ("torch-tensorrt", "tensorrt")):
        version, over = version_of(package), under[flavour]
        if version is not None and over is not None:
            short = "rtx" if flavour == "tensorrt_rtx" else "trt"
            yield Toolchain(TORCH_TENSORRT, version, over.cuda, f"{short}{over.version}")
            return


def _installed(flavour: str) -> Toolchain | None:
    """The packages carry the CUDA version in their names, or require one that does."""
    for cuda in CUDA_MAJORS:
        version = version_of(f"{flavour}_cu{cuda}")
        if version is not None:
            return Toolchain(flavour, version, cuda)
    version = version_of(flavour)
    return None if version is None else Toolchain(flavour, version, _required_cuda(flavour))


def _required_cuda(package: str) -> int:
    for requirement in metadata.requires(package) or []:
        match = _CUDA_SUFFIX.search(requirement)
        if match is not None:
            return int(match[1])
    return DEFAULT_CUDA


def version_of(package: str) -> str | None:
    """The installed version of ``package``, without a local suffix such as ``+cpu``; ``None`` if there is none."""
    try:
        return metadata.version(package).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def torch_version() -> str | None:
    """The installed torch's version, its local suffix (``+cpu``, ``+cu130``) included; ``None`` where there is none."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def missing_for_export() -> tuple[str, ...]:
    """The packages that turning a ``.pt2`` into ONNX needs and this machine lacks."""
    return tuple(package for package in EXPORTER_PACKAGES if version_of(package) is None)


def exporter_version() -> str | None:
    """``torch==2.13.0 onnxscript==0.7.2``, as forms record it; ``None`` where something for it is missing."""
    if missing_for_export():
        return None
    return " ".join(f"{package}=={version_of(package)}" for package in ("torch", "onnxscript"))
