"""Whose kernel timings are whose, and every version that they had: scopes and their histories. Pure.

A *scope* is what timings are good for: one TensorRT, on one CUDA, on one kind of device. NVIDIA warns against taking
over another's (``ignore_mismatch``), so nothing that differs shares a scope. A *history* is what a scope's pointer
holds: its newest versions, each an immutable blob, and what was found wrong with any.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from farm.canonical import digest
from farm.devices import Device
from farm.errors import FarmError, NoSuchThing
from farm.human import count_of
from farm.toolchains import Toolchain

SCHEMA = 1
KEPT_VERSIONS = 20
KEPT_REVOKED = 20
KEPT_BASELINES = 200
SHORT = 12
UNTRUSTED = "untrusted"
_UNFIT = re.compile(r"[^a-z0-9.]+")


@dataclass(frozen=True)
class Scope:
    """``editable`` caches are a kind of their own; so are those of untrusted namespaces (``realm``), which trusted
    workers neither read nor write. The driver is none of a scope (TensorRT does not bind a cache to
    it); a version tells which one it was timed under."""

    flavour: str
    version: str
    cuda: int
    device: Device
    editable: bool = False
    realm: str = ""

    @classmethod
    def of(cls, toolchain: Toolchain, gpu: Mapping[str, Any], editable: bool = False, trusted: bool = True) -> Scope:
        device, realm = Device.of(gpu), "" if trusted else UNTRUSTED
        return cls(toolchain.flavour, toolchain.version, toolchain.cuda, device, editable, realm)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Scope:
        return cls(**{**told, "device": Device(**told["device"])})

    def as_json(self) -> dict[str, Any]:
        told = asdict(self)
        if not self.realm:
            del told["realm"]  # as it was before there were realms: a scope's id stays what it is
        return told

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits; people may write fewer."""
        return digest("timing scope", self.as_json()).rpartition(":")[2][:SHORT]

    @property
    def toolchain(self) -> Toolchain:
        return Toolchain(self.flavour, self.version, self.cuda)

    @property
    def name(self) -> str:
        """The pointer's name, which people may read: ``timing-tensorrt-10.14.1-cu13-l4-sm89-58mp-23g-3f2a…``."""
        parts = ["timing", self.flavour, self.version, f"cu{self.cuda}", str(self.device)]
        parts += [word for word in ("editable" if self.editable else "", self.realm) if word]
        return "-".join([*(_UNFIT.sub("-", part.lower()).strip("-")[:80] for part in parts), self.id])

    def __str__(self) -> str:
        kind = ", ".join(word for word in ("editable" if self.editable else "", self.realm) if word)
        return f"{self.toolchain} on {self.device}" + (f" ({kind})" if kind else "")


@dataclass(frozen=True)
class Author:
    """Who wrote a version, and under which driver."""

    who: str
    driver: str = ""


@dataclass(frozen=True)
class Version:
    """One state of a scope's cache. ``entries`` where the toolchain can count them; ``why`` says how it came to be;
    ``aside`` what is wrong with it: then nobody starts from it."""

    number: int
    digest: str
    size: int
    when: float
    who: str
    driver: str = ""
    entries: int | None = None
    why: str = "learned"
    aside: str = ""


@dataclass(frozen=True)
class Ran:
    """A build, for the statistics. ``taken`` is the version that it started from; ``like`` names builds that are
    comparable (one graph at one level); ``seconds`` are those of the build itself; ``before`` and ``after`` the
    entries of its cache, where known."""

    like: str
    seconds: float
    taken: int | None = None
    before: int | None = None
    after: int | None = None


@dataclass(frozen=True)
class Statistics:
    """What a cache was good for. ``saved`` are seconds, over the ``compared`` builds for which there was one like them
    without a cache (``baselines``: the seconds of those); of the others nothing is known. A build may count twice where
    a write's answer was lost."""

    from_cache: int = 0
    without: int = 0
    nothing_new: int = 0
    compared: int = 0
    saved: float = 0.0
    baselines: Mapping[str, float] = field(default_factory=dict)

    def after(self, ran: Ran) -> Statistics:
        if ran.taken is None:
            known = {**self.baselines, ran.like: round(ran.seconds, 3)}
            kept = dict(list(known.items())[-KEPT_BASELINES:])
            return replace(self, without=self.without + 1, baselines=kept)
        counted = replace(
            self,
            from_cache=self.from_cache + 1,
            nothing_new=self.nothing_new + (ran.before is not None and ran.before == ran.after),
        )
        if ran.like not in self.baselines:
            return counted
        saved = self.saved + self.baselines[ran.like] - ran.seconds
        return replace(counted, compared=self.compared + 1, saved=round(saved, 3))


