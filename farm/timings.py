"""A worker's use of timing caches: what a build starts from, and what becomes of what it learned.

Nothing here fails a build, with one exception: ``FARM_TIMING=strict`` replays timings and nothing else, so without them
there is no build. TensorRT-RTX times no kernels: for it nothing is taken and nothing is learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.builders import AttemptFailed, Cancelled, Merged, Merger, Product, Watch
from farm.builds import Failure, FailureKind
from farm.canonical import digest
from farm.errors import FarmError
from farm.logging import get_logger
from farm.timing import Lesson, TimingCaches
from farm.timing_history import Author, Ran, Scope, Version
from farm.toolchains import TORCH_TENSORRT, Toolchain

log = get_logger(__name__)

FILE = "start.timing"
COMPARED = ("optimization_level", "tiling_optimization_level", "num_avg_timing_iters")
"""Settings that decide how much is timed: builds are compared with those that have the same."""


@dataclass(frozen=True)
class Taken:
    """What a build starts from. No ``scope``: timings are not shared; no ``file``: there are none yet. ``lent``: which
    other scope's the file is, that is read and never written."""

    mode: str = "share"
    scope: Scope | None = None
    version: Version | None = None
    file: Path | None = None
    why_not: str = ""
    lent: str = ""


class Timings:
    """One worker's, on one GPU (``gpu``: its fields, as the worker's row has them). Without any it does nothing.

    A worker that is not ``trusted`` shares what it learns with its like alone; it begins from the trusted ones' timings
    where those have none.
    """

    def __init__(
        self,
        caches: TimingCaches | None = None,
        merger: Merger | None = None,
        gpu: Mapping[str, Any] | None = None,
        author: Author | None = None,
        mode: str = "share",
        trusted: bool = True,
    ) -> None:
        self._trusted = trusted
        self._caches, self._merger, self._gpu = caches, merger, gpu
        self._author = author or Author("unknown")
        self._mode = mode

    def take(self, toolchain: Toolchain, folder: Path) -> Taken:
        """The newest timings of this GPU and ``toolchain``, as a file in ``folder``."""
        # Torch-TensorRT keeps timings of its own while it builds one program; they are not farm's to merge.
        timed = toolchain.device_bound and toolchain.flavour != TORCH_TENSORRT
        if not (self._caches and self._gpu and timed) or self._mode == "off":
            return Taken(self._mode)
        scope = Scope.of(toolchain, self._gpu, editable=self._mode != "share", trusted=self._trusted)
        try:
            return self._take(self._caches, scope, folder / FILE)
        except (FarmError, OSError) as error:
            if self._mode == "strict":
                raise
            log.warning("no timings could be taken", scope=str(scope), reason=_said(error))
            return Taken(self._mode, scope, why_not=_said(error))

    def _take(self, caches: TimingCaches, scope: Scope, path: Path) -> Taken:
        found = caches.latest(scope)
        if found is None and scope.realm:
            theirs = replace(scope, realm="")
            lent = caches.latest(theirs)
            if lent is not None:
                path.write_bytes(lent[1])
                return Taken(self._mode, scope, file=path, lent=f"version {lent[0].number} of {theirs.id}")
        if found is None and self._mode == "strict":
            raise AttemptFailed(
                Failure(
                    FailureKind.NODE,
                    f"FARM_TIMING=strict replays timings, and there are none of {scope}",
                    "build once with FARM_TIMING=editable, or give some with 'farm timing push'",
                )
            )
        if found is None:
            return Taken(self._mode, scope)
        version, data = found
        path.write_bytes(data)
        return Taken(self._mode, scope, version, path)

    def learn(
        self, taken: Taken, product: Product, parts: Mapping[str, Any], told: Mapping[str, Any], watch: Watch
    ) -> dict[str, Any] | None:
        """Share what a build learned; what the engine's manifest says of it (``None``: nothing was to be shared).

        ``parts`` are those of its key and ``told`` its settings: builds alike in them are compared. ``Cancelled``.
        """
        if taken.scope is None:
            return None
        note: dict[str, Any] = {
            "scope": taken.scope.id,
            "mode": taken.mode,
            "taken": taken.version and taken.version.number,
            "written": None,
            "entries": {"before": product.timed.before, "after": product.timed.after},
        }
        if taken.lent:
            note["lent"] = taken.lent
        if reasons := [text for text in (taken.why_not, product.timed.aside) if text]:
            note["not_used"] = reasons[0]
        if taken.mode != "strict":
            note |= self._learned(taken, taken.scope, product, alike(parts, told), watch)
        return note

    def _learned(self, taken: Taken, scope: Scope, product: Product, like: str, watch: Watch) -> dict[str, Any]:
        if product.timing_cache is None:
            return {"not_learned": "the build left no timings"}
        assert self._caches is not None and self._merger is not None
        merger, toolchain = self._merger, scope.toolchain

        def combine(theirs: bytes, mine: bytes) -> Merged:
            return merger.merge(toolchain, theirs, mine, watch)

        try:
            lesson = self._lesson(taken, product, like)
            learned = self._caches.learn(scope, lesson, combine)
        except Cancelled:
            raise
        except (FarmError, OSError) as error:
            log.warning("timings were not shared", scope=str(scope), reason=_said(error))
            return {"not_learned": _said(error)}
        if learned.version is None:
            log.warning("timings were not shared", scope=str(scope), reason=learned.why)
            return {"not_learned": learned.why}
        return {"written": learned.version.number}

    def _lesson(self, taken: Taken, product: Product, like: str) -> Lesson:
        assert product.timing_cache is not None
        timed = product.timed
        number = taken.version.number if taken.version else None
        started = None if timed.aside else number
        seconds = product.seconds.get("build", 0.0)
        # A build that began from lent timings is comparable to none of this scope.
        ran = None if taken.lent else Ran(like, seconds, started, timed.before, timed.after)
        return Lesson(product.timing_cache.read_bytes(), self._author, number, timed.aside, timed.after, ran)


def alike(parts: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """The same for builds that time the same kernels: of one graph, for the same shapes, as thoroughly."""
    compared = {name: told.get(name) for name in COMPARED}
    return digest("timed alike", [parts.get("graph"), parts.get("profiles"), compared]).rpartition(":")[2][:16]


def _said(error: FarmError | OSError) -> str:
    return error.message if isinstance(error, FarmError) else error.strerror or str(error)
