"""Why two keys differ, or why an ask is a miss: the parts compared, and each difference said in words. Pure.

Peers' users ask for exactly this (reference/peers.md: bazel#18643, pytorch#152065): not that a key differs, but which
setting, shape, weight, version or GPU it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm.compilation import FIELDS
from farm.index import KeyParts
from farm.keys import Difference, differences

# What a difference costs in likeness: a request most like a stored one differs in little, and late in this list.
_WEIGHT = {"graph": 100, "weights": 20, "profiles": 8, "toolchain": 6, "target": 4, "settings": 2, "recipe": 1}


@dataclass(frozen=True)
class Reason:
    """One difference in words. ``part`` is ``graph``, ``weights``, ``profiles``, ``settings``, ``toolchain``,
    ``target`` or ``recipe``; ``text`` is one line; the values are as the parts hold them."""

    part: str
    path: str
    text: str
    mine: Any = None
    theirs: Any = None

    def as_json(self) -> dict[str, Any]:
        return {"part": self.part, "path": self.path, "text": self.text, "mine": self.mine, "theirs": self.theirs}


@dataclass(frozen=True)
class Comparison:
    """One stored key beside the asked one: the reasons, fewest and slightest first."""

    other: KeyParts
    reasons: tuple[Reason, ...]
    same_key: bool
    same_recipe: bool

    @property
    def distance(self) -> int:
        return sum(_WEIGHT.get(reason.part, 1) for reason in self.reasons)


def compare(mine: KeyParts, theirs: KeyParts) -> Comparison:
    """Everything in which two sets of parts differ, in words."""
    reasons = [_reason(change) for change in differences(_compared(mine), _compared(theirs))]
    reasons += _profile_reasons(mine.parts.get("profiles", []), theirs.parts.get("profiles", []))
    return Comparison(theirs, tuple(_tidy(reasons)), mine.key == theirs.key, mine.recipe == theirs.recipe)


def _compared(item: KeyParts) -> dict[str, Any]:
    """The parts, less what only points elsewhere, and less profiles, which are told by input."""
    return {name: value for name, value in item.parts.items() if name not in ("outline", "profiles")}


def nearest(mine: KeyParts, stored: Sequence[KeyParts], limit: int = 3) -> list[Comparison]:
    """The stored keys most like the asked one, likest first; the asked one itself left out."""
    seen: set[str] = {mine.key}
    others = [other for other in stored if not (other.key in seen or seen.add(other.key))]  # type: ignore[func-returns-value]
    return sorted((compare(mine, other) for other in others), key=lambda found: found.distance)[:limit]


def _tidy(reasons: list[Reason]) -> list[Reason]:
    """Later parts follow from earlier ones: exact weights say nothing new when the weights' digest differs."""
    parts = {reason.part for reason in reasons}
    kept = [r for r in reasons if not (r.path == "recipe.weights" and "weights" in parts)]
    # The constants' digest covers the graph that holds them; and an engine is built where it is to run.
    kept = [r for r in kept if not (r.path == "weights.constants" and "graph" in parts)]
    kept = [r for r in kept if not (r.path.startswith("recipe.place") and parts & {"target", "toolchain"})]
    settings = {r.path.removeprefix("settings.") for r in kept if r.part == "settings"}
    kept = [r for r in kept if r.path.removeprefix("recipe.settings.") not in settings or r.part == "settings"]
    return sorted(kept, key=lambda reason: -_WEIGHT.get(reason.part, 1))


def _reason(change: Difference) -> Reason:
    part = change.path.partition(".")[0].partition("[")[0]
    sayer = _SAY.get(part)
    text = sayer(change) if sayer else f"{change.path}: {change.mine!r} here, {change.theirs!r} there"
    return Reason(part, change.path, text, change.mine, change.theirs)


def _say_setting(change: Difference) -> str:
    name = change.path.removeprefix("settings.").partition("[")[0].partition(".")[0]
    role = FIELDS[name].role if name in FIELDS else "setting"
    sort = "an engine-invariant setting" if str(role) == "engine" else f"a {role} setting"
    return f"{name} is {_value(change.mine)} here and {_value(change.theirs)} there ({sort})"


def _say_recipe(change: Difference) -> str:
    name = change.path.removeprefix("recipe.").removeprefix("settings.")
    if name == "weights":
        return "the weights' values differ (the key leaves them out: the engine is refittable)"
    if name.startswith("exporter"):
        return f"the exporter differs: {_value(change.mine)} here, {_value(change.theirs)} there"
    if name.startswith("place"):
        here, there = _place(change.mine), _place(change.theirs)
        return f"it is to be built on {here} here and on {there} there (one key is for both)"
    return f"{name} is {_value(change.mine)} here and {_value(change.theirs)} there (in the recipe, not in the key)"


def _say_graph(change: Difference) -> str:
    return "the graphs differ"


def _say_spellings(change: Difference) -> str:
    return "operators of one meaning are written differently (square, pow), which autocast and sets of operators go by"


def _say_weights(change: Difference) -> str:
    if change.path == "weights.policy":
        return f"weights count by {change.mine} here and by {change.theirs} there"
    if change.path == "weights.constants":
        return "the constants differ (the engine is refittable, but constants are not weights)"
    return "the weights differ"


def _say_toolchain(change: Difference) -> str:
    what = {"version": "TensorRT's version", "flavour": "the TensorRT flavour", "cuda": "the CUDA major version"}
    name = change.path.removeprefix("toolchain.")
    return f"{what.get(name, name)} is {_value(change.mine)} here and {_value(change.theirs)} there"


def _say_target(change: Difference) -> str:
    name = change.path.removeprefix("target.").partition("[")[0]
    if name == "capabilities":
        return f"the compute capability is {_capability(change.mine)} here and {_capability(change.theirs)} there"
    return f"the target's {name} is {_value(change.mine)} here and {_value(change.theirs)} there"


def _profile_reasons(mine: Sequence[Any], theirs: Sequence[Any]) -> list[Reason]:
    """One line for each input of each profile whose shapes differ."""
    if len(mine) != len(theirs):
        text = f"{_profiles(mine)} here and {_profiles(theirs)} there"
        return [Reason("profiles", "profiles", text, list(mine), list(theirs))]
    found = []
    for number, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        for position in sorted({*one, *other}, key=int):
            here, there = one.get(position), other.get(position)
            if here != there:
                text = f"profile {number}, input {position}: {_shapes(here)} here and {_shapes(there)} there"
                found.append(Reason("profiles", f"profiles[{number}].{position}", text, here, there))
    return found


def _shapes(shapes: Mapping[str, Sequence[int]] | None) -> str:
    """``1x16 … 16x16 … 32x16``: the smallest, the optimal and the largest."""
    if shapes is None:
        return "fixed"
    return " … ".join("x".join(map(str, shapes[which])) for which in ("min", "opt", "max"))


_SAY = {
    "settings": _say_setting,
    "recipe": _say_recipe,
    "graph": _say_graph,
    "spellings": _say_spellings,
    "weights": _say_weights,
    "toolchain": _say_toolchain,
    "target": _say_target,
}


def _profiles(value: Any) -> str:
    count = len(value) if isinstance(value, Sequence) else 0
    return f"{count} optimisation profile{'' if count == 1 else 's'}"


def _place(value: Any) -> str:
    return _capability(value) if isinstance(value, int) else _value(value)


def _capability(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "+".join(f"sm_{number}" for number in value)
    return f"sm_{value}" if value is not None else "none"


def _value(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if not isinstance(value, Mapping) else ", ".join(f"{k} {v}" for k, v in value.items())
