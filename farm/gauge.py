"""A worker's measuring: takes what awaits measuring on a device like its own, runs it through the harness, records it.

``measuring`` is how it is asked for. One thing at a time, and nothing else on the device meanwhile: ``crew`` sees to
that within the process, and a GPU that the worker does not hold anyway is claimed while it is measured on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from farm.builders import AttemptFailed, Cancelled, InputSpec, Limits, Measured, MeasureJob, Measurer, Watch
from farm.builds import Engine, Failure, FailureKind
from farm.cache import EngineCache
from farm.conditions import Conditions
from farm.devices import Device
from farm.errors import BadInput, CorruptBlob, FarmError, Missing, Unavailable
from farm.forms import Forms
from farm.hosts.nvml import GpuDevice
from farm.logging import get_logger
from farm.making import Making
from farm.measurements import Measurement, MeasuringAsk, MeasuringLease, Runner, comparable
from farm.measuring import Wish, engine_asks
from farm.placement import TORCH
from farm.programs import open_program
from farm.programs.sanitise import sanitise_pt2
from farm.toolchains import exact_toolchain

log = get_logger(__name__)

HOLD_SHARE = 0.25
"""A lease is extended when so much of it has gone by."""
ATTEMPTS = 3
DUE_SECONDS = 30.0
"""What has waited for so long is measured before more builds are taken."""
DUE_LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Bench:
    """What a worker measures with. ``places``: what for; ``gpu``: the GPU that it measures on, if it has one, and
    ``claim`` holds it meanwhile (``Unavailable`` while another process has it); ``cpu`` names its processors.
    ``detail``: what the machine says of itself. ``after_builds``: ``config.MEASURES``."""

    index: Making
    cache: EngineCache
    forms: Forms
    measurer: Measurer
    places: tuple[str, ...]
    scratch: Path
    node: str
    cpu: str
    gpu: GpuDevice | None = None
    claim: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    limits: Limits = field(default_factory=Limits)
    lease_seconds: float = 15.0
    detail: Mapping[str, Any] = field(default_factory=dict)
    after_builds: str = "here"
    effort: Mapping[str, Any] = field(default_factory=dict)


class Gauge:
    """One worker's. ``worker`` is its id. For one thread at a time, ``want`` excepted."""

    def __init__(self, bench: Bench, worker: str) -> None:
        self.bench, self.worker = bench, worker
        self._looked = 0.0
        self._due = False

    # -- what is to be measured --------------------------------------------------------------------------------

    def want(self, engine: Engine, program_format: str) -> None:
        """Have an engine that was just built measured: here, or wherever its device is. Never fails the build."""
        if self.bench.after_builds == "asked":
            return
        try:
            asks = engine_asks(engine, program_format, Wish())
            if self.bench.after_builds == "here":
                asks = [ask for ask in asks if ask.place in self.bench.places]
            if asks:
                self.bench.index.await_measuring(asks)
        except (FarmError, KeyError, TypeError, ValueError) as error:
            log.warning("an engine is not measured", engine=engine.digest, reason=str(error))

    def take(self) -> MeasuringLease | None:
        """Something that awaits measuring here, and that nobody else measures."""
        self._due = False
        return self.bench.index.lease_measuring(self.bench.places, self.worker, self.bench.lease_seconds)

    def due(self) -> bool:
        """Whether something has waited here for so long that it should not wait for builds any more."""
        now = time.monotonic()
        if not self._due and now - self._looked >= DUE_LOOK_SECONDS:
            self._looked = now
            waiting = [one for one in self.bench.index.awaiting() if not one.failure and not one.worker]
            mine = [one for one in waiting if one.ask.place in self.bench.places]
            self._due = any(one.age > DUE_SECONDS for one in mine)
        return self._due

    # -- measuring ---------------------------------------------------------------------------------------------

    def measure(self, lease: MeasuringLease, stop: Callable[[], bool]) -> None:
        """Measure what was leased, record it, and end the lease: measured, failed for good, or for another to try.
        ``stop()`` turns true when this worker is to end."""
        index = self.bench.index
        try:
            failure = self._try(lease, stop)
            if failure is None:
                index.end_measuring(lease)
                return
            again = failure.kind is not FailureKind.PERMANENT and lease.attempt < ATTEMPTS
            log.warning("not measured", ask=lease.ask.id, reason=failure.message, again=again)
            index.end_measuring(lease, failure.message, again)
        except Cancelled:
            index.end_measuring(lease, again=True)

    def _try(self, lease: MeasuringLease, stop: Callable[[], bool]) -> Failure | None:
        try:
            with self.bench.claim(), self._folder() as folder:
                self._all(lease, folder, Held(self.bench, lease, stop))
        except Cancelled:
            raise
        except AttemptFailed as error:
            return error.failure
        except BadInput as error:
            return Failure(FailureKind.PERMANENT, error.message, error.hint)
        except Missing as error:
            return Failure(FailureKind.PERMANENT, error.message, error.hint)
        except (CorruptBlob, Unavailable) as error:
            return Failure(FailureKind.TRANSIENT, error.message, error.hint)
        except FarmError as error:
            return Failure(FailureKind.PERMANENT, error.message, error.hint)
        except OSError as error:
            return Failure(FailureKind.NODE, f"{error.strerror or error}", "'farm doctor' looks over this machine")
        return None

    def _all(self, lease: MeasuringLease, folder: Path, held: Held) -> None:
        """The subject; then, on this very device, the baselines that it is to stand beside and that are not known."""
        ask = lease.ask
        subject = self._subject(ask, folder)
        measurement = self._one(ask, subject, folder, held)
        for runner in ask.baselines:
            if not self._known(measurement, runner):
                other = replace(ask, runner=runner, engine="", toolchain="", place=torch_place(ask.place), baselines=())
                try:
                    self._one(other, subject, folder, held)
                except AttemptFailed as error:
                    # The engine's own figures stand; what fails is named.
                    raise AttemptFailed(replace(error.failure, message=f"{runner}: {error.failure.message}")) from error

    def _known(self, measurement: Measurement, runner: Runner) -> bool:
        there = self.bench.index.measurements_of([measurement.program])
        return any(
            one.runner is runner and comparable(one, measurement) and one.cuda_graphs == measurement.cuda_graphs
            for one in there
        )

    def _subject(self, ask: MeasuringAsk, folder: Path) -> Subject:
        """Fetch and open the program, and the plan where there is one."""
        path = folder / f"program.{ask.program_format}"
        self.bench.forms.fetch_program(ask.program, path)
        inputs = inputs_of(open_program(path, custom_ops=ask.custom_ops).inputs, ask)
        safe = None
        if ask.program_format == "pt2":
            safe = folder / "safe.pt2"
            sanitise_pt2(path, safe)
        elif ask.runner.is_baseline:
            raise BadInput("an ONNX model has no baseline in PyTorch", "give the .pt2 that it was made of")
        if not ask.engine:
            return Subject(inputs, safe)
        engine, plan = self._engine(ask), folder / "engine.plan"
        self.bench.cache.fetch(engine, plan)
        return Subject(inputs, safe, plan, bool((engine.manifest.get("told") or {}).get("version_compatible")))

    def _engine(self, ask: MeasuringAsk) -> Engine:
        found = self.bench.index.engines(prefix=ask.engine, limit=1, namespaces=self.bench.cache.namespaces)
        if not found:
            raise Missing(f"engine {ask.engine} is gone", "build it again")
        return found[0]

    def _one(self, ask: MeasuringAsk, subject: Subject, folder: Path, held: Held) -> Measurement:
        on_gpu = not ask.place.startswith(f"{TORCH}/cpu/")
        conditions = Conditions(self.bench.gpu.uuid if self.bench.gpu and on_gpu else "")
        job = MeasureJob(
            runner=str(ask.runner),
            device="cuda" if on_gpu else "cpu",
            inputs=subject.named(ask),
            folder=folder,
            program=subject.program,
            plan=subject.plan if ask.runner is Runner.ENGINE else None,
            toolchain=exact_toolchain(ask.toolchain) if ask.runner is Runner.ENGINE else None,
            outputs=ask.outputs,
            host_code=subject.host_code,
            cuda_graphs=ask.cuda_graphs,
            effort={**self.bench.effort, **({"runs": ask.runs} if ask.runs else {})},
            limits=self.bench.limits,
        )
        measured = self.bench.measurer.measure(job, conditions.watch(held.watch()))
        measurement = self._measurement(ask, subject, measured, conditions, on_gpu)
        self.bench.index.record_measurement(measurement)
        return measurement

    def _measurement(
        self, ask: MeasuringAsk, subject: Subject, measured: Measured, conditions: Conditions, on_gpu: bool
    ) -> Measurement:
        told = {name: value for name, value in self.bench.detail.items() if name in ("arch", "driver", "cuda", "cores")}
        signature = {
            **told,
            "libraries": dict(measured.libraries),
            "conditions": dict(conditions.as_json()),
            "medians": list(measured.medians),
            **({"gpu": asdict(self.bench.gpu)} if self.bench.gpu and on_gpu else {"cpu": self.bench.cpu}),
        }
        gpu = self.bench.gpu if on_gpu else None
        return Measurement(
            runner=ask.runner,
            engine=ask.engine,
            program=ask.program,
            shapes={str(position): list(one.shape) for position, one in subject.inputs},
            device=str(Device.of(asdict(gpu))) if gpu else self.bench.cpu,
            place=ask.place,
            latency=measured.latency,
            throughput=measured.throughput,
            memory=measured.memory,
            load_seconds=measured.load_seconds,
            first_seconds=measured.first_seconds,
            spread=measured.spread,
            runs=len(measured.medians),
            iterations=measured.iterations,
            tries=measured.tries,
            accuracy=measured.accuracy,
            cuda_graphs=ask.cuda_graphs,
            throttled=tuple(sorted(conditions.throttled)),
            notes=measured.notes,
            runtime=ask.toolchain or f"{TORCH}=={measured.libraries.get(TORCH, '')}",
            signature=signature,
            node=self.bench.node,
        )

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """An empty folder, named as builds' are: what a killed worker leaves is swept with theirs."""
        self.bench.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"build-{os.getpid()}-", dir=self.bench.scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Subject:
    """What is at hand of an ask: its inputs by position, the sanitised program, the plan, and whether that brings a
    runtime of its own."""

    inputs: tuple[tuple[int, InputSpec], ...]
    program: Path | None = None
    plan: Path | None = None
    host_code: bool = False

    def named(self, ask: MeasuringAsk) -> tuple[InputSpec, ...]:
        """The inputs, under the engine's names where they are an engine's."""
        specs = tuple(spec for _, spec in self.inputs)
        if ask.runner is not Runner.ENGINE:
            return specs
        if len(ask.inputs) != len(specs):
            raise BadInput(f"the engine has {len(ask.inputs)} inputs and its program {len(specs)}", "build it again")
        return tuple(replace(spec, name=name) for name, spec in zip(ask.inputs, specs, strict=True))


