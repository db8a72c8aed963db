"""The programs that are measured, and the virtual environment without torch: made once, kept outside the repository."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.bench.measure import Unavailable, folder, output

ROOT = Path(__file__).parents[2]
CACHE = Path.home() / ".cache" / "farm-bench"
EXPORT = Path(__file__).with_name("export.py")
GIB = 1 << 30
# farm distrusts a file's times while a second change could still keep them (farm.programs.memory).
SETTLED_S = 2.5


def kept(name: str) -> Path:
    """The program ``name`` of ``export.py``; exported when that file has changed, which takes a minute."""
    path = CACHE / f"{name}-{hashlib.sha256(EXPORT.read_bytes()).hexdigest()[:12]}.pt2"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob(f"{name}-*.pt2"):
            old.unlink()
        export(name, path)
    return path


def export(name: str, path: Path, *more: str) -> None:
    """Export ``name`` of ``export.py`` to ``path``."""
    if importlib.util.find_spec("torch") is None:
        raise Unavailable("there is no torch here to export a program with")
    output([sys.executable, EXPORT, name, path, *more])


@contextmanager
def large(gib: float) -> Iterator[Path]:
    """A program with so many GiB of weights, in a file that is removed afterwards."""
    need = int(gib * GIB)
    CACHE.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(CACHE).free < 2 * need + GIB:
        raise Unavailable(f"{CACHE} has no room for a file of {gib:g} GiB")
    if psutil.virtual_memory().available < 2 * need + GIB:
        raise Unavailable(
            f"a program of {gib:g} GiB takes {2 * gib + 1:g} GiB of free memory to export and to keep cached"
        )
    with folder(CACHE) as place:
        path = place / "large.pt2"
        export("large", path, str(int(gib * 4)))
        time.sleep(SETTLED_S)
        yield path


def python_without_torch() -> Path:
    """The interpreter of a virtual environment with farm's base install as it is now, without torch and TensorRT."""
    place = CACHE / f"venv-{sys.version_info.major}.{sys.version_info.minor}"
    python = place / "bin" / "python"
    fresh = not python.exists()
    if fresh:
        output([sys.executable, "-m", "venv", place])
    # Its dependencies once; farm itself every time, since it may have changed.
    _pip(python, str(ROOT))
    if not fresh:
        _pip(python, "--no-deps", "--force-reinstall", str(ROOT))
    found = subprocess.run([python, "-c", "import torch"], capture_output=True)
    if found.returncode == 0:
        raise Unavailable(f"{place} has torch; remove it")
    return python


def _pip(python: Path, *arguments: str) -> None:
    output([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments])
