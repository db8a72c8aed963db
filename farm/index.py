"""What the index is: the truth about engines, builds, programs and sweeps, in SQL. One file per backend.

This is what everybody asks of it, clients of a server too. ``making``, ``upkeep`` and ``leaving`` add to it what only
those ask who stand beside the database.

Rules that every backend keeps:

* Each method is one transaction. What it returned has been committed.
* Time is the database's: leases expire, and retries fall due, by its clock alone.
* A build changes state only as ``BuildState.may`` allows, and only its present lease's holder may end it:
  every write under a lease names the lease's token and raises ``LeaseLost`` when another has been issued.
* At most one active build exists per (namespace, recipe), by a partial unique index, whoever asks.
* All methods may be called from any thread and any process at once. ``Unavailable`` when the database cannot
  be reached; a miss is a value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

# The records below are read from HTTP by their types, which must be there when they are.
from farm.builds import Build, BuildRequest, BuildState, Engine

if TYPE_CHECKING:
    from farm.measurements import Awaiting, Measurement, MeasuringAsk
    from farm.placement import Seat
    from farm.usage import Place, Usage


@dataclass(frozen=True)
class Wanted:
    """One look-up: the key, the exact recipe that is preferred, and the weights that the asker has."""

    key: str
    recipe: str
    weights: str = ""


@dataclass(frozen=True)
class Found:
    """An engine under the wanted key. ``exact``: it was made by the very recipe. ``same_weights``: the weights
    baked into it are the asker's; where not, the engine needs a refit and is never handed out raw."""

    engine: Engine
    exact: bool
    same_weights: bool


@dataclass(frozen=True)
class WantedPortable:
    """One look-up of portable engines: the family, the places under which one would serve, and the asker's version
    (``portability.sortable``). ``portable``: the asker wants a version-compatible engine, and none else will do."""

    family: str
    places: tuple[str, ...]
    version: str
    portable: bool = False


FRESH_SECONDS = 30.0
"""A worker that was not heard of for so long is not counted upon."""
FORGET_SECONDS = 3600.0
"""A worker that was not heard of for so long is no longer listed."""


class Claimed(StrEnum):
    """What became of a request for a build."""

    NEW = "new"
    """A build was queued for it."""
    JOINED = "joined"
    """An active build of the same recipe was already there; the waiter was added to it."""
    DONE = "done"
    """An engine of this recipe was committed since the caller looked."""
    FAILED = "failed"
    """The recipe is known to fail permanently; ``build`` is the failed one. ``farm retry`` forgets that."""


@dataclass(frozen=True)
class Claim:
    """The answer to one request of ``claim_or_join``. ``build`` is ``None`` only for ``DONE``."""

    outcome: Claimed
    build: Build | None = None
    engine: Engine | None = None


@dataclass(frozen=True)
class StoredProgram:
    """A program in the store: ``digest`` names its file's bytes; ``name`` is the path it first came by."""

    digest: str
    name: str
    format: str
    size: int
    graph: str
    weights: str
    created: float = 0.0


@dataclass(frozen=True)
class Adoption:
    """How an engine comes into the index that no lease made. ``replace``: in place of its recipe's former one, where
    there is one. ``event`` and its ``detail`` are told of the engine's build, where that is known."""

    parts: KeyParts | None = None
    capability: str = ""
    replace: bool = True
    event: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """Something that happened to a build: ``queued``, ``leased``, ``failed``, ``requeued``, …"""

    at: float
    kind: str
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One try at a build. ``outcome`` is a ``BuildState`` or a failure kind; empty while it runs."""

    number: int
    worker: str
    started: float
    finished: float | None = None
    outcome: str = ""
    message: str = ""


@dataclass(frozen=True)
class Trial:
    """One configuration of a sweep: what was asked, its identity, and the build that was to make it, if any."""

    number: int
    model: str
    target: str
    settings: Mapping[str, Any]
    key: str
    recipe: str
    asked: str = ""
    """What was found when the trial was submitted: ``hit``, ``new``, ``joined``, ``failed``, or ``same`` as another;
    ``stopped`` once it was given up. Empty until it has been submitted."""
    build: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Sweep:
    """A sweep and its trials. ``spec`` is what was asked, as JSON."""

    id: str
    created: float
    spec: Mapping[str, Any]
    trials: tuple[Trial, ...] = ()
    cancelled: bool = False


@dataclass(frozen=True)
class KeyParts:
    """What a key and a recipe were made of, recorded for every build and every miss (``farm explain``)."""

    key: str
    recipe: str
    parts: Mapping[str, Any]
    model: str
    target: str


@dataclass(frozen=True)
class Worker:
    """A process that builds. ``id`` is unique for ever; ``host``, ``pid`` and ``born`` (the process's start time,
    seconds since the epoch) let others on the same host see that it is gone."""

    id: str
    host: str
    pid: int
    born: float
    capabilities: tuple[str, ...]
    detail: Mapping[str, Any] = field(default_factory=dict)
    seen: float = 0.0
    fresh: bool = True
    """Whether it was heard of lately (``FRESH_SECONDS``), by the database's clock."""


