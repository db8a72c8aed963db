"""An entry's lock line: made of its engine and, where that is refitted, of the program with the weights for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from farm.asks import Identity
from farm.builds import Engine
from farm.outlines import load_outline
from farm.prebuilding.standing import Item, State
from farm.prebuilds.entries import Entry
from farm.prebuilds.lock import LockEntry
from farm.service import Farm
from farm.store import lost


def line_of(entry: Entry, identity: Identity, engine: Engine) -> LockEntry:
    """The entry's lock line with this engine."""
    inputs, outputs = names_of(identity, engine)
    return LockEntry(
        model=entry.model.name,
        target=entry.target,
        variant=entry.variant,
        key=identity.key,
        recipe=identity.recipe,
        engine=engine.digest,
        size=engine.size,
        toolchain=identity.toolchain,
        manifest=str(engine.manifest.get("manifest", "")),
        inputs=inputs,
        outputs=outputs,
    )


def names_of(identity: Identity, engine: Engine) -> tuple[dict[str, str], dict[str, str]]:
    """The asker's names of an engine's inputs and outputs. Its bindings are the program's, in the program's order,
    whatever the model that it was built for calls them."""
    bindings = engine.manifest.get("bindings") or {}

    def names(side: str, own: Sequence[str]) -> dict[str, str]:
        bound = [str(one.get("name", "")) for one in bindings.get(side) or ()]
        return dict(zip(bound, own, strict=True)) if len(bound) == len(own) else {name: name for name in own}

    return names("inputs", identity.inputs), names("outputs", identity.outputs)


def refits(identity: Identity) -> bool:
    """Whether its engine is given weights before it is used: it serves every fine-tune, or holds none."""
    policy = (identity.parts.get("weights") or {}).get("policy")
    return policy == "metadata" or bool(identity.settings.get("strip_engine_weights"))


def with_locked_weights(farm: Farm, line: LockEntry, item: Item) -> LockEntry:
    """The line with the program that was locked for it, as long as that holds the same under the same names, and is
    there."""
    old = item.locked
    if old is None or item.identity is None or not old.program:
        return line
    if (old.recipe, old.engine) != (line.recipe, line.engine):
        return line
    if sorted(old.weights.values()) != sorted(_own_weights(farm, item.identity)):
        return line
    return line if lost(farm.store, [old.program]) else replace(line, program=old.program, weights=old.weights)


def with_weights(farm: Farm, item: Item) -> Item:
    """The item with its model's program in the store, and the map from the plan's weights to the model's."""
    if item.identity is None or item.line is None or item.line.program or not refits(item.identity):
        return item
    mine = _own_weights(farm, item.identity)
    theirs = _weights_of(farm, item.line)
    if len(theirs) != len(mine):
        theirs = mine
    names = dict(zip(theirs, mine, strict=True))
    line = replace(item.line, program=farm.store_program(item.identity), weights=names)
    state = State.LOCKED if line == item.locked else item.state
    return replace(item, line=line, state=state)


def _own_weights(farm: Farm, identity: Identity) -> list[str]:
    """What the model calls its weights, in the order of their first use."""
    stored = farm.identifier.program(identity.model, identity.custom_ops).weights.stored
    return [one.name for one in stored if one.kind == "weight"]


def _weights_of(farm: Farm, line: LockEntry) -> list[str]:
    """What the program that the engine was built from calls its weights, in the order of their first use, which is
    every such program's; none where that is not known any more."""
    for engine in farm.index.engines(prefix=line.engine, namespaces=farm.cache.namespaces):
        for parts in farm.index.parts(engine.recipe):
            outline = load_outline(parts.parts.get("outline"), farm.store)
            if parts.recipe == engine.recipe and outline is not None:
                return [str(one[0]) for one in outline["weights"] if one[4] == "weight"]
    return []
