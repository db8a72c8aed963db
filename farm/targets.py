"""Targets: where an engine must run. Pure.

Grammar (INTERFACE, TARGET)::

    TARGET   := PLACE ["@" TOOLCHAIN] ["/" OS-OR-ARCH]...      (the order of "@" and "/" is free)
    PLACE    := sm_NN ["+" sm_NN]... | GPU name | "local"
    TOOLCHAIN:= flavour["==" version]
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from farm.errors import BadTarget
from farm.gpus import CAPABILITIES, GPUS, Gpu, find_gpu
from farm.toolchains import Toolchain, ToolchainSpec, parse_toolchain

OSES = ("linux", "windows")
ARCHES = ("x86_64", "aarch64")
_ARCH_NAMES = {"x86_64": "x86_64", "amd64": "x86_64", "x64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_CAPABILITY = re.compile(r"(?:sm_?|compute_)?([0-9]{2,3})|([0-9]{1,2})\.([0-9])")
# NVIDIA: hardware compatibility covers Ampere and newer (specification, hardware_compatible).
AMPERE = 80


def capability_name(number: int) -> str:
    """``89`` → ``sm_89``."""
    return f"sm_{number}"


@dataclass(frozen=True)
class Target:
    """Where an engine must run.

    ``capabilities`` are sorted, distinct compute capabilities (major × 10 + minor), one unless the engine is
    to serve a set. ``gpu`` is the catalogue's name where the target was given as a GPU.
    """

    capabilities: tuple[int, ...]
    gpu: str | None = None
    os: str = "linux"
    arch: str = "x86_64"

    def __post_init__(self) -> None:
        if not self.capabilities or list(self.capabilities) != sorted(set(self.capabilities)):
            raise BadTarget("a target needs sorted, distinct compute capabilities", "as in sm_86+sm_89")

    def __str__(self) -> str:
        place = self.gpu or "+".join(capability_name(number) for number in self.capabilities)
        natural = GPUS[self.gpu].arch if self.gpu in GPUS else "x86_64"
        arch = "" if self.arch == natural else f"/{self.arch}"
        return place + ("" if self.os == "linux" else f"/{self.os}") + arch

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(capability_name(number) for number in self.capabilities)

    @classmethod
    def parse(cls, text: str) -> Target:
        """The place alone, without a toolchain; ``BadTarget`` where one is named or the text is wrong."""
        request = parse_target(text)
        if request.toolchain is not None:
            raise BadTarget(f"'{text}' names a toolchain too", "give it on its own")
        return request.target


@dataclass(frozen=True)
class TargetRequest:
    """A target as somebody wrote it: the text, the place, and the toolchain if it was named."""

    text: str
    target: Target
    toolchain: ToolchainSpec | None = None


@lru_cache(1024)
def place_of(text: str) -> Target:
    """The place of a TARGET that names it, whatever toolchain stands beside it; ``BadTarget`` as ``parse_target``."""
    return parse_target(text).target


def parse_target(text: str, local_gpu: Callable[[], Gpu | None] | None = None) -> TargetRequest:
    """Parse one TARGET. ``local_gpu`` finds this machine's GPU, for ``local``; ``BadTarget`` says what is wrong."""
    place, extras, toolchain = _split(text)
    target = _parse_place(place, text, local_gpu)
    for extra in extras:
        if extra in OSES:
            target = replace(target, os=extra)
        elif extra in _ARCH_NAMES:
            target = replace(target, arch=_ARCH_NAMES[extra])
        else:
            raise BadTarget(
                f"'{extra}' in target '{text}' is no operating system or CPU architecture",
                "after '/' stands one of: linux, windows, x86_64, aarch64",
            )
    return TargetRequest(text, target, toolchain)


def _split(text: str) -> tuple[str, list[str], ToolchainSpec | None]:
    toolchain: ToolchainSpec | None = None
    rest = text.strip()
    if "@" in rest:
        rest, _, after = rest.partition("@")
        name, slash, more = after.partition("/")
        toolchain = parse_toolchain(name)
        rest += slash + more
    place, *extras = [part.strip().lower() for part in rest.split("/")]
    return place, extras, toolchain


def _parse_place(place: str, text: str, local_gpu: Callable[[], Gpu | None] | None) -> Target:
    if place == "local":
        gpu = local_gpu() if local_gpu else None
        if gpu is None:
            raise BadTarget(
                "target 'local': this machine has no NVIDIA GPU that its driver shows",
                "name the target instead, for example -t sm_89 or -t rtx4090",
            )
        return Target((gpu.capability,), gpu.name, arch=gpu.arch)
    members = [_parse_capability(part, text) for part in place.split("+")]
    if all(isinstance(member, int) for member in members):
        return Target(tuple(sorted({member for member in members if isinstance(member, int)})))
    if len(members) > 1:
        return Target(tuple(sorted({m if isinstance(m, int) else m.capability for m in members})))
    named = members[0]
    assert isinstance(named, Gpu)
    return Target((named.capability,), named.name, arch=named.arch)


def _parse_capability(part: str, text: str) -> int | Gpu:
    match = _CAPABILITY.fullmatch(part.strip())
    if match:
        number = int(match[1]) if match[1] else int(match[2]) * 10 + int(match[3])
        if number not in CAPABILITIES:
            known = ", ".join(capability_name(n) for n in sorted(CAPABILITIES) if n >= 75)
            raise BadTarget(f"'{part}' in target '{text}' is no compute capability known", f"known: {known}")
        return number
    gpu = find_gpu(part)
    if gpu is None:
        near = difflib.get_close_matches(part, GPUS, n=3) or ["sm_89", "rtx4090", "l4", "h100"]
        raise BadTarget(f"'{part}' is no target known", f"write a compute capability or a GPU: {', '.join(near)}")
    return gpu


def canonical_target(target: Target, toolchain: Toolchain, hardware_compatible: bool) -> dict[str, object]:
    """The value that keys hold: only what binds the engine (DESIGN, Targets).

    A TensorRT-RTX engine is bound to its set of compute capabilities, whichever GPU was named. A TensorRT engine
    is bound to its GPU, unless ``hardware_compatible`` frees it to all of Ampere and newer. ``BadTarget`` when a
    device-bound toolchain is given no GPU.
    """
    place: dict[str, object] = {"os": target.os, "arch": target.arch}
    if not toolchain.device_bound:
        return place | {"capabilities": list(target.capabilities)}
    if hardware_compatible:
        too_old = [capability_name(number) for number in target.capabilities if number < AMPERE]
        if too_old:
            raise BadTarget(
                f"hardware_compatible covers Ampere and newer, and {', '.join(too_old)} is older",
                "leave hardware_compatible out for it, or choose sm_80 or newer",
            )
        return place | {"class": "ampere_plus"}
    if target.gpu is None:
        raise BadTarget(
            f"{target} is too vague for {toolchain.flavour}: its engines are bound to one GPU model",
            "name the GPU (-t l4, -t rtx4090), set hardware_compatible=True, or use @tensorrt_rtx",
        )
    return place | {"gpu": target.gpu, "capabilities": list(target.capabilities)}


def distinct(targets: Iterable[TargetRequest]) -> list[TargetRequest]:
    """The targets in their order, each place and toolchain once."""
    seen: dict[tuple[Target, ToolchainSpec | None], TargetRequest] = {}
    for request in targets:
        seen.setdefault((request.target, request.toolchain), request)
    return list(seen.values())
