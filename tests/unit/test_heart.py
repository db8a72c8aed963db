"""Heartbeats: what a worker's one thread of them survives."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from farm.builds import Build, BuildRequest, BuildState, Lease
from farm.heart import Hearts
from farm.making import Beat, Sign
from tests.conftest import eventually

REQUEST = BuildRequest("k", "r", "p", "pt2", "m", "sm_89", "t", told={}, profiles=())


class Index:
    """What hearts ask of an index: the first so many beats meet a defect."""

    def __init__(self, defects: int) -> None:
        self.defects, self.beats = defects, 0

    def beat(self, beats: Sequence[Beat], ttl: float) -> list[Sign]:
        self.beats += 1
        if self.beats <= self.defects:
            raise ZeroDivisionError("a defect")
        return [Sign.HELD for _ in beats]

    def signs(self, leases: Sequence[Lease]) -> list[Sign]:
        return [Sign.HELD for _ in leases]


def test_a_defect_ends_no_heartbeats() -> None:
    index: Any = Index(defects=2)
    hearts = Hearts(index, ttl=60.0, look=0.01, every=0.0)
    lease = Lease(Build("b", REQUEST, BuildState.RUNNING, 0.0), 1, 1, 60.0)
    hearts.start()
    with hearts.hold(lease, threading.Event()) as heart:
        heart.watch().report("build", 0.5)
        eventually(lambda: index.beats >= 3 or heart.watch().report("build", None), what="beats after two defects")
        assert not heart.cancelled()
    hearts.stop()
