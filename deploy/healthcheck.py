"""Whether this container does its work; exit 0 when it does, else 1 and one line that says why not.

``healthcheck.py worker``: the database has heard from a worker of this host lately. ``healthcheck.py beat FILE``:
Celery beat has saved its schedule lately. ``healthcheck.py server URL``: it answers, and its database and store do.
Imports farm's command line in a child and nothing else: it must be cheap.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SILENCE_S = 120.0
"""How long a worker may not have been heard from. Clocks of the database and of this machine may differ a minute."""
UNSAVED_S = 600.0
"""Beat saves its schedule every three minutes."""
LOOK_S = 15.0
FARM = ["farm"]


def main(arguments: list[str]) -> str:
    """Why this container is not well; empty when it is."""
    match arguments:
        case ["worker"]:
            return worker_trouble(os.environ.get("FARM_HOST") or socket.gethostname(), time.time())
        case ["beat", schedule]:
            return beat_trouble(Path(schedule), time.time())
        case ["server", url]:
            return server_trouble(url)
    return "usage: healthcheck.py worker | healthcheck.py beat FILE | healthcheck.py server URL"


def worker_trouble(host: str, now: float) -> str:
    try:
        ran = subprocess.run([*FARM, "nodes", "--json"], capture_output=True, text=True, timeout=LOOK_S)
    except subprocess.TimeoutExpired:
        return f"'farm nodes' has not answered for {LOOK_S:.0f} s"
    if ran.returncode != 0:
        return ran.stderr.strip() or f"'farm nodes' ended with {ran.returncode}"
    return silence(json.loads(ran.stdout), host, now)


def silence(nodes: list[dict[str, object]], host: str, now: float) -> str:
    """``nodes``: what ``farm nodes --json`` prints; ``now``: seconds since the epoch."""
    seen = [float(str(node["seen"])) for node in nodes if node["node"] == host]
    if not seen:
        return f"no worker of {host} is registered"
    quiet = now - max(seen)
    return f"the worker of {host} was heard from {quiet:.0f} s ago" if quiet > SILENCE_S else ""


def beat_trouble(schedule: Path, now: float) -> str:
    """The schedule's file may carry an ending of its database's kind."""
    saved = [path.stat().st_mtime for path in schedule.parent.glob(f"{schedule.name}*")]
    if not saved:
        return f"{schedule} is not there: beat has not begun"
    age = now - max(saved)
    return f"beat saved its schedule {age:.0f} s ago" if age > UNSAVED_S else ""


def server_trouble(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=LOOK_S):
            return ""
    except OSError as error:
        return f"{url} does not answer: {error}"


if __name__ == "__main__":
    trouble = main(sys.argv[1:])
    if trouble:
        sys.exit(trouble)
