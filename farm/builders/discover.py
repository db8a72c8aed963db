"""Which toolchains this machine has, and whether they work. Nothing is imported here to find out.

What is installed is read from packages' metadata; what works is tried in a child process, as importing a broken
TensorRT can end a process.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from farm.builders import Limits, Watch
from farm.builders.failures import explain
from farm.builders.sandbox import NotStarted, Task, run_child
from farm.builds import Failure, FailureKind
from farm.toolchains import DEFAULT_CUDA, TORCH_TENSORRT, Toolchain

BUILD_CHILD = Path(__file__).with_name("trt_child.py")
TORCH_CHILD = Path(__file__).parents[1] / "integrations" / "program_child.py"
PROBE_SECONDS = 60.0
CUDA_MAJORS = (13, 12, 11)
BUILT_BY_FLAVOUR = ("tensorrt_rtx", "tensorrt")
EXPORTER_PACKAGES = ("torch", "onnx", "onnxscript", "onnx-ir")
_CUDA_SUFFIX = re.compile(r"_cu(\d+)")


def installed_toolchains() -> tuple[Toolchain, ...]:
    """The toolchains whose packages are installed: TensorRT-RTX, TensorRT, then Torch-TensorRT over either.

    An installed package may still not work here: see ``probe``.
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


@dataclass(frozen=True)
class Probe:
    """Whether ``toolchain`` builds on this machine; if not, why. ``capabilities`` are those that it can be told to
    build for (``sm_86`` …); none for plain TensorRT, which builds for the GPU that it finds."""

    toolchain: Toolchain
    capabilities: tuple[str, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0
    log: str = field(default="", repr=False)

    @property
    def works(self) -> bool:
        return self.failure is None


def probe(toolchain: Toolchain, environment: Mapping[str, str] | None = None) -> Probe:
    """Build an engine of one layer with ``toolchain`` in a child."""
    limits = Limits(seconds=PROBE_SECONDS)
    job = {"module": toolchain.flavour, "version": toolchain.version, "verbose": False, "probe": True}
    child = BUILD_CHILD
    if toolchain.flavour == TORCH_TENSORRT:
        job, child = {**job, "over": toolchain.over}, TORCH_CHILD
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="farm-probe-") as folder:
        task = Task(child, job, Path(folder), environment or {}, gpu=toolchain.device_bound)
        try:
            outcome = run_child(task, limits, Watch())
        except NotStarted as error:
            return Probe(toolchain, failure=Failure(FailureKind.NODE, f"no process could be started: {error}", ""))
    failure = explain(outcome, limits, {}, "probe")
    done = outcome.last("done") or {}
    names = tuple(str(name).replace("SM", "sm_") for name in done.get("capabilities", ()))
    return Probe(toolchain, names, failure, time.monotonic() - started, outcome.log)
