"""A worker on a GPU, through the front door: what it registers, what it takes, and that there is one for each GPU.

Here over stand-ins of the driver's library and of TensorRT; ``tools/gpu_fleet_check.py`` is the same on a real GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Those that show one and the same GPU take turns: it is held by one worker at a time, on the whole machine.
pytestmark = pytest.mark.xdist_group("fleet")

ROOT = Path(__file__).parents[2]
SITE = ROOT / "tests" / "support" / "gpu_site"


def test_a_gpu_node_and_a_cpu_node_build_each_what_it_should() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("pynvml")
    path = os.pathsep.join([str(SITE), os.environ.get("PYTHONPATH", "")])
    env = {
        **os.environ,
        "PYTHONPATH": path,
        "PATH": f"{SITE}{os.pathsep}{os.environ['PATH']}",
        "GPU_SITE_COUNT": "2",
    }
    command = [sys.executable, ROOT / "tools" / "gpu_fleet_check.py"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    told = json.loads(done.stdout)
    assert told["wrong"] == [] and done.returncode == 0, told
    assert told["seen"]["gpu-node"]["detail"]["gpu"]["multiprocessors"] == 58
    assert sum(told["seen"]["several"]["builds"].values()) == 6


def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "gpu_fleet_check.py"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stdout.startswith("nothing was checked: ")
