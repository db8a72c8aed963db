"""The measuring harness in real children on a CPU: eager, ``torch.compile``, and engines of the stand-in for TensorRT.

Plain TensorRT cannot be had here, and TensorRT-RTX runs nothing without a GPU: ``docs/verified.md`` says what is left.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.builders import AttemptFailed, Cancelled, InputSpec, Limits, Measured, MeasureJob, Watch
from farm.builders.failures import explain
from farm.builders.measurer import TorchMeasurer, figures
from farm.builders.measurer import told as job_told
from farm.builders.outcome import Ending, Outcome
from farm.builds import FailureKind
from farm.toolchains import Toolchain

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

PLAIN = Toolchain("tensorrt", "10.14.1.48")
QUICK = {"runs": 2, "seconds": 0.02, "least": 3, "most": 20, "warm_least": 0.0, "warm_seconds": 0.2, "tries": 1}
X = (InputSpec("x", "float32", (3, 4)),)
PROFILES = [{"x": [[1, 4], [2, 4], [8, 4]]}]


@pytest.fixture(scope="module")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that doubles its input, sanitised as a farm would have it."""
    from farm.programs.sanitise import sanitise_pt2

    class Doubling(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2

    folder = tmp_path_factory.mktemp("doubling")
    batch = torch.export.Dim("batch", min=1, max=8)
    exported = torch.export.export(Doubling().eval(), (torch.randn(3, 4),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(exported, folder / "raw.pt2")
    sanitise_pt2(folder / "raw.pt2", folder / "safe.pt2")
    return folder / "safe.pt2"


def job(folder: Path, runner: str, **changes: Any) -> MeasureJob:
    values: dict[str, Any] = {"limits": Limits(seconds=100), "effort": QUICK, "inputs": X}
    return MeasureJob(runner=runner, device="cpu", folder=folder, **(values | changes))


def engine_job(folder: Path, program: Path | None = None, told: dict[str, Any] | None = None, **run: Any) -> MeasureJob:
    """A job for an engine of the stand-in that behaves as ``run`` says."""
    plan = {"profiles": PROFILES, "inputs": [["x", "FLOAT", [-1, 4]]], "outputs": [["y", "FLOAT", [-1, 4]]]}
    path = folder / "engine.plan"
    path.write_bytes(b"ftrt" + json.dumps({**plan, "host_code": False, "run": run, **(told or {})}).encode())
    return job(folder, "engine", plan=path, toolchain=PLAIN, outputs=("y",), program=program)


def measure(one: MeasureJob, **watch: Any) -> Measured:
    return TorchMeasurer().measure(one, Watch(**watch))


def test_eager_and_an_engine_beside_it(doubling: Path, tmp_path: Path, standin: None) -> None:
    phases: list[str] = []
    eager = measure(job(tmp_path, "eager", program=doubling), report=lambda phase, progress: phases.append(phase))
    assert eager.accuracy is None and len(eager.medians) == 2 and eager.iterations >= 6
    assert eager.latency.best <= eager.latency.p50 <= eager.latency.p99 and eager.throughput > 0
    assert eager.load_seconds > 0 and eager.memory is not None and eager.libraries["torch"] == torch.__version__
    assert {"load", "measure"} <= set(phases)
    engine = measure(engine_job(tmp_path, doubling, factor=2.0))
    assert engine.accuracy is not None and engine.accuracy.max_abs == 0.0
    assert engine.accuracy.cosine == pytest.approx(1.0)


def test_a_slow_engine_that_gives_something_else_is_told_so(doubling: Path, tmp_path: Path, standin: None) -> None:
    found = measure(engine_job(tmp_path, doubling, factor=-1.0, seconds=0.01))
    assert found.latency.best >= 10.0 and found.throughput <= 100.0, "10 ms an inference"
    assert found.accuracy is not None and found.accuracy.cosine == pytest.approx(-1.0)
    assert found.accuracy.max_abs > 1.0 and found.accuracy.max_rel == pytest.approx(1.5)


def test_torch_compile_is_compared_with_eager(doubling: Path, tmp_path: Path) -> None:
    found = measure(job(tmp_path, "compile", program=doubling, backend="aot_eager"))
    assert found.accuracy is not None and found.accuracy.max_abs == 0.0 and found.first_seconds > 0


class Says:
    """A child's channel, in this process."""

    class Refused(Exception):
        def __init__(self, **what: Any) -> None:
            super().__init__(f"{what.get('what')}: {what.get('text', '')}")
            self.what = what


@pytest.fixture
def run_here(tmp_path: Path, standin: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Make an engine ready and run it once, without a child."""
    from farm.builders import subjects
    from farm.builders.clocks import CpuDevice

    def run(told: dict[str, Any], behaviour: dict[str, Any], shape: tuple[int, ...] = (3, 4), **changes: Any) -> Any:
        one = job_told(replace(engine_job(tmp_path, None, told, **behaviour), **changes))
        return subjects.engine(one, [torch.ones(shape)], CpuDevice(), Says())()  # type: ignore[arg-type]

    yield run
    sys.modules.pop("tensorrt", None)


@pytest.mark.parametrize(
    ("told", "run", "shape", "words"),
    [
        ({}, {"fails": True}, (3, 4), "did not run"),
        ({}, {"no_context": True}, (3, 4), "no execution context"),
        ({}, {}, (9, 4), r"no x of shape \(9, 4\)"),
        ({}, {"unknown": True}, (3, 4), "size of y is not known"),
        ({"host_code": True}, {}, (3, 4), "does not take the engine"),
        ({"outputs": [["z", "FLOAT", [-1, 4]]]}, {}, (3, 4), "no binding y"),
    ],
)
def test_what_cannot_be_run_says_why(
    run_here: Callable[..., Any], told: dict[str, Any], run: dict[str, Any], shape: Any, words: str
) -> None:
    with pytest.raises(Exception, match=words):
        run_here(told, run, shape)


def test_a_plan_with_a_runtime_of_its_own_runs_where_that_is_said(run_here: Callable[..., Any]) -> None:
    (found,) = run_here({"host_code": True}, {"factor": 3.0}, host_code=True)
    assert found.shape == (3, 4) and bool((found == 3.0).all())


def test_another_version_than_the_engines_is_refused(run_here: Callable[..., Any]) -> None:
    with pytest.raises(Says.Refused, match=r"version: 10\.14\.1\.48"):
        run_here({}, {}, toolchain=Toolchain("tensorrt", "10.15.0"))


def test_it_ends_when_nobody_wants_it(tmp_path: Path, standin: None) -> None:
    slow = engine_job(tmp_path, None, seconds=2.0)
    began: list[str] = []
    with pytest.raises(Cancelled):
        measure(slow, report=lambda phase, progress: began.append(phase), cancelled=lambda: "measure" in began)


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("deserialise", FailureKind.NODE, "cannot be loaded here"),
        ("shapes", FailureKind.PERMANENT, "cannot be measured"),
        ("device", FailureKind.NODE, "cannot measure on a GPU"),
        ("outputs", FailureKind.PERMANENT, "cannot be compared"),
        ("measure", FailureKind.PERMANENT, "cannot run"),
    ],
)
def test_each_refusal_is_a_failure_of_its_kind(what: str, kind: FailureKind, words: str) -> None:
    said = {"kind": "failure", "what": what, "text": "because", "phase": "first", "type": "RuntimeError"}
    found = explain(replace(outcome(said), status=1), Limits(), {}, "measurement")
    assert found is not None and found.kind is kind and words in found.message and "because" in found.message


# -- what a child may say --------------------------------------------------------------------------------------------


def outcome(*messages: dict[str, Any]) -> Outcome:
    return Outcome(Ending.EXIT, 0, messages, "", 0, 1.0)


DONE = {
    "kind": "done",
    "memory": 5,
    "first_seconds": 0.5,
    "torch": "2.13.0",
    "seconds": {"load": 1.0},
    "accuracy": None,
}


def test_sets_that_were_thrown_away_are_counted_and_told() -> None:
    runs = [{"kind": "run", "times": [1.0, 1.1], "rate": 900.0}, {"kind": "run", "times": [1.0], "rate": 950.0}]
    found = figures(outcome(*runs, {**DONE, "discarded": [0.062, 0.041]}))
    assert found.tries == 3 and found.notes[0].startswith("runs that lay 6.2%, 4.1% apart were thrown away")
    assert found.throughput == 925.0 and found.spread == pytest.approx(0.05 / 1.025)
    assert any("lie 4.9% apart" in note for note in found.notes)


@pytest.mark.parametrize(
    "messages",
    [
        [DONE],
        [{"kind": "run", "times": [], "rate": 1.0}, DONE],
        [{"kind": "run", "times": [float("nan")], "rate": 1.0}, DONE],
        [{"kind": "run", "times": [-1.0], "rate": 1.0}, DONE],
        [{"kind": "run", "times": ["x"], "rate": 1.0}, DONE],
        [{"kind": "run", "times": [1.0]}, DONE],
        [{"kind": "run", "times": [1.0], "rate": 1.0}, {"kind": "done"}],
    ],
)
def test_what_makes_no_sense_is_no_measurement(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(AttemptFailed, match="makes no sense"):
        figures(outcome(*messages))
