"""The GPU catalogue: names that users know, their compute capability, and the host they sit in. Pure data.

Names are written without spaces, dashes or the words NVIDIA and GeForce. Sources: NVIDIA's table of CUDA GPUs
and their compute capability.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU model. ``capability`` is major × 10 + minor; ``arch`` the CPU architecture where only one is sold."""

    name: str
    capability: int
    arch: str = "x86_64"


_BY_CAPABILITY: dict[int, str] = {
    70: "v100 titanv",
    75: "t4 t1000 rtx2060 rtx2060super rtx2070 rtx2070super rtx2080 rtx2080super rtx2080ti titanrtx "
    "gtx1630 gtx1650 gtx1650super gtx1650ti gtx1660 gtx1660super gtx1660ti "
    "quadrortx3000 quadrortx4000 quadrortx5000 quadrortx6000 quadrortx8000",
    80: "a100 a30 a800",
    86: "a10 a10g a16 a2 a40 rtx3050 rtx3050ti rtx3060 rtx3060ti rtx3070 rtx3070ti rtx3080 rtx3080ti rtx3090 rtx3090ti "
    "rtxa1000 rtxa2000 rtxa4000 rtxa4500 rtxa5000 rtxa5500 rtxa6000",
    89: "l4 l20 l40 l40s rtx4050 rtx4060 rtx4060ti rtx4070 rtx4070super rtx4070ti rtx4070tisuper rtx4080 rtx4080super "
    "rtx4090 rtx4090d rtx2000ada rtx4000ada rtx4000sffada rtx4500ada rtx5000ada rtx5880ada rtx6000ada",
    90: "h100 h200 h20 h800",
    100: "b100 b200",
    103: "b300",
    120: "rtx5050 rtx5060 rtx5060ti rtx5070 rtx5070ti rtx5080 rtx5090 rtx5090d rtxpro2000 rtxpro4000 rtxpro4500 "
    "rtxpro5000 rtxpro6000",
}
_ARM: dict[int, str] = {
    72: "xavier",
    75: "t4g",
    87: "orin",
    90: "gh200",
    100: "gb200",
    103: "gb300",
    110: "thor",
    121: "gb10",
}

GPUS: dict[str, Gpu] = {
    name: Gpu(name, capability, arch)
    for arch, table in (("x86_64", _BY_CAPABILITY), ("aarch64", _ARM))
    for capability, names in table.items()
    for name in names.split()
}
ALIASES = {
    "dgxspark": "gb10",
    "agxorin": "orin",
    "jetsonorin": "orin",
    "jetsonthor": "thor",
    "rtx6000": "quadrortx6000",
}

CAPABILITIES = frozenset(gpu.capability for gpu in GPUS.values())

# Form factors, memory sizes and editions are words of their own; they go before the spaces do, so that "3060 12GB"
# stays 3060. So does all that is said of a MIG device, which is a part of its GPU.
_FORM = re.compile(
    r"[\s-](mig \S+|sxm\d?|pcie|nvl|ac|hbm\d\w?|\d+\s?gb?|with|max-q|design|blackwell|(workstation|server) edition)"
    r"(?!\w)"
)
_NOISE = re.compile(r"nvidia|geforce|tesla|graphics|laptop|generation|gpu|[\s_-]+|\(.*?\)")


def plain_name(text: str) -> str:
    """``NVIDIA GeForce RTX 4090`` or ``H100-SXM5-80GB`` as the catalogue writes it: ``rtx4090``, ``h100``."""
    name = _NOISE.sub("", _FORM.sub(" ", text.lower()))
    return ALIASES.get(name, name)


def find_gpu(text: str) -> Gpu | None:
    """The GPU that ``text`` names, however it is written; ``None`` when the catalogue has none of that name."""
    return GPUS.get(plain_name(text))
