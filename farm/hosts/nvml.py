"""NVIDIA's management library: what GPUs the driver shows. Foreign errors end here.

NVML needs no CUDA context and takes no GPU memory, so a worker may ask it in its own process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CORES_PER_MULTIPROCESSOR = {60: 64, 61: 128, 70: 64, 72: 64, 75: 64, 80: 64} | dict.fromkeys(
    (86, 87, 89, 90, 100, 103, 110, 120, 121), 128
)
"""FP32 cores, by compute capability (CUDA programming guide): NVML counts cores, TensorRT multiprocessors."""


class NoDriver(Exception):
    """NVML cannot be asked; the text says why."""


@dataclass(frozen=True)
class GpuDevice:
    """A GPU that a process may be pinned to: a whole one, or a MIG device of one.

    ``index`` is the GPU's number in ``nvidia-smi`` (a MIG device has its GPU's), ``uuid`` what
    ``CUDA_VISIBLE_DEVICES`` takes (the number, where NVML gives no id), ``capability`` major × 10 + minor,
    ``memory`` bytes: the host's where both share one. ``multiprocessors`` is 0 where nothing tells. ``mig`` is
    the profile (``1g.5gb``), empty for a whole GPU.
    """

    index: int
    uuid: str
    name: str
    capability: int
    memory: int
    multiprocessors: int
    mig: str = ""
    bus: str = ""
    shares_memory: bool = False


class Nvml:
    """An open session with the driver. Calls that a GPU does not answer give ``None``; none of them raises."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self._faults = (library.NVMLError, library.NVMLLibraryMismatchError, AttributeError, UnicodeDecodeError)

    def ask(self, name: str, *args: Any) -> Any:
        """What NVML's function ``name`` returns; ``None`` when it, the driver or the GPU cannot tell."""
        try:
            return getattr(self.library, name)(*args)
        except self._faults:
            return None

    def demand(self, name: str, *args: Any) -> Any:
        """The same, for what there is no GPU without; ``NoDriver`` says why there is no answer."""
        try:
            return getattr(self.library, name)(*args)
        except self._faults as error:
            raise NoDriver(str(error)) from None

    def unsupported(self, name: str, *args: Any) -> bool:
        """Whether the GPU says that it has no such thing, which differs from having failed."""
        try:
            getattr(self.library, name)(*args)
        except self.library.NVMLError as error:
            return bool(error.value == self.library.NVML_ERROR_NOT_SUPPORTED)
        return False

    def handle(self, uuid: str) -> Any:
        """The handle of a GPU or MIG device; ``None`` when the driver does not know it (any more)."""
        if uuid.isdecimal():
            return self.ask("nvmlDeviceGetHandleByIndex", int(uuid))
        return self.ask("nvmlDeviceGetHandleByUUID", uuid)

    def devices(self, host_memory: int) -> tuple[list[GpuDevice], list[str]]:
        """Every GPU and MIG device, in the order of their numbers, and what is wrong with those left out."""
        found: list[GpuDevice] = []
        faults: list[str] = []
        for index in range(self._count()):
            try:
                handle = self.demand("nvmlDeviceGetHandleByIndex", index)
                found += self._cut(index, handle, self._whole(index, handle, host_memory))
            except NoDriver as error:
                faults.append(f"GPU {index}: {error}")
        return found, faults

    def _count(self) -> int:
        try:
            return int(self.demand("nvmlDeviceGetCount"))
        except NoDriver as error:
            raise NoDriver(f"the NVIDIA driver does not count its GPUs: {error}") from None

    def _whole(self, index: int, handle: Any, host_memory: int) -> GpuDevice:
        major, minor = self.demand("nvmlDeviceGetCudaComputeCapability", handle)
        capability = major * 10 + minor
        memory = self.ask("nvmlDeviceGetMemoryInfo", handle)
        # Orin, Thor and GB10 have no memory of their own, and say so.
        shares = memory is None and self.unsupported("nvmlDeviceGetMemoryInfo", handle)
        cores = self.ask("nvmlDeviceGetNumGpuCores", handle) or 0
        pci = self.ask("nvmlDeviceGetPciInfo", handle)
        return GpuDevice(
            index=index,
            uuid=self.ask("nvmlDeviceGetUUID", handle) or str(index),
            name=self.demand("nvmlDeviceGetName", handle),
            capability=capability,
            memory=host_memory if shares else memory.total if memory else 0,
            multiprocessors=cores // CORES_PER_MULTIPROCESSOR.get(capability, cores + 1),
            bus=pci.busId if pci else "",
            shares_memory=shares,
        )

    def _cut(self, index: int, handle: Any, whole: GpuDevice) -> list[GpuDevice]:
        """The MIG devices of a GPU in MIG mode, which itself cannot be used then; else the GPU."""
        mode = self.ask("nvmlDeviceGetMigMode", handle)
        if not mode or mode[0] != self.library.NVML_DEVICE_MIG_ENABLE:
            return [whole]
        count = self.ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0
        parts = [self.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, number) for number in range(count)]
        found = [self._part(part, whole) for part in parts if part is not None]
        if not found:
            raise NoDriver("it is in MIG mode and has no MIG device ('nvidia-smi mig -cgi …' makes one)")
        return found

    def _part(self, handle: Any, whole: GpuDevice) -> GpuDevice:
        memory = self.ask("nvmlDeviceGetMemoryInfo", handle)
        attributes = self.ask("nvmlDeviceGetAttributes", handle)
        name = self.ask("nvmlDeviceGetName", handle) or whole.name
        return GpuDevice(
            index=whole.index,
            uuid=self.demand("nvmlDeviceGetUUID", handle),
            name=name,
            capability=whole.capability,
            memory=memory.total if memory else attributes.memorySizeMB * 2**20 if attributes else 0,
            multiprocessors=attributes.multiprocessorCount if attributes else 0,
            mig=name.partition(" MIG ")[2] or _profile(attributes),
            bus=whole.bus,
        )


@contextlib.contextmanager
def driver() -> Iterator[Nvml]:
    """A session with the driver; ``NoDriver`` when its bindings, the driver or its answer are missing."""
    try:
        import pynvml
    except ImportError:
        raise NoDriver("nvidia-ml-py is not installed") from None
    session = Nvml(pynvml)
    try:
        session.demand("nvmlInit")
    except NoDriver as error:
        raise NoDriver(f"no NVIDIA driver: {error}") from None
    try:
        yield session
    finally:
        session.ask("nvmlShutdown")


def _profile(attributes: Any) -> str:
    """A MIG device's profile from its sizes, as ``nvidia-smi`` writes it: ``3g.20gb``, ``1c.3g.20gb``."""
    if attributes is None:
        return "unknown"
    slices, compute = attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount
    part = "" if compute == slices else f"{compute}c."
    return f"{part}{slices}g.{-(-attributes.memorySizeMB // 1024)}gb"
