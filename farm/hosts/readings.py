"""What this machine has to spare at this moment: read anew at each call, and cheap enough to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from farm.errors import Unavailable
from farm.hosts import cgroups
from farm.hosts.nvml import NoDriver, Nvml, driver

THROTTLES = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}
"""NVML's clock event reasons that make a timing worth less. An idle GPU or clocks that somebody set are none."""


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment. ``free`` is bytes, ``utilisation`` 0 to 1, ``temperature`` °C, clocks MHz; ``None``
    where the GPU does not tell (MIG devices have no utilisation). ``throttled`` says what holds its clocks down."""

    free: int
    utilisation: float | None
    temperature: int | None
    clock: int | None
    memory_clock: int | None
    throttled: tuple[str, ...]


def free_memory() -> int:
    """Bytes of memory that this process may still take: the machine's, and its container's."""
    available: int = psutil.virtual_memory().available
    left = cgroups.free_memory()
    return available if left is None else min(available, left)


def gpu_free_memory(uuid: str) -> int:
    """Bytes of GPU memory free (the host's, where both share one). ``Unavailable`` when the GPU does not answer."""
    try:
        with driver() as session:
            return _free(session, _handle(session, uuid))
    except NoDriver as error:
        raise _silent(uuid, error) from None


def gpu_state(uuid: str) -> GpuState:
    """All that is read of one GPU or MIG device. ``Unavailable`` when it does not answer."""
    try:
        with driver() as session:
            return _state(session, _handle(session, uuid))
    except NoDriver as error:
        raise _silent(uuid, error) from None


def _handle(session: Nvml, uuid: str) -> Any:
    handle = session.handle(uuid)
    if handle is None:
        raise NoDriver("the driver does not show it")
    return handle


def _free(session: Nvml, handle: Any) -> int:
    if session.unsupported("nvmlDeviceGetMemoryInfo", handle):
        return free_memory()
    return int(session.demand("nvmlDeviceGetMemoryInfo", handle).free)


def _state(session: Nvml, handle: Any) -> GpuState:
    nvml = session.library
    # Clocks and heat are the whole GPU's; its handle also answers for the MIG device.
    whole = session.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) or handle
    used = session.ask("nvmlDeviceGetUtilizationRates", handle)
    reasons = session.ask("nvmlDeviceGetCurrentClocksEventReasons", whole)
    if reasons is None:  # drivers before 535 know it by its older name
        reasons = session.ask("nvmlDeviceGetCurrentClocksThrottleReasons", whole) or 0
    return GpuState(
        free=_free(session, handle),
        utilisation=used.gpu / 100 if used else None,
        temperature=session.ask("nvmlDeviceGetTemperature", whole, nvml.NVML_TEMPERATURE_GPU),
        clock=session.ask("nvmlDeviceGetClockInfo", whole, nvml.NVML_CLOCK_SM),
        memory_clock=session.ask("nvmlDeviceGetClockInfo", whole, nvml.NVML_CLOCK_MEM),
        throttled=tuple(text for bit, text in THROTTLES.items() if reasons & bit),
    )


def _silent(uuid: str, error: NoDriver) -> Unavailable:
    return Unavailable(f"GPU {uuid} does not answer: {error}", "'nvidia-smi' shows the driver's view of it")
