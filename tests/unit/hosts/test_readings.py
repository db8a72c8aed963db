"""A GPU at one moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nvml_standin import Gpu, StandIn
from some_gpus import a100_in_parts, h100, l4, mig_part

from farm.errors import Unavailable
from farm.hosts import readings
from farm.hosts.readings import GpuState, gpu_free_memory, gpu_state

Driver = Callable[..., StandIn]


def test_a_whole_gpu(driver: Driver) -> None:
    gpu = h100(1, throttled=0x1 | 0x4 | 0x40)
    lib = driver(l4(), gpu)
    assert gpu.uuid is not None
    assert gpu_free_memory(gpu.uuid) == 84 * 10**9
    assert gpu_state(gpu.uuid) == GpuState(84 * 10**9, 0.07, 41, 1410, 1215, ("power cap", "temperature (hardware)"))
    assert lib.open == 0


def test_a_part_has_its_own_memory_and_its_gpus_heat(driver: Driver) -> None:
    part = mig_part(0)
    part.free = 3 * 2**30
    driver(a100_in_parts(part))
    assert part.uuid is not None
    assert gpu_state(part.uuid) == GpuState(3 * 2**30, None, 41, 1410, 1215, ("temperature",))


def test_an_older_driver_knows_throttling_by_its_older_name(driver: Driver) -> None:
    gpu = h100(0, throttled=0x8)
    driver(gpu).lose("nvmlDeviceGetCurrentClocksEventReasons")
    assert gpu.uuid is not None
    assert gpu_state(gpu.uuid).throttled == ("hardware slowdown",)


def test_memory_that_is_the_hosts(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    driver(Gpu("Orin (nvgpu)", None, (8, 7), memory=None))
    monkeypatch.setattr(readings, "free_memory", lambda: 123)
    assert gpu_free_memory("0") == 123


def test_a_gpu_that_is_gone(driver: Driver) -> None:
    driver(h100())
    with pytest.raises(Unavailable, match="GPU GPU-gone does not answer: the driver does not show it"):
        gpu_state("GPU-gone")


def test_a_driver_that_is_gone(driver: Driver) -> None:
    gpu = h100()
    driver(gpu, init=9)
    assert gpu.uuid is not None
    with pytest.raises(Unavailable, match="no NVIDIA driver: Driver Not Loaded"):
        gpu_free_memory(gpu.uuid)