@dataclass(frozen=True)
class Past:
    """What is known of earlier builds: mean seconds by (capability, graph), and by capability."""

    of_graph: Mapping[tuple[str, str], float] = field(default_factory=dict)
    of_capability: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeHealth:
    """Failures in a row for which the node itself was to blame, as builds that failed there and succeeded elsewhere
    showed; and, while it is set aside, until when."""

    name: str
    failures: int
    aside_until: float | None = None
    why: str = ""


class Index(Protocol):
    """The truth, in SQL."""

    # -- engines ------------------------------------------------------------------------------------------
    def find(self, wanted: Sequence[Wanted], namespaces: Sequence[str]) -> list[Found | None]:
        """The best engine for each: the exact recipe's; else, of the key's, one with the same weights; else the
        newest. One or two statements however many are wanted. Says nothing of whether the blob is still there."""
        ...

    def find_portable(self, wanted: WantedPortable, namespaces: Sequence[str], limit: int = 8) -> list[Engine]:
        """Engines of the family that serve one of the places, best suited first: those of the very version; then
        version-compatible ones of older versions, newest first; those built for fewest capabilities before others.
        By an index, however many engines there are."""
        ...

    def record_parts(self, parts: Sequence[KeyParts]) -> None:
        """Remember what keys were made of, and that each recipe serves its key. Repeating is harmless."""
        ...

    def parts(self, prefix: str) -> list[KeyParts]:
        """The parts of every key or recipe that starts with ``prefix`` (with or without ``sha256:``)."""
        ...

    def recent_parts(self, graph: str | None = None, limit: int = 200) -> list[KeyParts]:
        """The newest parts recorded, of one graph digest where given: what ``farm explain`` compares a miss with."""
        ...

    def drop_engine(self, recipe: str, digest: str, reason: str, namespace: str | None = None) -> bool:
        """Forget an engine whose blob is gone or corrupt, so that the next ask builds it again: in every namespace, or
        in one; and never where whoever has the index may not write."""
        ...

    def adopt(self, engine: Engine, terms: Adoption) -> bool:
        """Put an engine that no lease made: what a client built itself, or what was vouched for; its blobs are stored.
        False, and nothing is written, where its recipe has one already that is not to be replaced. ``NotAllowed``."""
        ...

    def hold_blobs(self, blobs: Collection[str], seconds: float) -> set[str]:
        """Have those of ``blobs`` that collection has condemned stay for so many seconds more, at least; returns those
        for which that comes too late. What is not condemned stays for a grace period anyhow (``farm.collecting``). One
        look where nothing is."""
        ...

    def engines(self, prefix: str = "", limit: int = 1000, namespaces: Sequence[str] = ()) -> list[Engine]:
        """Engines, newest first, whose digest, recipe or key starts with ``prefix``; of ``namespaces``, or of all."""
        ...

    def count(self, name: str, by: Mapping[str, float]) -> None:
        """Add to counters: ``count("hit", {"n": 3, "seconds": 41.5})``; see ``stats``."""
        ...

    def add_usage(self, more: Usage) -> None:
        """Add a batch of numbers, in one transaction; the time of use is now. Engines that have gone since are left
        out."""
        ...

    def last_used(self, places: Collection[Place]) -> dict[Place, float]:
        """When each of these engines was last handed out, as far as that was recorded yet: an engine that is not in
        the answer never was, since it was made. A rebuilt engine keeps its time; one that is dropped loses it."""
        ...

    def usage(self, keys: Collection[str]) -> dict[str, Mapping[str, float]]:
        """What each of these whole keys was worth, by field; those that nothing is recorded of are left out."""
        ...

    def best_keys(self, limit: int = 20) -> list[str]:
        """The keys whose hits spared most build time, the best first."""
        ...

    def stats(self) -> dict[str, Any]:
        """Counters, and the numbers of engines, distinct blobs, bytes, builds by state, programs."""
        ...

    # -- builds: asking ------------------------------------------------------------------------------------
    def claim_or_join(
        self, requests: Sequence[BuildRequest], waiter: str, *, force: bool = False, reads: Sequence[str] = ()
    ) -> list[Claim]:
        """Queue a build for each request, or join the active one of its recipe, and add ``waiter`` to it.

        Requests of one call that share a recipe share the build. A remembered failure answers where ``answers_for``
        says so, else it is forgotten. ``force`` ignores an existing engine and any such failure (an active build is
        joined all the same). ``reads``: namespaces whose engines and active
        builds answer a request as its own namespace's do; a build of theirs that is joined keeps its priority, and
        ``force`` leaves them out. 10,000 requests in a few statements. ``NotAllowed`` for a namespace that whoever has
        the index may not write.
        """
        ...

    def leave(self, waiter: str, builds: Collection[str] | None = None) -> list[str]:
        """Withdraw ``waiter`` (from all its builds by default). A build that nobody waits for any more is
        cancelled; returns those. A build that was submitted with no waiter (``--no-wait``) keeps one of its own."""
        ...

    def cancel(self, build: str) -> Build:
        """Cancel for everybody: a queued build ends now, a running one as soon as its worker hears of it.
        A build that has ended already is returned as it is. ``NotAllowed``."""
        ...

    def retry(self, build: str, waiter: str = "") -> Build:
        """A new build of the same request (or the active one), its remembered failure forgotten. ``waiter`` waits for
        it and may ``leave`` it; without one it keeps itself."""
        ...

    def build(self, id: str) -> Build | None:
        """One build by its whole id."""
        ...

    def builds(
        self,
        *,
        prefix: str = "",
        ids: Collection[str] | None = None,
        states: Collection[BuildState] = (),
        limit: int = 1000,
    ) -> list[Build]:
        """Builds, newest first; by shortened id, among ``ids``, or in ``states``."""
        ...

    def events(self, build: str) -> list[Event]: ...

    def attempts(self, build: str) -> list[Attempt]: ...

    def log(self, build: str, after: int = 0) -> tuple[str, int]:
        """The log's text beyond position ``after``, and the position to ask from next time."""
        ...

    # -- workers -------------------------------------------------------------------------------------------------
    def workers(self) -> list[Worker]: ...

    def waiting(self, namespaces: Sequence[str] = ()) -> dict[str, int]:
        """How many builds are queued and due, by capability; of the namespaces that these cover, or of all."""
        ...

    def seats(self) -> list[Seat]:
        """Every worker that is listed, as placement sees it: what it serves, how busy it is, whether it is aside."""
        ...

    def wakes(self, interval: float) -> dict[str, int]:
        """How many wake-ups each queue should get now: for builds that wait there while workers that serve it have
        nothing to do. A queue is answered to one caller only within ``interval`` seconds, whoever asks."""
        ...

    def past(self, wanted: Collection[tuple[str, str]]) -> Past:
        """How long builds took lately, for each (capability, graph) of ``wanted``."""
        ...

    def tried(self, build: str) -> dict[str, str]:
        """The nodes on which attempts at a build failed for reasons that may have been theirs, and the failure's
        kind (``node``: it is never offered to that one again; ``lost``)."""
        ...

    def health(self) -> list[NodeHealth]:
        """The nodes that have failures to their name."""
        ...

    def trust_node(self, name: str) -> bool:
        """Forget a node's failures, so that it is offered builds again; False when it had none."""
        ...

    # -- programs ----------------------------------------------------------------------------------------------
    def put_program(self, program: StoredProgram) -> None:
        """Remember a program whose bytes were just put, and that it is used now."""
        ...

    def programs(self, prefix: str = "", limit: int = 1000) -> list[StoredProgram]: ...

    # -- measurements --------------------------------------------------------------------------------------------
    def measurements_of(self, digests: Collection[str]) -> list[Measurement]:
        """Measurements filed under any of ``digests`` (engines' plans; programs, for baselines), newest first."""
        ...

    def await_measuring(self, asks: Sequence[MeasuringAsk]) -> None:
        """Have each measured by whichever worker of its place looks for work next. One that is awaited already stays
        as it is; one that has failed is tried again."""
        ...

    def awaiting(self, ids: Collection[str] | None = None) -> list[Awaiting]:
        """What awaits measuring, oldest first; those among ``ids`` where given. What has been measured is gone."""
        ...

    # -- sweeps --------------------------------------------------------------------------------------------------
    def put_sweep(self, sweep: Sweep) -> None: ...

    def sweeps(self, prefix: str = "", limit: int = 100) -> list[Sweep]:
        """Sweeps, newest first, with their trials where ``prefix`` narrows them down to one."""
        ...

    def add_trials(self, sweep: str, trials: Sequence[Trial]) -> bool:
        """Append trials, before they are submitted. False, and nothing is written, when another process has appended
        trials of these numbers meanwhile, or the sweep was cancelled: read it again. ``NoSuchThing``."""
        ...

    def change_trials(self, sweep: str, trials: Sequence[Trial]) -> None:
        """Write what became of trials that are there: how they were asked for, their builds, their errors."""
        ...

    def end_sweep(self, sweep: str, why: str) -> None:
        """Write in its spec (``ended``) why no more is tried, or with an empty ``why`` that more may be. What is
        there already stays. ``NoSuchThing``."""
        ...

    def cancel_sweep(self, sweep: str) -> None: ...

    def close(self) -> None: ...
