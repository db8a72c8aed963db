"""This machine's NVIDIA GPU, by NVML, where there is one and its bindings are installed."""

from __future__ import annotations

import platform
from dataclasses import replace

from farm.gpus import Gpu, find_gpu, plain_name


def local_gpu() -> Gpu | None:
    """The first GPU that the driver shows, or ``None``. Never raises: no driver is no GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    known = find_gpu(name)
    if known is not None and known.capability == major * 10 + minor:
        return replace(known, arch=machine())
    return Gpu(plain_name(name), major * 10 + minor, machine())


def machine() -> str:
    """This machine's CPU architecture, in the names that targets use."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
