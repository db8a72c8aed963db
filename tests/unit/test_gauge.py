"""A worker's measuring, over a real index and store and a measurer that only says what it was given."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from farm.blobs.folder import FolderStore
from farm.builders import AttemptFailed, Cancelled, Limits, Measured, MeasureJob, Watch
from farm.builds import Engine, Failure, FailureKind
from farm.cache import EngineCache
from farm.db.index import SqlIndex
from farm.errors import Unavailable
from farm.forms import Forms
from farm.gauge import DUE_SECONDS, Bench, Gauge
from farm.hosts.nvml import GpuDevice
from farm.index import Index
from farm.measurements import Latency, MeasuringAsk, Runner
from farm.measuring import Measuring, Waiting, Wish, asked, engine_asks
from tests.support.noop import NoopBuilder

L4 = GpuDevice(0, "GPU-0", "NVIDIA L4", 89, 23 * 2**30, 58, bus="0")
PLACES = ("torch/cpu/x86_64", "torch/sm_89/x86_64", "tensorrt==10.14.1.48/l4/x86_64")
LATENCY = Latency(1.0, 1.1, 1.2, 1.0, 0.9, 1.5)


@dataclass
class Said:
    """A measurer that measures nothing: ``fails`` says what goes wrong, for the runners named there."""

    jobs: list[MeasureJob] = field(default_factory=list)
    fails: dict[str, Exception] = field(default_factory=dict)

    def measure(self, job: MeasureJob, watch: Watch) -> Measured:
        self.jobs.append(job)
        assert job.program is None or job.program.exists()
        watch.report("measure", 0.5)
        if watch.cancelled():
            raise Cancelled("stopped")
        if job.runner in self.fails:
            raise self.fails[job.runner]
        return Measured(LATENCY, 900.0, 5, 0.1, 0.2, 0.01, (1.0, 1.0), 20, libraries={"torch": "2.13.0"}, tries=2)


@dataclass
class Site:
    """One node that measures."""

    index: Index
    store: FolderStore
    bench: Bench
    said: Said
    program: str

    def gauge(self, **changes: Any) -> Gauge:
        return Gauge(replace(self.bench, **changes), "node:1:a")

    def ask(self, **changes: Any) -> MeasuringAsk:
        values: dict[str, Any] = {"runner": Runner.EAGER, "program": self.program, "program_format": "pt2"}
        values |= {"place": PLACES[0], "shapes": {"0": [2, 8]}, "model": "m.pt2"}
        return MeasuringAsk(**(values | changes))

    def measure(self, ask: MeasuringAsk, gauge: Gauge | None = None, stop: Callable[[], bool] = lambda: False) -> None:
        self.index.await_measuring([ask])
        gauge = gauge or self.gauge()
        lease = gauge.take()
        assert lease is not None and lease.ask == ask
        gauge.measure(lease, stop)


@pytest.fixture
def site(tmp_path: Path, programs: Path) -> Iterator[Site]:
    index, store = SqlIndex(f"sqlite:///{tmp_path}/farm.db"), FolderStore(tmp_path / "store")
    said = Said()
    bench = Bench(
        index=index,
        cache=EngineCache(index, store),
        forms=Forms(index, store, tmp_path / "cache", NoopBuilder(), Limits()),
        measurer=said,
        places=PLACES,
        scratch=tmp_path / "cache",
        node="node",
        cpu="cpu-some-2c",
        gpu=L4,
        detail={"arch": "x86_64", "driver": "580.1", "cuda": "13.0", "secret": 1},
    )
    copy = Path(shutil.copy(programs / "gemm.pt2", tmp_path / "gemm.pt2"))
    yield Site(index, store, bench, said, store.put_file(copy).digest)
    index.close()


def engine(site: Site, **manifest: Any) -> Engine:
    """An engine as a build leaves it, its plan in the store; rows are the cache's affair, and stay out."""
    told = {
        "program": site.program,
        "model": "m.pt2",
        "target": "l4",
        "toolchain": "tensorrt==10.14.1.48",
        "bindings": {"inputs": [{"name": "x"}], "outputs": [{"name": "y"}]},
        "profiles": [{"0": {"min": [1, 8], "opt": [2, 8], "max": [4, 8]}}],
    }
    return Engine("sha256:r", "sha256:" + "0" * 64, 3, told | manifest, 0.0, 1.0)


