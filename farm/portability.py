"""Portable engines: which others can run where an engine was asked for, and in what order to try them. Pure.

A look-up is exact first. Then, only where the caller allows it, come engines that were built to be portable and are
otherwise the same: for a set of compute capabilities that holds the one asked for; hardware-compatible, for Ampere
and newer; version-compatible, by an older TensorRT of the same major version (DESIGN, Targets; issue 3, item 4).

Two engines belong to one *family* when their keys differ in nothing but that. Each portable engine is listed once
for every place that it serves, so that finding one is a look-up by (family, place), never a scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farm.canonical import digest

AMPERE_PLUS = "ampere_plus"
_FREE = ("hardware_compatible", "version_compatible")


@dataclass(frozen=True)
class Serves:
    """One place that an engine serves: ``place`` is ``sm_89``, a GPU's name or ``ampere_plus``. ``version`` is the
    builder's, sortable; ``portable`` whether a newer TensorRT of the same major version may load it; ``breadth`` how
    many capabilities it was built for (fewer are better suited)."""

    family: str
    place: str
    version: str
    portable: bool
    breadth: int


def family(parts: Mapping[str, Any]) -> str:
    """The digest that engines share which differ only in portability, exact place and minor version."""
    toolchain, target = parts["toolchain"], parts["target"]
    return digest(
        "family",
        {
            "graph": parts["graph"],
            "profiles": parts["profiles"],
            "weights": parts["weights"],
            "settings": {name: value for name, value in parts["settings"].items() if name not in _FREE},
            "flavour": toolchain["flavour"],
            "cuda": toolchain["cuda"],
            "major": str(toolchain["version"]).partition(".")[0],
            "os": target["os"],
            "arch": target["arch"],
        },
    )


def serves(parts: Mapping[str, Any]) -> list[Serves]:
    """Every place that an engine with these parts serves."""
    toolchain, target = parts["toolchain"], parts["target"]
    portable = bool(parts["settings"].get("version_compatible"))
    version = sortable(str(toolchain["version"]))
    places = [AMPERE_PLUS] if target.get("class") == AMPERE_PLUS else []
    if target.get("gpu"):
        places = [str(target["gpu"])]
    elif not places:
        places = [f"sm_{number}" for number in target.get("capabilities", [])]
    breadth = 1000 if places == [AMPERE_PLUS] else len(places)
    return [Serves(family(parts), place, version, portable, breadth) for place in places]


def wanted_places(parts: Mapping[str, Any], capabilities: tuple[int, ...]) -> list[str]:
    """Under which places an engine would serve an ask with these parts, for a target of these capabilities.

    An ask for several capabilities is served by an engine that serves the whole set; it is looked up by its first
    and checked by ``covers``.
    """
    target = parts["target"]
    if parts["toolchain"]["flavour"] == "tensorrt_rtx":
        return [f"sm_{capabilities[0]}"]
    own = [str(target["gpu"])] if target.get("gpu") else []
    return own + ([AMPERE_PLUS] if min(capabilities) >= 80 else [])


def covers(parts: Mapping[str, Any], capabilities: tuple[int, ...]) -> bool:
    """Whether an engine with these parts serves all of these capabilities."""
    target = parts["target"]
    if target.get("class") == AMPERE_PLUS:
        return min(capabilities) >= 80
    return set(capabilities) <= set(target.get("capabilities", []))


def sortable(version: str) -> str:
    """A version's text such that comparing texts compares versions: ``10.14.1`` → ``00010.00014.00001``."""
    return ".".join(f"{int(part):05d}" for part in version.split(".") if part.isdigit())
