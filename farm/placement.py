"""Placement: which queue a build goes to and its turn there, what it needs, and who can take it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm.namespaces import admits
from farm.targets import Target, capability_name
from farm.toolchains import TORCH_TENSORRT, Toolchain

# Measured for TensorRT-RTX 1.x (reference/tensorrt.md, "Building without a GPU").
RTX_CAPABILITIES = frozenset({75, 80, 86, 89, 120, 121})


JETSON = frozenset({72, 87, 101, 110})
"""Capabilities of the GPUs in Jetson and DRIVE: Xavier, Orin, Thor. Hardware compatibility is "not supported" there
(NVIDIA's TensorRT documentation, Hardware Compatibility)."""
DLA_CAPABILITIES = frozenset({72, 87})
"""Those that have Deep Learning Accelerators; Thor has none any more (support matrix of TensorRT for DRIVE OS). Which
module has how many cores, the node that builds finds out."""


def capability(toolchain: Toolchain, target: Target, settings: Mapping[str, Any]) -> str:
    """The name of the queue that workers able to build this serve.

    TensorRT-RTX needs no GPU, so one queue serves all its targets. A device-bound toolchain builds on the GPU
    itself; a hardware-compatible engine may be built on any GPU of the class.
    """
    if not toolchain.device_bound:
        place = "any"
    elif settings.get("hardware_compatible"):
        place = "ampere_plus"
    else:
        place = target.gpu or "any"
    return f"{toolchain}/{place}/{target.arch}"


def served(toolchain: Toolchain, arch: str, gpu: str | None = None, number: int = 0) -> tuple[str, ...]:
    """The queues that a machine with this toolchain, CPU architecture and GPU serves."""
    if not toolchain.device_bound:
        return (f"{toolchain}/any/{arch}",)
    if gpu is None:
        return ()
    portable = (f"{toolchain}/ampere_plus/{arch}",) if number >= 80 and number not in JETSON else ()
    return (f"{toolchain}/{gpu}/{arch}", *portable)


TORCH = "torch"
"""What runs eager PyTorch and ``torch.compile``, where a toolchain stands for engines."""
CPU = "cpu"


def measuring_places(runtime: str, target: Target) -> tuple[str, ...]:
    """Where something for ``target`` is measured: one place for each kind of device that it is to run on. ``runtime``
    is an engine's toolchain, or ``TORCH``. None for Windows: no node runs it."""
    if target.os != "linux":
        return ()
    devices = (target.gpu,) if target.gpu else target.names
    return tuple(f"{runtime}/{device}/{target.arch}" for device in devices)


def cpu_place(arch: str) -> str:
    """Where baselines are measured on the processors of machines of that architecture."""
    return f"{TORCH}/{CPU}/{arch}"


def measured(toolchains: Iterable[Toolchain], arch: str, gpu: str | None = None, number: int = 0) -> tuple[str, ...]:
    """The places (``measuring_places``) that a machine with torch, these toolchains and this GPU measures for. What
    Torch-TensorRT makes is no engine that runs by itself, and is measured nowhere."""
    devices = (gpu, capability_name(number)) if gpu else ()
    runtimes = [TORCH, *(str(toolchain) for toolchain in toolchains if toolchain.flavour != TORCH_TENSORRT)]
    return (cpu_place(arch), *(f"{runtime}/{device}/{arch}" for runtime in runtimes for device in devices))


def unsupported(toolchain: Toolchain, target: Target, settings: Mapping[str, Any]) -> str:
    """Why no machine at all can build for this target with this toolchain and these settings; empty where one could."""
    if toolchain.flavour == "tensorrt_rtx" or toolchain.over.startswith("rtx"):
        beyond = [capability_name(n) for n in target.capabilities if n not in RTX_CAPABILITIES]
        known = ", ".join(capability_name(n) for n in sorted(RTX_CAPABILITIES))
        return f"TensorRT-RTX does not build for {', '.join(beyond)} (it does for {known})" if beyond else ""
    return _without_dla(target, settings) or _bound_to_its_device(target, settings) or _not_windows(target)


def _without_dla(target: Target, settings: Mapping[str, Any]) -> str:
    dla = settings.get("engine_capability") == "DLA_STANDALONE" or str(settings.get("device")).startswith("dla")
    if not dla or all(number in DLA_CAPABILITIES for number in target.capabilities):
        return ""
    return f"{target} has no DLA: Xavier and Orin have; leave engine_capability and device at their defaults for it"


def _bound_to_its_device(target: Target, settings: Mapping[str, Any]) -> str:
    if not settings.get("hardware_compatible") or not JETSON & set(target.capabilities):
        return ""
    return f"TensorRT makes nothing hardware-compatible for {target} (Jetson and DRIVE): leave hardware_compatible out"


def _not_windows(target: Target) -> str:
    if target.os != "windows" or target.arch == "x86_64":
        return ""
    return f"engines for Windows are for x86-64, and {target} is {target.arch}"


RTX_LACKS = {
    "hardware_compatible": "ask for the set of compute capabilities instead: sm_86+sm_89",
    "enable_cross_compile_for_windows": "use Torch-TensorRT over TensorRT",
}


def ignored(toolchain: Toolchain, settings: Mapping[str, Any]) -> str:
    """What TensorRT-RTX ignores without saying so, where Torch-TensorRT runs over it; empty where nothing is."""
    if toolchain.flavour != TORCH_TENSORRT or not toolchain.over.startswith("rtx"):
        return ""
    for name, advice in RTX_LACKS.items():
        if settings.get(name):
            return f"{name}=true cannot be honoured by {toolchain}: TensorRT-RTX ignores it without saying so; {advice}"
    if settings.get("engine_capability", "STANDARD") != "STANDARD" or settings.get("device"):
        return f"{toolchain} builds STANDARD engines for GPUs only: TensorRT-RTX has no others"
    return ""


def refusals(toolchain: Toolchain, target: Target, settings: Mapping[str, Any]) -> list[str]:
    """Why no machine could build this as it is asked for, in words; none where one could."""
    return [why for why in (unsupported(toolchain, target, settings), ignored(toolchain, settings)) if why]


# -- what a build needs ----------------------------------------------------------------------------------------


def expected_peak(weight_bytes: int) -> int:
    """Bytes of memory that a build may take: 400 MB and three times the weights bound every peak measured
    (reference/tensorrt.md, Scale)."""
    return 400_000_000 + 3 * weight_bytes


def memory_needed(weight_bytes: int, settings: Mapping[str, Any]) -> int:
    """Bytes of main memory to admit a build by: what the user budgets for it (``cpu_memory_budget``, bytes), else the
    expected peak."""
    return int(settings.get("cpu_memory_budget") or expected_peak(weight_bytes))


def gpu_memory_needed(toolchain: Toolchain, weight_bytes: int, settings: Mapping[str, Any]) -> int:
    """Bytes of GPU memory to admit a build by: the weights, and the workspace that its settings allow
    (``workspace_size``; 0 leaves that to the builder). None where no GPU is used."""
    if not toolchain.device_bound:
        return 0
    return weight_bytes + int(settings.get("workspace_size") or 0)


# -- turns -----------------------------------------------------------------------------------------------------

UNKNOWN_SECONDS = 30.0
"""What a build is expected to take of which nothing is known. Only the ratio to others matters."""
LEAST_SECONDS = 0.01


def turns(start: float, expected: Sequence[float], flows: int = 1) -> list[float]:
    """The places in the queue of one submission's builds, in the order given.

    Start-time fair queueing. ``start`` is the earliest turn that now waits in the queue (in an empty one, that of the
    queue which is furthest): a new submission begins beside whoever is next, however many builds others have queued
    before. Its builds are as far apart as they are
    expected to take (``expected``, seconds), so that submissions that wait at once get equal shares of the workers'
    time; the longest come first, which ends a submission soonest on several workers. ``flows`` is how many
    submissions of the same tenant wait, this one included: they share their tenant's share, so that ten thousand
    builds asked for one by one get no further than a sweep of ten thousand.
    """
    costs = [max(LEAST_SECONDS, seconds or UNKNOWN_SECONDS) for seconds in expected]
    order = sorted(range(len(costs)), key=lambda n: (-costs[n], n))
    places = [0.0] * len(costs)
    turn = start + (flows - 1) * max(costs, default=0.0)
    for n in order:
        places[n] = turn
        turn += costs[n] * flows
    return places


def expected_seconds(
    of_graph: Mapping[tuple[str, str], float], of_capability: Mapping[str, float], capability: str, graph: str
) -> float:
    """What a build should take, in seconds: as the same graph's took, else as the queue's took, else a guess."""
    return of_graph.get((capability, graph)) or of_capability.get(capability) or UNKNOWN_SECONDS


# -- who can take it -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seat:
    """A worker as placement sees it. ``slots`` are builds at once, ``busy`` those that it has; ``aside`` says until
    when (words) its node is set aside, and is empty when it is not; ``fresh``: it was heard of lately."""

    worker: str
    node: str
    capabilities: tuple[str, ...]
    slots: int = 1
    busy: int = 0
    memory: int = 0
    gpu_memory: int = 0
    fresh: bool = True
    aside: str = ""
    namespaces: tuple[str, ...] = ()
    """For whom it builds (``namespaces.admits``); empty: for everybody."""
    draining: bool = False
    """It was told to stop: it ends what it has, and takes nothing more."""
    trouble: str = ""
    """Why it stands by for now (``standby``); empty when it does not."""
    gpu_free: int = 0
    """Bytes that its GPU had free when it was last heard of; 0 where nothing is known."""


@dataclass(frozen=True)
class Needs:
    """A build as placement sees it: its queue, bytes, and the nodes that it must not be offered to again."""

    capability: str
    memory: int = 0
    gpu_memory: int = 0
    failed_on: Mapping[str, str] | frozenset[str] = frozenset()
    namespace: str = ""


def why_not(needs: Needs, seat: Seat) -> str:
    """Why this worker can never take the build, in a few words; empty when it can, if not at once."""
    if not seat.fresh:
        return "has not been heard of lately"
    if seat.draining:
        return "was told to stop, and takes no more builds"
    if needs.capability not in seat.capabilities:
        return f"does not build {needs.capability}"
    if needs.namespace and seat.namespaces and not admits(seat.namespaces, needs.namespace):
        return f"builds for {', '.join(seat.namespaces)}, not for {needs.namespace}"
    if seat.node in needs.failed_on:
        return "failed at it before"
    if seat.aside:
        return f"is set aside until {seat.aside}"
    if seat.memory and needs.memory > seat.memory:
        return f"has {_gigabytes(seat.memory)} of memory for builds, and this one needs {_gigabytes(needs.memory)}"
    if seat.gpu_memory and needs.gpu_memory > seat.gpu_memory:
        return f"has {_gigabytes(seat.gpu_memory)} of GPU memory, and this one needs {_gigabytes(needs.gpu_memory)}"
    return ""


def why_not_now(needs: Needs, seat: Seat) -> str:
    """Why a worker that can take the build does not for now, being busy apart; empty when nothing is in the way."""
    if seat.trouble:
        return f"takes nothing until this works again: {seat.trouble}"
    if not seat.busy and 0 < seat.gpu_free < needs.gpu_memory:
        return f"has {_gigabytes(seat.gpu_free)} of GPU memory free, and this one needs {_gigabytes(needs.gpu_memory)}"
    return ""


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def wake_counts(waiting: Mapping[str, int], seats: Iterable[Seat]) -> dict[str, int]:
    """How many wake-ups to send to each queue: for no more builds than wait, and no more than workers that serve it
    have hands free; a worker's free hands are counted in every queue that it serves."""
    free: dict[str, int] = {}
    for seat in seats:
        if seat.fresh and not seat.aside:
            for capability in seat.capabilities:
                free[capability] = free.get(capability, 0) + max(0, seat.slots - seat.busy)
    counts = {name: min(count, free.get(name, 0)) for name, count in waiting.items()}
    return {name: count for name, count in counts.items() if count > 0}


def elsewhere(needs: Needs, seats: Collection[Seat]) -> bool:
    """Whether any worker that is there could take the build."""
    return any(not why_not(needs, seat) for seat in seats)
