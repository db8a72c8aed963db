"""A stand-in for ``libnvidia-ml.so.1``, under the real ``pynvml``: its functions take the C library's arguments and
return its status codes, so that everything of nvidia-ml-py's own (decoding, structures, errors) is the real thing.

What each GPU answers follows NVIDIA's NVML reference: a GPU without MIG says "not supported", a MIG slot without a
device "not found", attributes are for MIG devices alone, integrated GPUs have no memory information.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import pynvml
import pytest

GIB = 2**30
Answer = Any


class Failed(Exception):
    """Ends a call with the status ``code``."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Gpu:
    """One GPU, or one MIG device; ``None`` is what it does not support. ``faults`` maps functions to statuses."""

    name: str
    uuid: str | None
    capability: tuple[int, int] = (8, 0)
    memory: int | None = 40 * GIB
    free: int = 39 * GIB
    cores: int | None = None
    bus: str = "00000000:01:00.0"
    mig_mode: int | None = None
    parts: list[Gpu | None] = field(default_factory=list)
    attributes: dict[str, int] | None = None
    utilisation: int | None = 7
    throttled: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    parent: Gpu | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if part is not None:
                part.parent = self


class StandIn:
    """The library. A function that it lacks is one that the driver lacks: ``pynvml`` says "function not found"."""

    def __init__(self, *gpus: Gpu, init: int = 0, driver: str = "580.95.05", cuda: int = 13000) -> None:
        self.gpus = list(gpus)
        self.init, self.driver, self.cuda = init, driver, cuda
        self.open = 0
        self.known = [known for gpu in gpus for known in (gpu, *gpu.parts) if known is not None]
        for name, function in FUNCTIONS.items():
            setattr(self, name, self._with_status(name, function))

    def lose(self, *names: str) -> None:
        """Be an older driver, without these functions."""
        for name in names:
            delattr(self, name)

    def install(self, patch: pytest.MonkeyPatch) -> StandIn:
        patch.setattr(pynvml, "nvmlLib", self)
        patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return self

    def gpu(self, handle: Any) -> Gpu:
        return self.known[(ctypes.cast(handle, ctypes.c_void_p).value or 0) - 1]

    def hand_out(self, gpu: Gpu, reference: Any) -> None:
        ctypes.cast(reference, ctypes.POINTER(ctypes.c_void_p))[0] = self.known.index(gpu) + 1

    def _with_status(self, name: str, function: Any) -> Any:
        def call(*args: Any) -> int:
            if not self.open and name != "nvmlInitWithFlags":
                return int(pynvml.NVML_ERROR_UNINITIALIZED)
            try:
                function(self, *args)
            except Failed as failed:
                return failed.code
            return 0

        return call


def asked(lib: StandIn, handle: Any, function: str) -> Gpu:
    """The GPU, unless it fails at ``function``."""
    gpu = lib.gpu(handle)
    if function in gpu.faults:
        raise Failed(gpu.faults[function])
    return gpu


