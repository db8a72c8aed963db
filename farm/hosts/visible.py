"""Which GPUs ``CUDA_VISIBLE_DEVICES`` leaves to a process, read as CUDA reads it. Pure.

A list of numbers, GPU ids or MIG ids (each id may be cut short while it names one device). It ends at the first
entry that names none, as CUDA's does. Numbers are those of ``nvidia-smi``: farm's children get ids, never numbers,
so ``CUDA_DEVICE_ORDER`` changes nothing for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

PREFIX = "GPU-"
"""Or ``MIG-``, as long. Alone it names nothing, even on a machine with one GPU (seen with CUDA 13.0)."""


class Numbered(Protocol):
    """A GPU, or a MIG device of one: its GPU's number, and its own id."""

    @property
    def index(self) -> int: ...

    @property
    def uuid(self) -> str: ...


Device = TypeVar("Device", bound=Numbered)


def visible(devices: Sequence[Device], said: str | None) -> list[Device]:
    """Those of ``devices`` that ``said`` leaves, in its order; all of them where it is unset (``None``)."""
    if said is None:
        return list(devices)
    found: list[Device] = []
    for entry in said.split(","):
        device = _named(devices, entry.strip())
        if device is None or device in found:
            break
        found.append(device)
    return found


def _named(devices: Sequence[Device], entry: str) -> Device | None:
    """A number names the GPU's first device: of a GPU that is cut into MIG devices CUDA shows one."""
    if entry.isdecimal():
        return next((device for device in devices if device.index == int(entry)), None)
    fitting = [device for device in devices if len(entry) > len(PREFIX) and device.uuid.startswith(entry)]
    exact = [device for device in fitting if device.uuid == entry]
    return exact[0] if exact else fitting[0] if len(fitting) == 1 else None
