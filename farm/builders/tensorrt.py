"""The builder over ``tensorrt`` and ``tensorrt_rtx``: program → ONNX → engine, each step in a child process.

This side never imports TensorRT, torch or ONNX. It decides what the child is told (``steps``), starts it under
limits (``sandbox``), and believes nothing of what comes back before it has looked: the plan's header, its size
and its bindings must be what the job asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from farm.builders import AttemptFailed, Form, Job, Limits, Product, Timed, Watch
from farm.builders.failures import explain, not_started
from farm.builders.notes import Notes, read_notes
from farm.builders.outcome import Ending, Outcome
from farm.builders.plan import HEADER_SIZE, mismatch, read_header
from farm.builders.sandbox import STALL_SECONDS, NotStarted, Task, run_child
from farm.builders.steps import RTX, TIMING_FLAGS, steps, timing_steps
from farm.builds import Failure, FailureKind
from farm.errors import BadProgram, FarmError

BUILD_CHILD = Path(__file__).with_name("trt_child.py")
EXPORT_CHILD = Path(__file__).with_name("export_child.py")
FLAVOURS = ("tensorrt", "tensorrt_rtx")
PLAN = "engine.plan"
TIMING_CACHE = "timing.cache"
GRAPH = "model.onnx"
DATA = "model.data"
SHOWN_WARNINGS = 10
FELL = "it ended TensorRT's process"


@dataclass(frozen=True)
class TensorRTBuilder:
    """Implements ``Builder`` and ``Exporter``. ``environment`` is what children see beside a path and a home: on a GPU
    machine ``LD_LIBRARY_PATH`` and ``CUDA_VISIBLE_DEVICES``, say. A child that gave no sign of life for
    ``stall_seconds`` is taken to hang (0: never)."""

    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    stall_seconds: float = STALL_SECONDS

    def export(self, program: Path, folder: Path, limits: Limits, watch: Watch, names: Mapping[str, Any]) -> Form:
        """The ONNX form of ``program`` (a sanitised ``.pt2``, or an ``.onnx`` with its external data beside it).

        Writes ``model.onnx``, and ``model.data`` where there are weights of any size, into ``folder``; the two
        belong together under these names. ``names`` may be empty: a program tells what the exporter needs.
        Raises ``AttemptFailed`` or ``Cancelled``.
        """
        job = {"program": str(program.absolute()), "graph": GRAPH, "data": DATA, "folder": str(folder.absolute())}
        try:
            outcome = self._run(EXPORT_CHILD, job, folder, limits, watch, gpu=False)
            _done(outcome, limits, {}, "export")
            with translated():
                return open_form(folder)
        except BaseException:
            for name in (GRAPH, DATA):
                (folder / name).unlink(missing_ok=True)
            raise

    def build(self, job: Job, watch: Watch) -> Product:
        """Build ``job``; raises ``AttemptFailed`` or ``Cancelled``. Never leaves a child behind."""
        with translated():
            notes = read_notes(job.form.graph)
            _refuse_doubles(job, notes)
            told = child_job(job)
        plan = job.folder / PLAN
        try:
            outcome = self._run(BUILD_CHILD, told, job.folder, job.limits, watch, gpu=job.toolchain.device_bound)
            fell = job.timing != "strict" and _fell_over_timings(outcome)
            if fell:
                again = {**told, "timing_cache": None}
                outcome = self._run(BUILD_CHILD, again, job.folder, job.limits, watch, gpu=job.toolchain.device_bound)
            done = _done(outcome, job.limits, notes.nodes, "build")
            _check_plan(job, plan, done)
            product = _product(job, plan, done, outcome)
            return replace(product, timed=replace(product.timed, aside=FELL)) if fell else product
        except BaseException:
            plan.unlink(missing_ok=True)
            raise

    def _run(
        self, module: Path, job: Mapping[str, Any], folder: Path, limits: Limits, watch: Watch, gpu: bool
    ) -> Outcome:
        task = Task(module, job, folder.absolute(), self.environment, self.stall_seconds, gpu)
        try:
            return run_child(task, limits, watch)
        except NotStarted as error:
            raise AttemptFailed(not_started(error)) from error


@contextlib.contextmanager
def translated() -> Any:
    """What is wrong with a job is a permanent failure of its build; a file that cannot be read is a passing one."""
    try:
        yield
    except AttemptFailed:
        raise
    except FarmError as error:
        raise AttemptFailed(Failure(FailureKind.PERMANENT, error.message, error.hint)) from error
    except OSError as error:
        raise AttemptFailed(
            Failure(FailureKind.TRANSIENT, f"the model's form cannot be read: {error}", "it is tried again")
        ) from error


def open_form(folder: Path) -> Form:
    """The form that ``export`` wrote into ``folder``, read from its own notes. ``BadProgram`` if it is none.

    Its files must be plain ones: what a child leaves behind is not trusted to be a link to somewhere else.
    """
    graph, data = folder / GRAPH, folder / DATA
    for path in (graph, data):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise BadProgram(f"{path.name} is no plain file", "make the form again")
    notes = read_notes(graph)
    return Form(graph, data if data.exists() else None, notes.inputs, notes.outputs, notes.exporter)


def child_job(job: Job) -> dict[str, Any]:
    """What the child is told: plain JSON. ``BadSettings`` for a setting that cannot be honoured."""
    flavour = job.toolchain.flavour
    if flavour not in FLAVOURS:
        raise AttemptFailed(
            Failure(FailureKind.NODE, f"the tensorrt builder does not drive {flavour}", "see 'farm doctor'")
        )
    timing = flavour != RTX and job.timing != "off"  # on TensorRT-RTX timing caches are no-ops
    return {
        "module": flavour,
        "version": job.toolchain.version,
        "graph": str(job.form.graph.absolute()),
        "inputs": list(job.form.inputs),
        "outputs": list(job.form.outputs),
        "capabilities": [name.replace("sm_", "SM") for name in job.capabilities] if flavour == RTX else [],
        "steps": [*_timing_steps(job), *(step.as_json() for step in steps(job.settings, flavour, job.os))],
        "profiles": [{name: [list(s) for s in shapes] for name, shapes in p.items()} for p in job.profiles],
        "strong": flavour == RTX or bool(job.settings.get("use_explicit_typing", True)),
        "verbose": bool(job.settings.get("debug", False)),
        "plan": str(job.folder.absolute() / PLAN),
        "timing_cache": str(job.timing_cache.absolute()) if timing and job.timing_cache else None,
        "timing_cache_out": str(job.folder.absolute() / TIMING_CACHE) if timing else None,
    }


def _timing_steps(job: Job) -> list[dict[str, Any]]:
    """TensorRT-RTX times no kernels: what asks for timings to be kept or replayed cannot be had of it."""
    if job.toolchain.flavour == RTX and TIMING_FLAGS[job.timing]:
        raise AttemptFailed(
            Failure(
                FailureKind.NODE,
                f"FARM_TIMING={job.timing} cannot be honoured: TensorRT-RTX times no kernels and keeps no timing cache",
                "set FARM_TIMING=share or off for workers that build with TensorRT-RTX",
            )
        )
    return [step.as_json() for step in timing_steps(job.timing)]


def _fell_over_timings(outcome: Outcome) -> bool:
    """Whether the child died or hung between taking up a timing cache and having read it."""
    message = outcome.last("timing") or {}
    return outcome.ending in (Ending.SIGNAL, Ending.STALL) and message.get("state") == "reading"


def _refuse_doubles(job: Job, notes: Notes) -> None:
    """TensorRT computes float64 in float32 and says nothing; so the user must (``truncate_double``)."""
    if notes.doubles and not job.settings.get("truncate_double", False):
        shown = ", ".join(notes.doubles[:3]) + (" …" if len(notes.doubles) > 3 else "")
        raise AttemptFailed(
            Failure(
                FailureKind.PERMANENT,
                f"the model computes in float64 ({shown}), which TensorRT would narrow to float32",
                "set truncate_double=true to allow that, or cast the model to float32 before exporting it",
            )
        )


def _done(outcome: Outcome, limits: Limits, nodes: Mapping[str, str], what: str) -> Mapping[str, Any]:
    failure = explain(outcome, limits, nodes, what)
    if failure is not None:
        raise AttemptFailed(failure)
    done = outcome.last("done")
    assert done is not None
    return done


def _check_plan(job: Job, plan: Path, done: Mapping[str, Any]) -> None:
    """The plan must be what the job asked for, by its own header; else it is no product."""
    wrong = _plan_fault(job, plan, done)
    if wrong is not None:
        raise AttemptFailed(
            Failure(
                FailureKind.TRANSIENT,
                f"the engine that TensorRT gave is not the one asked for: {wrong}",
                "it is thrown away and built again; please report it if it stays so",
            )
        )


def _plan_fault(job: Job, plan: Path, done: Mapping[str, Any]) -> str | None:
    size = plan.stat().st_size if plan.exists() else 0
    if size == 0 or size != done.get("size"):
        return f"the file has {size:,} bytes, TensorRT gave {done.get('size', 0):,}"
    if job.toolchain.flavour != RTX:
        return None  # the header of plain TensorRT's plans is not documented
    with plan.open("rb") as file:
        start = file.read(HEADER_SIZE)
    try:
        return mismatch(read_header(start), size, job.toolchain.version, job.capabilities)
    except ValueError as error:
        return str(error)


def _product(job: Job, plan: Path, done: Mapping[str, Any], outcome: Outcome) -> Product:
    """The product that the child's last message tells of. The child is not trusted to have told it well."""
    timing = job.folder / TIMING_CACHE
    try:
        return Product(
            plan=plan,
            size=int(done["size"]),
            seconds={str(name): round(float(took), 6) for name, took in done["seconds"].items()},
            peak_memory=outcome.peak_memory,
            read_back=dict(done["read_back"]),
            bindings={"inputs": list(done["inputs"]), "outputs": list(done["outputs"])},
            timing_cache=timing if done.get("timing_cache") and timing.is_file() else None,
            timed=_timed(done.get("timed") or {}),
            warnings=tuple(dict.fromkeys(map(str, done["warnings"])))[:SHOWN_WARNINGS],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AttemptFailed(
            Failure(
                FailureKind.TRANSIENT, "the build's process gave an answer that makes no sense", "it is tried again"
            )
        ) from error


def _timed(told: Mapping[str, Any]) -> Timed:
    counts = (None if told.get(name) is None else int(told[name]) for name in ("before", "after"))
    return Timed(str(told.get("aside") or "")[:200], *counts)
