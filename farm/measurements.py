"""What an engine, or the program that it is made of, was measured to do on a device. Pure.

A *measurement* is one subject (an engine, eager PyTorch, ``torch.compile``) run by the harness with one set of shapes
on one device. Eager and ``torch.compile`` are *baselines*: they belong to a program, and every engine of that program
is compared with them. Times are milliseconds unless a name says seconds; memory is bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from farm.canonical import digest
from farm.errors import BadInput

HARNESS = 1
"""Version of the way of measuring. Figures of two versions are not compared."""


class Runner(StrEnum):
    """What is run."""

    EAGER = "eager"
    COMPILE = "compile"
    ENGINE = "engine"

    @property
    def is_baseline(self) -> bool:
        return self is not Runner.ENGINE


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference at a time, over all repeated runs: percentiles, and the mean."""

    p50: float
    p90: float
    p99: float
    mean: float
    best: float
    worst: float


@dataclass(frozen=True)
class Accuracy:
    """The largest differences from eager PyTorch over all outputs, and the cosine of the two (1: the same direction).
    ``max_rel`` is relative to the largest magnitude of eager's own output, so that zeros do no harm. NaN or infinity
    where eager has none makes ``finite`` false, and the figures infinite."""

    max_abs: float
    max_rel: float
    cosine: float
    finite: bool = True


@dataclass(frozen=True)
class Measurement:
    """One subject on one device.

    ``engine`` is the digest of the plan (``sha256:``), empty for a baseline; ``program`` the digest of the program's
    file. ``shapes`` are by input position, as keys hold profiles. ``device`` says what kind of device it was
    (``str(devices.Device)``, or ``cpu-…``), ``place`` where such devices are asked for (``placement``), ``signature``
    all that the node said of itself, its driver and its libraries. ``throughput`` is inferences per second, back to
    back. ``memory`` is device memory taken from before loading to the end, the host's on a CPU; ``None`` where it
    cannot be told. ``load_seconds`` is from the file to ready, ``first_seconds`` the first inference (which compiles,
    for ``torch.compile``). ``spread`` is (largest − smallest) / median of the ``runs`` runs' own medians; ``tries`` how
    many sets of runs were made until one held together (the figures are the last one's). ``throttled``
    says what held the GPU's clocks down meanwhile. ``accuracy`` is ``None`` for eager, and where there is nothing to
    compare with. ``at`` is when, seconds since the epoch by the database's clock.
    """

    runner: Runner
    engine: str
    program: str
    shapes: Mapping[str, Sequence[int]]
    device: str
    place: str
    latency: Latency
    throughput: float
    memory: int | None
    load_seconds: float
    first_seconds: float
    spread: float
    runs: int
    iterations: int
    tries: int = 1
    accuracy: Accuracy | None = None
    cuda_graphs: bool = False
    throttled: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    runtime: str = ""
    """What ran it: ``tensorrt==10.14.1.48``, ``torch==2.13.0``."""
    signature: Mapping[str, Any] = field(default_factory=dict)
    node: str = ""
    harness: int = HARNESS
    at: float = 0.0

    @property
    def subject(self) -> str:
        """What it is filed under: the engine's digest, or the program's for a baseline."""
        return self.engine or self.program

    @property
    def id(self) -> str:
        """The same for two measurements of one thing: the newer takes the older one's place."""
        what = [str(self.runner), self.engine, self.program, shapes_text(self.shapes), self.device, self.cuda_graphs]
        return digest("measurement", [*what, self.runtime, self.harness]).rpartition(":")[2][:16]

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self), "runner": str(self.runner)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Measurement:
        """What ``as_json`` gave; fields that a newer farm added are left out."""
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in told.items() if name in known}
        accuracy = values.get("accuracy")
        values |= {
            "runner": Runner(values["runner"]),
            "latency": Latency(**values["latency"]),
            "accuracy": Accuracy(**accuracy) if accuracy else None,
            "throttled": tuple(values.get("throttled", ())),
            "notes": tuple(values.get("notes", ())),
        }
        return cls(**values)


def shapes_text(shapes: Mapping[str, Sequence[int]]) -> str:
    """``0:1x3x224x224,1:8``: trtexec's grammar over input positions; a scalar's shape is empty."""
    ordered = sorted(shapes, key=lambda name: (len(name), name))
    return ",".join(f"{name}:{'x'.join(map(str, shapes[name]))}" for name in ordered)


def is_at(place: str, measured: Measurement) -> bool:
    """Whether it was measured on a device that ``place`` (``RUNTIME/h100/ARCH``, ``…/sm_90/…``, ``…/cpu/…``) means,
    whichever of the device's places it was asked for at."""
    wanted = place.split("/")[1].replace("_", "")
    return measured.place == place or wanted in measured.device.split("-")


