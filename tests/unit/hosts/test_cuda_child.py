"""CUDA's driver in a child: what it says, and every way in which it says nothing."""

from __future__ import annotations

import ctypes
import os
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest
from here import cuda_devices

from farm.hosts import cuda_child

ID = uuid.UUID("02345678-1111-2222-3333-444444444444")


class Driver:
    """A stand-in for ``libcuda.so.1`` with one H100: the functions take the C library's arguments."""

    def __init__(self, refuses: str = "") -> None:
        self._refuses = refuses

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "_refuses"):
            return lambda *args: 999
        return object.__getattribute__(self, name)

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDriverGetVersion(self, number: Any) -> int:
        number._obj.value = 12080
        return 0

    def cuDeviceGetCount(self, number: Any) -> int:
        number._obj.value = 1
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, buffer: Any, size: int, device: Any) -> int:
        buffer.value = b"NVIDIA H100 80GB HBM3"
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:
        size._obj.value = 84_900_000_000
        return 0

    def cuDeviceGetUuid_v2(self, buffer: Any, device: Any) -> int:
        ctypes.memmove(buffer, ID.bytes, 16)
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, device: Any) -> int:
        value._obj.value = {16: 132, 75: 9, 76: 0}[which]
        return 0


def script(folder: Path, text: str) -> Path:
    path = folder / "child.py"
    path.write_text(text)
    return path


def test_what_the_driver_says() -> None:
    assert cuda_child.read(Driver()) == {
        "cuda": "12.8",
        "devices": [
            {
                "name": "NVIDIA H100 80GB HBM3",
                "uuid": str(ID),
                "capability": 90,
                "multiprocessors": 132,
                "memory": 84_900_000_000,
            }
        ],
    }


@pytest.mark.parametrize("name", ["cuInit", "cuDeviceGetUuid_v2", "cuDeviceGetAttribute"])
def test_a_call_that_fails_is_named(name: str) -> None:
    with pytest.raises(cuda_child.Refused, match=f"{name} failed with CUDA error 999"):
        cuda_child.read(Driver(refuses=name))


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has the driver")
def test_a_machine_without_the_driver() -> None:
    """The real child, and nothing stood in for."""
    devices, why = cuda_devices()
    assert devices == [] and "libcuda.so.1" in why


def test_a_driver_that_hangs_is_ended(tmp_path: Path) -> None:
    child = script(
        tmp_path, f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(99)"
    )
    began = time.monotonic()
    assert cuda_devices(seconds=2, child=child) == ([], "CUDA's driver did not answer within 2 s")
    assert time.monotonic() - began < 20
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_driver_that_crashes(tmp_path: Path) -> None:
    assert cuda_devices(child=script(tmp_path, "import os; os.abort()")) == ([], "CUDA's driver crashed")


def test_the_child_sees_the_given_environment(tmp_path: Path) -> None:
    child = script(tmp_path, "import json, os; print(json.dumps({'devices': [os.environ['CUDA_VISIBLE_DEVICES']]}))")
    environ = {"CUDA_VISIBLE_DEVICES": "GPU-1", "PATH": os.defpath}
    assert cuda_devices(environ, child=child) == (["GPU-1"], "")
