"""The builder against the stand-in for plain TensorRT: settings, timing caches, failures, and what is left behind.

``tests/builders`` builds the same way with the real TensorRT-RTX.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from farm.builders import AttemptFailed, Cancelled, Job, Limits, Product, Timed, Watch
from farm.builders.notes import Notes
from farm.builders.tensorrt import TensorRTBuilder
from farm.builds import Failure, FailureKind
from farm.toolchains import Toolchain

STANDIN = Path(__file__).with_name("standin")
MakeJob = Callable[..., Job]
PERMANENT, NODE, TRANSIENT = FailureKind.PERMANENT, FailureKind.NODE, FailureKind.TRANSIENT


def build(job: Job, **watch: Any) -> Product:
    return TensorRTBuilder(stall_seconds=0).build(job, Watch(**watch))


def again(job: Job) -> Job:
    """The same job in a folder of its own."""
    return replace(job, folder=Path(tempfile.mkdtemp(dir=job.folder.parent)))


def failure(job: Job, builder: TensorRTBuilder | None = None) -> Failure:
    with pytest.raises(AttemptFailed) as caught:
        (builder or TensorRTBuilder(stall_seconds=0)).build(job, Watch())
    assert not (job.folder / "engine.plan").exists(), "a failed build left an engine"
    assert caught.value.message and caught.value.hint
    return caught.value.failure


def plan_of(product: Product) -> dict[str, Any]:
    content = product.plan.read_bytes()
    assert len(content) == product.size
    return dict(json.loads(content[4:]))


def test_a_build_gives_a_plan_its_bindings_and_what_it_cost(make_job: MakeJob) -> None:
    product = build(make_job())
    assert plan_of(product)["name"] == "farm"
    assert product.bindings == {
        "inputs": [{"name": "x", "dtype": "FLOAT", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "dtype": "FLOAT", "shape": [-1, 2]}],
    }
    assert product.seconds.keys() == {"start", "parse", "build", "serialise"}
    assert product.peak_memory > 2**20


def test_settings_are_told_and_read_back(make_job: MakeJob) -> None:
    settings = {"optimization_level": 5, "disable_tf32": True, "tiling_optimization_level": "fast"}
    read_back = build(make_job(settings=settings)).read_back
    assert read_back["builder_optimization_level"] == 5
    assert read_back["flag.TF32"] is False
    assert read_back["tiling_optimization_level"] == "FAST"
    assert read_back["pool.WORKSPACE"] == 24 * 2**30  # unset: TensorRT's own, recorded


def test_a_setting_that_does_not_hold_ends_the_build(make_job: MakeJob) -> None:
    job = make_job(settings={"enable_cross_compile_for_windows": True})
    assert build(job).read_back["runtime_platform"] == "WINDOWS_AMD64"
    told = failure(again(job), TensorRTBuilder({"STANDIN_NO_WINDOWS": "1"}))
    assert told.kind is NODE, "another node may have what building for Windows takes"
    assert "enable_cross_compile_for_windows" in told.message and "SAME_AS_BUILD" in told.message


@pytest.mark.parametrize("settings", [{"device": "dla:1"}, {"engine_capability": "DLA_STANDALONE", "device": "dla:1"}])
def test_a_dla_core_must_be_there(make_job: MakeJob, settings: dict[str, Any]) -> None:
    job = make_job(settings=settings)
    told = failure(job, TensorRTBuilder({"STANDIN_DLA": "1"}))
    assert told.kind is NODE and "core 1 is asked for, and it has 1" in told.message
    product = TensorRTBuilder({"STANDIN_DLA": "2"}).build(again(job), Watch())
    assert (product.read_back["default_device_type"], product.read_back["DLA_core"]) == ("DLA", 1)


def test_portability_is_read_back(make_job: MakeJob) -> None:
    read_back = build(make_job(settings={"version_compatible": True, "hardware_compatible": True})).read_back
    assert read_back["flag.VERSION_COMPATIBLE"] is True
    assert read_back["hardware_compatibility_level"] == "AMPERE_PLUS"


def test_a_setting_that_this_version_lacks_is_refused_by_name(make_job: MakeJob) -> None:
    job = make_job(settings={"immutable_weights": False, "refit_identical_engine_weights": True})
    assert build(job).read_back["flag.REFIT_IDENTICAL"] is True
    told = failure(again(job), TensorRTBuilder({"STANDIN_OLD": "1"}))
    assert told.kind is PERMANENT and "REFIT_IDENTICAL" in told.message


def test_a_version_without_a_setting_builds_while_it_is_at_its_default(make_job: MakeJob) -> None:
    settings = {"tiling_optimization_level": "none", "hardware_compatible": False}
    old = TensorRTBuilder({"STANDIN_OLD": "1"})
    assert "tiling_optimization_level" not in old.build(make_job(settings=settings), Watch()).read_back
    told = failure(make_job(settings={"tiling_optimization_level": "full"}), old)
    assert told.kind is PERMANENT and "TilingOptimizationLevel" in told.message


def test_a_setting_that_nobody_here_knows_is_refused_before_anything_is_started(make_job: MakeJob) -> None:
    told = failure(make_job(settings={"no_such": 1}))
    assert (told.kind, "no_such" in told.message) == (PERMANENT, True)


def test_typing_is_strong_unless_it_is_switched_off(make_job: MakeJob) -> None:
    assert plan_of(build(make_job()))["flags"] == 2
    weak = make_job(settings={"use_explicit_typing": False, "enabled_precisions": ["float16", "float32"]})
    product = build(weak)
    assert plan_of(product)["flags"] == 0
    assert product.read_back["flag.FP16"] is True


def test_every_profile_reaches_the_configuration(make_job: MakeJob) -> None:
    profiles = ({"x": ((1, 4), (1, 4), (1, 4))}, {"x": ((2, 4), (4, 4), (8, 4))})
    told = plan_of(build(make_job(profiles=profiles)))
    assert told["profiles"] == [{"x": [[1, 4], [1, 4], [1, 4]]}, {"x": [[2, 4], [4, 4], [8, 4]]}]


def test_the_values_of_a_shape_tensor_are_told_as_values(make_job: MakeJob) -> None:
    model = {"inputs": [["n", "INT64", [], True]]}
    job = make_job(model, profiles=({"n": ((1,), (4,), (8,))},))
    job = replace(job, form=replace(job.form, inputs=("n",)))
    assert plan_of(build(job))["profiles"] == [{"n": ["values", [1], [4], [8]]}]


@pytest.mark.parametrize(
    ("profiles", "said"),
    [
        ((), "no shapes are given for x"),
        (({"other": ((1,), (1,), (1,))},), "no shapes for x"),
        (({"x": ((4, 4), (2, 4), (8, 4))},), "takes no profile"),
    ],
)
def test_shapes_that_cannot_be_used_are_permanent(make_job: MakeJob, profiles: Any, said: str) -> None:
    told = failure(make_job(profiles=profiles))
    assert (told.kind, said in told.message) == (PERMANENT, True)


HEADER = b"timings of standin 10.14.1.48:"


def timings(*operations: str, device: str = "a GPU") -> bytes:
    told = {"device": device, "entries": {name: f"tactic of {name}" for name in operations}}
    return HEADER + json.dumps(told, sort_keys=True).encode()


def starting(job: Job, data: bytes, **more: Any) -> Job:
    """The job again, from a timing cache of ``data``."""
    fresh = again(job)
    start = fresh.folder / "start.cache"
    start.write_bytes(data)
    return replace(fresh, timing_cache=start, **more)


def test_a_timing_cache_goes_in_and_comes_out(make_job: MakeJob) -> None:
    job = make_job({"operations": ["conv", "gemm"]})
    first = build(job)
    assert first.timing_cache is not None and first.timing_cache.read_bytes() == timings("conv", "gemm")
    assert first.timed == Timed("", 0, 2)
    second = build(starting(job, timings("conv", "relu")))
    assert second.timing_cache is not None
    assert second.timing_cache.read_bytes() == timings("conv", "gemm", "relu")
    assert second.timed == Timed("", 2, 3)


def test_timings_that_end_the_process_are_left_out(make_job: MakeJob) -> None:
    product = build(starting(make_job(), HEADER + b"crash"))
    assert product.timing_cache is not None and product.timing_cache.read_bytes() == timings("conv")
    assert product.timed == Timed("it ended TensorRT's process", 0, 1)


def test_timings_are_left_alone_when_they_are_off(make_job: MakeJob) -> None:
    assert build(starting(make_job(), timings("gemm"), timing="off")).timing_cache is None


def test_editable_and_strict_timings(make_job: MakeJob) -> None:
    job = make_job({"operations": ["conv", "gemm"]})
    editable = build(replace(again(job), timing="editable"))
    assert editable.read_back["flag.EDITABLE_TIMING_CACHE"] is True and editable.timing_cache is not None
    assert "flag.ERROR_ON_TIMING_CACHE_MISS" not in editable.read_back
    strict = build(starting(job, editable.timing_cache.read_bytes(), timing="strict"))
    flags = ("EDITABLE_TIMING_CACHE", "DISABLE_COMPILATION_CACHE", "ERROR_ON_TIMING_CACHE_MISS")
    assert all(strict.read_back[f"flag.{flag}"] is True for flag in flags)
    told = failure(starting(job, timings("conv"), timing="strict"))
    assert told.kind is NODE and "gemm is not present" in told.message and "FARM_TIMING=editable" in told.hint
    told = failure(starting(job, HEADER + b"crash", timing="strict"))
    assert told.kind is TRANSIENT, "what replays strictly must not go on without"


@pytest.mark.parametrize("mode", ["editable", "strict"])
def test_tensorrt_rtx_has_no_timings_to_replay(make_job: MakeJob, mode: str) -> None:
    job = replace(make_job(), toolchain=Toolchain("tensorrt_rtx", "1.7.1.116"), timing=mode)
    told = failure(job)
    assert told.kind is NODE and "times no kernels" in told.message


def test_an_error_that_did_no_harm_does_not_explain_a_later_failure(make_job: MakeJob) -> None:
    job = make_job({"build_errors": ["the real reason"]})
    start = job.folder.parent / "start.cache"
    start.write_bytes(b"of another version")
    assert "the real reason" in failure(replace(job, timing_cache=start)).message


@pytest.mark.parametrize("blob", [timings("gemm", device="another"), b"of another version", HEADER + b"{ruined"])
def test_a_timing_cache_that_does_not_fit_is_no_error(make_job: MakeJob, blob: bytes) -> None:
    product = build(starting(make_job(), blob))
    assert product.timing_cache is not None
    assert product.timing_cache.read_bytes() == timings("conv")
    assert product.timed.aside.startswith("it does not fit") and product.timed.before == 0


def test_float64_is_refused_unless_the_user_allows_to_narrow_it(make_job: MakeJob) -> None:
    notes = Notes(inputs=("x",), outputs=("y",), doubles=("scale",))
    told = failure(make_job(notes=notes))
    assert told.kind is PERMANENT
    assert "scale" in told.message and "truncate_double" in told.hint
    build(make_job(notes=notes, settings={"truncate_double": True}))


def test_outputs_and_inputs_must_be_the_programs(make_job: MakeJob) -> None:
    dropped = failure(make_job({"outputs": [["z", "FLOAT", [1]]]}))
    assert dropped.kind is PERMANENT and "outputs y became z" in dropped.message


def test_a_file_that_holds_nothing_is_no_model(make_job: MakeJob) -> None:
    told = failure(make_job({"outputs": []}))
    assert told.kind is PERMANENT and "no ONNX model" in told.message


def test_the_parsers_reason_and_the_models_line_reach_the_user(make_job: MakeJob) -> None:
    errors = [{"text": "Plugin not found", "node_name": "node_DFT_8", "node_operator": "DFT"}]
    notes = Notes(("x",), ("y",), nodes={"node_DFT_8": "aten.fft_rfft.default at model.py:6 (forward)"})
    told = failure(make_job({"parse_errors": errors}, notes=notes))
    assert told.message == "TensorRT has no operator DFT [aten.fft_rfft.default at model.py:6 (forward)]"


def test_the_first_error_of_the_build_counts(make_job: MakeJob) -> None:
    told = failure(make_job({"build_errors": ["OutOfMemory (Requested size was 9)", "cudaError 35", "later"]}))
    assert told.kind is PERMANENT and "Requested size was 9" in told.message


def test_a_machine_without_the_toolchain_or_with_another_version_is_the_nodes_failure(make_job: MakeJob) -> None:
    job = make_job()
    other = failure(replace(job, toolchain=Toolchain("tensorrt", "10.15.0.1")))
    assert (other.kind, "10.14.1.48" in other.message) == (NODE, True)
    unknown = failure(replace(job, toolchain=Toolchain("torch_tensorrt", "2.13.0")))
    assert unknown.kind is NODE


def test_a_machine_without_a_driver_is_the_nodes_failure(make_job: MakeJob) -> None:
    told = failure(make_job(), TensorRTBuilder({"STANDIN_NO_DRIVER": "1"}))
    assert told.kind is NODE
    assert "CUDA initialization failure" in told.message and "doctor" in told.hint


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_transient_and_names_the_signal(make_job: MakeJob, number: signal.Signals) -> None:
    told = failure(make_job({"signal": int(number)}))
    assert (told.kind, number.name in told.message) == (TRANSIENT, True)


def test_a_kill_from_outside_is_transient_and_leaves_nothing(make_job: MakeJob) -> None:
    job = make_job({"touch": "pid"})

    def kill_it() -> None:
        pid = job.folder / "pid"
        while not pid.exists() or not pid.read_text():
            time.sleep(0.02)
        os.kill(int(pid.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill_it, daemon=True)
    killer.start()
    told = failure(job)
    killer.join()
    assert (told.kind, "SIGKILL" in told.message) == (TRANSIENT, True)
    build(make_job())  # the next one works


def test_a_hanging_native_call_is_ended_and_told(make_job: MakeJob) -> None:
    stalled = failure(make_job({"hang": True}), TensorRTBuilder(stall_seconds=1.0))
    assert (stalled.kind, "hung" in stalled.message) == (TRANSIENT, True)
    late = failure(make_job({"hang": True}, limits=Limits(seconds=0.7)))
    assert (late.kind, "0.7 s" in late.message) == (NODE, True)


def test_too_little_memory_is_the_nodes_failure_with_both_figures(make_job: MakeJob) -> None:
    limits = Limits(seconds=30, memory=200 * 2**20)
    told = failure(make_job({"allocate": 600, "hold": 5}, limits=limits))
    assert told.kind is NODE
    assert "200 MiB" in told.message


ON_A_SMALL_DISK = """
import sys
from dataclasses import replace
from pathlib import Path
from farm.builders import AttemptFailed, Form, Job, Limits, Watch
from farm.builders.tensorrt import TensorRTBuilder
from farm.toolchains import Toolchain
sys.path.insert(0, sys.argv[3])
form = Form(Path(sys.argv[1]), None, ("x",), ("y",))
profile = {"x": ((1, 4), (2, 4), (8, 4))}
job = Job(Toolchain("tensorrt", "10.14.1.48"), form, {}, ("sm_89",), (profile,), Path(sys.argv[2]))
try:
    TensorRTBuilder().build(job, Watch())
