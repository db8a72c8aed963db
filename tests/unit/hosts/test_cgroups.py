"""A container's limits, in trees of files as kernels of both versions write them, and in this process's own."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from farm.hosts import cgroups
from farm.hosts.readings import free_memory

MIB = 2**20
V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = [
    "31 24 0:27 {root} /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory",
    "32 24 0:28 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:6 - cgroup cgroup rw,cpu,cpuacct",
]


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_version_2(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/farm.service",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/system.slice/farm.service/memory.max": str(800 * MIB),
            "sys/fs/cgroup/system.slice/farm.service/memory.current": str(500 * MIB),
            "sys/fs/cgroup/system.slice/farm.service/memory.stat": f"anon 1\ninactive_file {100 * MIB}\nslab 7",
            "sys/fs/cgroup/system.slice/farm.service/cpu.max": "max 100000",
            "sys/fs/cgroup/system.slice/cpu.max": "250000 100000",
        },
    )
    assert cgroups.memory_limit(root) == 800 * MIB
    assert cgroups.free_memory(root) == 400 * MIB
    assert cgroups.cpu_quota(root) == 2.5


def test_the_least_along_the_way_binds(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/a/b/memory.max": "max",
            "sys/fs/cgroup/a/b/memory.current": str(10 * MIB),
            "sys/fs/cgroup/a/memory.max": str(100 * MIB),
            "sys/fs/cgroup/a/memory.current": str(120 * MIB),
        },
    )
    assert cgroups.memory_limit(root) == 100 * MIB
    assert cgroups.free_memory(root) == 0


@pytest.mark.parametrize(
    ("mounted", "path", "folder"),
    [
        ("/", "/docker/abc", "docker/abc/"),  # the host, or a container that sees the host's tree
        ("/docker/abc", "/docker/abc", ""),  # a container without a namespace of its own
        ("/docker/abc", "/../other", ""),  # a group outside of what is mounted
        ("/docker/abc", "/", ""),
    ],
)
def test_version_1(tmp_path: Path, mounted: str, path: str, folder: str) -> None:
    memory, cpu = f"sys/fs/cgroup/memory/{folder}", f"sys/fs/cgroup/cpu,cpuacct/{folder}"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": f"12:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/x",
            "proc/self/mountinfo": "\n".join(V1).format(root=mounted),
            f"{memory}memory.limit_in_bytes": str(300 * MIB),
            f"{memory}memory.usage_in_bytes": str(200 * MIB),
            f"{memory}memory.stat": f"inactive_file 3\ntotal_inactive_file {50 * MIB}",
            f"{cpu}cpu.cfs_quota_us": "150000",
            f"{cpu}cpu.cfs_period_us": "100000",
        },
    )
    assert cgroups.memory_limit(root) == 300 * MIB
    assert cgroups.free_memory(root) == 150 * MIB
    assert cgroups.cpu_quota(root) == 1.5


def test_both_versions_at_once(tmp_path: Path) -> None:
    """systemd's hybrid: controllers are version 1's, and the unified tree holds none."""
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/a\n0::/a",
            "proc/self/mountinfo": "\n".join([V1[0].format(root="/"), V2.replace("cgroup rw", "cgroup/unified rw")]),
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": str(64 * MIB),
        },
    )
    assert cgroups.memory_limit(root) == 64 * MIB


def test_no_limits(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/",
            "proc/self/mountinfo": "\n".join(V1).format(root="/"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    assert (cgroups.memory_limit(root), cgroups.free_memory(root), cgroups.cpu_quota(root)) == (None, None, None)


@pytest.mark.parametrize("files", [{}, {"proc/self/cgroup": "nonsense", "proc/self/mountinfo": "- \n1 2 - cgroup2"}])
def test_what_cannot_be_read_is_no_limit(tmp_path: Path, files: dict[str, str]) -> None:
    root = tree(tmp_path, files)
    assert (cgroups.memory_limit(root), cgroups.free_memory(root), cgroups.cpu_quota(root)) == (None, None, None)


def test_this_process() -> None:
    free = free_memory()
    assert 0 < free <= psutil.virtual_memory().total
    limit = cgroups.memory_limit()
    assert limit is None or free <= limit
