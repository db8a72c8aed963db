"""Real engines from the real TensorRT-RTX: what is built, what is refused, and what is left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from farm.builders import AttemptFailed, Cancelled, Form, Job, Limits, Product, Watch
from farm.builders.outcome import Ending
from farm.builders.plan import read_header
from farm.builders.sandbox import Task, run_child
from farm.builders.tensorrt import TensorRTBuilder, open_form
from farm.builds import Failure, FailureKind
from farm.toolchains import Toolchain

pytestmark = pytest.mark.torch
MakeJob = Callable[..., Job]
PERMANENT, NODE, TRANSIENT = FailureKind.PERMANENT, FailureKind.NODE, FailureKind.TRANSIENT


def build(job: Job, **watch: Any) -> Product:
    return TensorRTBuilder().build(job, Watch(**watch))


def failure(job: Job) -> Failure:
    with pytest.raises(AttemptFailed) as caught:
        build(job)
    assert list(job.folder.iterdir()) == [], "a failed build left something"
    return caught.value.failure


def digest(product: Product) -> str:
    return hashlib.sha256(product.plan.read_bytes()).hexdigest()


@pytest.mark.parametrize("target", [("sm_86",), ("sm_120",), ("sm_86", "sm_89")])
def test_an_engine_is_for_the_capabilities_that_were_asked_for(make_job: MakeJob, target: tuple[str, ...]) -> None:
    product = build(make_job(capabilities=target))
    header = read_header(product.plan.read_bytes()[:64])
    assert header.capabilities == target
    assert header.length == product.size == product.plan.stat().st_size
    assert product.read_back["compute_capabilities"] == [name.replace("sm_", "SM") for name in target]


def test_bindings_are_the_graphs_in_order(make_job: MakeJob) -> None:
    assert build(make_job()).bindings == {
        "inputs": [{"name": "x", "dtype": "FLOAT", "shape": [-1, 3, 16, 16]}],
        "outputs": [{"name": "y", "dtype": "FLOAT", "shape": [-1, 4]}],
    }


def test_two_builds_give_the_same_bytes_wherever_the_form_lies(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    for source in (job.form.graph, job.form.data):
        if source is not None:
            (tmp_path / source.name).write_bytes(source.read_bytes())
    moved = replace(job, form=open_form(tmp_path), folder=tmp_path)
    assert digest(build(job)) == digest(build(moved))


@pytest.mark.parametrize(
    ("settings", "read_back"),
    [
        ({"disable_tf32": True}, {"flag.TF32": False}),
        ({"enable_weight_streaming": True}, {"flag.WEIGHT_STREAMING": True}),
        ({"workspace_size": 2**28}, {"pool.WORKSPACE": 2**28}),
        ({"version_compatible": True}, {"flag.VERSION_COMPATIBLE": True, "flag.EXCLUDE_LEAN_RUNTIME": True}),
        ({}, {"pool.WORKSPACE": 2**36}),
    ],
)
def test_settings_hold(make_job: MakeJob, settings: dict[str, Any], read_back: dict[str, Any]) -> None:
    assert read_back.items() <= build(make_job(settings)).read_back.items()


def test_what_changes_the_engine_changes_its_bytes(make_job: MakeJob) -> None:
    assert digest(build(make_job())) != digest(build(make_job({"disable_tf32": True})))


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"enable_cross_compile_for_windows": True}, NODE, "enable_cross_compile_for_windows"),
        ({"hardware_compatible": True}, PERMANENT, "asked for AMPERE_PLUS, it stayed at NONE"),
        ({"engine_capability": "SAFETY"}, PERMANENT, "Could not find any implementation"),
        ({"device": "dla:0"}, NODE, "no such DLA core"),
        ({"workspace_size": 1}, PERMANENT, "workspace"),
        ({"immutable_weights": False}, NODE, "CUDA_SUCCESS"),
    ],
)
def test_settings_that_cannot_be_had_end_the_build(
    make_job: MakeJob, settings: dict[str, Any], kind: FailureKind, said: str
) -> None:
    if kind is NODE and Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a driver, and builds refittable engines")
    told = failure(make_job(settings))
    assert (told.kind, said in told.message) == (kind, True)


def test_fp32_products_for_turing_fail_with_tensorrts_own_words_and_the_node(make_job: MakeJob) -> None:
    for target in (("sm_75",), ("sm_75", "sm_86")):
        told = failure(make_job(capabilities=target))
        assert told.kind is PERMANENT
        assert "FP32 GEMM is not supported" in told.message and "SM75" in told.message
        assert "float16" in told.hint


def test_a_capability_that_this_tensorrt_does_not_know_is_named_with_those_it_does(make_job: MakeJob) -> None:
    told = failure(make_job(capabilities=("sm_90",)))
    assert told.kind is PERMANENT
    assert "sm_90" in told.message and "sm_89" in told.message


@pytest.mark.parametrize(
    "profile",
    [
        {"x": ((4, 3, 16, 16), (2, 3, 16, 16), (1, 3, 16, 16))},
        {"x": ((1, 3, 16), (2, 3, 16), (4, 3, 16))},
        {"other": ((1,), (2,), (3,))},
    ],
)
def test_shapes_that_cannot_be_used_are_permanent(make_job: MakeJob, profile: Any) -> None:
    assert failure(make_job(profiles=(profile,))).kind is PERMANENT


@pytest.mark.parametrize("content", [b"", b"some text, not a model\n" * 10, b"\x00" * 100, b"\xff" * 300])
def test_a_file_that_is_no_model_is_permanent(make_job: MakeJob, tmp_path: Path, content: bytes) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(content)
    told = failure(make_job(form=Form(graph, None, (), ())))
    assert told.kind is PERMANENT


def test_a_damaged_model_is_permanent_at_whatever_byte_it_ends(make_job: MakeJob, tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    whole = make_job().form.graph.read_bytes()
    for size in range(10, len(whole), len(whole) // 4):
        graph.write_bytes(whole[:size])
        assert failure(make_job(form=Form(graph, None, (), ()))).kind is PERMANENT


def test_a_graph_deeper_than_the_usual_stack_is_built(
    make_job: MakeJob, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Sigmoid", [f"v{n}"], [f"v{n + 1}"], name=f"n{n}") for n in range(4000)]
    value = [helper.make_tensor_value_info(f"v{n}", types.FLOAT, [4]) for n in (0, 4000)]
    model = helper.make_model(helper.make_graph(nodes, "deep", value[:1], value[1:]))
    model.ir_version = 10
    onnx.save(model, tmp_path / "model.onnx")
    job = make_job(form=Form(tmp_path / "model.onnx", None, ("v0",), ("v4000",)), profiles=())
    # Building it takes a minute; parsing is where the stack is needed.
    with pytest.raises((AttemptFailed, Cancelled)) as caught:
        said: list[str] = []
        build(job, report=lambda phase, progress: said.append(phase), cancelled=lambda: "build" in said)
    assert isinstance(caught.value, Cancelled)


def test_a_full_memory_is_the_nodes_failure(make_job: MakeJob) -> None:
    told = failure(make_job(limits=Limits(seconds=60, memory=100 * 2**20)))
    assert told.kind is NODE and "100 MiB" in told.message


def test_an_engine_larger_than_a_file_may_be_leaves_no_half(make_job: MakeJob) -> None:
    told = failure(make_job(limits=Limits(seconds=60, disk=50_000)))
    assert told.kind is NODE


def test_kill_9_of_the_child_is_told_leaves_nothing_and_the_next_build_works(make_job: MakeJob) -> None:
    job = make_job()
    killed: list[int] = []
    others = set(psutil.Process().children())

    def kill(phase: str, progress: float | None) -> None:
        for child in set(psutil.Process().children()) - others:
            os.kill(child.pid, signal.SIGKILL)
            killed.append(child.pid)

    with pytest.raises(AttemptFailed) as caught:
        build(job, report=kill)
    assert killed
    assert (caught.value.failure.kind, "SIGKILL" in caught.value.failure.message) == (TRANSIENT, True)
    assert list(job.folder.iterdir()) == []
    assert build(job).size > 0


def test_parallel_builds_give_what_single_ones_give(make_job: MakeJob) -> None:
    jobs = [make_job(capabilities=(target,)) for target in ("sm_86", "sm_89", "sm_86", "sm_89")]
    digests: dict[int, str] = {}

    def one(index: int) -> None:
        digests[index] = digest(build(jobs[index]))

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 4
    assert digests[0] == digests[2] and digests[1] == digests[3]


DEADLOCK = """
def run(job, channel):
    import tensorrt_rtx as trt
    config = trt.Builder(trt.Logger()).create_builder_config()
    cache = config.create_timing_cache(b"")
    channel.send("error", text="about to combine")
    cache.combine(cache, False)
    return {}

