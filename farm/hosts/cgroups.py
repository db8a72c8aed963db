"""What a container may use of this machine, by Linux's control groups: version 1, version 2, or both at once.

Without them a worker in a container sees the whole machine, plans for it, and is killed. Every group above this
process's own binds too, so the least along the way counts. What cannot be read is no limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

UNBOUNDED = 1 << 60
"""Bytes. Version 1 writes "no limit" as a number near 2**63; no machine has this much."""


@dataclass(frozen=True)
class _Mount:
    """A hierarchy: ``root`` is the group that is mounted at ``point`` (a container's own, seen from outside)."""

    root: str
    point: Path
    unified: bool
    controllers: frozenset[str]


@dataclass(frozen=True)
class _Files:
    """What one version of the memory controller calls its files, and the line of its statistics that is file
    cache which the kernel gives back under pressure."""

    limit: str
    usage: str
    cache: str


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file")


def memory_limit(root: Path = Path("/")) -> int | None:
    """The least limit that binds this process, in bytes; ``None`` where there is none."""
    return min((limit for _, _, limit in _bounds(root)), default=None)


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take before a limit is met; ``None`` where there is none."""
    return min((max(0, limit - _used(group, names)) for group, names, limit in _bounds(root)), default=None)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """How many cores' time this process may use; ``None`` where there is no quota."""
    found = (_quota(group, unified) for group, unified in _groups(root, "cpu"))
    return min((quota for quota in found if quota is not None), default=None)


def _bounds(root: Path) -> Iterator[tuple[Path, _Files, int]]:
    for group, unified in _groups(root, "memory"):
        names = _V2 if unified else _V1
        limit = _number(_text(group / names.limit))
        if limit is not None and limit < UNBOUNDED:
            yield group, names, limit


def _used(group: Path, names: _Files) -> int:
    """Bytes in use less the cache that gives way: a build that reads a large file fills its container with cache."""
    stat = dict(line.split() for line in _text(group / "memory.stat").splitlines() if len(line.split()) == 2)
    return (_number(_text(group / names.usage)) or 0) - (_number(stat.get(names.cache, "")) or 0)


def _quota(group: Path, unified: bool) -> float | None:
    if unified:
        quota, _, period = _text(group / "cpu.max").partition(" ")
    else:
        quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
    allowed, of = _number(quota), _number(period)
    return allowed / of if allowed is not None and allowed > 0 and of else None


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of this process's group and of all above it, and whether they are version 2's."""
    paths = _memberships(_text(root / "proc/self/cgroup"))
    for mount in _mounts(_text(root / "proc/self/mountinfo")):
        if not mount.unified and controller not in mount.controllers:
            continue
        path = paths.get("" if mount.unified else controller)
        if path is None:
            continue
        top = root / mount.point.relative_to("/")
        group = top / _within(path, mount.root)
        yield from ((folder, mount.unified) for folder in (group, *group.parents) if folder.is_relative_to(top))


def _memberships(text: str) -> Mapping[str, str]:
    """Controller → path of the group, from lines ``4:cpu,cpuacct:/path``; version 2's controller is empty."""
    lines = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]
    return {controller: path for _, controllers, path in lines for controller in controllers.split(",")}


def _mounts(text: str) -> Iterator[_Mount]:
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.partition(" ")
        if kind in ("cgroup", "cgroup2") and len(before.split()) > 4:
            _, _, _, root, point = before.split()[:5]
            controllers = frozenset(options.split()[-1].split(",")) if options else frozenset()
            yield _Mount(root, Path(point), kind == "cgroup2", controllers)


def _within(path: str, root: str) -> str:
    """``path`` below the mount whose top is ``root``; a group outside of what is mounted shows as the top itself."""
    below = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
    return "" if ".." in below.split("/") else below.strip("/")


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.removeprefix("-").isdecimal() else None
