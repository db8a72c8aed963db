"""``tools/gpu_check.py``: as a process on this machine, and against what NVIDIA's tools say elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from here import probe
from nvml_standin import StandIn
from some_gpus import a100_in_parts, h100, mig_part

SCRIPT = Path(__file__).parents[3] / "tools" / "gpu_check.py"
SMI_ROW = "NVIDIA H100 80GB HBM3, 81559 MiB, 580.95.05, GPU-02345678-1111-2222-3333-444444444444, 9.0, 00000000:01:00.0"
CUDA = {
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "02345678-1111-2222-3333-444444444444",
    "capability": 90,
    "multiprocessors": 132,
    "memory": 84_900_000_000,
}


@pytest.fixture
def check() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A program ``nvidia-smi`` that prints what it is told to."""

    def install(text: str, code: int = 0) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")

    return install


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has the driver")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=120, cwd=tmp_path, env={"PATH": os.defpath}
    )
    report = json.loads(done.stdout)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "no GPU here: no NVIDIA driver: NVML Shared Library Not Found\n"
    assert report["probe"]["cores"] >= 1 and report["probe"]["gpus"] == []
    assert report["nvidia_smi"] == "nvidia-smi is not on the PATH"


def test_agreement(check: Any, driver: Callable[..., StandIn], smi: Callable[[str], None]) -> None:
    driver(h100())
    smi(SMI_ROW)
    host = probe()
    rows, why = check.nvidia_smi()
    assert why == "" and check.against_smi(host, rows) == []
    assert check.against_cuda(host.gpus[0], [CUDA], "CUDA") == []


@pytest.mark.parametrize(
    ("shown", "other", "said"),
    [
        ("81559 MiB", "81558 MiB", "memory.total is '81559 MiB', for nvidia-smi '81558 MiB'"),
        ("580.95.05", "580.95.06", "driver_version"),
        ("GPU-02", "GPU-03", "uuid"),
        ("9.0", "9.1", "compute_cap"),
        ("H100 80GB", "H200", "name"),
        (":01:", ":02:", "nvidia-smi shows no GPU at 00000000:01:00.0"),
    ],
)
def test_a_difference_from_nvidia_smi(
    check: Any, driver: Callable[..., StandIn], smi: Callable[[str], None], shown: str, other: str, said: str
) -> None:
    driver(h100())
    smi(SMI_ROW.replace(shown, other))
    (difference,) = check.against_smi(probe(), check.nvidia_smi()[0])
    assert said in difference


@pytest.mark.parametrize(
    "other",
    [{"capability": 80}, {"multiprocessors": 114}, {"name": "L4"}, {"uuid": "0"}, {"memory": 1}, {"memory": 1 << 40}],
)
def test_a_difference_from_cuda(check: Any, driver: Callable[..., StandIn], other: dict[str, Any]) -> None:
    driver(h100())
    device = probe().gpus[0]
    (difference,) = check.against_cuda(device, [CUDA | other], "CUDA")
    assert "CUDA" in difference
    assert check.against_cuda(replace(device, uuid="GPU-x"), [CUDA], "CUDA") == ["CUDA shows 0 GPUs with the id GPU-x"]


def test_of_a_part_only_its_gpus_share_is_compared(
    check: Any, driver: Callable[..., StandIn], smi: Callable[[str], None]
) -> None:
    driver(a100_in_parts(mig_part(0)))
    smi("NVIDIA A100-SXM4-40GB, 40960 MiB, 580.95.05, GPU-c, 8.0, 00000000:01:00.0")
    assert check.against_smi(probe(), check.nvidia_smi()[0]) == []


def test_gpus_that_farm_does_not_see_differ(
    check: Any, driver: Callable[..., StandIn], smi: Callable[[str], None]
) -> None:
    driver(h100(), init=18)
    smi(SMI_ROW)
    _, differences = check.compare(probe())
    assert differences == [
        "nvidia-smi shows 1 GPUs, and farm none: no NVIDIA driver: RM has detected an NVML/RM version mismatch."
    ]


def test_an_nvidia_smi_that_fails(check: Any, smi: Callable[..., None]) -> None:
    smi("NVIDIA-SMI has failed", 9)
    assert check.nvidia_smi() == ([], "NVIDIA-SMI has failed")
