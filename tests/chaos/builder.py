"""The builder of a tortured fleet: what ``NoopBuilder`` does, some of it in real children, some of it badly."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import replace
from pathlib import Path

from farm.builders import AttemptFailed, Job, Product, Watch
from farm.builders.outcome import Ending, Outcome
from farm.builders.sandbox import NotStarted, Task, run_child
from farm.builds import Failure, FailureKind
from tests.chaos.plan import LEASE_SECONDS
from tests.chaos.work import Fate, piece_of, plan_of
from tests.support.noop import NoopBuilder

TASK = Path(__file__).with_name("child_task.py")
FLAKY_SHARE = 0.3
SLOW_SECONDS = 1.3 * LEASE_SECONDS
CANNOT = "no kernel in the world does that"
HICCUP = "the machine hiccuped"
KILLED = "somebody killed the build's process"


class ChaosBuilder(NoopBuilder):
    """Implements ``farm.builders.Builder``; each piece says what is to become of it (``work.Fate``)."""

    def build(self, job: Job, watch: Watch) -> Product:
        piece = piece_of(job.profiles)
        if piece.fate is Fate.POISON:
            self._work(watch)
            raise AttemptFailed(Failure(FailureKind.PERMANENT, CANNOT, "change the model"))
        if piece.fate is Fate.FLAKY and random.random() < FLAKY_SHARE:
            raise AttemptFailed(Failure(FailureKind.TRANSIENT, HICCUP, "it is tried again"))
        made = plan_of(hash_of(job.form.graph), job.settings, job.capabilities, job.profiles)
        path = job.folder / "engine.plan"
        if piece.fate is Fate.CHILD:
            self._in_child(job, watch, path, made)
        else:
            (replace(self, seconds=SLOW_SECONDS) if piece.fate is Fate.SLOW else self)._work(watch)
            path.write_bytes(made)
        return Product(plan=path, size=len(made), seconds={}, peak_memory=0, read_back={}, bindings={})

    def _in_child(self, job: Job, watch: Watch, path: Path, made: bytes) -> None:
        seconds = self.seconds * (1 + self.jitter * (2 * random.random() - 1))
        told = {"seconds": seconds, "plan": str(path), "bytes": base64.b64encode(made).decode()}
        try:
            outcome = run_child(Task(TASK, told, job.folder), job.limits, watch)
        except NotStarted as error:
            raise AttemptFailed(Failure(FailureKind.TRANSIENT, f"no child could start: {error}")) from error
        if outcome.last("done") is None:
            raise AttemptFailed(failure_of(outcome))


def failure_of(outcome: Outcome) -> Failure:
    """Of a child that ended without its plan."""
    if outcome.ending is Ending.SIGNAL:
        return Failure(FailureKind.TRANSIENT, KILLED, "it is tried again")
    crash = outcome.last("crash") or {}
    return Failure(FailureKind.TRANSIENT, f"the build's process ended ({outcome.ending}): {crash.get('text', '')}")


def hash_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
