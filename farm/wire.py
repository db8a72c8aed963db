"""What a client and its server say to each other beyond the records of ``index`` and ``store``. Pure.

Both sides read these types: the server's framework checks what comes in and documents it, the client decodes what comes
back. A field may be added, never renamed: either side ignores what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farm.builds import Build, BuildRequest, Engine
from farm.index import KeyParts, Wanted
from farm.namespaces import MAIN

API = "/api/v1"
BODY_BYTES = 64 * 2**20
"""No JSON is larger, either way. Ten thousand builds asked for at once come to a third of it."""
MOST = 100_000
"""No list is longer."""
WATCH_SECONDS = 20.0
"""A server answers a watch after so long though nothing has changed."""


@dataclass(frozen=True)
class Session:
    """Who a client is to its server: its token's name and scope, the namespace that it asks for, and those that it
    reads. ``farm``: the server's version."""

    farm: str
    name: str
    scope: str
    namespace: str = MAIN
    trusted: tuple[str, ...] = (MAIN,)
    reads: tuple[str, ...] = (MAIN,)


@dataclass(frozen=True)
class Looking:
    """Look-ups; ``namespaces``: those to look into (empty: all that the token reads)."""

    wanted: tuple[Wanted, ...]
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Digests:
    """Blobs by name."""

    digests: tuple[str, ...]


@dataclass(frozen=True)
class Holding:
    """Blobs that a client is about to fetch, or fetches, and wants to stay for so many seconds."""

    blobs: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Order:
    """A build that is asked for. The server computes everything else from the stored program, key and recipe too: they
    are told so that a program which changed on its way is found out."""

    key: str
    recipe: str
    program: str
    model: str
    target: str
    toolchain: str
    profiles: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    custom_ops: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0

    @classmethod
    def of(cls, request: BuildRequest) -> Order:
        return cls(
            key=request.key,
            recipe=request.recipe,
            program=request.program,
            model=request.model,
            target=request.target,
            toolchain=request.toolchain,
            profiles=request.profiles,
            settings=request.settings,
            custom_ops=request.custom_ops,
            priority=request.priority,
        )


@dataclass(frozen=True)
class Orders:
    """Builds that are asked for together. ``waiter`` waits for them (empty: they stay wanted by themselves)."""

    orders: tuple[Order, ...]
    waiter: str = ""
    force: bool = False


@dataclass(frozen=True)
class Watching:
    """Builds that are watched: by id, the state of each that the client has seen (empty: none yet). The answer holds
    those that are in another, and comes as soon as there is one, or after ``seconds``."""

    seen: Mapping[str, str]
    seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """A build, and the name of the state that it is in."""

    state: str
    build: Build


@dataclass(frozen=True)
class Log:
    """A log's text beyond where it was asked from, and where to go on."""

    text: str
    position: int


@dataclass(frozen=True)
class Dropping:
    """An engine that a client found without its bytes, or altered. The server looks for itself."""

    recipe: str
    digest: str
    namespace: str | None = None


@dataclass(frozen=True)
class Adopting:
    """An engine that a client built itself."""

    engine: Engine
    parts: KeyParts
    capability: str = ""


@dataclass(frozen=True)
class Leaving:
    """A waiter that waits no more: for these builds, or for any."""

    waiter: str
    builds: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Counted:
    """What was counted by a client (``farm.usage.Usage``)."""

    counters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    keys: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    engines: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True)
class Ending:
    """Why no more of a sweep is tried; empty: more may be."""

    why: str


@dataclass(frozen=True)
class Done:
    """Whether it was done."""

    done: bool
