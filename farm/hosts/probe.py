"""What this machine is, for a worker to register and for a build to be placed. Never raises."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from farm.hosts import cgroups
from farm.hosts.cuda import cuda_devices
from farm.hosts.nvml import GpuDevice, NoDriver, Nvml, driver
from farm.hosts.processes import vantage
from farm.hosts.visible import visible

__all__ = ["GpuDevice", "Host", "cpu", "environment_for", "machine", "probe"]


@dataclass(frozen=True)
class Host:
    """A machine, as far as this process may use it: a container's limits count.

    ``memory`` and ``disk_free`` are bytes, ``arch`` is a target's word, ``vantage`` names what shares its pids.
    ``gpus`` are those that ``CUDA_VISIBLE_DEVICES`` leaves, ``driver`` and ``cuda`` versions (``580.159.04``,
    ``13.0``; empty without a driver). ``why_no_gpu`` says why there is no GPU, or what is wrong with one left out.
    """

    name: str
    arch: str
    cores: int
    memory: int
    disk_free: int
    vantage: str
    gpus: tuple[GpuDevice, ...] = ()
    driver: str = ""
    cuda: str = ""
    why_no_gpu: str = ""


def probe(environ: Mapping[str, str], gpu: int | None = None, scratch: Path = Path()) -> Host:
    """This machine, with the GPUs that ``environ`` leaves, or only number ``gpu`` of them, as ``nvidia-smi`` counts.

    ``scratch`` is the folder whose disk counts (it need not be there yet).
    """
    host = Host(socket.gethostname(), machine(), cores(), memory(), disk_free(scratch), vantage())
    try:
        with driver() as session:
            found = _of_driver(session, host, gpu, environ.get("CUDA_VISIBLE_DEVICES"))
    except NoDriver as error:
        return replace(host, why_no_gpu=str(error))
    return replace(found, gpus=tuple(_counted(device, environ) for device in found.gpus))


def machine() -> str:
    """This machine's CPU architecture, in the names that targets use."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())


def cpu() -> str:
    """What this machine's processors are called, and how many of them may be used: ``cpu-amdepyc9b14-2c``."""
    name = machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        told = (line.partition(":")[2] for line in lines if line.lower().startswith("model name"))
        name = re.sub(r"\W|_", "", re.sub(r"\(.*?\)|@.*|\b(CPU|Processor)\b", "", next(told, name))).lower() or name
    return f"cpu-{name}-{cores()}c"


def cores() -> int:
    """Cores that this process may use: those it may run on, and no more than its container's share of time."""
    allowed = len(os.sched_getaffinity(0))
    quota = cgroups.cpu_quota()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def memory() -> int:
    """Bytes of memory that this process could use if nothing else ran."""
    total: int = psutil.virtual_memory().total
    return min(total, cgroups.memory_limit() or total)


def disk_free(folder: Path) -> int:
    """Bytes free where ``folder`` is or will be; 0 when that cannot be told."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with contextlib.suppress(OSError):
        return shutil.disk_usage(place).free
    return 0


def environment_for(device: GpuDevice | None, environ: Mapping[str, str]) -> dict[str, str]:
    """What a build's child must see, of ``environ`` too, to use ``device`` and nothing else; ``None`` hides every GPU
    from it."""
    kept = {name: environ[name] for name in ("LD_LIBRARY_PATH",) if environ.get(name)}
    chosen = device.uuid if device else ""
    return {"CUDA_VISIBLE_DEVICES": chosen, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **kept}


def _of_driver(session: Nvml, host: Host, gpu: int | None, said: str | None) -> Host:
    devices, faults = session.devices(host.memory)
    left = visible(devices, said)
    chosen = [device for device in left if gpu is None or device.index == gpu]
    version = session.ask("nvmlSystemGetCudaDriverVersion") or 0
    return replace(
        host,
        gpus=tuple(chosen),
        driver=session.ask("nvmlSystemGetDriverVersion") or "",
        cuda=f"{version // 1000}.{version % 1000 // 10}" if version else "",
        why_no_gpu="; ".join([*faults, *([] if chosen else [_why_none(devices, left, gpu, said)])]),
    )


def _why_none(devices: list[GpuDevice], left: list[GpuDevice], gpu: int | None, said: str | None) -> str:
    if not devices:
        return "the driver shows no usable GPU"
    if not left:
        return f"CUDA_VISIBLE_DEVICES='{said}' leaves none of the {len(devices)} that the driver shows"
    shown = ", ".join(sorted({str(device.index) for device in left}))
    return f"there is no GPU {gpu} (there is {shown})"


def _counted(device: GpuDevice, environ: Mapping[str, str]) -> GpuDevice:
    """``device`` with its multiprocessors; CUDA tells where NVML does not (vGPUs, chips that farm does not know)."""
    if device.multiprocessors:
        return device
    told, _ = cuda_devices({**environ, **environment_for(device, environ)})
    return replace(device, multiprocessors=told[0]["multiprocessors"]) if len(told) == 1 else device
