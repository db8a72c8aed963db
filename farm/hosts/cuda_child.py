"""What CUDA's driver says of the GPUs that this process may use, as one line of JSON. Run as a process of its own:
``libcuda`` can hang on a GPU that is in trouble, and a process that has opened it must not fork.

Only the standard library is imported, and nothing of farm. No context is made, so no GPU memory is taken.
"""

from __future__ import annotations

import ctypes
import json
import sys
import uuid
from typing import Any

MULTIPROCESSORS, MAJOR, MINOR = 16, 75, 76
"""``CUdevice_attribute``: multiprocessor count, compute capability."""


class Refused(Exception):
    """A call of the driver failed; the text says which and with what number."""


def call(library: Any, name: str, *args: Any) -> None:
    status = getattr(library, name)(*args)
    if status != 0:
        raise Refused(f"{name} failed with CUDA error {status}")


def attribute(library: Any, which: int, device: Any) -> int:
    value = ctypes.c_int()
    call(library, "cuDeviceGetAttribute", ctypes.byref(value), which, device)
    return value.value


def identity(library: Any, device: Any) -> str:
    """The GPU's id, without the ``GPU-`` or ``MIG-`` before it. The newer call tells MIG devices apart."""
    found = ctypes.create_string_buffer(16)
    name = "cuDeviceGetUuid_v2" if hasattr(library, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
    call(library, name, found, device)
    return str(uuid.UUID(bytes=found.raw))


def describe(library: Any, number: int) -> dict[str, Any]:
    device = ctypes.c_int()
    call(library, "cuDeviceGet", ctypes.byref(device), number)
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    call(library, "cuDeviceGetName", name, len(name), device)
    call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return {
        "name": name.value.decode("utf-8", "replace"),
        "uuid": identity(library, device),
        "capability": attribute(library, MAJOR, device) * 10 + attribute(library, MINOR, device),
        "multiprocessors": attribute(library, MULTIPROCESSORS, device),
        "memory": memory.value,
    }


def read(library: Any) -> dict[str, Any]:
    """``cuda`` as ``13.0``, and the ``devices`` in CUDA's order."""
    version, count = ctypes.c_int(), ctypes.c_int()
    call(library, "cuInit", 0)
    call(library, "cuDriverGetVersion", ctypes.byref(version))
    call(library, "cuDeviceGetCount", ctypes.byref(count))
    devices = [describe(library, number) for number in range(count.value)]
    return {"cuda": f"{version.value // 1000}.{version.value % 1000 // 10}", "devices": devices}


def main() -> int:
    try:
        found = read(ctypes.CDLL("libcuda.so.1"))
    except (OSError, Refused) as error:
        found = {"error": str(error)}
    print(json.dumps(found))
    return 1 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main())
