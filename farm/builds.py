"""Builds: their states, the transitions that are legal, the kinds of failure, and when to try again. Pure.

A *build* is one request to make a recipe. It has *attempts*; each attempt is held by one lease and ends in
an outcome. The database enforces what this module says: every change of state goes through ``BuildState.may``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from farm.portability import Serves


class BuildState(StrEnum):
    """Where a build stands. ``queued`` and ``running`` are *active*; the rest are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def active(self) -> bool:
        return self in ACTIVE

    def may(self, after: BuildState) -> bool:
        """Whether a build in this state may become ``after``."""
        return after in _AFTER[self]


ACTIVE = frozenset({BuildState.QUEUED, BuildState.RUNNING})

# A running build becomes queued again when its lease is lost or its failure is worth another attempt. A
# failed or cancelled one never comes back: asking again makes a new build, so that history stays history.
_AFTER: Mapping[BuildState, frozenset[BuildState]] = {
    BuildState.QUEUED: frozenset({BuildState.RUNNING, BuildState.CANCELLED, BuildState.FAILED}),
    BuildState.RUNNING: frozenset({BuildState.QUEUED, BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED}),
    BuildState.SUCCEEDED: frozenset(),
    BuildState.FAILED: frozenset(),
    BuildState.CANCELLED: frozenset(),
}


class FailureKind(StrEnum):
    """Why an attempt failed, which decides what happens next (DESIGN, Builders).

    ``permanent``: this program with these settings can never build; remembered until ``farm retry``. Of this file of
    the program: another with the same recipe, in which names or spellings differ, may do.
    ``transient``: may pass by itself (out of disk, killed by somebody); tried again with back-off.
    ``node``: this machine cannot (no driver, too little memory); tried elsewhere.
    ``lost``: the worker vanished and its lease ran out.
    """

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    NODE = "node"
    LOST = "lost"


@dataclass(frozen=True)
class Failure:
    """A failed attempt's reason: one line for people, one of what to do next, and details for the curious."""

    kind: FailureKind
    message: str
    hint: str = ""


MAX_ATTEMPTS: Mapping[FailureKind, int] = {
    FailureKind.PERMANENT: 1,
    FailureKind.TRANSIENT: 3,
    # Each on another node: a fleet may have several that cannot.
    FailureKind.NODE: 6,
    # Workers die for reasons of their own as well; a build that took so many along is set aside as poison.
    FailureKind.LOST: 5,
}
FIRST_BACKOFF_S = 2.0
FIRST_LOST_BACKOFF_S = 1.0
BACKOFF_FACTOR = 3.0


def decide_retry(kind: FailureKind, attempts: int) -> float | None:
    """Seconds to wait before attempt ``attempts + 1``, or ``None`` when the build has failed for good.

    ``attempts`` counts those that have ended, this one included. A permanent failure is never repeated. One of the
    node is offered to the others at once (whether there are others, the index knows); a lost build is made again at
    once, and then ever later, should it be what kills its workers.
    """
    if attempts >= MAX_ATTEMPTS[kind]:
        return None
    if kind is FailureKind.NODE or (kind is FailureKind.LOST and attempts <= 1):
        return 0.0
    if kind is FailureKind.LOST:
        return FIRST_LOST_BACKOFF_S * BACKOFF_FACTOR ** (attempts - 2)
    return FIRST_BACKOFF_S * BACKOFF_FACTOR ** (attempts - 1)


def is_remembered(kind: FailureKind) -> bool:
    """Whether a build that ended so answers later requests of its recipe, until it is retried: it can never build, or
    it took down every worker that tried."""
    return kind in (FailureKind.PERMANENT, FailureKind.LOST)


def answers_for(build: Build, request: BuildRequest) -> bool:
    """Whether the remembered failure of ``build`` answers ``request``, which has its recipe.

    One that is permanent says something of the file that was tried. Keys cover what a program computes, and neither
    names nor spellings; yet a file may be refused, or a converter give up, for one of those, and a hostile one may
    feign any honest program. What takes down workers is kept from them, whichever file it comes in.
    """
    permanent = build.failure is not None and build.failure.kind is FailureKind.PERMANENT
    return not permanent or build.request.program == request.program


@dataclass(frozen=True)
class BuildRequest:
    """All that a worker must know to make a recipe; stored with the build as JSON.

    ``program`` is the digest of the program's file in the store, ``profiles`` are by input position,
    ``told`` is what the builder is told (see ``compilation.Effective``). What key and recipe were made of is recorded
    elsewhere (``index.KeyParts``), and computed anew by a worker. ``tenant`` is whose share it is built from and
    ``flow`` the submission it came with (``placement.turns``); ``expected`` is how long it should take, in seconds,
    ``memory`` and ``gpu_memory`` what it should need, in bytes. None of these four is believed of anybody for anything
    but scheduling. ``parts`` is empty, and there for workers and clients of former releases, which take a request
    without it for none.
    """

    key: str
    recipe: str
    program: str
    program_format: str
    model: str
    target: str
    toolchain: str
    told: Mapping[str, Any]
    profiles: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    custom_ops: Mapping[str, str] = field(default_factory=dict)
    weights: str = ""
    capability: str = ""
    priority: int = 0
    namespace: str = "main"
    tenant: str = ""
    flow: str = ""
    expected: float = 0.0
    memory: int = 0
    gpu_memory: int = 0
    parts: Mapping[str, Any] = field(default_factory=dict)


UNREADABLE = BuildRequest("", "", "", "", model="?", target="?", toolchain="?", told={}, profiles=())
"""In place of a request that cannot be read: another release of farm wrote it, or somebody else."""


@dataclass(frozen=True)
class Build:
    """One build as it stands. Times are seconds since the epoch by the database's clock."""

    id: str
    request: BuildRequest
    state: BuildState
    created: float
    attempts: int = 0
    started: float | None = None
    finished: float | None = None
    not_before: float | None = None
    failure: Failure | None = None
    engine: str | None = None
    worker: str | None = None
    node: str | None = None
    phase: str = ""
    progress: float | None = None
    waiters: int = 0


@dataclass(frozen=True)
class Lease:
    """The right to build ``build`` until ``expires``. ``token`` rises with every lease: the fence.

    A holder whose token is no longer the build's may write nothing.
    """

    build: Build
    token: int
    attempt: int
    expires: float


@dataclass(frozen=True)
class Engine:
    """An engine as the index knows it: the plan's digest and size, and its manifest.

    ``serves`` says for what else than its own key it may be handed out; it is written with the engine and not read
    back with it.
    """

    recipe: str
    digest: str
    size: int
    manifest: Mapping[str, Any]
    created: float
    build_seconds: float
    namespace: str = "main"
    serves: tuple[Serves, ...] = ()
    build: str = field(default="", compare=False)
    """The build that made it, as the index knows it."""
