"""Does farm see this machine's GPUs as NVIDIA's own tools do? ``python tools/gpu_check.py``

Prints JSON: what ``farm.hosts.probe`` found, what ``nvidia-smi``, CUDA's driver and torch (where it is) say of the
same GPUs, one moment of each GPU, and every difference. Exit status 0: they agree; 1: they differ; 2: there is no
GPU, so nothing was compared.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from farm.errors import Unavailable
from farm.hosts.cuda import cuda_devices
from farm.hosts.gpu import gpu_of
from farm.hosts.probe import GpuDevice, Host, environment_for, probe
from farm.hosts.readings import free_memory, gpu_free_memory, gpu_state

MIB = 2**20
FIELDS = ("name", "memory.total", "driver_version", "uuid", "compute_cap", "pci.bus_id")
RESERVED = 0.05
"""The share of a GPU's memory that its driver may keep from CUDA: NVML counts it, CUDA and torch do not."""


def nvidia_smi() -> tuple[list[dict[str, str]], str]:
    """A row for each whole GPU; or none, and why."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [], "nvidia-smi is not on the PATH"
    command = [tool, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        return [], (done.stdout + done.stderr).strip()
    return [dict(zip(FIELDS, map(str.strip, line.split(",")), strict=True)) for line in done.stdout.splitlines()], ""


def torch_devices() -> tuple[list[dict[str, Any]], str]:
    """The GPUs that torch sees, in CUDA's order; or none, and why."""
    try:
        import torch
    except ImportError:
        return [], "torch is not installed"
    if not torch.cuda.is_available():
        return [], "torch sees no GPU"
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [
        {
            "name": one.name,
            "uuid": str(one.uuid),
            "capability": one.major * 10 + one.minor,
            "multiprocessors": one.multi_processor_count,
            "memory": one.total_memory,
        }
        for one in found
    ], ""


def against_smi(host: Host, rows: Sequence[dict[str, str]]) -> list[str]:
    """What differs from ``nvidia-smi``, which shows whole GPUs: of a MIG device only its GPU's part is compared."""
    by_bus = {row["pci.bus_id"].upper(): row for row in rows}
    found = []
    for device in host.gpus:
        row = by_bus.get(device.bus.upper())
        if row is None:
            found.append(f"nvidia-smi shows no GPU at {device.bus or 'no bus'}")
            continue
        pairs = {
            "driver_version": host.driver,
            "compute_cap": f"{device.capability // 10}.{device.capability % 10}",
            "name": device.name.partition(" MIG ")[0],
        }
        if not device.mig:
            pairs |= {"uuid": device.uuid, "memory.total": f"{device.memory // MIB} MiB"}
        unlike = {name: mine for name, mine in pairs.items() if mine != row[name]}
        found += [f"{name} is {mine!r}, for nvidia-smi {row[name]!r}" for name, mine in unlike.items()]
    return found


def against_cuda(device: GpuDevice, told: Sequence[dict[str, Any]], who: str) -> list[str]:
    """What differs from CUDA's view of ``device``: ids without their first word, memory less what is reserved."""
    same = [one for one in told if device.uuid.endswith(one["uuid"])]
    if len(same) != 1:
        return [f"{who} shows {len(same)} GPUs with the id {device.uuid}"]
    one = same[0]
    pairs = {name: (getattr(device, name), one[name]) for name in ("name", "capability", "multiprocessors")}
    found = [f"{name} is {mine!r}, for {who} {theirs!r}" for name, (mine, theirs) in pairs.items() if mine != theirs]
    if not device.memory * (1 - RESERVED) <= one["memory"] <= device.memory:
        found.append(f"memory is {device.memory}, for {who} {one['memory']}")
    return found


def moment(device: GpuDevice) -> dict[str, Any]:
    """The readings of one GPU and what each of them costs, in seconds."""
    try:
        state, state_seconds = timed(lambda: asdict(gpu_state(device.uuid)))
        free, free_seconds = timed(lambda: gpu_free_memory(device.uuid))
    except Unavailable as error:
        return {"error": error.message}
    return {**state, "free_again": free, "state_seconds": state_seconds, "free_seconds": free_seconds}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    found = work()
    return found, round(time.perf_counter() - began, 6)


def compare(host: Host) -> tuple[dict[str, Any], list[str]]:
    """All that the others say, and what differs."""
    rows, why_no_smi = nvidia_smi()
    torch_told, why_no_torch = torch_devices()
    differences = [] if why_no_smi else against_smi(host, rows)
    if rows and not host.gpus:
        differences.append(f"nvidia-smi shows {len(rows)} GPUs, and farm none: {host.why_no_gpu}")
    cuda: dict[str, Any] = {}
    for device in host.gpus:
        told, why = cuda_devices(environment_for(device, os.environ))
        cuda[device.uuid] = told or why
        differences += against_cuda(device, told, "CUDA")
        differences += against_cuda(device, torch_told, "torch") if torch_told else []
    return {"nvidia_smi": rows or why_no_smi, "cuda": cuda, "torch": torch_told or why_no_torch}, differences


def main() -> int:
    host, seconds = timed(lambda: probe(os.environ))
    others, differences = compare(host)
    report = {
        "probe": asdict(host),
        "probe_seconds": seconds,
        "catalogue": {device.uuid: asdict(gpu_of(device)) for device in host.gpus},
        "free_memory": free_memory(),
        "moment": {device.uuid: moment(device) for device in host.gpus},
        **others,
        "differences": differences,
    }
    print(json.dumps(report, indent=2))
    for difference in differences:
        print(f"differs: {difference}", file=sys.stderr)
    if not host.gpus:
        print(f"no GPU here: {host.why_no_gpu}", file=sys.stderr)
    return 1 if differences else 0 if host.gpus else 2


if __name__ == "__main__":
    sys.exit(main())
