"""What a build's child does (see ``farm.builders.child``): takes its time, then writes the plan that it was given."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any


def run(job: dict[str, Any], channel: Any) -> dict[str, Any]:
    with channel.phase("build"):
        time.sleep(job["seconds"])
        Path(job["plan"]).write_bytes(base64.b64decode(job["bytes"]))
    return {}


def explain(error: BaseException, phase: str) -> dict[str, Any] | None:
    return None
