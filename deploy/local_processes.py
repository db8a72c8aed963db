"""The processes of a fleet on this machine: started, watched, started again, and stopped in order."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
AGAIN_AFTER_S = 1.0
HASTY_S = 5.0
"""A process that ends sooner than this after its start has not worked at all."""
HASTY_ENDS = 3
LAST_LINES = 15
HURRY_S = 5.0
"""What a program has after the second SIGTERM: a worker hands its builds back."""


class GaveUp(Exception):
    """A process ends again and again."""


@dataclass
class Process:
    """One program. ``echo``: whether its log is shown as well as kept."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    echo: bool = True
    stop_s: float = 10.0
    running: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _hasty: int = 0
    _shown: int = 0
    _again_at: float | None = field(default=None)

    @property
    def alive(self) -> bool:
        """Looks without reaping: until ``_reap`` its number, which is its group's, belongs to nobody else."""
        if self.running is None or self.running.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def start(self) -> None:
        """In a session of its own: Ctrl-C is ours to hand on, in the right order."""
        self.folder.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        with self.log.open("ab") as log:
            self._shown = log.tell() if self.running is None else self._shown
            self.running = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: die_with(parent),
            )
        self._started, self._again_at = time.monotonic(), None

    def watch(self, say: Callable[[str], None]) -> None:
        """Start it again when it has ended. ``GaveUp`` when it ends at once, again and again."""
        if self.alive:
            return
        now = time.monotonic()
        if self._again_at is None:
            self._reap()
            self._hasty = self._hasty + 1 if now - self._started < HASTY_S else 0
            if self._hasty >= HASTY_ENDS:
                raise GaveUp(f"{self.name} ends at once, {self._hasty} times now:\n{self.last_lines()}")
            say(f"{self.name} ended ({self.how_ended()}); it is started again")
            self._again_at = now + AGAIN_AFTER_S
        elif now >= self._again_at:
            self.start()

    def how_ended(self) -> str:
        code = self.running.returncode if self.running else 0
        return signal.Signals(-code).name if code < 0 else f"exit {code}"

    def new_lines(self) -> list[str]:
        """Whole lines that its log has got since the last call."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._shown)
                whole, end, _ = log.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._shown += len(whole) + len(end)
        return whole.decode("utf-8", "replace").splitlines() if end else []

    def last_lines(self) -> str:
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-LAST_LINES:])

    def terminate(self) -> None:
        """SIGTERM to the program alone, not to its children: a worker drains."""
        if self.running is not None and self.alive:
            self.running.send_signal(signal.SIGTERM)

    def finish(self, hurry: Callable[[], bool]) -> None:
        """Wait for its end, ``stop_s`` at most, or ``HURRY_S`` once there is a ``hurry``; then end all of it."""
        deadline, hurried = time.monotonic() + self.stop_s, False
        while self.alive and time.monotonic() < deadline:
            if hurry() and not hurried:
                self.terminate()
                deadline, hurried = min(deadline, time.monotonic() + HURRY_S), True
            time.sleep(0.05)
        self._reap()

    def _reap(self) -> None:
        """Take leave of the process, and of whatever is left of its group."""
        if self.running is None or self.running.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()


def die_with(parent: int) -> None:
    """Runs in the child before its program: what the fleet started ends with it, however it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def stop_all(stages: list[list[Process]], hurry: Callable[[], bool], show: Callable[[], None]) -> None:
    """Stop stage by stage; the processes of one stage at once. ``hurry``: whether somebody cannot wait."""
    for stage in stages:
        for process in stage:
            process.terminate()
        for process in stage:
            process.finish(hurry)
        show()