# -- what awaits measuring -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeasuringAsk:
    """Something to be measured wherever a node can: stored as JSON until one does.

    ``program`` is the digest of the program's file in the store; ``shapes`` are those of its dynamic inputs, by
    position, ``inputs`` and ``outputs`` the engine's names of its bindings, in the program's order. ``place`` names the
    nodes that can (``places``).
    """

    runner: Runner
    program: str
    program_format: str
    place: str
    engine: str = ""
    model: str = ""
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    toolchain: str = ""
    custom_ops: Mapping[str, str] = field(default_factory=dict)
    cuda_graphs: bool = False
    runs: int = 0
    """How many repeated runs; 0: the harness' own number."""
    baselines: tuple[Runner, ...] = ()
    """What the engine's measurement is to stand beside: whoever measures it measures these on the very same device
    as well, unless they have been measured there."""

    @property
    def id(self) -> str:
        """Two asks for one measurement are one."""
        what = [str(self.runner), self.engine, self.program, shapes_text(self.shapes), self.place, self.cuda_graphs]
        return "m" + digest("measuring", what).rpartition(":")[2][:12]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "runner": str(self.runner), "baselines": [str(one) for one in self.baselines]}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> MeasuringAsk:
        """What ``as_json`` gave; fields that a newer farm added are left out."""
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in told.items() if name in known}
        values |= {name: tuple(values.get(name, ())) for name in ("inputs", "outputs")}
        values |= {"runner": Runner(values["runner"]), "baselines": tuple(map(Runner, values.get("baselines", ())))}
        return cls(**values)


@dataclass(frozen=True)
class Awaiting:
    """An ask as it stands. ``worker`` measures it now, if there is one; ``failure`` says why it never will be, until it
    is asked for again. ``age``: seconds since it was asked for, by the database's clock."""

    ask: MeasuringAsk
    since: float
    attempts: int = 0
    worker: str = ""
    failure: str = ""
    age: float = 0.0


@dataclass(frozen=True)
class MeasuringLease:
    """The right to measure ``ask``; as ``builds.Lease``."""

    ask: MeasuringAsk
    token: int
    attempt: int


# -- statistics --------------------------------------------------------------------------------------------------


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0…1) of the sorted values lie, interpolated between neighbours."""
    if not ordered:
        raise BadInput("there is nothing to take a percentile of", "measure at least once")
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def latency_of(times: Iterable[float]) -> Latency:
    """The latency that single inferences' times (ms) make."""
    ordered = sorted(times)
    at = {share: percentile(ordered, share) for share in (0.5, 0.9, 0.99)}
    return Latency(at[0.5], at[0.9], at[0.99], math.fsum(ordered) / len(ordered), ordered[0], ordered[-1])


def spread_of(runs: Sequence[Sequence[float]]) -> float:
    """How far repeated runs lie apart: (largest − smallest) / median of their medians. 0 for one run."""
    medians = sorted(percentile(sorted(run), 0.5) for run in runs)
    middle = percentile(medians, 0.5)
    return (medians[-1] - medians[0]) / middle if middle > 0 else 0.0


def speedup(baseline: Measurement, measured: Measurement) -> float:
    """How many times as fast as the baseline, by median latency."""
    return baseline.latency.p50 / measured.latency.p50 if measured.latency.p50 > 0 else math.inf


def comparable(one: Measurement, other: Measurement) -> bool:
    """Whether two measurements may stand side by side: the same program, shapes, device and way of measuring."""
    return (one.program, shapes_text(one.shapes), one.device, one.harness) == (
        other.program,
        shapes_text(other.shapes),
        other.device,
        other.harness,
    )


def baseline_of(
    measured: Measurement, among: Iterable[Measurement], runner: Runner = Runner.EAGER
) -> Measurement | None:
    """The newest baseline that ``measured`` may be compared with; one with CUDA graphs for what was measured with them,
    where there is one."""
    fitting = [one for one in among if one.runner is runner and comparable(one, measured)]
    return max(fitting, key=lambda one: (one.cuda_graphs == measured.cuda_graphs, one.at), default=None)


# -- asking ------------------------------------------------------------------------------------------------------

_RUNNERS = re.compile(r"\s*,\s*")


def parse_baselines(text: str) -> tuple[Runner, ...]:
    """``eager,compile`` as runners, each once; ``BadInput`` for a word that is none. Empty: none."""
    words = [word for word in _RUNNERS.split(text.strip().lower()) if word and word != "none"]
    known = {str(runner): runner for runner in Runner if runner.is_baseline}
    for word in words:
        if word not in known:
            raise BadInput(f"'{word}' is no baseline", f"known: {', '.join(known)}, or none")
    return tuple(dict.fromkeys(known[word] for word in words))
