"""``farm explain``: why an ask is a miss, or why two keys differ, part by part and down to the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from farm.asks import Ask, Identity
from farm.cache import Miss, key_parts
from farm.cli.output import emit, say, short
from farm.errors import BadInput, NoSuchThing
from farm.explain import Comparison, compare, nearest
from farm.index import KeyParts, Wanted
from farm.outlines import load_outline, outline_of, program_reasons
from farm.service import one_of

if TYPE_CHECKING:
    from farm.service import Farm

OF_PROGRAM = ("graph", "weights")
"""Parts that are digests: the programs' outlines say what lies behind them."""


def explain_keys(farm: Farm, what: Sequence[str], keys: Sequence[str], as_json: bool) -> None:
    """Compare two keys (or recipes) that were asked for on this farm."""
    if len(what) != 2 or len(keys) != 2:
        raise BadInput("give either models or exactly two keys", "'farm key MODEL -t TARGET' prints keys")
    mine, theirs = (_parts_of(farm, prefix) for prefix in keys)
    found = _in_detail(farm, compare(mine, theirs), load_outline(mine.parts.get("outline"), farm.store))
    if as_json:
        emit({"mine": mine.key, "theirs": theirs.key, **_document(found)})
        return
    say(f"here: {short(mine.key)} ({mine.model}, {mine.target})")
    say(f"there: {short(theirs.key)} ({theirs.model}, {theirs.target})")
    if not found.reasons:
        say("  nothing differs")
    elif found.same_key:
        say("  one key, two recipes")
    _say_reasons(found)


def _parts_of(farm: Farm, prefix: str) -> KeyParts:
    found = {parts.recipe: parts for parts in farm.index.parts(prefix)}
    if not found:
        raise NoSuchThing(
            f"no key or recipe that was asked for starts with '{prefix}'", "'farm explain MODEL -t TARGET' needs no key"
        )
    exact = {parts.key: parts for parts in found.values()}
    # Several recipes of one key are one thing to somebody who names the key.
    candidates = list(exact.values()) if len(exact) == 1 else list(found.values())
    return one_of(candidates, prefix, "key", lambda parts: parts.key)


def explain_asks(farm: Farm, asks: Sequence[Ask], as_json: bool) -> None:
    """Say of each ask whether it is a hit, else why not, and what is nearest."""
    documents = []
    for identity, found in farm.look(asks):
        why = found.why if isinstance(found, Miss) else ""
        near = _nearest(farm, identity) if why else []
        documents.append(
            {
                "model": identity.model,
                "target": identity.target,
                "key": identity.key,
                "recipe": identity.recipe,
                "cached": not why,
                "why": why or None,
                "nearest": [_document(other) for other in near],
            }
        )
        if not as_json:
            _say_why(identity, why, near)
    if as_json:
        emit(documents)


def _nearest(farm: Farm, identity: Identity) -> list[Comparison]:
    """The likest of what has an engine: of the same graph first, then of all that was asked of late."""
    recorded = [*farm.index.recent_parts(graph=identity.graph), *farm.index.recent_parts()]
    found = farm.index.find([Wanted(item.key, item.recipe) for item in recorded], farm.cache.namespaces)
    built = [item for item, hit in zip(recorded, found, strict=True) if hit is not None]
    near = nearest(key_parts(identity), built)
    if not any(_differs_in_program(other) for other in near):
        return near
    outline = outline_of(farm.identifier.program(identity.model, identity.custom_ops))
    return [_in_detail(farm, other, outline) for other in near]


def _differs_in_program(found: Comparison) -> bool:
    return any(reason.part in OF_PROGRAM for reason in found.reasons)


def _in_detail(farm: Farm, found: Comparison, mine: Mapping[str, Any] | None) -> Comparison:
    """The same comparison; where the programs differ, inputs, tensors and nodes are named if outlines are there."""
    if mine is None or not _differs_in_program(found):
        return found
    theirs = load_outline(found.other.parts.get("outline"), farm.store)
    details = program_reasons(mine, theirs) if theirs is not None else []
    explained = {reason.part for reason in details}
    others = [r for r in found.reasons if r.part not in OF_PROGRAM or r.part not in explained]
    return replace(found, reasons=(*details, *others))


def _document(found: Comparison) -> dict[str, Any]:
    return {
        "key": found.other.key,
        "recipe": found.other.recipe,
        "model": found.other.model,
        "target": found.other.target,
        "same_key": found.same_key,
        "same_recipe": found.same_recipe,
        "differences": [reason.as_json() for reason in found.reasons],
    }


def _say_why(identity: Identity, why: str, near: Sequence[Comparison]) -> None:
    say(f"{identity.model} for {identity.target}: {f'a miss: {why}' if why else 'a hit'}")
    say(f"  key {short(identity.key)}, recipe {short(identity.recipe)}")
    for other in near:
        say(f"  nearest: {short(other.other.key)} ({other.other.model}, {other.other.target})")
        _say_reasons(other)
    if why and not near:
        say("  nothing like it has been built")


def _say_reasons(found: Comparison) -> None:
    for reason in found.reasons:
        say(f"    {reason.text}")
