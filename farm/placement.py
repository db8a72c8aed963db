"""Placement: which queue a build goes to, and what a toolchain can build at all. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farm.targets import Target, capability_name
from farm.toolchains import Toolchain

# Measured for TensorRT-RTX 1.x (reference/tensorrt.md, "Building without a GPU").
RTX_CAPABILITIES = frozenset({75, 80, 86, 89, 120, 121})


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
    portable = (f"{toolchain}/ampere_plus/{arch}",) if number >= 80 else ()
    return (f"{toolchain}/{gpu}/{arch}", *portable)


def unsupported(toolchain: Toolchain, target: Target) -> str:
    """Why no machine at all can build for this target with this toolchain; empty where one could."""
    if toolchain.flavour != "tensorrt_rtx":
        return ""
    beyond = [capability_name(n) for n in target.capabilities if n not in RTX_CAPABILITIES]
    if not beyond:
        return ""
    known = ", ".join(capability_name(n) for n in sorted(RTX_CAPABILITIES))
    return f"TensorRT-RTX does not build for {', '.join(beyond)} (it does for {known})"


def expected_peak(weight_bytes: int) -> int:
    """Bytes of memory that a build may take: 400 MB and three times the weights bound every peak measured
    (reference/tensorrt.md, Scale)."""
    return 400_000_000 + 3 * weight_bytes