@dataclass(frozen=True)
class History:
    """A scope's versions, oldest first. ``revoked`` are ranges of numbers (both included) that were rolled back:
    what was learned on top of one is learned no more."""

    scope: Scope
    versions: tuple[Version, ...] = ()
    revoked: tuple[tuple[int, int], ...] = ()
    statistics: Statistics = Statistics()

    @classmethod
    def from_bytes(cls, data: bytes) -> History:
        """``ValueError`` for what is none; ``FarmError`` for one that a newer farm wrote."""
        try:
            told = json.loads(data)
            if told["schema"] > SCHEMA:
                raise FarmError("these timings were written by a newer farm", "bring this machine's farm up to date")
            return cls(
                Scope.from_json(told["scope"]),
                tuple(Version(**version) for version in told["versions"]),
                tuple((int(low), int(high)) for low, high in told["revoked"]),
                Statistics(**told["statistics"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no history of timings: {error}") from error

    def to_bytes(self) -> bytes:
        told = {
            "schema": SCHEMA,
            "scope": self.scope.as_json(),
            "versions": [asdict(version) for version in self.versions],
            "revoked": self.revoked,
            "statistics": asdict(self.statistics),
        }
        return json.dumps(told, separators=(",", ":")).encode()

    @property
    def usable(self) -> list[Version]:
        """What may be started from, the newest first."""
        return [v for v in reversed(self.versions) if not v.aside and not self.is_revoked(v.number)]

    @property
    def newest(self) -> Version | None:
        return next(iter(self.usable), None)

    @property
    def next_number(self) -> int:
        return self.versions[-1].number + 1 if self.versions else 1

    def is_revoked(self, number: int) -> bool:
        return any(low <= number <= high for low, high in self.revoked)

    def find(self, number: int) -> Version:
        for version in self.versions:
            if version.number == number:
                return version
        held = ", ".join(str(version.number) for version in self.versions) or "none"
        raise NoSuchThing(f"{self.scope} has no version {number}", f"it has {held}")

    def with_version(self, version: Version) -> History:
        """``version`` on top; the oldest go. One that is to be started from stays, however old it is."""
        versions = [*self.versions, version]
        surplus = versions[: max(0, len(versions) - KEPT_VERSIONS)]
        last = replace(self, versions=tuple(versions)).newest
        kept = [one for one in versions if one not in surplus or one is last]
        return replace(self, versions=tuple(kept))

    def with_aside(self, reasons: Mapping[int, str]) -> History:
        marked = (replace(v, aside=reasons[v.number]) if v.number in reasons else v for v in self.versions)
        return replace(self, versions=tuple(marked))

    def rolled_back(self, to: int, when: float, author: Author) -> History:
        """The version ``to`` again, on top. Those above it are revoked, what was wrong with it is forgiven."""
        old = self.find(to)
        why = f"rolled back to {to}, from {self.versions[-1].number}"
        top = replace(old, number=self.next_number, when=when, who=author.who, driver=author.driver, why=why, aside="")
        above = (to + 1, self.versions[-1].number)
        ranges = (*self.revoked, above) if above[0] <= above[1] else self.revoked
        return replace(self, revoked=ranges[-KEPT_REVOKED:]).with_version(top)


def find_scope(scopes: Sequence[Scope], prefix: str) -> Scope:
    """The one scope whose id, or name, begins so; ``NoSuchThing`` when none does, or several do."""
    found = [scope for scope in scopes if scope.id.startswith(prefix) or scope.name.startswith(f"timing-{prefix}")]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoSuchThing(f"no timing cache is called '{prefix}'", "'farm timing ls' lists them")
    raise NoSuchThing(
        f"'{prefix}' is {count_of(len(found), 'timing cache')}: {', '.join(scope.id for scope in found)}",
        "write more of its name",
    )