except AttemptFailed as error:
    print(error.failure.kind, error.failure.message, sorted(path.name for path in job.folder.iterdir()), sep="|")
"""


def test_a_full_disk_is_transient_and_says_so(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job({"padding": 4 * 2**20})
    small = tmp_path / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=1m none {small} && exec "$@"'
    python = [sys.executable, "-c", ON_A_SMALL_DISK, str(job.form.graph), str(small), str(STANDIN)]
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", mount, "sh", *python], capture_output=True, text=True)
    if "unshare" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    kind, message, left = ran.stdout.strip().split("|")
    assert (kind, left) == ("transient", "[]")
    assert "the disk is full" in message


def test_an_engine_above_the_limit_of_a_file_is_no_engine(make_job: MakeJob) -> None:
    told = failure(make_job(limits=Limits(seconds=30, disk=10)))
    assert (told.kind, "larger than the limit" in told.message) == (NODE, True)


def test_cancelling_ends_it_within_a_second_and_leaves_nothing(make_job: MakeJob) -> None:
    job = make_job({"hang": True})
    others = set(psutil.Process().children(recursive=True))
    began: list[float] = []

    def cancelled() -> bool:
        began.append(time.monotonic())
        return len(began) > 2

    with pytest.raises(Cancelled):
        build(job, cancelled=cancelled)
    assert time.monotonic() - began[-1] < 5
    assert not (job.folder / "engine.plan").exists()
    assert set(psutil.Process().children(recursive=True)) <= others


def test_progress_rises_and_the_log_is_bounded(make_job: MakeJob) -> None:
    said: list[tuple[str, float | None]] = []
    lines: list[str] = []
    model = {"steps": 8, "step_seconds": 0.12, "log_lines": 20_000}
    build(make_job(model), report=lambda phase, progress: said.append((phase, progress)), log=lines.append)
    fractions = [progress for phase, progress in said if phase == "build" and progress is not None]
    assert fractions == sorted(fractions) and fractions[-1] > 0.5
    text = "".join(lines)
    assert len(text) < 300_000 and "left out" in text
    assert "tactic 17" not in text


def test_debug_keeps_tensorrts_detailed_log(make_job: MakeJob) -> None:
    lines: list[str] = []
    build(make_job(settings={"debug": True}), log=lines.append)
    assert "[V] tactic 17 considered" in "".join(lines)


def test_a_file_that_is_no_onnx_is_told_before_anything_is_started(make_job: MakeJob) -> None:
    job = make_job()
    job.form.graph.write_bytes(b"\xff" * 50)
    assert failure(job).kind is PERMANENT


def test_a_form_that_is_gone_and_a_folder_that_is_gone_are_passing_failures(make_job: MakeJob) -> None:
    job = make_job()
    assert failure(replace(job, folder=job.folder / "gone")).kind is TRANSIENT
    job.form.graph.unlink()
    assert failure(job).kind is TRANSIENT


def test_two_builds_of_one_job_give_the_same_bytes(make_job: MakeJob) -> None:
    job = make_job()
    assert build(job).plan.read_bytes() == build(again(job)).plan.read_bytes()
