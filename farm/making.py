"""What those who make engines ask of the index beyond ``farm.index``: workers, and clients that build for themselves.

The rules of ``farm.index`` hold here too. All of this stands beside the database: a server does none of it for its
clients (``farm.remote.index``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, cast

from farm.index import Index

if TYPE_CHECKING:
    from farm.builds import Build, Engine, Failure, Lease
    from farm.index import Worker
    from farm.measurements import Measurement, MeasuringLease

NO_LIMIT = 2**62


@dataclass(frozen=True)
class Offer:
    """What a worker has to give as it asks for work: queues that it serves, and bytes of memory. ``memory`` is what
    builds may take there when nothing else runs, ``free`` what they may take now; ``gpu_memory`` and ``gpu_free`` are
    the same of its GPU, which others may use as well."""

    worker: str
    node: str
    capabilities: tuple[str, ...]
    memory: int = NO_LIMIT
    free: int = NO_LIMIT
    gpu_memory: int = NO_LIMIT
    gpu_free: int = NO_LIMIT
    namespaces: tuple[str, ...] = ()
    """For whom it builds (``namespaces.admits``); empty: for everybody."""


@dataclass(frozen=True)
class Beat:
    """One lease's heartbeat: how far its build is, and what it has logged since the last."""

    lease: Lease
    phase: str = ""
    progress: float | None = None
    log: str = ""


class Sign(StrEnum):
    """What the holder of a lease hears when it beats."""

    HELD = "held"
    UNWANTED = "unwanted"
    """Nobody wants the build any more; it is still the holder's to end."""
    LOST = "lost"
    """Another may have it; nothing of it may be written any more."""


@dataclass(frozen=True)
class StoredForm:
    """The ONNX form of ``program`` as ``exporter`` makes it: the digests of graph, external data and side table; their
    ``size`` together, 0 where a farm wrote it that did not add it up."""

    program: str
    exporter: str
    graph: str
    data: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0


class Making(Index, Protocol):
    """The index as ``worker``, ``forms``, ``gauge`` and ``engine_shelf`` need it."""

    # -- workers -------------------------------------------------------------------------------------------------
    def register(self, worker: Worker) -> None:
        """Add or refresh a worker's row, which says that it is there. To be repeated every few seconds."""
        ...

    def unregister(self, worker: str) -> None: ...

    # -- leases --------------------------------------------------------------------------------------------------
    def lease(self, offer: Offer, ttl: float, count: int = 1) -> list[Lease]:
        """The best eligible builds for ``offer``, at most ``count``, in their order: due, not held, of a queue and a
        namespace that it serves, small enough for its memory, and never yet failed on its node for the node's sake.
        Best is the highest priority, then the earliest turn (``placement.turns``), then the oldest.

        They are running now, each under a new token, until ``ttl`` seconds have passed without a beat. Never the same
        build to two callers. A build that does not fit what is free now is passed over, unless nothing runs here or
        it has waited for long: large builds must not starve. Nothing is leased to a node that is set aside.
        """
        ...

    def beat(self, beats: Sequence[Beat], ttl: float) -> list[Sign]:
        """Extend the leases, say how far their builds are and add to their logs, in one transaction; what became of
        each. A lease that has run out, but was neither reaped nor issued anew, still holds."""
        ...

    def signs(self, leases: Sequence[Lease]) -> list[Sign]:
        """What ``beat`` would answer, without writing anything."""
        ...

    def append_log(self, lease: Lease, text: str) -> None:
        """Add to the build's log. ``LeaseLost``."""
        ...

    def succeed(self, lease: Lease, engine: Engine) -> None:
        """The engine's row and the build's success, in one transaction; the blob is already stored. ``LeaseLost``."""
        ...

    def succeed_all(self, ends: Sequence[tuple[Lease, Engine]]) -> list[bool]:
        """``succeed`` for several builds in one transaction; whether each lease still held. Of those that did not,
        nothing was written."""
        ...

    def fail(self, lease: Lease, failure: Failure, retry_in: float | None) -> Build:
        """End the attempt: queued again, due in ``retry_in`` seconds, or failed for good. ``LeaseLost``.

        After a failure of the node (kind ``node``) the build is never offered to that node again, and has failed for
        good when no other node that is there now could take it.
        """
        ...

    def end_cancelled(self, lease: Lease) -> None:
        """End a build that was cancelled while it ran. ``LeaseLost``."""
        ...

    def give_back(self, lease: Lease) -> None:
        """Queue it again at once, the attempt not counted (a worker that drains). ``LeaseLost``."""
        ...

    def reap(self, gone: Collection[str] = ()) -> list[Build]:
        """End every attempt whose lease has expired, or is held by a worker of ``gone``: queued again, failed
        when its attempts are used up (kind ``lost``), or cancelled when that was asked. Forgets the workers of ``gone``
        and those not heard of for ``FORGET_SECONDS``. Safe anywhere, any time."""
        ...

    # -- forms ---------------------------------------------------------------------------------------------------
    def put_form(self, form: StoredForm) -> None:
        """``NotAllowed`` for a form that trusted workers would take, from who may not write trusted namespaces."""
        ...

    def form(self, program: str, exporter: str) -> StoredForm | None: ...

    # -- measurements --------------------------------------------------------------------------------------------
    def record_measurement(self, measurement: Measurement) -> None:
        """Remember it, in place of an older one of the same thing (``Measurement.id``). ``at`` is the database's."""
        ...

    def lease_measuring(self, places: Collection[str], worker: str, ttl: float) -> MeasuringLease | None:
        """The oldest ask of one of ``places`` that nobody measures now; held for ``ttl`` seconds. Never to two callers
        at once: a lease that has run out is given anew under a higher token."""
        ...

    def hold_measuring(self, lease: MeasuringLease, ttl: float) -> bool:
        """Extend the lease; whether it still holds."""
        ...

    def end_measuring(self, lease: MeasuringLease, failure: str = "", again: bool = False) -> bool:
        """The ask is over: measured (no ``failure``), failed for good, or to be tried ``again`` by whoever comes next.
        Whether the lease still held; if not, nothing was written."""
        ...


def for_making(index: Index) -> Making:
    """An index that stands beside the database, as all do but a server's: that one refuses each of these methods in
    words (``farm.remote.index``)."""
    return cast(Making, index)
