"""What is done to a fleet, to whom and when: drawn from a seed, so that a run can be repeated. Pure.

The plan is the same for the same seed; what it meets is not, since processes race. A failure is therefore found by its
seed most of the time, not always.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be done. Those that last have a length."""

    KILL_WORKER = "kill worker"
    STOP_WORKER = "stop worker"
    KILL_CHILD = "kill child"
    STOP_CHILD = "stop child"
    KILL_CLIENT = "kill client"
    STOP_CLIENT = "stop client"
    EMPTY_BROKER = "empty broker"
    RESTART_BROKER = "restart broker"
    RESTART_DATABASE = "restart database"
    CUT_DATABASE = "cut database"
    BAD_STORE = "bad store"
    FULL_STORE = "full store"
    FULL_SCRATCH = "full scratch"
    DAMAGE_ENGINE = "damage engine"
    RECONCILE = "reconcile"
    """No fault: upkeep, which must do no harm to those at work, and be harmed by nothing."""


LEASE_SECONDS = 3.0
"""The leases of a tortured fleet: what is stopped for longer loses them."""

EVERY: dict[Kind, float] = {
    Kind.KILL_WORKER: 6.0,
    Kind.STOP_WORKER: 9.0,
    Kind.KILL_CHILD: 2.5,
    Kind.STOP_CHILD: 6.0,
    Kind.KILL_CLIENT: 12.0,
    Kind.STOP_CLIENT: 15.0,
    Kind.EMPTY_BROKER: 5.0,
    Kind.RESTART_BROKER: 15.0,
    Kind.RESTART_DATABASE: 20.0,
    Kind.CUT_DATABASE: 7.0,
    Kind.BAD_STORE: 8.0,
    Kind.FULL_STORE: 12.0,
    Kind.FULL_SCRATCH: 12.0,
    Kind.DAMAGE_ENGINE: 6.0,
    Kind.RECONCILE: 15.0,
}
"""Seconds between two of a kind, on average."""

LASTS: dict[Kind, tuple[float, float]] = {
    Kind.STOP_WORKER: (LEASE_SECONDS * 1.1, LEASE_SECONDS * 2.0),
    Kind.STOP_CHILD: (0.5, LEASE_SECONDS * 1.5),
    Kind.STOP_CLIENT: (1.0, LEASE_SECONDS * 2.0),
    Kind.RESTART_BROKER: (0.2, 3.0),
    Kind.RESTART_DATABASE: (0.0, 2.0),
    Kind.BAD_STORE: (1.0, 4.0),
    Kind.FULL_STORE: (0.5, 2.0),
    Kind.FULL_SCRATCH: (0.5, 3.0),
}
"""Seconds, least and most."""


@dataclass(frozen=True)
class Fault:
    """One thing done: ``at`` seconds after the beginning, for ``lasts`` seconds. ``draw`` (0…1) picks the victim."""

    at: float
    kind: Kind
    lasts: float
    draw: float


def plan(seed: int, kinds: Collection[Kind], seconds: float, haste: float = 1.0) -> tuple[Fault, ...]:
    """The faults of ``kinds`` within ``seconds``, in order; ``haste`` times as many as usual. Each comes once at
    least."""
    faults: list[Fault] = []
    for kind in sorted(kinds):
        # Each kind has a sequence of its own: to leave one out changes none of the others.
        draws = random.Random(f"{seed} {kind}")
        at = draws.uniform(0.1, 0.8) * min(seconds, EVERY[kind] / haste)
        while at < seconds:
            least, most = LASTS.get(kind, (0.0, 0.0))
            faults.append(Fault(at, kind, draws.uniform(least, most), draws.random()))
            at += draws.expovariate(haste / EVERY[kind])
    return tuple(sorted(faults, key=lambda fault: (fault.at, fault.kind)))
