"""A builder that builds nothing, in this process: for what is to be measured or tortured around a build.

All else is the real thing: index, store, forms, keys computed anew, leases, heartbeats, commits, Celery. Its plan says
what it was told to build, so that a plan that is served for another recipe is seen.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.builders import AttemptFailed, Cancelled, Form, Job, Limits, Product, Watch
from farm.builds import Failure, FailureKind

SLICE_S = 0.02


def plan_of(settings: Any, capabilities: Any, profiles: Any) -> bytes:
    """What ``NoopBuilder`` makes of a job: the same bytes for the same job, and other ones for another."""
    told = json.dumps([settings, capabilities, profiles], sort_keys=True, default=list).encode()
    return b"noop " + hashlib.sha256(told).hexdigest().encode() + b"\n"


@dataclass(frozen=True)
class NoopBuilder:
    """Implements ``farm.builders.Builder`` and ``Exporter``. A build takes ``seconds``, give or take ``jitter`` of it;
    ``flaky`` is the share of attempts that fail for a passing reason."""

    seconds: float = 0.0
    jitter: float = 0.0
    flaky: float = 0.0

    def export(self, program: Path, folder: Path, limits: Limits, watch: Watch, names: Any) -> Form:
        graph = folder / "model.onnx"
        graph.write_bytes(program.read_bytes())
        return Form(graph=graph, data=None, inputs=("x",), outputs=("y",))

    def build(self, job: Job, watch: Watch) -> Product:
        self._work(watch)
        if random.random() < self.flaky:
            raise AttemptFailed(Failure(FailureKind.TRANSIENT, "the machine hiccuped", "it is tried again"))
        plan = job.folder / "engine.plan"
        size = plan.write_bytes(plan_of(job.settings, job.capabilities, job.profiles))
        return Product(plan=plan, size=size, seconds={}, peak_memory=0, read_back={}, bindings={})

    def _work(self, watch: Watch) -> None:
        until = time.monotonic() + self.seconds * (1 + self.jitter * (2 * random.random() - 1))
        while (left := until - time.monotonic()) > 0:
            if watch.cancelled():
                raise Cancelled("cancelled")
            watch.report("build", 1 - left / self.seconds)
            time.sleep(min(SLICE_S, left))