def test_a_baseline_is_measured_recorded_and_awaits_nothing(site: Site) -> None:
    site.measure(site.ask())
    (one,) = site.index.measurements_of([site.program])
    assert (one.runner, one.device, one.node, one.tries, one.runs) == ("eager", "cpu-some-2c", "node", 2, 2)
    assert one.shapes["0"] == [2, 8] and one.runtime == "torch==2.13.0" and one.latency == LATENCY
    assert one.signature["driver"] == "580.1" and "secret" not in one.signature and "gpu" not in one.signature
    assert site.index.awaiting() == [] and site.said.jobs[0].device == "cpu"
    assert not list(site.bench.scratch.glob("build-*")), "nothing is left"


def test_on_a_gpu_it_is_the_gpu_that_is_told(site: Site) -> None:
    site.measure(site.ask(place=PLACES[1], cuda_graphs=True, runs=7))
    (one,) = site.index.measurements_of([site.program])
    assert one.device == "l4-sm89-58mp-23g" and one.signature["gpu"]["uuid"] == "GPU-0" and one.cuda_graphs
    (job,) = site.said.jobs
    assert job.device == "cuda" and job.cuda_graphs and job.effort["runs"] == 7


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AttemptFailed(Failure(FailureKind.PERMANENT, "it cannot run", "")), "it cannot run"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_what_fails_is_told_and_left_alone_in_the_end(site: Site, error: Exception, words: str) -> None:
    site.said.fails["eager"] = error
    site.index.await_measuring([site.ask()])
    gauge = site.gauge()
    while (lease := gauge.take()) is not None:
        gauge.measure(lease, lambda: False)
    (left,) = site.index.awaiting()
    assert words in left.failure and left.attempts == (3 if isinstance(error, OSError) else 1)
    (row,) = asked(site.index, [site.ask()])
    assert row.outcome is Measuring.FAILED and words in row.error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shapes": {}}, "no shape is given for"),
        ({"program": "sha256:" + "1" * 64}, "is gone from the store"),
        ({"runner": Runner.ENGINE, "engine": "sha256:none", "place": PLACES[2]}, "engine sha256:none is gone"),
    ],
)
def test_what_cannot_be_measured_says_why(site: Site, changes: dict[str, Any], words: str) -> None:
    ask = site.ask(**changes)
    for _ in range(3):
        site.index.await_measuring([ask])
        gauge = site.gauge()
        lease = gauge.take()
        if lease is not None:
            gauge.measure(lease, lambda: False)
    (left,) = site.index.awaiting()
    assert words in left.failure and site.said.jobs == []


def test_a_worker_that_ends_hands_it_back(site: Site) -> None:
    site.measure(site.ask(), stop=lambda: True)
    (left,) = site.index.awaiting()
    assert (left.failure, left.worker) == ("", "") and site.gauge().take() is not None


def test_a_gpu_that_another_process_has_is_waited_for_by_trying_again(site: Site) -> None:
    def taken() -> Any:
        raise Unavailable("GPU-0 is taken by process 7", "wait")

    gauge = site.gauge(claim=taken)
    site.measure(site.ask(place=PLACES[1]), gauge)
    (left,) = site.index.awaiting()
    assert left.failure == "" and left.attempts == 1 and site.said.jobs == []


def test_after_a_build_an_engine_is_wanted_measured_where_it_can_be(site: Site) -> None:
    site.gauge().want(engine(site), "pt2")
    (one,) = site.index.awaiting()
    assert one.ask.place == PLACES[2] and one.ask.baselines == (Runner.EAGER,) and one.ask.shapes == {"0": [2, 8]}
    site.gauge(after_builds="asked").want(engine(site, target="h100"), "pt2")
    site.gauge().want(engine(site, target="h100"), "pt2")
    assert len(site.index.awaiting()) == 1, "no H100 is here"
    site.gauge(after_builds="everywhere").want(engine(site, target="h100"), "pt2")
    assert len(site.index.awaiting()) == 2
    site.gauge(after_builds="everywhere").want(engine(site, target="no such thing"), "pt2")


