"""A kind of device, as far as it decides how long a kernel takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farm.gpus import plain_name

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """A kind of GPU, as far as it decides how long a kernel takes. ``memory`` is whole GiB (drivers reserve a little
    more or less), 0 where it is the host's. Its number, bus and id are no part of it: equal GPUs share timings."""

    name: str
    capability: int
    memory: int
    multiprocessors: int
    mig: str = ""

    @classmethod
    def of(cls, gpu: Mapping[str, Any]) -> Device:
        """``hosts.GpuDevice``'s fields, as a worker's row holds them."""
        memory = 0 if gpu.get("shares_memory") else round(int(gpu["memory"]) / GIB)
        return cls(gpu["name"], int(gpu["capability"]), memory, int(gpu["multiprocessors"]), gpu.get("mig") or "")

    def __str__(self) -> str:
        parts = [plain_name(self.name), f"sm{self.capability}", f"{self.multiprocessors}mp"]
        parts += [f"{self.memory}g"] if self.memory else []
        return "-".join([*parts, *([f"mig.{self.mig}"] if self.mig else [])])
