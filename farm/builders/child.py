"""The first thing that runs in a child process: confine it, then run one task in a thread of its own.

Started as ``python child.py TASK FD PARENT`` by ``sandbox.run_child``: TASK is the path of a module with
``run(job, channel)``, FD the pipe that messages go to, PARENT the process that must stay alive; the job comes
on standard input as JSON. Only the standard library is imported here, and nothing of farm: a build pays for
every import. No name of another module may be made importable by accident either (``tensorrt.py`` beside this
file is not TensorRT), so the task is loaded from its path and ``sys.path`` is what the job says.

The task runs in a thread because its stack must be large (TensorRT's parser recurses over the graph: 4,000
nodes in a row overflow 8 MiB) and because the main thread beats while the task is silent.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

BEAT_SECONDS = 0.5
MIB = 2**20
STACKS = (1024 * MIB, 256 * MIB, 64 * MIB, 0)
"""Stack sizes to try for the task's thread, in bytes; 0 is the system's own."""

CRASHED = 70
"""Exit status of a task that raised what nobody foresaw; the message ``crash`` says what."""
REFUSED = 65
"""Exit status of a task that ended with a message ``failure``."""
MODE = 0o600


class Task(Protocol):
    """What a task's module offers."""

    def run(self, job: dict[str, Any], channel: Channel) -> dict[str, Any]:
        """Do the work; what it returns is the message ``done``. ``Refused`` ends it with a reason."""

    def explain(self, error: BaseException, phase: str) -> dict[str, Any] | None:
        """The message ``failure`` for an error that ``run`` let through in ``phase``; ``None`` if it is a defect.

        The libraries that tasks call raise anything at all, so it is said once, here, for all of them.
        """


class Refused(Exception):
    """The task cannot be done; ``what`` is the message ``failure`` that the parent turns into a ``Failure``."""

    def __init__(self, **what: Any) -> None:
        super().__init__(what.get("text", ""))
        self.what = what


def write(path: str, content: Any) -> int:
    """Write all of ``content`` (anything with the buffer protocol) to a new file; its size in bytes."""
    view = memoryview(content).cast("B")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        rest = view
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)
    return len(view)


def toolchain(job: dict[str, Any]) -> Any:
    """Import the TensorRT that the job asks for: its ``module``, in its ``version`` and no other. ``Refused``."""
    try:
        trt = importlib.import_module(job["module"])
    except ImportError as error:
        raise Refused(what="import", text=str(error)) from None
    if trt.__version__ != job["version"]:
        raise Refused(what="version", text=trt.__version__)
    return trt


class Channel:
    """Messages to the parent, one line of JSON each, from any thread; and what tasks have in common, none of which can
    import it.

    Every message has ``kind``. ``began`` is when the parent began, by the monotonic clock that both share.
    """

    Refused = Refused
    toolchain = staticmethod(toolchain)
    write = staticmethod(write)

    def __init__(self, fd: int, began: float) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._began = began
        self.now = "start"
        self.seconds: dict[str, float] = {}

    def ready(self) -> None:
        """The task has loaded what it needs: ``start`` has taken this long since the parent began it."""
        self.seconds["start"] = time.monotonic() - self._began

    def send(self, kind: str, **what: Any) -> None:
        line = json.dumps({"kind": kind, **what}, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            view = memoryview(line)
            while view:
                view = view[os.write(self._fd, view) :]

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Say that a phase begins, and add what it took to ``seconds``."""
        self.send("phase", name=name)
        self.now = name
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


def peak_memory() -> int:
    """The largest resident memory of this process since its exec, in bytes.

    Not ``ru_maxrss``: Linux keeps that across exec, so a child of a large worker would start with the worker's.
    """
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123 - no pathlib here
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def load(name: str, path: str) -> Any:
    """The module at ``path``, known as ``name``: no folder of farm's becomes importable by it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def attempt(path: str, job: dict[str, Any], channel: Channel) -> int:
    """Run the task; the exit status. Every ending but a crash of the process leaves a last message."""
    task: Task = load("farm_child_task", path)
    try:
        done = task.run(job, channel)
        channel.send("done", seconds=channel.seconds, peak_memory=peak_memory(), **done)
        return 0
    except Refused as refused:
        channel.send("failure", peak_memory=peak_memory(), **refused.what)
        return REFUSED
    except BaseException as error:  # noqa: BLE001 - the last frame of a process: whatever it was must be told
        import traceback

        traceback.print_exc()
        told = None if isinstance(error, OSError | MemoryError) else task.explain(error, channel.now)
        channel.send("crash", **describe(error)) if told is None else channel.send("failure", **told)
        return CRASHED if told is None else REFUSED


def describe(error: BaseException) -> dict[str, Any]:
    """An unforeseen error as a message: its type, text, and ``errno`` where it has one."""
    number = getattr(error, "errno", None)
    return {"type": type(error).__name__, "text": str(error)[:4000], "errno": number}


def start_thread(work: Callable[[], None]) -> threading.Thread:
    """A thread with the largest stack of ``STACKS`` that this machine grants."""
    for size in STACKS:
        threading.stack_size(size)
        thread = threading.Thread(target=work, name="task", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            continue
        threading.stack_size(0)
        return thread
    raise RuntimeError("no thread can be started")


def main() -> None:
    task, fd, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    job = json.load(sys.stdin.buffer)
    channel = Channel(fd, job["began"])
    # By lines, so that a crash loses none and native output stays in its place among them.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    confine = load("farm_child_confine", job["confine"])
    for note in confine.confine(job["limits"], parent, job["writable"]):
        print(f"[W] {note}")
    sys.path[:] = [*sys.path, *job["path"]]
    ending: list[int] = []
    thread = start_thread(lambda: ending.append(attempt(task, job, channel)))
    while thread.is_alive():
        thread.join(BEAT_SECONDS)
        if thread.is_alive():
            channel.send("beat")
    sys.stdout.flush()
    sys.stderr.flush()
    # Native libraries crash now and then while they are taken down; everything is on disk by now.
    os._exit(ending[0] if ending else CRASHED)


if __name__ == "__main__":
    main()
