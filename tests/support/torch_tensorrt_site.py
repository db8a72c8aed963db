"""A site folder with Torch-TensorRT that runs over TensorRT-RTX, made from its published wheel.

Torch-TensorRT takes TensorRT-RTX for TensorRT when the distribution that provides it is named ``torch-tensorrt-rtx``.
That one is not on PyPI; the Python files of ``torch-tensorrt`` under that name, without its native libraries (which
want plain TensorRT), behave as it. What still needs a driver has stand-ins: ``torch_tensorrt_stand_ins``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

VERSION = "2.13.0"
WHEELS = (f"torch-tensorrt=={VERSION}", "dllist==2.0.0")
MAKE = 2
"""Version of how the site is made."""
SITE = Path(sys.prefix) / "torch-tensorrt-rtx" / f"{VERSION}-{MAKE}"
"""Beside the tests' interpreter: made once, and gone with it."""
SUPPORT = Path(__file__).parent


def torch_tensorrt_site() -> Path:
    """The site folder, made on demand. Skips where the wheels cannot be had; fails there under ``CI=true``."""
    pytest.importorskip("torch")
    pytest.importorskip("tensorrt_rtx")
    SITE.parent.mkdir(parents=True, exist_ok=True)
    with (SITE.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not SITE.exists():
            why = make_site()
            if why and os.environ.get("CI") == "true":
                pytest.fail(f"Torch-TensorRT's wheel could not be had: {why}")
            if why:
                pytest.skip(f"Torch-TensorRT's wheel could not be had: {why}")
    return SITE


def make_site() -> str:
    """Download and unpack; why that failed, in words, or nothing."""
    with tempfile.TemporaryDirectory(dir=SITE.parent) as folder:
        wheels, made = Path(folder) / "wheels", Path(folder) / "site"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, *WHEELS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        if done.returncode:
            return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"pip ended with {done.returncode}"
        for wheel in sorted(wheels.glob("*.whl")):
            zipfile.ZipFile(wheel).extractall(made)
        rename(made)
        made.rename(SITE)
    return ""


def rename(site: Path) -> None:
    """Leave out what is native, let the distribution be the one for TensorRT-RTX, and have its stand-ins imported."""
    for native in (*site.glob("torch_tensorrt/_C*.so"), *site.glob("torch_tensorrt/lib/*.so")):
        native.unlink()
    shutil.rmtree(site / "torch_tensorrt" / "bin", ignore_errors=True)
    (old,) = site.glob("torch_tensorrt-*.dist-info")
    text = (old / "METADATA").read_text("utf-8").replace("\nName: torch_tensorrt\n", "\nName: torch-tensorrt-rtx\n", 1)
    kept = [line for line in text.split("\n") if not line.startswith("Requires-Dist: tensorrt")]
    (old / "METADATA").write_text("\n".join(kept), "utf-8")
    (old / "RECORD").unlink()
    old.rename(site / f"torch_tensorrt_rtx-{VERSION}.dist-info")
    package = site / "torch_tensorrt" / "__init__.py"
    stand_ins = "import torch_tensorrt_stand_ins as _stand_ins\n\n_stand_ins."
    package.write_text(f"{stand_ins}before()\n{package.read_text('utf-8')}\n_stand_ins.after()\n", "utf-8")


def python_path() -> str:
    """``PYTHONPATH`` for a child that is to import Torch-TensorRT with its stand-ins."""
    root = SUPPORT.parents[1]
    return os.pathsep.join([str(torch_tensorrt_site()), str(SUPPORT), str(root)])