def test_an_engine_for_several_kinds_of_gpu_is_asked_for_on_each() -> None:
    site: Any = type("Site", (), {"program": "sha256:p"})
    made = engine(site, target="sm_86+sm_89", toolchain="tensorrt_rtx==1.7.1.116")
    places = [ask.place for ask in engine_asks(made, "pt2", Wish())]
    assert places == [f"tensorrt_rtx==1.7.1.116/{name}/x86_64" for name in ("sm_86", "sm_89")]
    assert engine_asks(engine(site, target="sm_89/windows"), "pt2", Wish()) == []
    assert engine_asks(engine(site, toolchain="torch_tensorrt==2.13.0"), "pt2", Wish()) == []
    (onnx,) = engine_asks(engine(site), "onnx", Wish())
    assert onnx.baselines == (), "there is no eager of an ONNX file"


def test_what_has_waited_long_is_due(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = site.gauge()
    assert not gauge.due()
    site.index.await_measuring([site.ask(), site.ask(place="torch/h100/x86_64")])
    monkeypatch.setattr("farm.gauge.DUE_LOOK_SECONDS", 0.0)
    assert not gauge.due()
    monkeypatch.setattr("farm.gauge.DUE_SECONDS", -1.0)
    assert DUE_SECONDS > 0 and gauge.due()
    assert gauge.take() is not None and not gauge.due(), "what is left is another node's"


def test_what_nobody_measures_is_not_waited_for_ever(site: Site) -> None:
    site.index.await_measuring([site.ask(place="torch/h100/x86_64")])
    Waiting(site.index, join_seconds=0.0, pause=lambda: None).until_over([site.ask(place="torch/h100/x86_64")])
    (row,) = asked(site.index, [site.ask(place="torch/h100/x86_64")])
    assert row.outcome is Measuring.AWAITING and "torch/h100/x86_64" in row.error


def test_what_somebody_measures_is_waited_for(site: Site) -> None:
    site.index.await_measuring([site.ask()])
    gauge, said = site.gauge(), []
    lease = gauge.take()
    assert lease is not None

    def pause() -> None:
        gauge.measure(lease, lambda: False)

    Waiting(site.index, said.append, pause, join_seconds=0.0).until_over([site.ask()])
    (row,) = asked(site.index, [site.ask()])
    assert row.outcome is Measuring.MEASURED and said == ["node measures"]
    assert row.as_json()["measurements"][0]["accuracy"] is None


def test_an_engine_is_measured_and_its_baselines_on_the_same_device_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine(site, told={"version_compatible": True})
    gauge = site.gauge(cache=type("Cache", (), {"fetch": lambda self, one, dest: dest.write_bytes(b"plan")})())
    monkeypatch.setattr(gauge, "_engine", lambda ask: made)
    (ask,) = engine_asks(made, "pt2", Wish((Runner.EAGER, Runner.COMPILE)))
    site.measure(ask, gauge)
    assert [job.runner for job in site.said.jobs] == ["engine", "eager", "compile"]
    (job, *_) = site.said.jobs
    assert (job.inputs[0].name, job.outputs, job.host_code) == ("x", ("y",), True)
    (row,) = asked(site.index, [ask])
    assert [one.runner for one in row.found] == ["engine", "compile", "eager"]
    assert {one.place for one in row.found[1:]} == {"torch/l4/x86_64"}
    assert row.as_json()["measurements"][0]["speedup"] == 1.0
    site.measure(ask, gauge)
    assert [job.runner for job in site.said.jobs][3:] == ["engine"], "the baselines are known"


def test_an_engine_counts_though_a_baseline_fails(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(site)
    gauge = site.gauge(cache=type("Cache", (), {"fetch": lambda self, one, dest: dest.write_bytes(b"plan")})())
    monkeypatch.setattr(gauge, "_engine", lambda ask: made)
    site.said.fails["eager"] = AttemptFailed(Failure(FailureKind.PERMANENT, "eager cannot run", ""))
    (ask,) = engine_asks(made, "pt2", Wish())
    site.measure(ask, gauge)
    (row,) = asked(site.index, [ask])
    assert row.outcome is Measuring.FAILED and row.error == "eager: eager cannot run"
    assert [one.runner for one in row.found] == ["engine"]
