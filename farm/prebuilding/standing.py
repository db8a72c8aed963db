"""How the entries of a manifest stand, and in what the lock file differs from what is true. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from farm.asks import Identity
from farm.prebuilds.entries import Entry, PrebuildSpec
from farm.prebuilds.lock import LockEntry


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
