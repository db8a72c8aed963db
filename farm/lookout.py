"""Who can take which build, and why nobody can: what a waiting user wants to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farm.builds import Build, BuildState, FailureKind
from farm.index import Index
from farm.placement import Needs, Seat, why_not, why_not_now


class Lookout:
    """Looks over the workers that are listed. Not safe to share between threads."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._told: set[str] = set()

    def seats(self) -> list[Seat]:
        """Every worker that is listed."""
        return self._index.seats()

    def why_waiting(self, build: Build) -> list[tuple[Seat, str]]:
        """Each worker that is listed, and why it cannot take the build (empty: it can, when its turn comes)."""
        needs = self._needs(build)
        return [(seat, why_not(needs, seat) or why_not_now(needs, seat)) for seat in self.seats()]

    def tell(self, builds: Sequence[Build], notify: Callable[[str], None]) -> None:
        """Say, once a queue, that nobody who is there now can make what waits in it."""
        queued = {build.request.capability: build for build in builds if build.state is BuildState.QUEUED}
        fresh = queued.keys() - self._told
        self._told |= fresh
        for capability in sorted(fresh):
            build = queued[capability]
            reasons = self.why_waiting(build)
            if all(reason for _, reason in reasons):
                notify(f"{build.request.model} for {build.request.target} waits: {in_a_line(build, reasons)}")

    def _needs(self, build: Build) -> Needs:
        failed = frozenset(node for node, kind in self._index.tried(build.id).items() if kind == FailureKind.NODE)
        one = build.request
        return Needs(one.capability, one.memory, one.gpu_memory, failed, one.namespace)


def in_a_line(build: Build, reasons: Sequence[tuple[Seat, str]]) -> str:
    """Why nobody who is there can take a build."""
    able = [(seat, reason) for seat, reason in reasons if build.request.capability in seat.capabilities and seat.fresh]
    if not able:
        return (
            f"no process is here that builds {build.request.toolchain} for it "
            "('farm nodes' lists them, 'farm doctor' says what this machine can build)"
        )
    seat, reason = able[0]
    others = f", nor can {len(able) - 1} others" if len(able) > 1 else ""
    return f"{seat.node} {reason}{others} ('farm show {build.id}' says more)"
