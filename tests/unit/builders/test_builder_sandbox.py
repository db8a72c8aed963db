"""Children under limits: real processes, none of them TensorRT's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from farm.builders import Cancelled, Limits, Watch
from farm.builders import sandbox as sandbox_module
from farm.builders.outcome import Ending, Outcome
from farm.builders.sandbox import NotStarted, Task, run_child

SECONDS = 20.0


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Outcome]:
    """Run the body of a task's ``run(job, channel)`` in a child."""

    def run_body(body: str, limits: Limits | None = None, watch: Watch | None = None, **job: object) -> Outcome:
        module = tmp_path / "task.py"
        module.write_text(
            "import os, sys, time, threading, ctypes, signal\n"
            "def run(job, channel):\n" + textwrap.indent(textwrap.dedent(body), "    ") + "\n    return {}\n"
            "def explain(error, phase):\n    return None\n"
        )
        stall = float(str(job.pop("stall", 0.0)))
        task = Task(module, job, tmp_path, {"GIVEN": "yes"}, stall_seconds=stall)
        return run_child(task, limits or Limits(seconds=SECONDS), watch or Watch())

    return run_body


_others: set[int] = set()
"""Children that were there before the test: another module's helper may live as long as the session."""


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.pid not in _others]


@pytest.fixture(autouse=True)
def no_child_is_left() -> object:
    _others.clear()
    _others.update(child.pid for child in children())
    yield
    assert not children()


