"""Numbers, times and digests as people read them. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

SHORT = 12
"""Characters of a digest that people are shown; ``--json`` has the whole."""


def short(digest: str | None) -> str:
    """``sha256:3f2a9c…`` → its first twelve hexadecimal digits."""
    return (digest or "").partition(":")[2][:SHORT] or (digest or "")[:SHORT]


def human_size(count: float | None) -> str:
    """Bytes in the largest unit that leaves at least one, to three digits: ``47.1 MB`` (powers of 1000, as disks)."""
    if count is None:
        return ""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    for larger in units:
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def human_seconds(seconds: float | None) -> str:
    """``0.42 s``, ``8.3 s``, ``1 m 05 s``, ``2 h 10 m``."""
    if seconds is None:
        return ""
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"


def human_ago(when: float | None) -> str:
    """How long ago ``when`` (seconds since the epoch) was."""
    if not when:
        return ""
    age = max(0.0, time.time() - when)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if age >= length:
            return f"{int(age // length)} {unit} ago"
    return "just now" if age < 5 else f"{int(age)} s ago"


def human_time(when: float | None) -> str:
    """Local time to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when)) if when else ""


def count_of(number: int, noun: str, plural: str = "") -> str:
    """``1 build``, ``1,234 builds``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def value_text(value: Any) -> str:
    """A setting's value as one would write it: ``true``, ``none``, ``a,b``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(value_text(item) for item in value) or "none"
    return str(value)


def size_text(count: int) -> str:
    """A number of bytes as one would write it: ``1G`` where it is round in powers of 1024."""
    for unit, size in (("G", 2**30), ("M", 2**20), ("K", 2**10)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return str(count)


def settings_text(settings: Mapping[str, Any]) -> str:
    """``NAME=VALUE …``, as ``-s`` takes them."""
    return " ".join(f"{name}={value_text(value)}" for name, value in settings.items())


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
