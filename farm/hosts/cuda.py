"""CUDA's driver, asked in a child process with a time limit (see ``cuda_child``)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("cuda_child.py")
SECONDS = 20.0
"""A GPU without persistence mode takes seconds to wake; one that has fallen off the bus takes for ever."""


def cuda_devices(
    environ: Mapping[str, str], seconds: float = SECONDS, child: Path = CHILD
) -> tuple[list[dict[str, Any]], str]:
    """The GPUs that ``environ`` leaves to CUDA, as ``cuda_child.describe`` gives them; or none, and why."""
    out, why = _run([sys.executable, "-I", str(child)], dict(environ), seconds)
    if why:
        return [], why
    try:
        told = json.loads(out)
    except ValueError:
        return [], "CUDA's driver crashed"
    return told.get("devices", []), told.get("error", "")


def _run(command: list[str], env: dict[str, str], seconds: float) -> tuple[bytes, str]:
    """What ``command`` printed, or why there is nothing. A child that the kernel cannot end is left behind."""
    try:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        return b"", f"CUDA's driver could not be asked: {error.strerror}"
    try:
        return process.communicate(timeout=seconds)[0], ""
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        return b"", f"CUDA's driver did not answer within {seconds:g} s"
