"""Toolchains: a builder's TensorRT flavour, its version and its CUDA major version. Pure.

Written ``tensorrt_rtx==1.7.1.116``; the CUDA major version follows after ``+`` where it is not the default
(``tensorrt_rtx==1.7.1.116+cu12``), as pip writes local versions. A client without TensorRT names the
toolchain the same way and computes the same keys (DESIGN, Words).

Torch-TensorRT builds over a TensorRT of its own, and its engines are bound to that one too. It follows, as in
``torch_tensorrt==2.13.0+rtx1.7.1.116`` or ``torch_tensorrt==2.11.0+cu12.trt10.14.1``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from farm.errors import BadTarget

DEFAULT_CUDA = 13
PINNED = "tensorrt_rtx==1.7.1.116"
"""What this release of farm builds with by default: the version that the ``build`` extra pins. A machine
without any TensorRT computes keys for it, so that it asks for what its own release's builders make."""

EXPORTER: Mapping[str, object] = {"torch": "2.13", "onnxscript": "0.7", "farm": 1}
"""What turns a ``.pt2`` into ONNX in this release: the exporters' minor versions (the ``build`` extra pins them)
and the version of farm's own passes, raised when they change what comes out. Part of every such recipe, so that a
client without torch computes the recipe that the builders of its release make."""

TORCH_TENSORRT = "torch_tensorrt"
FLAVOURS = ("tensorrt", "tensorrt_rtx", TORCH_TENSORRT)
# No leading zeros: 1.07 and 1.7 must not be two toolchains.
_NUMBER = "(?:0|[1-9][0-9]*)"
_VERSION = rf"{_NUMBER}(\.{_NUMBER})*"
_LOCAL = rf"\+(cu(?P<cuda>[1-9][0-9]*)(\.(?=[rt])|$))?(?P<over>(rtx|trt){_VERSION})?"
_TEXT = re.compile(rf"(?P<flavour>[a-z_]+)(==(?P<version>{_VERSION})({_LOCAL})?)?", re.ASCII)


@dataclass(frozen=True)
class Toolchain:
    """One exact toolchain. ``version`` is the whole version as the package states it; ``over`` the TensorRT under
    Torch-TensorRT: ``rtx`` or ``trt``, and its version."""

    flavour: str
    version: str
    cuda: int = DEFAULT_CUDA
    over: str = ""

    def __str__(self) -> str:
        local = [*([] if self.cuda == DEFAULT_CUDA else [f"cu{self.cuda}"]), *([self.over] if self.over else [])]
        return f"{self.flavour}=={self.version}" + (f"+{'.'.join(local)}" if local else "")

    @property
    def version_tuple(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split("."))

    @property
    def device_bound(self) -> bool:
        """Whether its engines are bound to one GPU model rather than to compute capabilities (DESIGN, Targets)."""
        return not (self.flavour == "tensorrt_rtx" or self.over.startswith("rtx"))

    def canonical(self) -> dict[str, object]:
        """The value that keys hold."""
        told: dict[str, object] = {"flavour": self.flavour, "version": self.version, "cuda": self.cuda}
        return told | ({"over": self.over} if self.over else {})


@dataclass(frozen=True)
class ToolchainSpec:
    """What somebody asked for: a flavour, perhaps a version."""

    flavour: str
    version: str | None = None
    cuda: int | None = None
    over: str | None = None

    def exact(self) -> Toolchain | None:
        """The toolchain it names, or ``None`` when it leaves the version open."""
        if self.version is None:
            return None
        return Toolchain(self.flavour, self.version, self.cuda or DEFAULT_CUDA, self.over or "")

    def admits(self, toolchain: Toolchain) -> bool:
        return (
            self.flavour == toolchain.flavour
            and self.version in (None, toolchain.version)
            and self.cuda in (None, toolchain.cuda)
            and self.over in (None, toolchain.over)
        )


def parse_toolchain(text: str) -> ToolchainSpec:
    """Parse ``tensorrt_rtx``, ``tensorrt==10.14.1`` or ``…+cu12``; ``BadTarget`` says what is wrong."""
    match = _TEXT.fullmatch(text.strip().lower().replace("-", "_"))
    bad_over = match is not None and match["over"] is not None and match["flavour"] != TORCH_TENSORRT
    if match is None or match["flavour"] not in FLAVOURS or bad_over or text.strip().endswith("+"):
        raise BadTarget(
            f"'{text}' is no toolchain",
            f"write one of {', '.join(FLAVOURS)}, with a version where it matters: {PINNED}",
        )
    cuda = int(match["cuda"]) if match["cuda"] else None
    return ToolchainSpec(match["flavour"], match["version"], cuda, match["over"])


@lru_cache(1024)
def exact_toolchain(text: str) -> Toolchain:
    """Parse a toolchain that must name its version, as lock files and configuration do."""
    toolchain = parse_toolchain(text).exact()
    if toolchain is None:
        raise BadTarget(f"'{text}' names no version", f"write it whole, as in {PINNED}")
    return toolchain
