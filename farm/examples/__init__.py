"""Two example programs for ``farm demo``: a ResNet-like and a GPT-like, random weights from a fixed seed.

Importing this package imports no torch; the programs are written by a child process (``python -m farm.examples``).
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from farm.errors import BuildFailed

WRITE_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Example:
    """One example: its file's name, and what it is."""

    file: str
    text: str


EXAMPLES = (
    Example("resnet.pt2", "ResNet-like, 11.7 M parameters, images of 64 x 64 in batches of 1 to 16"),
    Example("gpt.pt2", "GPT-like, 10.3 M parameters, 1 to 256 tokens"),
)


def ensure_examples(folder: Path) -> list[Path]:
    """The example programs in ``folder``, written by a child process where they are not there yet.

    ``BuildFailed`` when they cannot be written: torch is not installed, or the disk is full.
    """
    paths = [folder / example.file for example in EXAMPLES]
    if all(path.is_file() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "farm.examples", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WRITE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(
            f"writing the example programs took more than {WRITE_TIMEOUT_S:.0f} s", "try again on a less busy machine"
        ) from error
    if done.returncode != 0:
        raise _failed(done.stderr)
    return paths


def _failed(text: str) -> BuildFailed:
    lines = text.strip().splitlines()
    if "No module named 'torch'" in text:
        return BuildFailed(
            "the example programs need torch", "pip install 'farm[build]', or give farm your own .pt2 file"
        )
    return BuildFailed(f"the example programs could not be written: {lines[-1] if lines else 'no reason given'}")
