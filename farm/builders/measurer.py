"""Measures one subject in a child process: this side never imports torch, and works out the figures.

A subject has a process of its own, so that its memory is its own, what it loads is loaded cold, and what it does to
itself ends there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from farm.builders import AttemptFailed, InputSpec, Measured, MeasureJob, Watch
from farm.builders.failures import explain, not_started
from farm.builders.harness import Effort
from farm.builders.outcome import Outcome
from farm.builders.sandbox import STALL_SECONDS, NotStarted, Task, run_child
from farm.builds import Failure, FailureKind
from farm.errors import BadInput
from farm.measurements import Accuracy, latency_of, percentile, spread_of

MEASURE_CHILD = Path(__file__).with_name("measure_child.py")
OWN = {
    # Inductor compiles in this very process: its helpers would outlive what the child is confined to.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "USER": "farm",
}
NOTICEABLE = Effort().apart
"""A spread of repeated runs from this on is told."""


@dataclass(frozen=True)
class TorchMeasurer:
    """Implements ``Measurer``. ``environment`` as ``TensorRTBuilder`` has it."""

    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    stall_seconds: float = STALL_SECONDS

    def measure(self, job: MeasureJob, watch: Watch) -> Measured:
        """As ``Measurer.measure``."""
        environment = {**self.environment, **OWN}
        task = Task(
            MEASURE_CHILD, told(job), job.folder.absolute(), environment, self.stall_seconds, job.device == "cuda"
        )
        try:
            outcome = run_child(task, job.limits, watch)
        except NotStarted as error:
            hint = "look at the machine's limits on processes, memory and open files"
            raise AttemptFailed(not_started(error, hint)) from error
        failure = explain(outcome, job.limits, {}, "measurement")
        if failure is not None:
            raise AttemptFailed(failure)
        return figures(outcome)


def told(job: MeasureJob) -> dict[str, Any]:
    """What the child is told: plain JSON."""
    return {
        "runner": job.runner,
        "device": job.device,
        "program": str(job.program.absolute()) if job.program else None,
        "plan": str(job.plan.absolute()) if job.plan else None,
        "module": job.toolchain.flavour if job.toolchain else None,
        "version": job.toolchain.version if job.toolchain else None,
        "input_names": [one.name for one in job.inputs],
        "output_names": list(job.outputs),
        "inputs": [_input(one) for one in job.inputs],
        "effort": dict(job.effort),
        "cuda_graphs": job.cuda_graphs,
        "host_code": job.host_code,
        "backend": job.backend,
    }


def _input(one: InputSpec) -> dict[str, Any]:
    return {"dtype": one.dtype, "shape": list(one.shape)}


def figures(outcome: Outcome) -> Measured:
    """What the child's messages come to. They are not trusted to make sense."""
    try:
        done = outcome.last("done") or {}
        said = outcome.every("run")
        runs = [[float(one) for one in message["times"]] for message in said]
        latency, spread = latency_of(one for run in runs for one in run), spread_of(runs)
        if not all(math.isfinite(figure) and figure >= 0 for figure in asdict(latency).values()):
            raise ValueError("a time that is none")
        return Measured(
            latency=latency,
            throughput=percentile(sorted(float(message["rate"]) for message in said), 0.5),
            memory=int(done["memory"]),
            load_seconds=round(float(done["seconds"]["load"]), 6),
            first_seconds=round(float(done["first_seconds"]), 6),
            spread=spread,
            medians=tuple(percentile(sorted(run), 0.5) for run in runs),
            iterations=sum(map(len, runs)),
            accuracy=_accuracy(done.get("accuracy")),
            notes=tuple(_notes(done, spread)),
            tries=1 + len(done.get("discarded") or ()),
            libraries={"torch": str(done["torch"])},
            device=dict(done.get("device") or {}),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, BadInput) as error:
        raise AttemptFailed(
            Failure(FailureKind.TRANSIENT, "the measurement's process gave an answer that makes no sense", "try again")
        ) from error


def _accuracy(told: Mapping[str, Any] | None) -> Accuracy | None:
    if not told:
        return None
    if not told["finite"]:
        return Accuracy(math.inf, math.inf, 0.0, finite=False)
    return Accuracy(float(told["max_abs"]), float(told["max_rel"]), float(told["cosine"]))


def _notes(done: Mapping[str, Any], spread: float) -> list[str]:
    notes = [] if done.get("steady", True) else ["it was still changing its pace when the warm-up ended"]
    if apart := [f"{float(one):.1%}" for one in done.get("discarded") or ()]:
        notes.append(f"runs that lay {', '.join(apart)} apart were thrown away and made again")
    if spread >= NOTICEABLE:
        notes.append(f"repeated runs lie {spread:.1%} apart: something else ran on the device, or its clocks changed")
    return notes
