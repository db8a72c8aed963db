"""What is collected, and why: the choice alone, from what there is, what protects it and what is wanted. Pure.

A *thing* is a row that holds bytes: an engine, a program, or a program's ONNX form. It goes when its toolchain is
retired, when nobody has used it for long, or, least lately used first, when its namespace or the whole is larger than
it may be. What is pinned, in use or young never goes. Several rows may hold the very same plan: its bytes count once,
and are free only when all of them go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from farm.errors import BadInput
from farm.namespaces import admits
from farm.toolchains import FLAVOURS, PINNED

GRACE_SECONDS = 3600.0


class Kind(StrEnum):
    """What holds bytes. Of equals the first goes last."""

    ENGINE = "engine"
    PROGRAM = "program"
    FORM = "form"


class Why(StrEnum):
    """Why a thing goes."""

    RETIRED = "toolchain retired"
    AGE = "not used for long"
    QUOTA = "its namespace is over its quota"
    BYTES = "over the budget"


@dataclass(frozen=True)
class Thing:
    """A row and its bytes. ``place`` is the row's primary key, and ``version`` is another once it has been written
    anew; ``blobs`` are what it names, and ``size`` the bytes of the first, or of all where they are one thing.
    ``kept`` says why it may not go, for people; empty where it may."""

    kind: Kind
    place: tuple[str, ...]
    version: str
    blobs: tuple[str, ...]
    size: int
    created: float
    used: float = 0.0
    namespace: str = ""
    toolchain: str = ""
    name: str = ""
    kept: str = ""

    @property
    def last(self) -> float:
        """When it was last of use: made, or asked for."""
        return max(self.created, self.used)


@dataclass(frozen=True)
class Retired:
    """Toolchains that are no longer wanted: a flavour's versions. ``below``: all before ``version``, which itself is
    one of them if ``inclusive``; else ``version``, or with ``under`` whatever begins with it."""

    flavour: str
    version: tuple[int, ...] = ()
    below: bool = False
    inclusive: bool = False
    under: bool = False

    def covers(self, text: str) -> bool:
        """Whether the toolchain that ``text`` names is retired; never one that cannot be read."""
        found = _EXACT.fullmatch(text)
        if found is None or found["flavour"] != self.flavour:
            return False
        version = _numbers(found["version"])
        if not self.version:
            return True
        if self.below:
            return version < self.version or (self.inclusive and version == self.version)
        return version[: len(self.version)] == self.version if self.under else version == self.version


_EXACT = re.compile(r"(?P<flavour>[a-z_]+)==(?P<version>[0-9]+(\.[0-9]+)*)(\+cu[0-9]+)?")
_RETIRED = re.compile(r"(?P<flavour>[a-z_]+)((?P<how>==|<=|<)(?P<version>[0-9]+(\.[0-9]+)*)(?P<under>\.\*)?)?")


def parse_retired(text: str) -> Retired:
    """``tensorrt_rtx`` (all of it), ``tensorrt==10.14.1.48``, ``tensorrt==10.*``, ``tensorrt<10.14``. ``BadInput``."""
    found = _RETIRED.fullmatch(text.strip().lower().replace("-", "_"))
    wrong = found is None or found["flavour"] not in FLAVOURS
    if found is None or wrong or (found["under"] and found["how"] != "=="):
        raise BadInput(
            f"'{text}' names no toolchains to retire",
            f"write one of {', '.join(FLAVOURS)}, or some of its versions: {PINNED}, tensorrt==10.*, tensorrt<10.14",
        )
    version = _numbers(found["version"]) if found["version"] else ()
    how = found["how"] or "=="
    return Retired(found["flavour"], version, how != "==", how == "<=", bool(found["under"]))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@dataclass(frozen=True)
class Rules:
    """What is wanted. Sizes are bytes, times seconds; ``None`` is no limit. ``namespaces``: only engines of these are
    looked at, and counted (empty: all, and programs and forms). ``quotas``: ``is_under``. ``grace``: what is younger
    never goes."""

    max_bytes: int | None = None
    max_age: float | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    retired: tuple[Retired, ...] = ()
    namespaces: tuple[str, ...] = ()
    grace: float = GRACE_SECONDS

    @property
    def limits(self) -> bool:
        """Whether anything is to be collected at all."""
        return self.max_bytes is not None or self.max_age is not None or bool(self.quotas or self.retired)

    def looks_at(self, thing: Thing) -> bool:
        return not self.namespaces or (thing.kind is Kind.ENGINE and thing.namespace in self.namespaces)


@dataclass(frozen=True)
class Going:
    """A thing that goes, and why."""

    thing: Thing
    why: Why


@dataclass(frozen=True)
class Choice:
    """What goes, the least lately used first; ``bytes`` of all that was looked at, ``kept`` of what may not go, and
    ``left`` of what stays."""

    going: tuple[Going, ...]
    bytes: int
    kept: int
    left: int


def choose(things: Iterable[Thing], rules: Rules, now: float) -> Choice:
    """What goes. The budget and the quotas are reached where that can be, and nothing goes for their sake that could
    stay."""
    looked = [thing for thing in things if rules.looks_at(thing)]
    free = {thing for thing in looked if not why_kept(thing, rules, now)}
    going = {thing: why for thing in free if (why := _on_its_own(thing, rules, now))}
    for namespace, limit in sorted(rules.quotas.items(), key=_narrowest):
        mine = [t for t in looked if is_under(t, namespace) and t not in going]
        going |= dict.fromkeys(_over(mine, free, limit), Why.QUOTA)
    if rules.max_bytes is not None:
        rest = [thing for thing in looked if thing not in going]
        going |= dict.fromkeys(_over(rest, free, rules.max_bytes), Why.BYTES)
    chosen = sorted(going, key=oldest)
    return Choice(
        going=tuple(Going(thing, going[thing]) for thing in chosen),
        bytes=bytes_of(looked),
        kept=bytes_of(thing for thing in looked if thing not in free),
        left=bytes_of(thing for thing in looked if thing not in going),
    )


def _narrowest(quota: tuple[str, int]) -> tuple[bool, int, str]:
    """What one namespace had to give up, all those that begin alike have less of already."""
    return quota[0].endswith("*"), -len(quota[0]), quota[0]


def is_under(thing: Thing, quota: str) -> bool:
    """Whether a thing counts towards the quota of a namespace, or of all that begin alike (``pr-*``) together."""
    return thing.kind is Kind.ENGINE and admits((quota,), thing.namespace)


def why_kept(thing: Thing, rules: Rules, now: float) -> str:
    """Why a thing may not go, in words; empty where it may."""
    if thing.kept:
        return thing.kept
    return "made or used within the grace period" if thing.last >= now - rules.grace else ""


def bytes_of(things: Iterable[Thing]) -> int:
    """The bytes of all, those that several hold once."""
    sizes: dict[str, int] = {}
    for thing in things:
        sizes[thing.blobs[0]] = max(thing.size, sizes.get(thing.blobs[0], 0))
    return sum(sizes.values())


def _on_its_own(thing: Thing, rules: Rules, now: float) -> Why | None:
    """Why a thing goes, however much room there is."""
    if thing.kind is Kind.ENGINE and any(one.covers(thing.toolchain) for one in rules.retired):
        return Why.RETIRED
    if rules.max_age is not None and thing.last < now - rules.max_age:
        return Why.AGE
    return None


def _over(things: Sequence[Thing], free: Collection[Thing], limit: int) -> list[Thing]:
    """What of ``things`` goes to bring their bytes down to ``limit``, least lately used first; and of that again what
    turns out to have room after all, when something large went after it."""
    total = bytes_of(things)
    if total <= limit:
        return []
    shares: dict[str, list[Thing]] = {}
    for thing in things:
        shares.setdefault(thing.blobs[0], []).append(thing)
    may = [held for held in shares.values() if all(thing in free for thing in held)]
    gone: list[list[Thing]] = []
    for held in sorted(may, key=lambda held: max(oldest(thing) for thing in held)):
        if total <= limit:
            break
        gone.append(held)
        total -= bytes_of(held)
    goes = []
    for held in reversed(gone):
        if total + bytes_of(held) <= limit:
            total += bytes_of(held)
        else:
            goes += held
    return goes


def oldest(thing: Thing) -> tuple[float, int, tuple[str, ...]]:
    """Least lately used first; of equals forms before programs before engines."""
    return thing.last, -list(Kind).index(thing.kind), thing.place


def toolchain_of(capability: str) -> str:
    """The toolchain of a queue (``placement``): what comes before its first slash."""
    return capability.partition("/")[0]