def wait_for(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def test_a_task_gets_its_job_and_gives_its_answer(run: Callable[..., Outcome]) -> None:
    outcome = run("return {'sum': sum(job['numbers'])}", numbers=[1, 2, 3])
    assert (outcome.ending, outcome.status) == (Ending.EXIT, 0)
    done = outcome.last("done")
    assert done is not None and done["sum"] == 6
    assert outcome.peak_memory > 2**20


def test_a_job_larger_than_any_pipe_arrives(run: Callable[..., Outcome]) -> None:
    done = run("return {'length': len(job['text'])}", text="x" * 3_000_000).last("done")
    assert done is not None and done["length"] == 3_000_000


def test_a_refusal_is_told_and_a_defect_is_told_apart(run: Callable[..., Outcome]) -> None:
    refused = run("raise channel.Refused(what='because')")
    crashed = run("return 1 / 0")
    assert refused.last("failure") is not None and refused.last("crash") is None
    crash = crashed.last("crash")
    assert crash is not None and crash["type"] == "ZeroDivisionError"
    assert "ZeroDivisionError" in crashed.log


def test_the_child_sees_nothing_of_its_parents_environment(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    done = run("return {'environment': dict(os.environ)}").last("done")
    assert done is not None
    assert "AWS_SECRET_ACCESS_KEY" not in done["environment"]
    assert done["environment"]["GIVEN"] == "yes"


def test_what_libraries_leave_in_their_home_goes_with_the_child(run: Callable[..., Outcome], tmp_path: Path) -> None:
    body = "[open(os.path.join(os.environ[name], 'litter'), 'w').close() for name in ('HOME', 'TMPDIR')]"
    assert run(body).last("done") is not None
    assert list(tmp_path.rglob("litter")) == []


def test_the_child_has_no_network(run: Callable[..., Outcome]) -> None:
    outcome = run("return {'interfaces': [line.split(':')[0].strip() for line in open('/proc/net/dev')][2:]}")
    if "does not let the child give up the network" in outcome.log:
        pytest.skip("this kernel gives no network namespace to a child")
    done = outcome.last("done")
    assert done is not None and set(done["interfaces"]) <= {"lo"}


def test_the_child_changes_files_in_its_own_folder_alone(run: Callable[..., Outcome], tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text("as it was")
    body = """
    def fails(act):
        try:
            act()
        except PermissionError:
            return True
        return False
    outside = job['outside']
    open('inside', 'w').close()
    os.makedirs('deep/er')
    os.replace('inside', 'deep/er/moved')
    open('/dev/null', 'w').close()
    return {'refused': [
        fails(lambda: open(outside, 'w')),
        fails(lambda: open(outside + '-new', 'w')),
        fails(lambda: os.truncate(outside, 0)),
        fails(lambda: os.remove(outside)),
        fails(lambda: os.replace('deep/er/moved', outside)),
        fails(lambda: os.symlink('x', outside + '-link')),
    ], 'read': open(outside).read()}
    """
    outcome = run(body, outside=str(outside))
    if "give up writing" in outcome.log:
        pytest.skip("this kernel has no Landlock")
    done = outcome.last("done")
    assert done is not None, outcome.log
    assert done["refused"] == [True] * 6
    assert done["read"] == outside.read_text() == "as it was"


def test_the_stack_is_large(run: Callable[..., Outcome]) -> None:
    body = """
    def deep(n):
        return 0 if n == 0 else 1 + max(map(deep, [n - 1]))
    sys.setrecursionlimit(200_000)
    return {'depth': deep(50_000)}
    """
    done = run(body).last("done")
    assert done is not None and done["depth"] == 50_000


def test_progress_phases_and_beats_reach_the_watch(run: Callable[..., Outcome]) -> None:
    said: list[tuple[str, float | None]] = []
    body = """
    with channel.phase('parse'):
        time.sleep(0.6)
    with channel.phase('build'):
        channel.send('progress', fraction=0.5)
        time.sleep(0.6)
    """
    outcome = run(body, watch=Watch(report=lambda phase, progress: said.append((phase, progress))))
    assert list(dict(said)) == ["start", "parse", "build"]
    assert ("build", 0.5) in said
    # Also while nothing is new: whoever watches takes it for a sign of life.
    assert said.count(("parse", None)) >= 2
    done = outcome.last("done")
    assert done is not None and done["seconds"].keys() == {"parse", "build"}


def test_the_log_comes_as_it_is_written_also_from_native_code(run: Callable[..., Outcome]) -> None:
    heard: list[str] = []
    outcome = run("print('one'); os.write(2, b'native\\n'); print('two')", watch=Watch(log=heard.append))
    assert outcome.log == "".join(heard) == "one\nnative\ntwo\n"


def test_a_flood_of_log_and_messages_is_bounded(run: Callable[..., Outcome]) -> None:
    body = """
    for n in range(60_000):
        print('flood', n)
    for n in range(5_000):
        channel.send('error', text=str(n))
    """
    outcome = run(body)
    assert "left out" in outcome.log and "flood 59999" in outcome.log
    assert len(outcome.log) < 300_000
    assert len(outcome.messages) <= sandbox_module.KEPT_MESSAGES
    assert outcome.last("done") is not None


def test_nonsense_on_the_pipe_of_messages_is_no_message(run: Callable[..., Outcome]) -> None:
    body = """
    fd = int(sys.argv[2])
    os.write(fd, b'not json\\n[1]\\n{"kind": 3}\\n{"kind": "progress", "fraction": "x"}\\n' + b'{' * 100_000 + b'\\n')
    """
    assert run(body).last("done") is not None


def test_the_time_limit_ends_it(run: Callable[..., Outcome]) -> None:
    outcome = run("time.sleep(60)", limits=Limits(seconds=0.5))
    assert outcome.ending is Ending.TIME
    assert outcome.seconds < 10


def test_a_call_that_holds_pythons_lock_for_ever_is_ended_by_the_time_limit(run: Callable[..., Outcome]) -> None:
    assert run("ctypes.PyDLL(None).pause()", limits=Limits(seconds=0.5)).ending is Ending.TIME


def test_a_child_that_computes_nothing_any_more_is_taken_to_hang(run: Callable[..., Outcome]) -> None:
    outcome = run("ctypes.PyDLL(None).pause()", stall=1.5)
    assert outcome.ending is Ending.STALL


def test_so_is_one_that_spins_with_pythons_lock_in_hand(run: Callable[..., Outcome]) -> None:
    spin = "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')"  # one call that never lets go
    assert run(spin, stall=1.5).ending is Ending.STALL


def test_a_child_that_computes_is_not(run: Callable[..., Outcome]) -> None:
    body = """
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        pass
    """
    assert run(body, stall=1.0).ending is Ending.EXIT


def test_the_memory_limit_ends_it(run: Callable[..., Outcome]) -> None:
    body = "held = [bytearray(os.urandom(2**20)) for _ in range(400)]; time.sleep(30)"
    outcome = run(body, limits=Limits(seconds=SECONDS, memory=150 * 2**20))
    assert outcome.ending is Ending.MEMORY
    assert outcome.peak_memory > 150 * 2**20


def test_the_memory_of_its_own_children_counts(run: Callable[..., Outcome]) -> None:
    body = """
    import subprocess
    code = "b = bytearray(b'x' * 300 * 2**20); import time; time.sleep(30)"
    subprocess.run([sys.executable, '-c', code])
    """
    outcome = run(body, limits=Limits(seconds=SECONDS, memory=200 * 2**20))
    assert outcome.ending is Ending.MEMORY


def test_one_huge_allocation_fails_before_anybody_looks(run: Callable[..., Outcome]) -> None:
    outcome = run("bytearray(b'x' * 4 * 2**30)", limits=Limits(seconds=SECONDS, memory=256 * 2**20))
    crash = outcome.last("crash")
    assert crash is not None and crash["type"] == "MemoryError"


def test_a_file_larger_than_the_limit_cannot_be_written(run: Callable[..., Outcome]) -> None:
    outcome = run(
        "open('big', 'wb', 0).write(b'x' * 1000)\nopen('big', 'ab', 0).write(b'x')",
        limits=Limits(seconds=SECONDS, disk=1000),
    )
    crash = outcome.last("crash")
    assert crash is not None and crash["errno"] == 27  # EFBIG


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_told_by_its_signal(run: Callable[..., Outcome], number: signal.Signals) -> None:
    outcome = run(f"channel.send('error', text='last words'); os.kill(os.getpid(), {int(number)})")
    assert (outcome.ending, outcome.status) == (Ending.SIGNAL, number)
    assert outcome.every("error")[0]["text"] == "last words"


def test_cancelling_kills_the_child_and_what_it_started(run: Callable[..., Outcome], tmp_path: Path) -> None:
    body = """
    import subprocess
    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)
    open('started', 'w').close()
    ctypes.PyDLL(None).pause()
    """
    started = time.monotonic()
    with pytest.raises(Cancelled):
        run(body, watch=Watch(cancelled=(tmp_path / "started").exists))
    assert time.monotonic() - started < SECONDS / 2
    assert wait_for(lambda: not children())


def test_an_exception_of_the_watch_leaves_no_child(run: Callable[..., Outcome]) -> None:
    def fail(phase: str, progress: float | None) -> None:
        raise RuntimeError("the lease is lost")

    with pytest.raises(RuntimeError, match="lease"):
        run("time.sleep(60)", watch=Watch(report=fail))
    assert wait_for(lambda: not children())


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "import os, time\n"
        "def run(job, channel):\n    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(120)\n"
        "def explain(error, phase):\n    return None\n"
    )
    program = (
        "import sys; from pathlib import Path; from farm.builders import Limits, Watch\n"
        "from farm.builders.sandbox import Task, run_child\n"
        "folder = Path(sys.argv[1]); run_child(Task(folder / 'task.py', {}, folder), Limits(), Watch())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    pid_file = tmp_path / "pid"
    assert wait_for(lambda: pid_file.exists() and pid_file.read_text() != "")
    child = psutil.Process(int(pid_file.read_text()))
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_ctrl_c_in_the_terminal_does_not_reach_the_child(run: Callable[..., Outcome]) -> None:
    done = run("return {'group': os.getpgrp()}").last("done")
    assert done is not None and done["group"] != os.getpgrp()


def test_several_run_at_once_from_threads(run: Callable[..., Outcome], tmp_path: Path) -> None:
    module = tmp_path / "both.py"
    module.write_text(
        "import time\n"
        "def run(job, channel):\n    time.sleep(0.2)\n    return {'n': job['n']}\n"
        "def explain(error, phase):\n    return None\n"
    )
    found: list[object] = []

    def one(number: int) -> None:
        done = run_child(Task(module, {"n": number}, tmp_path), Limits(seconds=SECONDS), Watch()).last("done")
        found.append(done and done["n"])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == ["0", "1", "2", "3"]


def test_no_descriptor_is_left_open(run: Callable[..., Outcome]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    run("pass")
    with pytest.raises(Cancelled):
        run("time.sleep(60)", watch=Watch(cancelled=lambda: True))
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_machine_that_starts_no_process_says_why(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_module, "PYTHON", ("/no/such/python",))
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(NotStarted, match="No such file"):
        run("pass")
    assert set(os.listdir("/proc/self/fd")) == before
