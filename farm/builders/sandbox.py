"""Runs one task in a child process under limits, and says how it ended. Nothing of TensorRT is known here.

The child is exec'd, never merely forked (a fork during a native build deadlocks), in a session of its own, so
that Ctrl-C reaches only farm; it dies with its parent (``PR_SET_PDEATHSIG``), has no network, a clean
environment and a large stack (see ``child``). The parent watches its log, its messages, its clock, its memory
and whether it still computes at all, and ends it with SIGKILL, the only thing that ends a native call holding
Python's lock.

``run_child`` blocks its thread, which must outlive the child: the kernel ties the child's life to the thread
that started it. ``Watch``'s functions are called from that thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from farm.builders import Cancelled, Limits, Watch
from farm.builders.bounded import BoundedLog, Lines
from farm.builders.outcome import Ending, Outcome

CHILD = Path(__file__).with_name("child.py")
PYTHON = (sys.executable, "-P", "-s", "-S")
"""No site, no user's packages, no folder of the script on the path. Not ``-I``, which would also ignore the hash
seed that makes exports repeatable."""
POLL_SECONDS = 0.1
TALK_SECONDS = 0.25
TREE_SECONDS = 1.0
STALL_SECONDS = 300.0
STALL_SHARE = 0.005
"""A child hangs when it used less than this share of one processor for ``STALL_SECONDS`` (its beats cost a tenth
of that; a build that computes, reads or waits for a GPU's timings far more), or when it did not beat for as long:
then a native call holds Python's lock, which none of TensorRT's long ones does."""
REAP_SECONDS = 10.0
MIB = 2**20
DATA_SLACK = 1536 * MIB
"""Room above the memory limit in RLIMIT_DATA, which backs the watcher up between two looks: the task's stack
counts there although hardly any of it is ever touched."""
KEPT_MESSAGES = 1000


@dataclass(frozen=True)
class Task:
    """What to run: the path of its module, its job as JSON, and the folder that it works in.

    ``environment`` is all that the child sees besides a path and a home: nothing of the worker's own (which
    holds credentials) unless the caller passes it on. ``gpu`` leaves CUDA the memory limits and the folders that it
    pleases; without it the child can change files in ``folder`` alone.
    """

    module: Path
    job: Mapping[str, Any]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    stall_seconds: float = STALL_SECONDS
    gpu: bool = False


class NotStarted(Exception):
    """The system would not give what a child needs; the text is its reason."""


def run_child(task: Task, limits: Limits, watch: Watch) -> Outcome:
    """Run ``task`` to its end, whatever that is. Raises ``Cancelled`` once ``watch`` says so, and ``NotStarted``
    where no process can be. No child is left behind by either, nor by an exception from ``watch``."""
    with contextlib.ExitStack() as stack:
        try:
            home = tempfile.TemporaryDirectory(prefix=".child-", dir=task.folder, ignore_cleanup_errors=True)
            child = _Child.start(task, limits, stack.enter_context(home), stack)
        except OSError as error:
            raise NotStarted(error.strerror or str(error)) from error
        try:
            return _follow(child, task, limits, watch)
        finally:
            child.end()


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    log: int
    messages: int
    exited: int | None
    started: float
    looks: _Looks

    @classmethod
    def start(cls, task: Task, limits: Limits, home: str, stack: contextlib.ExitStack) -> _Child:
        job = stack.enter_context(_as_file(_job(task, limits)))
        log_read, log_write = _pipe(stack)
        message_read, message_write = _pipe(stack)
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                [*PYTHON, str(CHILD), str(task.module), str(message_write), str(os.getpid())],
                stdin=job,
                stdout=log_write,
                stderr=log_write,
                cwd=task.folder,
                env=_environment(task, home),
                pass_fds=(message_write,),
                start_new_session=True,
            )
        finally:
            os.close(log_write)
            os.close(message_write)
        exited = _pidfd(process.pid)
        if exited is not None:
            stack.callback(os.close, exited)
        return cls(process, log_read, message_read, exited, started, _Looks(process.pid, started))

    def poll(self) -> int | None:
        """The raw wait status once the child has ended, reaped."""
        return self.process.poll()

    def kill(self) -> None:
        """SIGKILL the whole session, and descendants that left it."""
        strays = self.looks.descendants()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for stray in strays:
            with contextlib.suppress(psutil.Error):
                stray.kill()

    def end(self) -> None:
        """Leave nothing behind: kill what still runs and reap it.

        A process in an uninterruptible wait cannot be reaped yet; ``subprocess`` does so later.
        """
        if self.process.poll() is None:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(REAP_SECONDS)


@dataclass
class _Looks:
    """What the parent sees of its child's processes from outside."""

    pid: int
    started: float
    peak: int = 0
    _tree: list[psutil.Process] = field(default_factory=list)
    _looked: float = 0.0
    _idle_since: tuple[float, float] = (0.0, 0.0)

    def descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def memory(self, now: float) -> int:
        """Resident bytes of the tree now. Finding the tree costs a look at every process of the machine, so
        that is done once a second; measuring those that are known costs microseconds."""
        if now - self._looked >= TREE_SECONDS:
            self._looked = now
            with contextlib.suppress(psutil.Error):
                self._tree = [psutil.Process(self.pid), *self.descendants()]
        total = sum(_resident(process) for process in self._tree)
        self.peak = max(self.peak, total)
        return total

    def stalled(self, now: float, allowed: float) -> bool:
        """Whether the tree has computed next to nothing for ``allowed`` seconds (0: never)."""
        since, used_then = self._idle_since
        used = sum(_computed(process) for process in self._tree)
        if since == 0.0 or abs(used - used_then) > STALL_SHARE * max(allowed, 1.0):
            self._idle_since = (now, used)
            return False
        return 0 < allowed <= now - since


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _computed(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _follow(child: _Child, task: Task, limits: Limits, watch: Watch) -> Outcome:
    """Watch the child until it has ended or must end."""
    with contextlib.closing(_Ears(child, watch)) as ears:
        return _listen(ears, child, task, limits, watch)


def _listen(ears: _Ears, child: _Child, task: Task, limits: Limits, watch: Watch) -> Outcome:
    reason: Ending | None = None
    looked = talked = 0.0
    ears.talk()
    while child.poll() is None and reason is None:
        ears.listen(POLL_SECONDS)
        now = time.monotonic()
        if now - looked >= POLL_SECONDS:
            looked = now
            reason = _must_end(child, task, limits, now, ears.heard)
        if now - talked >= TALK_SECONDS:
            talked = now
            ears.talk()
            if watch.cancelled():
                raise Cancelled("the build was cancelled")
    child.end()
    seconds = time.monotonic() - child.started
    ears.drain()
    status = child.poll()
    status = -signal.SIGKILL if status is None else status
    # A child that ended by itself just before it would have been killed ended by itself.
    killed = reason if status == -signal.SIGKILL else None
    ending = killed or (Ending.SIGNAL if status < 0 else Ending.EXIT)
    peak = max(child.looks.peak, ears.told_peak)
    return Outcome(ending, abs(status), tuple(ears.messages), ears.log.text(), peak, seconds)


def _must_end(child: _Child, task: Task, limits: Limits, now: float, heard: float) -> Ending | None:
    memory = child.looks.memory(now)
    if 0 < limits.memory < memory:
        return Ending.MEMORY
    if now - child.started > limits.seconds:
        return Ending.TIME
    silent = 0 < task.stall_seconds <= now - heard
    if silent or child.looks.stalled(now, task.stall_seconds):
        return Ending.STALL
    return None


class _Ears:
    """Reads what the child writes, and passes it on."""

    def __init__(self, child: _Child, watch: Watch) -> None:
        self._child = child
        self._watch = watch
        self._selector = selectors.DefaultSelector()
        for fd in (child.log, child.messages):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ)
        if child.exited is not None:
            self._selector.register(child.exited, selectors.EVENT_READ)
        self.log = BoundedLog()
        self.messages: list[Mapping[str, Any]] = []
        self.heard = child.started
        self.told_peak = 0
        self._lines = Lines()
        self._phase = "start"
        self._progress: float | None = None

    def listen(self, seconds: float) -> None:
        """Wait for something to read, or for the child's end, no longer than ``seconds``."""
        for key, _ in self._selector.select(seconds):
            if key.fd == self._child.log:
                self._read_log()
            elif key.fd == self._child.messages:
                self._read_messages()

    def drain(self) -> None:
        """Read what is left once the child is gone."""
        while self._read_log():
            pass
        while self._read_messages():
            pass
        self._pass_on(self.log.finish())

    def close(self) -> None:
        self._selector.close()

    def talk(self) -> None:
        """Report, also where nothing is new: whoever watches takes it for a sign of life."""
        self._watch.report(self._phase, self._progress)

    def _read_log(self) -> bool:
        data = self._read(self._child.log)
        self._pass_on(self.log.feed(data))
        return bool(data)

    def _pass_on(self, text: str) -> None:
        if text:
            self._watch.log(text)

    def _read_messages(self) -> bool:
        data = self._read(self._child.messages)
        self.heard = time.monotonic() if data else self.heard
        for line in self._lines.feed(data):
            self._take(line)
        return bool(data)

    def _read(self, fd: int) -> bytes:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return b""
        if not data and fd in self._selector.get_map():
            self._selector.unregister(fd)
        return data

    def _take(self, line: bytes) -> None:
        """One message. The child may be hostile: what is no message is no message."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict):
            return
        kind = message.get("kind")
        if kind == "phase" and isinstance(message.get("name"), str):
            self._phase, self._progress = message["name"][:40], None
            self.talk()
        elif kind == "progress" and isinstance(message.get("fraction"), int | float):
            self._progress = min(max(float(message["fraction"]), 0.0), 1.0)
        elif kind != "beat":
            self._keep(message)
        if isinstance(message.get("peak_memory"), int):
            self.told_peak = message["peak_memory"]

    def _keep(self, message: Mapping[str, Any]) -> None:
        """Keep the first messages, and beyond those the last: it says how the task ended."""
        if len(self.messages) >= KEPT_MESSAGES:
            self.messages.pop()
        self.messages.append(message)


def _job(task: Task, limits: Limits) -> bytes:
    data = 0 if task.gpu or not limits.memory else limits.memory + DATA_SLACK
    about = {
        "confine": str(CHILD.with_name("confine.py")),
        "limits": {"disk": limits.disk, "data": data},
        "writable": [] if task.gpu else [str(task.folder)],
        "path": import_path(),
        "began": time.monotonic(),
    }
    return json.dumps({**task.job, **about}).encode()


def import_path() -> list[str]:
    """Where the child finds packages: where this process does, and farm's own, however it was installed.

    Not the folder that a command was started in, nor a script's own: a user's ``onnx.py`` there is not ONNX.
    """
    own = CHILD.parents[2]
    passing = {Path.cwd(), Path(sys.argv[0]).absolute().parent, CHILD.parent} - {own}
    entries = [entry for entry in sys.path if entry and Path(entry) not in passing and Path(entry).exists()]
    return [*entries, str(own)]


def _environment(task: Task, home: str) -> dict[str, str]:
    """All that the child sees. What its libraries leave in their home goes with it."""
    return {
        "PATH": os.defpath,
        "HOME": home,
        "TMPDIR": home,
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        **task.environment,
    }


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[int]:
    """A file in memory that holds ``content``, as a descriptor to read from its start."""
    fd = os.memfd_create("farm-job")
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose reading end the stack closes. The writer's end is closed once the child has it."""
    read, write = os.pipe()
    stack.callback(os.close, read)
    return read, write


def _pidfd(pid: int) -> int | None:
    """A descriptor that turns readable when the child ends, where the kernel has them (5.3)."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
