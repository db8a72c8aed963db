"""How long a sweep's builds should take, told before they begin. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from farm.human import count_of, human_seconds
from farm.index import Past
from farm.placement import Seat


@dataclass(frozen=True)
class Estimate:
    """``seconds`` of wall time, ``None`` where no build like these has been seen; ``nodes`` that will build, 0 for this
    process alone; ``homeless``: queues that nobody serves now."""

    seconds: float | None
    nodes: int
    homeless: tuple[str, ...] = ()

    def said(self) -> str:
        """``about 22 min on 3 nodes``; nothing where nothing is known."""
        if self.homeless:
            queues = ", ".join(self.homeless)
            return f"no worker is there that builds {queues}"
        if self.seconds is None:
            return ""
        where = f"on {count_of(self.nodes, 'node')}" if self.nodes else "on this machine"
        return f"about {_rounded(self.seconds)} {where}"


def estimate(
    builds: Sequence[tuple[str, str]], past: Past, seats: Collection[Seat], hands: int, most: int | None = None
) -> Estimate:
    """What builds of these (capability, graph) take: by what the same graph's took, else the queue's.

    They are shared evenly between the hands of each queue, and none is split. ``hands`` are this process's, which
    serves every queue itself; 0 where others build. ``most``: only so many will be built, of no kind in particular.
    """
    there = [seat for seat in seats if seat.fresh and not seat.aside]
    queues: dict[str, list[float]] = {}
    unknown = False
    for capability, graph in builds:
        seconds = past.of_graph.get((capability, graph)) or past.of_capability.get(capability)
        unknown = unknown or seconds is None
        queues.setdefault(capability, []).append(seconds or 0.0)
    share = 1.0 if most is None or not builds else min(1.0, most / len(builds))
    serving = {queue: [seat for seat in there if queue in seat.capabilities] for queue in queues}
    homeless = tuple(queue for queue, some in serving.items() if not some and not hands)
    nodes = {seat.node for some in serving.values() for seat in some}
    if unknown or homeless:
        return Estimate(None, len(nodes), homeless)
    walls = [
        max(max(times), share * sum(times) / max(1, hands, sum(seat.slots for seat in serving[queue])))
        for queue, times in queues.items()
    ]
    return Estimate(max(walls, default=0.0), len(nodes))


def _rounded(seconds: float) -> str:
    """No more digits than a guess deserves."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else human_seconds(60 * round(seconds / 60))