def explain(error, phase):
    return None
"""


def test_a_real_deadlock_inside_tensorrt_is_ended(rtx: Toolchain, tmp_path: Path) -> None:
    # ITimingCache.combine with itself spins for ever on a lock that it holds, with Python's lock in hand.
    module = tmp_path / "deadlock.py"
    module.write_text(DEADLOCK)
    others = set(psutil.Process().children())
    began = time.monotonic()
    outcome = run_child(Task(module, {}, tmp_path, stall_seconds=2.0), Limits(seconds=60), Watch())
    assert outcome.every("error")
    assert outcome.ending is Ending.STALL
    assert time.monotonic() - began < 50
    assert set(psutil.Process().children()) <= others


def test_a_child_that_builds_imports_neither_torch_nor_numpy(make_job: MakeJob) -> None:
    task = Path(__file__).with_name("imports_task.py")
    job = make_job()
    from farm.builders.tensorrt import child_job

    outcome = run_child(Task(task, child_job(job), job.folder), Limits(seconds=60), Watch())
    done = outcome.last("done")
    assert done is not None
    assert not {"torch", "numpy", "onnx", "farm", "pathlib"} & set(done["modules"])


def test_real_caches_are_merged_in_a_child_though_they_hold_nothing(rtx: Toolchain, tmp_path: Path) -> None:
    """On TensorRT-RTX timing caches are no-ops: this shows that the calls are the real module's, and no more."""
    import tensorrt_rtx as trt

    from farm.builders.merging import TensorRTMerger

    config = trt.Builder(trt.Logger()).create_builder_config()
    empty = bytes(config.create_timing_cache(b"").serialize())
    merged = TensorRTMerger(scratch=tmp_path).merge(rtx, empty, empty, Watch())
    assert not merged.unfit and merged.entries in (0, None)
