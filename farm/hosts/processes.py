"""Whether another worker's process is still there, for those that can be seen from here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import psutil

BORN_TOLERANCE_S = 2.0


@cache
def vantage() -> str:
    """What must be equal for two processes to see each other's pids: the boot, and the pid namespace.

    Host names do not serve: containers of one machine may share a host name and not their pids.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    try:
        return f"{boot.read_text().strip()}:{space.readlink()}"
    except OSError:
        return ""


def alive(pid: int, born: float) -> bool:
    """Whether the process ``pid`` that started at ``born`` (seconds since the epoch) still runs."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - born) < BORN_TOLERANCE_S and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