def supported(value: Answer) -> Answer:
    if value is None:
        raise Failed(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value


def init(lib: StandIn, _flags: int) -> None:
    if lib.init:
        raise Failed(lib.init)
    lib.open += 1


def shutdown(lib: StandIn) -> None:
    lib.open -= 1


def driver_version(lib: StandIn, buffer: Any, _size: Any) -> None:
    buffer.value = lib.driver.encode()


def cuda_version(lib: StandIn, number: Any) -> None:
    number._obj.value = lib.cuda


def count(lib: StandIn, number: Any) -> None:
    number._obj.value = len(lib.gpus)


def by_index(lib: StandIn, index: Any, handle: Any) -> None:
    if index.value >= len(lib.gpus):
        raise Failed(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    gpu = lib.gpus[index.value]
    if "nvmlDeviceGetHandleByIndex_v2" in gpu.faults:
        raise Failed(gpu.faults["nvmlDeviceGetHandleByIndex_v2"])
    lib.hand_out(gpu, handle)


def by_uuid(lib: StandIn, uuid: Any, handle: Any) -> None:
    found = [gpu for gpu in lib.known if gpu.uuid == uuid.value.decode()]
    if not found:
        raise Failed(pynvml.NVML_ERROR_NOT_FOUND)
    lib.hand_out(found[0], handle)


def name(lib: StandIn, handle: Any, buffer: Any, _size: Any) -> None:
    buffer.value = asked(lib, handle, "nvmlDeviceGetName").name.encode()


def identity(lib: StandIn, handle: Any, buffer: Any, _size: Any) -> None:
    buffer.value = supported(lib.gpu(handle).uuid).encode()


def capability(lib: StandIn, handle: Any, major: Any, minor: Any) -> None:
    major._obj.value, minor._obj.value = asked(lib, handle, "nvmlDeviceGetCudaComputeCapability").capability


def memory(lib: StandIn, handle: Any, told: Any) -> None:
    gpu = asked(lib, handle, "nvmlDeviceGetMemoryInfo")
    told._obj.total, told._obj.free = supported(gpu.memory), gpu.free


def cores(lib: StandIn, handle: Any, number: Any) -> None:
    number._obj.value = supported(lib.gpu(handle).cores)


def pci(lib: StandIn, handle: Any, told: Any) -> None:
    told._obj.busId = lib.gpu(handle).bus.encode()


def mig_mode(lib: StandIn, handle: Any, current: Any, pending: Any) -> None:
    current._obj.value = pending._obj.value = supported(lib.gpu(handle).mig_mode)


def mig_count(lib: StandIn, handle: Any, number: Any) -> None:
    number._obj.value = len(lib.gpu(handle).parts)


def mig_device(lib: StandIn, handle: Any, index: Any, part: Any) -> None:
    found = lib.gpu(handle).parts[index.value]
    if found is None:
        raise Failed(pynvml.NVML_ERROR_NOT_FOUND)
    lib.hand_out(found, part)


def mig_parent(lib: StandIn, part: Any, handle: Any) -> None:
    parent = lib.gpu(part).parent
    if parent is None:
        raise Failed(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    lib.hand_out(parent, handle)


def attributes(lib: StandIn, handle: Any, told: Any) -> None:
    for field_name, value in supported(lib.gpu(handle).attributes).items():
        setattr(told._obj, field_name, value)


def utilisation(lib: StandIn, handle: Any, told: Any) -> None:
    told._obj.gpu = supported(lib.gpu(handle).utilisation)


def throttled(lib: StandIn, handle: Any, reasons: Any) -> None:
    reasons._obj.value = whole(lib, handle).throttled


def temperature(lib: StandIn, handle: Any, _sensor: Any, degrees: Any) -> None:
    whole(lib, handle)
    degrees._obj.value = 41


def clock(lib: StandIn, handle: Any, kind: Any, number: Any) -> None:
    whole(lib, handle)
    number._obj.value = {pynvml.NVML_CLOCK_SM: 1410, pynvml.NVML_CLOCK_MEM: 1215}[kind.value]


def whole(lib: StandIn, handle: Any) -> Gpu:
    """Clocks and heat are no MIG device's."""
    gpu = lib.gpu(handle)
    if gpu.parent is not None:
        raise Failed(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    return gpu


FUNCTIONS = {
    "nvmlInitWithFlags": init,
    "nvmlShutdown": shutdown,
    "nvmlSystemGetDriverVersion": driver_version,
    "nvmlSystemGetCudaDriverVersion": cuda_version,
    "nvmlDeviceGetCount_v2": count,
    "nvmlDeviceGetHandleByIndex_v2": by_index,
    "nvmlDeviceGetHandleByUUID": by_uuid,
    "nvmlDeviceGetName": name,
    "nvmlDeviceGetUUID": identity,
    "nvmlDeviceGetCudaComputeCapability": capability,
    "nvmlDeviceGetMemoryInfo": memory,
    "nvmlDeviceGetNumGpuCores": cores,
    "nvmlDeviceGetPciInfo_v3": pci,
    "nvmlDeviceGetMigMode": mig_mode,
    "nvmlDeviceGetMaxMigDeviceCount": mig_count,
    "nvmlDeviceGetMigDeviceHandleByIndex": mig_device,
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": mig_parent,
    "nvmlDeviceGetAttributes_v2": attributes,
    "nvmlDeviceGetUtilizationRates": utilisation,
    "nvmlDeviceGetCurrentClocksEventReasons": throttled,
    "nvmlDeviceGetCurrentClocksThrottleReasons": throttled,
    "nvmlDeviceGetTemperature": temperature,
    "nvmlDeviceGetClockInfo": clock,
}
