"""What a builder is, beside nobody's implementation: a job in, plan bytes or a typed failure out.

A builder runs in a child process under limits: it may hang, crash, abort, leak or fill the disk without
harming the worker that asked (DESIGN, promise 4). The worker talks to it through ``Builder`` only; ``Forms``, which
asks for what a builder of ONNX is given, through ``Exporter`` only.

Concurrency: several builds may run at once, each from a thread of its own; ``build`` blocks its thread.
``cancelled`` and ``report`` are called from that thread, a few times a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from farm.builds import Failure
from farm.errors import BuildFailed
from farm.measurements import Accuracy, Latency
from farm.toolchains import Toolchain


@dataclass(frozen=True)
class Limits:
    """Bounds on one child. ``seconds`` is wall-clock time; ``memory`` is bytes of resident memory, summed
    over the child's process tree; ``disk`` is the largest file that it may write, in bytes."""

    seconds: float = 3600.0
    memory: int = 0
    disk: int = 0


@dataclass(frozen=True)
class Form:
    """A program's ONNX form on this machine: the graph, and the file of its external data where it has one.

    ``inputs`` and ``outputs`` are the binding names, in the program's order. ``exporter`` names the versions
    that made it (``torch==2.13.0 onnxscript==0.7.2``; empty where the program was ONNX already). ``nodes`` maps
    an ONNX node's name to where it came from (``aten.linear.default at model.py:12``), for messages.
    """

    graph: Path
    data: Path | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    exporter: str = ""
    nodes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One build. ``settings`` is ``compilation.Effective.told``; ``capabilities`` is sorted (``sm_86``, …);
    ``profiles`` maps, per optimisation profile, a binding's name to its (min, opt, max) shapes; ``folder``
    is scratch space that the caller makes and removes; ``timing_cache`` is a file to start from, and ``timing`` how
    timings are used (``config.TIMINGS``); ``key`` and ``recipe`` say what is built, for products that say it too."""

    toolchain: Toolchain
    form: Form
    settings: Mapping[str, Any]
    capabilities: tuple[str, ...]
    profiles: tuple[Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]], ...]
    folder: Path
    os: str = "linux"
    limits: Limits = field(default_factory=Limits)
    timing_cache: Path | None = None
    timing: str = "share"
    key: str = ""
    recipe: str = ""


@dataclass(frozen=True)
class Timed:
    """What a build did with its timing cache. ``aside`` says why the one that it was given was not used, if so;
    ``before`` and ``after`` count entries, where the toolchain can."""

    aside: str = ""
    before: int | None = None
    after: int | None = None


@dataclass(frozen=True)
class Product:
    """What a build made. ``plan`` lies in the job's folder. ``seconds`` are by phase (``start``, ``parse``,
    ``build``, ``serialise``); ``peak_memory`` is the child's, in bytes; ``read_back`` is every setting as the
    builder's configuration stated it after it was set; ``bindings`` are the engine's own inputs and outputs
    (name, dtype, shape) in order; ``warnings`` are lines for the user. ``timing_cache`` is the file of the timings
    that the build ended with; ``detail`` what else its manifest is to hold, as JSON."""

    plan: Path
    size: int
    seconds: Mapping[str, float]
    peak_memory: int
    read_back: Mapping[str, Any]
    bindings: Mapping[str, Any]
    timing_cache: Path | None = None
    timed: Timed = field(default_factory=Timed)
    warnings: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)


class AttemptFailed(BuildFailed):
    """A build or an export that ended without its product; ``failure`` says why, and of which kind."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, failure.hint)
        self.failure = failure


class Cancelled(BuildFailed):
    """The build was cancelled while its child ran; the child is gone."""


@dataclass(frozen=True)
class Watch:
    """How a builder talks while it works.

    ``report(phase, progress)``: ``progress`` in 0…1, or ``None`` where nothing is known. ``log(text)``: lines
    of the child's log, as they come, already bounded by the builder. ``cancelled()``: true once the work is no
    longer wanted; the builder then kills its child within a second and raises ``Cancelled``.
    """

    report: Callable[[str, float | None], None] = lambda phase, progress: None
    log: Callable[[str], None] = lambda text: None
    cancelled: Callable[[], bool] = lambda: False


class Exporter(Protocol):
    """Makes the ONNX form of programs, for builders that do not take them as they are. Stateless; safe to share between
    threads."""

    def export(self, program: Path, folder: Path, limits: Limits, watch: Watch, names: Mapping[str, Any]) -> Form:
        """The ONNX form of the ``.pt2`` or ``.onnx`` file ``program``, written into ``folder``.

        ``names`` holds what an exporter needs to know beside the program itself; it may be empty.
        Raises ``AttemptFailed`` (which names the operator and the model's source line where it can) or ``Cancelled``.
        """
        ...


class Builder(Protocol):
    """Turns programs, in the form that it takes, into engines. Stateless; safe to share between threads."""

    def build(self, job: Job, watch: Watch) -> Product:
        """Build ``job``; raises ``AttemptFailed`` or ``Cancelled``. Never leaves a child behind."""
        ...


@dataclass(frozen=True)
class Merged:
    """A timing cache merged of two: ``unfit`` names the one (``theirs`` or ``mine``) that cannot be used here (another
    version, another device, damaged), for the reason ``why``; then there is no ``data``."""

    data: bytes = b""
    entries: int | None = None
    unfit: str = ""
    why: str = ""


class Merger(Protocol):
    """Merges timing caches with the toolchain that made them. Never in the caller's process."""

    def merge(self, toolchain: Toolchain, theirs: bytes, mine: bytes, watch: Watch) -> Merged:
        """``theirs`` and what ``mine`` has besides; an empty ``theirs`` only tries ``mine``. ``AttemptFailed`` when
        that cannot be done, ``Cancelled``."""
        ...


@dataclass(frozen=True)
class InputSpec:
    """One input of a program that an engine has: the engine's name for it, torch's dtype, and the shape to measure."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MeasureJob:
    """One subject to measure: ``runner`` is a ``measurements.Runner``, ``device`` ``cpu`` or ``cuda``. ``program`` is a
    sanitised ``.pt2`` (a baseline has one; for an engine it is what its outputs are compared with, where there is one);
    ``plan``, ``toolchain`` and ``outputs`` (the bindings' names, in order) are the engine's, and ``host_code`` that its
    plan brings a runtime of its own (``version_compatible``). ``effort``: as
    ``harness.Effort``; ``backend`` is torch.compile's, its default where it is empty."""

    runner: str
    device: str
    inputs: tuple[InputSpec, ...]
    folder: Path
    program: Path | None = None
    plan: Path | None = None
    toolchain: Toolchain | None = None
    outputs: tuple[str, ...] = ()
    host_code: bool = False
    cuda_graphs: bool = False
    effort: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    backend: str = ""


@dataclass(frozen=True)
class Measured:
    """What the harness found, as ``measurements.Measurement`` has it; ``medians`` are each run's, in milliseconds, and
    ``tries`` how many sets of runs were made until one held together: the figures are the last one's."""

    latency: Latency
    throughput: float
    memory: int | None
    load_seconds: float
    first_seconds: float
    spread: float
    medians: tuple[float, ...]
    iterations: int
    accuracy: Accuracy | None = None
    tries: int = 1
    notes: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)


class Measurer(Protocol):
    """Runs a subject and times it, in a process of its own. Safe to share between threads; but two measurements at once
    on one device disturb each other."""

    def measure(self, job: MeasureJob, watch: Watch) -> Measured:
        """Raises ``AttemptFailed`` (what cannot be run, and why) or ``Cancelled``."""
        ...
