"""Timing caches merged by the toolchain that made them, in a child: ``ITimingCache.combine`` may hang or crash."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from farm.builders import AttemptFailed, Limits, Merged, Watch
from farm.builders.failures import explain, not_started
from farm.builders.outcome import Outcome
from farm.builders.sandbox import NotStarted, Task, run_child
from farm.builds import Failure, FailureKind
from farm.toolchains import Toolchain

MERGE_CHILD = Path(__file__).with_name("timing_child.py")
SECONDS = 60.0
STALL_SECONDS = 20.0
"""``combine`` that hangs holds Python's lock, and the child is silent."""
THEIRS, MINE, OUT = "theirs.cache", "mine.cache", "merged.cache"
AGAIN = "the timings of the next build are merged again"
UNFIT = "it is of another version or device, or damaged"


@dataclass(frozen=True)
class TensorRTMerger:
    """Implements ``Merger``. ``environment`` as ``TensorRTBuilder`` has it: a cache is opened on its device."""

    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    scratch: Path | None = None

    def merge(self, toolchain: Toolchain, theirs: bytes, mine: bytes, watch: Watch) -> Merged:
        """As ``Merger.merge``."""
        if self.scratch is not None:
            self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="timing-", dir=self.scratch) as name:
            folder = Path(name).absolute()
            for file, data in ((THEIRS, theirs), (MINE, mine)):
                (folder / file).write_bytes(data)
            outcome = self._run(toolchain, folder, bool(theirs), watch)
            return _merged(outcome, folder / OUT)

    def _run(self, toolchain: Toolchain, folder: Path, both: bool, watch: Watch) -> Outcome:
        job = {
            "module": toolchain.flavour,
            "version": toolchain.version,
            "theirs": str(folder / THEIRS) if both else None,
            "mine": str(folder / MINE),
            "out": str(folder / OUT),
        }
        task = Task(MERGE_CHILD, job, folder, self.environment, STALL_SECONDS, gpu=toolchain.device_bound)
        silent = Watch(cancelled=watch.cancelled)  # the build's progress and log are over
        try:
            return run_child(task, Limits(seconds=SECONDS), silent)
        except NotStarted as error:
            raise AttemptFailed(not_started(error, AGAIN)) from error


def _merged(outcome: Outcome, out: Path) -> Merged:
    """What the child tells, which is not trusted to be told well."""
    failure = explain(outcome, Limits(seconds=SECONDS), {}, "merge of timings")
    if failure is not None:
        raise AttemptFailed(failure)
    done = outcome.last("done") or {}
    if done.get("unfit"):
        return Merged(unfit=str(done["unfit"]), why=UNFIT)
    entries = done.get("entries")
    if out.is_symlink() or not out.is_file() or not isinstance(entries, int | None):
        raise AttemptFailed(_failure("the merge of timings left nothing that makes sense"))
    return Merged(out.read_bytes(), entries)


def _failure(text: str) -> Failure:
    return Failure(FailureKind.TRANSIENT, text, AGAIN)
