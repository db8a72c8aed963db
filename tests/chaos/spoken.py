"""What the processes of a run tell its auditor: lines of JSON, each written whole or not at all by who is killed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Diary:
    """Appends entries to a file. Safe among threads; survives the death of its writer."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, kind: str, **what: Any) -> None:
        line = json.dumps({"at": round(time.monotonic(), 3), "kind": kind, **what}) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a diary. A line that its writer's death broke off is passed over."""
    if not path.exists():
        return
    # A broken line and the next writer's first stand on one line: the latter begins at the last brace of its kind.
    for line in path.read_text("utf-8").splitlines():
        start = line.rfind('{"at": ')
        try:
            entry = json.loads(line[max(start, 0) :])
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry
