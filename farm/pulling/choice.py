"""Which lines of a lock file are meant by a target: those for that very place, else declared portable ones. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm.errors import FarmError
from farm.portability import covers
from farm.prebuilds.lock import LockEntry
from farm.targets import Target, TargetRequest, parse_target
from farm.toolchains import exact_toolchain


@dataclass(frozen=True)
class Choice:
    """One line to be pulled; ``portable`` is what it was built for, where that is not the very target asked for."""

    line: LockEntry
    portable: str = ""


def named(lines: Sequence[LockEntry], texts: Sequence[str]) -> list[LockEntry]:
    """The lines of the models that ``texts`` name, or of which they begin a key, recipe or engine; all of them when
    nothing is named."""
    return [line for line in lines if not texts or any(_is_named(line, text) for text in texts)]


def _is_named(line: LockEntry, text: str) -> bool:
    digits = text.removeprefix("sha256:")
    digests = (line.key, line.recipe, line.engine)
    return text == line.model or (len(digits) >= 4 and any(one[7:].startswith(digits) for one in digests))


def chosen(
    lines: Sequence[LockEntry],
    wanted: Sequence[TargetRequest],
    manifest: Callable[[LockEntry], Mapping[str, Any]] | None = None,
) -> list[Choice]:
    """For each target and each model: the lines for that very place; where there are none and ``manifest`` gives
    engines' manifests, the portable engine built for fewest other places that serves it. Without targets, all lines."""
    if not wanted:
        return [Choice(line) for line in lines]
    found: dict[tuple[str, str, str], Choice] = {}
    for request in wanted:
        exact = [line for line in lines if is_for(line, request)]
        have = {(line.model, line.variant) for line in exact}
        choices = [Choice(line) for line in exact]
        if manifest is not None:
            choices += _portable(lines, request, have, manifest)
        for choice in choices:
            found.setdefault(choice.line.name, choice)
    return list(found.values())


def is_for(line: LockEntry, request: TargetRequest) -> bool:
    """Whether a line's engine was built for the very place that is asked for."""
    return is_place(line.target, line.toolchain, request)


def is_place(words: str, toolchain: str, request: TargetRequest) -> bool:
    """Whether an engine for the target ``words`` was built for the very place that is asked for. One of TensorRT-RTX is
    bound to its compute capabilities, whichever GPU was named; any other to its GPU (DESIGN, Targets)."""
    target, exact = _parsed(words), exact_toolchain(toolchain)
    if target is None or not (request.toolchain is None or request.toolchain.admits(exact)):
        return False
    if not exact.device_bound:
        return _place(target) == _place(request.target)
    return target == request.target


def contradiction(line: LockEntry, manifest: Mapping[str, Any]) -> str:
    """In what a line and its engine's manifest differ, in words; empty when they agree. A line that somebody edited, or
    put together of two in a merge, must not hand out an engine as what it is not."""
    parts = manifest.get("parts") or {}
    place, target = parts.get("target") or {}, _target(line)
    told: dict[str, tuple[Any, Any]] = {"key": (manifest.get("key"), line.key)}
    if target is not None:
        said: dict[str, Any] = {
            "capabilities": list(target.capabilities),
            "gpu": target.gpu,
            "os": target.os,
            "arch": target.arch,
        }
        told |= {name: (place[name], said[name]) for name in said if place.get(name)}
    if (parts.get("weights") or {}).get("policy") != "metadata":  # else another fine-tune's may stand in for it
        told["recipe"] = manifest.get("recipe"), line.recipe
    return next((name for name, (theirs, mine) in told.items() if theirs != mine), "")


def _portable(
    lines: Sequence[LockEntry],
    request: TargetRequest,
    have: Collection[tuple[str, str]],
    manifest: Callable[[LockEntry], Mapping[str, Any]],
) -> list[Choice]:
    best: dict[tuple[str, str], tuple[int, LockEntry]] = {}
    for line in lines:
        name, target = (line.model, line.variant), _target(line)
        system = (request.target.os, request.target.arch)
        if name in have or target is None or not _admits(line, request) or (target.os, target.arch) != system:
            continue
        breadth = _serves(manifest(line), request.target)
        if breadth and (name not in best or breadth < best[name][0]):
            best[name] = (breadth, line)
    return [Choice(line, line.target) for _, line in best.values()]


def _serves(manifest: Mapping[str, Any], target: Target) -> int:
    """For how many places an engine was built, the target being one of them; 0 where it is bound to one GPU."""
    parts = manifest.get("parts") or {}
    place = parts.get("target") or {}
    if place.get("gpu") or not covers(parts, target.capabilities):
        return 0
    return len(place.get("capabilities") or ()) or 1000


def _admits(line: LockEntry, request: TargetRequest) -> bool:
    return request.toolchain is None or request.toolchain.admits(exact_toolchain(line.toolchain))


def _place(target: Target) -> tuple[object, ...]:
    return target.capabilities, target.os, target.arch


def _target(line: LockEntry) -> Target | None:
    return _parsed(line.target)


def _parsed(words: str) -> Target | None:
    """Where an engine is to run; ``None`` for words that a newer farm may know."""
    try:
        return parse_target(words).target
    except FarmError:
        return None
