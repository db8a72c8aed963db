"""Prebuilding: what a manifest asks for is looked up, built where it is missing, and written down in a lock file.

Lock lines belong to recipes (DESIGN, Words), so only the very recipe's engine will do, as in a sweep: what ships is
what the manifest says. An engine that serves every fine-tune is the exception: one that was built with other weights is
locked as it is, since it is refitted before use and not built again. A line that still says what is true is left as it
is, whatever else has been built since.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from farm.asks import Answer, Identity
from farm.builds import Build, Engine
from farm.cache import Miss, key_parts
from farm.errors import FarmError
from farm.explain import compare
from farm.index import Found
from farm.lockline import LockEntry
from farm.outlines import load_outline
from farm.prebuild import Entry, Model, PrebuildSpec, entries
from farm.service import Farm
from farm.store import lost

REASONS = 3
"""So many differences from what was locked are told of each entry."""
ANOTHERS = "only another recipe's engine is there"
NOT_IN_TIME = "it was not finished in the time given"


class Sources(Protocol):
    """Where models come from; ``model_sources.ModelSources``."""

    def get(self, model: Model) -> str: ...


class State(StrEnum):
    """How an entry stands."""

    LOCKED = "locked"
    """There, as its lock line says."""
    CACHED = "cached"
    """There; its lock line is new, or another."""
    MISSING = "missing"
    """Not there: to be built."""
    BUILT = "built"
    JOINED = "joined"
    """Built by somebody else meanwhile."""
    FAILED = "failed"
    UNCHANGED = "unchanged"
    """Not looked at: nothing that it is made from has changed (``--changed-since``)."""

    @property
    def there(self) -> bool:
        return self not in (State.MISSING, State.FAILED)


@dataclass(frozen=True)
class Item:
    """One entry: what is known of it, and its lock line, old and new. ``why`` says why it is to be built (it differs
    from what was locked in this) or, with ``hint``, why it failed; ``seconds`` is what its build took."""

    entry: Entry
    state: State
    identity: Identity | None = None
    locked: LockEntry | None = None
    line: LockEntry | None = None
    why: tuple[str, ...] = ()
    hint: str = ""
    seconds: float = 0.0

    @property
    def fails(self) -> bool:
        """Whether the whole prebuild fails because of it."""
        return self.entry.required and self.state is State.FAILED

    @property
    def lacks(self) -> bool:
        return self.entry.required and self.state is State.MISSING


@dataclass(frozen=True)
class Prebuild:
    """All entries of a manifest, in its order, and the lock lines that there were."""

    spec: PrebuildSpec
    items: tuple[Item, ...]
    old: tuple[LockEntry, ...] = ()

    @property
    def lock(self) -> list[LockEntry]:
        """The lines to be written: of all that is there. What failed has none, rather than one of another program."""
        return [item.line for item in self.items if item.line is not None and item.state.there]

    def counts(self) -> dict[str, int]:
        """Entries, and how many of them are in each state that any is in."""
        states = [item.state for item in self.items]
        return {"entries": len(states)} | {str(one): states.count(one) for one in State if one in states}

    def changes(self, looking: bool = False, engines: bool = False) -> list[str]:
        """In what the lock file differs from what is true; with ``looking`` as far as that can be said before anything
        is built: by keys and names, and with ``engines`` also by what lies in the store."""
        known = {entry.name: entry for entry in self.old}
        told = []
        for item in self.items:
            told += _changes(item, known.pop(item.entry.name, None), looking, engines)
        return told + [f"{entry}: the manifest has it no longer" for entry in known.values()]


def _changes(item: Item, old: LockEntry | None, looking: bool, engines: bool = False) -> list[str]:
    if looking and item.state is not State.FAILED and item.identity is not None:
        told = _differs(item, old, item.identity, engines)
        return [f"{item.entry}: {told}"] if told else []
    new = item.line if item.state.there else None
    if new == old:
        return []
    if old is None or new is None:
        return [f"{item.entry}: {'it is new' if new else 'it has no engine'}"]
    return [f"{item.entry}: {_compared(old, new, vars(new))}"]


def _differs(item: Item, old: LockEntry | None, identity: Identity, engines: bool) -> str:
    if old is None:
        # One that is best effort and cannot be built has no line: it is as it was, until it is found to be there.
        return "it is new" if item.entry.required or item.state.there else ""
    for name in ("toolchain", "key", "recipe"):
        mine, theirs = getattr(identity, name), getattr(old, name)
        if mine != theirs:
            return f"{name} {_short(theirs)} → {_short(mine)}"
    names = (tuple(old.inputs.values()), tuple(old.outputs.values()))
    sides = {"inputs": set(names[0]) - set(identity.inputs), "outputs": set(names[1]) - set(identity.outputs)}
    told = ", ".join(f"{side} no longer called {_listed(gone)}" for side, gone in sides.items() if gone)
    if not told and item.line is not None and (engines or item.line.engine == old.engine):
        # Maps of one engine's bindings tell names that were exchanged, too.
        return _compared(old, item.line, _TOLD_BY_LOOKING)
    return told


_TOLD_BY_LOOKING = ("engine", "size", "manifest", "inputs", "outputs")


def _compared(old: LockEntry, new: LockEntry, names: Iterable[str]) -> str:
    fields = [name for name in names if getattr(old, name) != getattr(new, name)]
    return ", ".join(f"{name} {_short(getattr(old, name))} → {_short(getattr(new, name))}" for name in fields)


def _short(value: object) -> str:
    text = str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(map(str, value.values())) + "}"
    return text.partition(":")[2][:12] if text.startswith("sha256:") else text


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


# -- planning ----------------------------------------------------------------------------------------------------


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
    if engine is None and isinstance(found, Found) and _serves(found):
        engine = found.engine
    if engine is not None:
        line = _with_locked_weights(farm, line_of(item.entry, item.identity, engine), item)
        return replace(item, line=line, state=State.LOCKED if line == item.locked else State.CACHED)
    if item.identity.refused:
        return replace(item, state=State.FAILED, why=item.identity.refused[:1])
    return replace(item, why=(found.why,) if isinstance(found, Miss) else (ANOTHERS,))


def _serves(found: Found) -> bool:
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


# -- building ----------------------------------------------------------------------------------------------------


def build(
    farm: Farm,
    found: Prebuild,
    *,
    timeout: float | None = None,
    on_change: Callable[[Sequence[Build]], None] = lambda builds: None,
) -> Prebuild:
    """Build what is missing; how every entry stands then. What is not finished within ``timeout`` seconds has failed,
    and nobody waits for it any more. One failure stops nothing else."""
    items = _built(farm, found, timeout, on_change)
    return replace(found, items=tuple(_with_weights(farm, item) for item in items))


def _built(
    farm: Farm, found: Prebuild, timeout: float | None, on_change: Callable[[Sequence[Build]], None]
) -> list[Item]:
    items = list(found.items)
    missing = [n for n, item in enumerate(items) if item.state is State.MISSING]
    if not missing:
        return items
    started = time.monotonic()
    identities = [identity for n in missing if (identity := items[n].identity) is not None]
    answers = farm.submit_identified(identities, exact=True)
    left = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
    ended = farm.wait(answers, on_change=on_change, timeout=left)
    if any(str(answer.outcome) in ("queued", "joined") and answer.engine is None for answer in ended):
        farm.abandon()
    looked = farm.cache.lookup(identities)
    for n, answer, hit in zip(missing, ended, looked, strict=True):
        items[n] = _ended(items[n], answer, hit)
    return items


def _ended(item: Item, answer: Answer, hit: Found | Miss) -> Item:
    item, identity = replace(item, seconds=answer.seconds), answer.identity
    if answer.error:
        return replace(item, state=State.FAILED, why=(answer.error,), hint=answer.hint)
    if not answer.outcome.has_engine or answer.engine is None:
        return replace(item, state=State.FAILED, why=(NOT_IN_TIME,), hint="give it more, or a faster worker")
    if isinstance(hit, Miss):
        return replace(item, state=State.FAILED, why=(hit.why,), hint="ask again")
    if not _serves(hit):  # what was built has gone again, or is not believed, and another recipe's was found
        return replace(item, state=State.FAILED, why=(ANOTHERS,), hint="ask again")
    state = State.JOINED if str(answer.outcome) == "joined" else State.BUILT
    return replace(item, state=state, line=line_of(item.entry, identity, hit.engine))


# -- engines that are refitted -------------------------------------------------------------------------------------


def refits(identity: Identity) -> bool:
    """Whether its engine is given weights before it is used: it serves every fine-tune, or holds none."""
    policy = (identity.parts.get("weights") or {}).get("policy")
    return policy == "metadata" or bool(identity.settings.get("strip_engine_weights"))


def _with_locked_weights(farm: Farm, line: LockEntry, item: Item) -> LockEntry:
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


def _with_weights(farm: Farm, item: Item) -> Item:
    """The item with its model's program in the store, and the map from the plan's weights to the model's."""
    if item.identity is None or item.line is None or item.line.program or not refits(item.identity):
        return item
    mine = _own_weights(farm, item.identity)
    theirs = _weights_of(farm, item.line)
    if len(theirs) != len(mine):
        theirs = mine
    names = dict(zip(theirs, mine, strict=True))
    line = replace(item.line, program=farm.keep_program(item.identity), weights=names)
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
