"""Pins: engines that are kept by name, whatever collection finds. A name's set is replaced as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from farm.builds import Engine
from farm.collection import GRACE_SECONDS
from farm.errors import BadInput, Missing, NoSuchThing
from farm.human import count_of, short
from farm.leaving import Leaving, Pin, Pinned
from farm.prebuilds.lock import LockEntry

LONGEST = 200
SHOWN = 3


def pin(
    index: Leaving,
    wanted: Sequence[Pinned],
    name: str,
    *,
    seconds: float | None = None,
    grace: float = GRACE_SECONDS,
) -> Pin:
    """Have ``name`` keep ``wanted``, in place of what it kept before; for ``seconds``, or for ever. Repeating is
    harmless.

    ``Missing``, with nothing changed, when one of them is not there; ``BadInput`` for a name that cannot be.
    """
    check_name(name)
    if not wanted:
        raise BadInput(f"there is nothing to pin as '{name}'", "'farm unpin' forgets a pin")
    missing = index.put_pin(name, wanted, seconds, grace)
    if missing:
        some = ", ".join(short(one.digest) for one in missing[:SHOWN])
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        what = (
            f"{count_of(len(missing), 'engine')} to be pinned as '{name}' {'is' if len(missing) == 1 else 'are'} gone"
        )
        raise Missing(f"{what}: {some}{more}; nothing was pinned", "build them again, then pin them")
    (made,) = index.pins(name)
    return made


def unpin(index: Leaving, name: str, grace: float = GRACE_SECONDS) -> Pin:
    """Forget the pin that ``name`` is or begins; what it kept may be collected then. ``NoSuchThing``."""
    exact = index.pins(name) if name else []
    found = exact or [one for one in index.pins() if name and one.name.startswith(name)]
    if len(found) != 1:
        some = ", ".join(one.name for one in found[:SHOWN])
        text = f"'{name}' is short for several pins: {some}" if found else f"no pin is called '{name}'"
        raise NoSuchThing(text, "'farm ls pins' lists them")
    index.drop_pin(found[0].name, grace)
    return found[0]


def pinned_of(engine: Engine) -> Pinned:
    """An engine as it is there, to be pinned."""
    told = engine.manifest
    return Pinned(
        recipe=engine.recipe,
        namespace=engine.namespace,
        digest=engine.digest,
        manifest=str(told.get("manifest") or ""),
        program=str(told.get("program") or ""),
        size=engine.size,
    )


def by_prefix(index: Leaving, prefixes: Sequence[str], namespaces: Sequence[str] = ()) -> list[Pinned]:
    """The engines whose digest, recipe or key each of ``prefixes`` begins: all of one key, or one. ``Missing`` when
    there is none, ``BadInput`` when they are of several keys."""
    return [one for prefix in prefixes for one in _of_one_key(index, prefix, namespaces)]


def _of_one_key(index: Leaving, prefix: str, namespaces: Sequence[str]) -> list[Pinned]:
    found = index.engines(prefix=prefix, namespaces=namespaces) if prefix else []
    if not found:
        raise Missing(f"no engine's key, recipe or digest starts with '{prefix}'", "'farm ls engines' lists them")
    if len({engine.digest for engine in found}) > 1 and len({engine.manifest.get("key") for engine in found}) > 1:
        names = ", ".join(short(engine.digest) for engine in found[:SHOWN])
        raise BadInput(f"'{prefix}' stands for {len(found)} engines: {names}", "write more of it")
    return [pinned_of(engine) for engine in found]


def by_lock(index: Leaving, entries: Sequence[LockEntry], namespaces: Sequence[str] = ()) -> list[Pinned]:
    """The very engines that a lock file names. ``Missing`` when one is not there (any more). One that serves every
    fine-tune may have been made by another recipe than its line's."""
    there: dict[tuple[str, str], Pinned] = {}
    for digest in sorted({entry.engine for entry in entries}):
        for engine in index.engines(prefix=digest, namespaces=namespaces):
            there[engine.recipe, digest] = there["", digest] = pinned_of(engine)
    found = [there.get((entry.recipe, entry.engine), there.get(("", entry.engine))) for entry in entries]
    gone = [entry for entry, one in zip(entries, found, strict=True) if one is None]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise Missing(
            f"{gone[0]}{more}: the engine that the lock file names is not there; nothing was pinned",
            "run 'farm prebuild', which builds it and writes the file anew",
        )
    pairs = zip(entries, found, strict=True)
    # What a refitted engine is deployed with is this model's program, not the one that it was built from.
    return [replace(one, program=entry.program) if entry.program else one for entry, one in pairs if one is not None]


def check_name(name: str) -> None:
    if not name.strip() or len(name) > LONGEST or not name.isprintable():
        raise BadInput(f"'{name[:40]}' cannot be a pin's name", f"give up to {LONGEST} printable characters")