class Held:
    """A lease that is held while something is measured under it."""

    def __init__(self, bench: Bench, lease: MeasuringLease, stop: Callable[[], bool]) -> None:
        self._bench, self._lease, self._stop = bench, lease, stop
        self._extended = time.monotonic()
        self._lost = False

    def watch(self) -> Watch:
        return Watch(report=lambda phase, progress: self._hold(), cancelled=lambda: self._lost or self._stop())

    def _hold(self) -> None:
        """Extend the lease now and then. A database that is away is no reason to end; nobody else has it then."""
        if time.monotonic() - self._extended < self._bench.lease_seconds * HOLD_SHARE:
            return
        self._extended = time.monotonic()
        with contextlib.suppress(Unavailable):
            self._lost = not self._bench.index.hold_measuring(self._lease, self._bench.lease_seconds)


def inputs_of(specs: Sequence[Any], ask: MeasuringAsk) -> tuple[tuple[int, InputSpec], ...]:
    """The program's inputs in the shapes to measure; ``BadInput`` for one whose shape nobody gave."""
    found = []
    for spec in specs:
        if spec.scalar:
            raise BadInput(f"the program takes a number ({spec.name}): only tensors are measured", "fix it at export")
        shape = ask.shapes.get(str(spec.position), spec.shape)
        if any(not isinstance(size, int) for size in shape):
            raise BadInput(f"no shape is given for {spec.name}", "give --opt-shapes")
        found.append((spec.position, InputSpec(spec.name, spec.dtype, tuple(shape))))
    return tuple(found)


def torch_place(place: str) -> str:
    """The same devices' place for baselines."""
    return "/".join([TORCH, *place.split("/")[1:]])
