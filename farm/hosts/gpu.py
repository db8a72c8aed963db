"""This machine's NVIDIA GPU in the catalogue's terms, for the target ``local`` and the queues that a worker serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from farm.gpus import Gpu, find_gpu, plain_name
from farm.hosts.nvml import GpuDevice
from farm.hosts.probe import machine, probe

__all__ = ["gpu_of", "local_gpu", "machine"]


def local_gpu(environ: Mapping[str, str]) -> Gpu | None:
    """The first GPU that ``environ`` leaves, or ``None``. Never raises: no driver is no GPU."""
    found = probe(environ).gpus
    return gpu_of(found[0]) if found else None


def gpu_of(device: GpuDevice) -> Gpu:
    """The catalogue's GPU of that name, else one named as the driver names it; in this machine either way."""
    known = find_gpu(device.name)
    if known is not None and known.capability == device.capability:
        return replace(known, arch=machine())
    return Gpu(plain_name(device.name), device.capability, machine())
