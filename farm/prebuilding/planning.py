"""Every entry of a manifest is identified and looked up; what is not there is to be built, and it is said why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol

from farm.builds import Engine
from farm.cache import Miss, key_parts
from farm.errors import FarmError
from farm.explain import compare
from farm.index import Found
from farm.prebuilding.lines import line_of, with_locked_weights
from farm.prebuilding.standing import Item, Prebuild, State
from farm.prebuilds.entries import Entry, Model, PrebuildSpec, entries
from farm.prebuilds.lock import LockEntry
from farm.service import Farm
from farm.store import lost

REASONS = 3
"""So many differences from what was locked are told of each entry."""
ANOTHERS = "only another recipe's engine is there"


class Sources(Protocol):
    """Where models come from; ``sources.ModelSources``."""

    def get(self, model: Model) -> str: ...


def plan(
    farm: Farm,
    spec: PrebuildSpec,
    sources: Sources,
    old: Sequence[LockEntry] = (),
    unchanged: Collection[str] = (),
) -> Prebuild:
    """Every entry identified and looked up; nothing is built. ``BadInput`` when the manifest itself is wrong; what
    is wrong with one model alone is that entry's failure. ``unchanged`` models are not even opened, where every
    entry of theirs is locked already."""
    asked = entries(spec, farm.config.targets)
    known = {line.name: line for line in old}
    left_out = {name for name in unchanged if all(one.name in known for one in asked if one.model.name == name)}
    paths = _Paths(sources)
    items = [
        Item(entry, State.UNCHANGED, locked=known[entry.name], line=known[entry.name])
        if entry.model.name in left_out
        else _identified(farm, entry, paths, known.get(entry.name))
        for entry in asked
    ]
    return Prebuild(spec, tuple(_explained(farm, item) for item in _looked_up(farm, items)), tuple(old))


class _Paths:
    """Each model's file, got once; its error again for every entry of the model."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._found: dict[str, str | FarmError] = {}

    def of(self, model: Model) -> str:
        if model.name not in self._found:
            try:
                self._found[model.name] = self._sources.get(model)
            except FarmError as error:
                self._found[model.name] = error
        found = self._found[model.name]
        if isinstance(found, FarmError):
            raise found
        return found


def _identified(farm: Farm, entry: Entry, paths: _Paths, locked: LockEntry | None) -> Item:
    try:
        (identity,) = farm.identify([entry.ask(paths.of(entry.model))])
        return Item(entry, State.MISSING, identity, locked)
    except FarmError as error:
        return Item(entry, State.FAILED, locked=locked, why=(error.message,), hint=error.hint)


def _looked_up(farm: Farm, items: Sequence[Item]) -> list[Item]:
    identities = [item.identity for item in items if item.identity is not None]
    found = iter(farm.cache.lookup(identities))
    return [item if item.identity is None else _found(farm, item, next(found)) for item in items]


def _found(farm: Farm, item: Item, found: Found | Miss) -> Item:
    """The item with its engine: the one that is locked, if that is still there; else the one that was found."""
    assert item.identity is not None
    engine = _locked_engine(farm, item, found)
    if engine is None and isinstance(found, Found) and serves(found):
        engine = found.engine
    if engine is not None:
        line = with_locked_weights(farm, line_of(item.entry, item.identity, engine), item)
        return replace(item, line=line, state=State.LOCKED if line == item.locked else State.CACHED)
    if item.identity.refused:
        return replace(item, state=State.FAILED, why=item.identity.refused[:1])
    return replace(item, why=(found.why,) if isinstance(found, Miss) else (ANOTHERS,))


def serves(found: Found) -> bool:
    """The very recipe's engine; or one that serves every fine-tune, and holds another's weights."""
    return found.exact or not found.same_weights


def _locked_engine(farm: Farm, item: Item, found: Found | Miss) -> Engine | None:
    """The engine that the lock names, where the lock names the same recipe and the look-up found another."""
    old, identity = item.locked, item.identity
    if old is None or identity is None or (old.key, old.recipe) != (identity.key, identity.recipe):
        return None
    if isinstance(found, Found) and found.engine.digest == old.engine:
        return found.engine
    for engine in farm.index.engines(prefix=old.engine, namespaces=farm.cache.namespaces):
        named = (engine.digest, engine.manifest.get("manifest")) == (old.engine, old.manifest)
        if named and not farm.cache.distrusts(engine) and not lost(farm.store, [engine.digest]):
            return engine
    return None


def _explained(farm: Farm, item: Item) -> Item:
    """Why it is to be built: what differs from what was locked, part by part, where that is still known."""
    old, identity = item.locked, item.identity
    if item.state is not State.MISSING or identity is None:
        return item
    if old is None:
        return replace(item, why=(*item.why, "it was not locked before"))
    if old.key == identity.key:
        return item
    stored = [parts for parts in farm.index.parts(old.key) if parts.key == old.key]
    reasons = [reason.text for reason in compare(key_parts(identity), stored[0]).reasons] if stored else []
    if not reasons and old.toolchain != identity.toolchain:
        reasons = [f"toolchain: {identity.toolchain} here, {old.toolchain} locked"]
    return replace(item, why=tuple(reasons[:REASONS]) or item.why)
