"""What this machine can build: which queues its worker serves, on which GPU, how many builds at once.

One process per GPU, pinned to it: overlapping builds disturb each other's kernel timings, and several GPUs in one
process have crashed (reference/peers.md, Timing caches). Where nothing is timed, as many builds as cores and memory
allow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from farm.admission import SHARE, Admission
from farm.config import Config
from farm.errors import BadInput, Unavailable
from farm.hosts.claims import claim_gpu
from farm.hosts.gpu import gpu_of
from farm.hosts.packages import torch_version
from farm.hosts.probe import GpuDevice, Host, environment_for, probe
from farm.hosts.readings import gpu_free_memory
from farm.logging import get_logger
from farm.placement import measured, served
from farm.toolchains import Toolchain

log = get_logger(__name__)


@dataclass(frozen=True)
class Fitting:
    """``serves``: queues, and ``measures`` places (``placement.measured``). ``slots``: builds at once.
    ``environment``: what a build's child sees. ``detail``: what the worker tells of its machine. ``notes``: lines for
    whoever started it. ``release`` lets go of the GPU. ``gauged``: the GPU that is measured on, and ``claim`` holds it
    meanwhile, where the worker does not do so anyway."""

    serves: tuple[str, ...]
    slots: int
    environment: Mapping[str, str]
    admission: Admission
    detail: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    release: Callable[[], None] = field(default=lambda: None)
    measures: tuple[str, ...] = ()
    gauged: GpuDevice | None = None
    claim: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


def fit(config: Config, toolchains: Sequence[Toolchain], environ: Mapping[str, str], gpu: int | None = None) -> Fitting:
    """The fitting of a worker on this machine, on GPU number ``gpu`` (as ``nvidia-smi`` counts) where that is given,
    of those that ``environ`` leaves.

    Without a number, a machine's only GPU is used if an installed toolchain needs one and nobody else has it.
    ``BadInput`` when the numbered GPU is not there; ``Unavailable`` when another worker has it.
    """
    host = probe(environ, gpu, config.scratch)
    needs_gpu = any(toolchain.device_bound for toolchain in toolchains)
    notes: list[str] = []
    release: Callable[[], None] = lambda: None  # noqa: E731 - replaced below where there is something to release
    device = None
    if gpu is not None:
        device, release = _claimed(host, gpu, config)
    elif needs_gpu:
        device, release = _only_one(host, config, notes)
    serves = _serves(toolchains, host, device)
    gauged, claim = _gauged(host, device, config)
    timed = device is not None and needs_gpu
    return Fitting(
        serves=serves,
        slots=1 if timed else config.concurrency or host.cores,
        environment=environment_for(device, environ),
        admission=_admission(host, device),
        detail=_detail(host, device),
        notes=tuple(notes),
        release=release,
        measures=_measures(toolchains, host, gauged),
        gauged=gauged,
        claim=claim,
    )


def _claimed(host: Host, gpu: int, config: Config) -> tuple[GpuDevice, Callable[[], None]]:
    """The GPU, or the first of its parts that nobody has."""
    if not host.gpus:
        raise BadInput(
            f"GPU {gpu} cannot be used: {host.why_no_gpu}", "'farm doctor' and 'nvidia-smi' show what is there"
        )
    refused: Unavailable | None = None
    for device in host.gpus:
        try:
            return device, claim_gpu(device.uuid, config.home, config.host).release
        except Unavailable as error:
            refused = error
    assert refused is not None
    raise refused


def _only_one(host: Host, config: Config, notes: list[str]) -> tuple[GpuDevice | None, Callable[[], None]]:
    if len(host.gpus) > 1:
        notes.append(f"this machine has {len(host.gpus)} GPUs: start one 'farm worker --gpu N' for each")
    elif host.gpus:
        try:
            return host.gpus[0], claim_gpu(host.gpus[0].uuid, config.home, config.host).release
        except Unavailable as error:
            notes.append(f"{error.message}: building without it")
    return None, lambda: None


def _serves(toolchains: Sequence[Toolchain], host: Host, device: GpuDevice | None) -> tuple[str, ...]:
    """A part of a GPU (MIG) is no GPU of that name: its engines fit neither the whole nor another part."""
    name, number = _called(device)
    return tuple(queue for chain in toolchains for queue in served(chain, host.arch, name, number))


def _called(device: GpuDevice | None) -> tuple[str | None, int]:
    """A GPU's name in queues and places, and its capability."""
    if device is None:
        return None, 0
    name = gpu_of(device).name
    return (f"{name}-mig-{device.mig}" if device.mig else name), device.capability


def _gauged(
    host: Host, device: GpuDevice | None, config: Config
) -> tuple[GpuDevice | None, Callable[[], contextlib.AbstractContextManager[object]]]:
    """The GPU that this worker measures on: its own; or the machine's only one, which it holds while it does."""
    if device is not None or len(host.gpus) != 1:
        return device, contextlib.nullcontext
    only = host.gpus[0]
    return only, lambda: claim_gpu(only.uuid, config.home, config.host)


def _measures(toolchains: Sequence[Toolchain], host: Host, gauged: GpuDevice | None) -> tuple[str, ...]:
    """Measuring needs torch; a GPU's a torch that is built for GPUs."""
    version = torch_version()
    if version is None:
        return ()
    name, number = _called(gauged) if not version.endswith("+cpu") else (None, 0)
    return measured(toolchains, host.arch, name, number)


def _admission(host: Host, device: GpuDevice | None) -> Admission:
    capacity = int(host.memory * SHARE)
    if device is None:
        return Admission(capacity)
    uuid = device.uuid
    return Admission(capacity, gpu_capacity=device.memory, gpu_available=lambda: _gpu_free(uuid))


def _gpu_free(uuid: str) -> int:
    """Bytes; 0 when nothing can be told, which holds nobody up."""
    try:
        return gpu_free_memory(uuid)
    except Unavailable as error:
        log.warning("the GPU's free memory is unknown", reason=error.message)
        return 0


def _detail(host: Host, device: GpuDevice | None) -> dict[str, Any]:
    """As the worker's row holds it."""
    told: dict[str, Any] = {"cores": host.cores, "memory": host.memory, "disk_free": host.disk_free, "arch": host.arch}
    if device is not None:
        told["gpu"] = asdict(device)
    if host.driver:
        told |= {"driver": host.driver, "cuda": host.cuda}
    return told
