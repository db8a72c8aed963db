"""What a machine says it is: with GPUs, with parts of one, with a driver in trouble, with none."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pynvml
import pytest
from here import local_gpu, probe
from nvml_standin import Gpu, StandIn
from some_gpus import a100_in_parts, h100, l4, mig_part

from farm.gpus import Gpu as Catalogued
from farm.hosts import cgroups
from farm.hosts import probe as probing
from farm.hosts.gpu import gpu_of
from farm.hosts.nvml import GpuDevice
from farm.hosts.probe import Host, environment_for

Driver = Callable[..., StandIn]


def test_one_gpu(driver: Driver) -> None:
    lib = driver(h100())
    host = probe()
    assert host.gpus == (
        GpuDevice(
            index=0,
            uuid="GPU-02345678-1111-2222-3333-444444444444",
            name="NVIDIA H100 80GB HBM3",
            capability=90,
            memory=85_520_809_984,
            multiprocessors=132,
            bus="00000000:01:00.0",
        ),
    )
    assert (host.driver, host.cuda, host.why_no_gpu) == ("580.95.05", "13.0", "")
    assert lib.open == 0, "a session stayed open"


def test_the_machine_itself(driver: Driver, tmp_path: Path) -> None:
    driver()
    host = probe(scratch=tmp_path / "not" / "there" / "yet")
    assert host.name == socket.gethostname() and host.arch == platform.machine()
    assert 1 <= host.cores <= len(os.sched_getaffinity(0))
    assert 0 < host.memory <= psutil.virtual_memory().total
    free = psutil.disk_usage(str(tmp_path)).free
    assert abs(host.disk_free - free) < 2**30
    assert host.vantage


def test_a_containers_limits_count(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    driver()
    monkeypatch.setattr(cgroups, "memory_limit", lambda: 3 * 2**30)
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: 1.5)
    host = probe()
    assert (host.memory, host.cores) == (3 * 2**30, 1)
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: 0.2)
    monkeypatch.setattr(cgroups, "memory_limit", lambda: 1 << 59)
    assert (probe().memory, probe().cores) == (psutil.virtual_memory().total, 1)


def test_two_gpus_and_one_of_them(driver: Driver) -> None:
    driver(h100(), l4(1))
    assert [(gpu.index, gpu.capability) for gpu in probe().gpus] == [(0, 90), (1, 89)]
    only = probe(gpu=1)
    assert [gpu.name for gpu in only.gpus] == ["NVIDIA L4"] and only.gpus[0].multiprocessors == 58
    missing = probe(gpu=3)
    assert missing.gpus == () and missing.why_no_gpu == "there is no GPU 3 (there is 0, 1)"
    assert missing.driver == "580.95.05"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("1", [1]),
        ("1,0", [1, 0]),
        ("0,7,1", [0]),
        ("0,-1,1", [0]),
        ("0, 1", [0, 1]),
        ("GPU-1aaaaaaa-1111-2222-3333-444444444444", [1]),
        ("GPU-1aaa", [1]),
        ("GPU-", []),
        ("GPU-9", []),
        ("", []),
        ("-1", []),
        ("0,0", [0]),
    ],
)
def test_what_cuda_is_told_to_see(driver: Driver, said: str, left: list[int]) -> None:
    driver(h100(), l4(1))
    host = probe(environ={"CUDA_VISIBLE_DEVICES": said})
    assert [gpu.index for gpu in host.gpus] == left
    if not left:
        assert host.why_no_gpu == f"CUDA_VISIBLE_DEVICES='{said}' leaves none of the 2 that the driver shows"


def test_the_first_word_of_an_id_names_nothing(driver: Driver) -> None:
    driver(h100())
    assert probe(environ={"CUDA_VISIBLE_DEVICES": "GPU-"}).gpus == ()
    assert len(probe(environ={"CUDA_VISIBLE_DEVICES": "GPU-0"}).gpus) == 1


def test_a_gpu_that_is_hidden_cannot_be_asked_for(driver: Driver) -> None:
    driver(h100(), l4(1))
    host = probe(0, environ={"CUDA_VISIBLE_DEVICES": "1"})
    assert host.gpus == () and host.why_no_gpu == "there is no GPU 0 (there is 1)"


def test_a_gpu_in_parts_shows_its_parts(driver: Driver) -> None:
    driver(a100_in_parts(mig_part(0), None, mig_part(2)), l4(1))
    cut = probe().gpus
    assert [(gpu.index, gpu.uuid[:5], gpu.mig) for gpu in cut] == [
        (0, "MIG-0", "1g.5gb"),
        (0, "MIG-2", "1g.5gb"),
        (1, "GPU-1", ""),
    ]
    assert (cut[0].memory, cut[0].multiprocessors, cut[0].capability) == (4864 * 2**20, 14, 80)
    assert cut[0].bus == "00000000:01:00.0"
    assert gpu_of(cut[0]) == Catalogued("a100", 80, platform.machine())
    assert [gpu.uuid for gpu in probe(0).gpus] == [cut[0].uuid, cut[1].uuid]
    chosen = probe(environ={"CUDA_VISIBLE_DEVICES": cut[1].uuid})
    assert chosen.gpus == (cut[1],)
    assert probe(environ={"CUDA_VISIBLE_DEVICES": "0,1"}).gpus == (cut[0], cut[2]), "CUDA shows one part of a GPU"


@pytest.mark.parametrize(
    ("sizes", "profile"),
    [
        ({"gpuInstanceSliceCount": 3, "computeInstanceSliceCount": 3, "memorySizeMB": 19968}, "3g.20gb"),
        ({"gpuInstanceSliceCount": 3, "computeInstanceSliceCount": 1, "memorySizeMB": 19968}, "1c.3g.20gb"),
        (None, "unknown"),
    ],
)
def test_the_profile_where_the_name_has_none(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, sizes: dict[str, int] | None, profile: str
) -> None:
    part = mig_part(0, "NVIDIA A100-SXM4-40GB")
    part.attributes = sizes and {"multiprocessorCount": 42, **sizes}
    monkeypatch.setattr(probing, "cuda_devices", lambda environ: ([], "not asked here"))
    driver(a100_in_parts(part))
    assert [gpu.mig for gpu in probe().gpus] == [profile]


def test_a_gpu_to_be_cut_that_is_not(driver: Driver) -> None:
    driver(a100_in_parts(None, None))
    host = probe()
    assert host.gpus == () and host.why_no_gpu.startswith("GPU 0: it is in MIG mode and has no MIG device")


def test_a_lost_gpu_hides_no_other(driver: Driver) -> None:
    lost = h100(0, faults={"nvmlDeviceGetHandleByIndex_v2": pynvml.NVML_ERROR_GPU_IS_LOST})
    driver(lost, l4(1))
    host = probe()
    assert [gpu.index for gpu in host.gpus] == [1] and host.why_no_gpu == "GPU 0: GPU is lost"


@pytest.mark.parametrize("function", ["nvmlDeviceGetName", "nvmlDeviceGetCudaComputeCapability"])
def test_a_gpu_that_does_not_say_what_it_is(driver: Driver, function: str) -> None:
    driver(h100(0, faults={function: pynvml.NVML_ERROR_UNKNOWN}))
    host = probe()
    assert host.gpus == () and "GPU 0: Unknown Error" in host.why_no_gpu


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "no NVIDIA driver: Driver Not Loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "no NVIDIA driver: RM has detected an NVML/RM version mismatch."),
        (4242, "no NVIDIA driver: NVML Error with code 4242"),
    ],
)
def test_a_driver_in_trouble(driver: Driver, status: int, reason: str) -> None:
    driver(h100(), init=status)
    host = probe()
    assert (host.gpus, host.driver, host.why_no_gpu) == ((), "", reason)
    assert local_gpu() is None


def test_a_driver_that_shows_nothing(driver: Driver) -> None:
    driver()
    assert probe().why_no_gpu == "the driver shows no usable GPU"


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has the driver")
def test_no_driver_at_all() -> None:
    """Nothing is stood in for here."""
    assert probe().why_no_gpu == "no NVIDIA driver: NVML Shared Library Not Found"


def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    host = probe()
    assert host.why_no_gpu == "nvidia-ml-py is not installed" and host.cores > 0
    assert local_gpu() is None


def test_a_gpu_that_shares_the_hosts_memory(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    """Orin: no memory, no id, no core count, and CUDA's driver is asked for what TensorRT counts."""
    seen: list[dict[str, str]] = []

    def told(environ: dict[str, str]) -> tuple[list[dict[str, int]], str]:
        seen.append(environ)
        return [{"multiprocessors": 16}], ""

    monkeypatch.setattr(probing, "cuda_devices", told)
    driver(Gpu("Orin (nvgpu)", None, (8, 7), memory=None))
    host = probe(environ={"PATH": "/bin"})
    assert host.gpus[0].uuid == "0" and host.gpus[0].multiprocessors == 16
    assert host.gpus[0].shares_memory and host.gpus[0].memory == host.memory
    assert seen == [{"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}]
    assert gpu_of(host.gpus[0]).name == "orin"


def test_memory_that_cannot_be_read_is_not_the_hosts(driver: Driver) -> None:
    driver(h100(0, faults={"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_UNKNOWN}))
    assert [(gpu.memory, gpu.shares_memory) for gpu in probe().gpus] == [(0, False)]


def test_an_older_driver(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    monkeypatch.setattr(probing, "cuda_devices", lambda environ: ([], "hung"))
    lib = driver(h100())
    lib.lose("nvmlDeviceGetNumGpuCores", "nvmlDeviceGetMigMode", "nvmlDeviceGetPciInfo_v3")
    assert [(gpu.multiprocessors, gpu.bus) for gpu in probe().gpus] == [(0, "")]


def test_local_gpu_is_the_first_that_may_be_used(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    driver(h100(), l4(1))
    assert local_gpu() == Catalogued("h100", 90, platform.machine())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert local_gpu() == Catalogued("l4", 89, platform.machine())


def test_a_gpu_that_the_catalogue_does_not_know(driver: Driver) -> None:
    driver(Gpu("NVIDIA H100 80GB HBM3", "GPU-1", (9, 1), cores=128), Gpu("GRID T4-16Q", "GPU-2", (7, 5), cores=2560))
    found = probe().gpus
    assert gpu_of(found[0]) == Catalogued("h100", 91, platform.machine())
    assert gpu_of(found[1]) == Catalogued("gridt416q", 75, platform.machine())


def test_what_a_build_sees(driver: Driver) -> None:
    driver(h100())
    device = probe().gpus[0]
    assert environment_for(device, {"LD_LIBRARY_PATH": "/opt/cuda/lib", "AWS_SECRET_ACCESS_KEY": "x"}) == {
        "CUDA_VISIBLE_DEVICES": device.uuid,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "LD_LIBRARY_PATH": "/opt/cuda/lib",
    }
    assert environment_for(None, {}) == {"CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_host_is_plain_data() -> None:
    """It is written as JSON when a worker registers."""
    import dataclasses
    import json

    assert json.loads(json.dumps(dataclasses.asdict(probe())))["arch"] == platform.machine()
    assert Host("a", "x86_64", 1, 1, 1, "") == Host("a", "x86_64", 1, 1, 1, "")
