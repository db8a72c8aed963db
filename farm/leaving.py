"""What collection and pins ask of the index: what there is and what protects it, what is about to go, who keeps what.

The rules of ``farm.index`` hold here too. Removal takes two steps. ``condemn`` removes rows, so that nobody is promised
what they named any more, and notes their blobs as *condemned*: still named, until a time. ``take_condemned`` gives
those whose time has come to whoever removes blobs. ``farm.collecting`` says why that is safe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from farm.collection import Kind, Thing
from farm.upkeep import PAGE, Place, Upkeep

Where = tuple[str, str]
"""An engine's recipe and namespace."""


@dataclass(frozen=True)
class Protected:
    """What must not go at ``now``, by the database's clock. ``pins``: the name of a pin by what it pins: plans and
    programs by digest, and engines by recipe and namespace. ``building``: engines that are being built anew;
    ``needed``: programs of active builds."""

    now: float
    pins: Mapping[str, str] = field(default_factory=dict)
    pinned: Mapping[Where, str] = field(default_factory=dict)
    building: frozenset[Where] = frozenset()
    needed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Condemned:
    """A blob whose row was collected. ``size`` is 0 where the row did not say."""

    blob: str
    kind: str
    size: int
    until: float


@dataclass(frozen=True)
class Pinned:
    """One engine of a pin, as it was when it was pinned. ``program``: what it was built from; empty if that is
    unknown."""

    recipe: str
    namespace: str
    digest: str
    manifest: str = ""
    program: str = ""
    size: int = 0


@dataclass(frozen=True)
class Pin:
    """The engines that ``name`` keeps. ``expires``: until when, by the database's clock; ``None`` is for ever."""

    name: str
    engines: tuple[Pinned, ...]
    created: float = 0.0
    expires: float | None = None


class Trimmed(NamedTuple):
    """One page of old builds: those that went, and those of which events and log went; the place of the last, empty
    when that was the last page."""

    builds: int
    logs: int
    place: Place


class Leaving(Upkeep, Protocol):
    """The index as ``collecting`` and ``pinning`` need it."""

    # -- what there is -------------------------------------------------------------------------------------------
    def protected(self) -> Protected:
        """What must not go now."""
        ...

    def weighed(self, kind: Kind, after: Place = (), limit: int = PAGE) -> list[Thing]:
        """Rows of one kind beyond ``after``, as things. A form of unknown size weighs 0."""
        ...

    # -- what goes -----------------------------------------------------------------------------------------------
    def condemn(self, things: Sequence[Thing], grace: float) -> list[Thing]:
        """Remove the rows of ``things``, all of one kind, and condemn their blobs until ``grace`` seconds from now;
        returns those that went. One stays that was written anew, pinned, asked for or used since it was looked at."""
        ...

    def condemned(self) -> tuple[int, int, int]:
        """How many blobs are condemned, their bytes as far as known, and how many of them are due."""
        ...

    def take_condemned(self, limit: int) -> list[Condemned]:
        """Some whose time has come, or which somebody took and did not finish: nobody can hold them any more."""
        ...

    def spare(self, blobs: Collection[str]) -> None:
        """Forget that these were taken: they are gone, or something names them."""
        ...

    def postpone(self, blobs: Collection[str], seconds: float) -> None:
        """Have those that were taken looked at again in so many seconds."""
        ...

    def named_elsewhere(self, blobs: Collection[str]) -> set[str]:
        """``named``, condemned ones left out."""
        ...

    # -- history -------------------------------------------------------------------------------------------------
    def trim_sweeps(self, before: float, limit: int = PAGE) -> int:
        """Forget sweeps of before that time of which nothing is active any more; how many went."""
        ...

    def trim_builds(self, before: float, after: Place = (), limit: int = PAGE) -> Trimmed:
        """One page of builds that ended before that time. Those that made an engine that is there, that are remembered
        as failures, or that a sweep tells of, stay, and lose their events and logs; the others go."""
        ...

    def trim_parts(self, before: float, grace: float, limit: int = PAGE) -> int:
        """Forget what keys were made of that nobody recorded since that time, that have no engine, pin or active build;
        their outlines are condemned. How many went."""
        ...

    def history(self, before: float) -> dict[str, int]:
        """How many sweeps, builds and key parts there are of before that time: the most that trimming could remove."""
        ...

    # -- pins ----------------------------------------------------------------------------------------------------
    def put_pin(self, name: str, engines: Sequence[Pinned], seconds: float | None, grace: float) -> list[Pinned]:
        """Have ``name`` keep these, and nothing else, for so many seconds or for ever. All or nothing: returns those
        that are not there (any more) as they were named; when there are any, nothing was changed. ``NotAllowed`` for
        engines of a namespace that must not be written (``farm.namespaces``)."""
        ...

    def drop_pin(self, name: str, grace: float) -> bool:
        """Forget a pin; False when there is none of the name."""
        ...

    def pins(self, name: str = "") -> list[Pin]:
        """Every pin, or the one of that name; expired ones that were not dropped yet, too."""
        ...

    def expire_pins(self, grace: float) -> int:
        """Drop those that have expired; how many."""
        ...

    def take_turn(self, name: str, seconds: float) -> bool:
        """Whether it is the caller's turn to do what should be done once in so many seconds, whoever asks."""
        ...
