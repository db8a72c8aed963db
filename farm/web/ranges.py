"""``Range`` requests of one range (RFC 9110, section 14). Pure."""

from __future__ import annotations

import re

_BYTES = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


def span(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last that ``header`` asks for, of ``size`` bytes: all of them without a
    header, and for one that is not understood or has several ranges, which a server may ignore. ``None``: nothing of
    what is asked for is there."""
    found = _BYTES.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return 0, size
    if not found[1]:
        last = int(found[2])
        return (max(0, size - last), size) if last and size else None
    first, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
    if found[2] and int(found[2]) < first:
        return 0, size
    return (first, end) if first < size else None
