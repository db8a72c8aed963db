"""What ``farm verify`` finds, and what becomes of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What may be found."""

    CORRUPT = "corrupt"
    """A blob's bytes are not what its name says."""
    UNREADABLE = "unreadable"
    """A blob is there, and this user may not read it."""
    MISSING = "missing"
    """A row names a blob that is not there."""
    SIZE = "size"
    """A row tells another size than the blob has."""
    ALTERED = "altered"
    """A row is not what was recorded with the engine: it and its manifest differ."""
    UNTRUSTED = "untrusted"
    """Nobody whom the trust policy names vouches for an engine."""
    ORPHAN = "orphan"
    """No row names a blob that is not young."""
    STRAY = "stray"
    """What lies among the blobs and is none."""


@dataclass
class Finding:
    """``place`` is a blob's digest, a place in the store, or an engine's, form's or program's name."""

    kind: Kind
    place: str
    what: str
    healed: bool = False
    how: str = ""
    waiting: int = 0
    """Rows that are to be healed because of it."""

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": str(self.kind),
            "place": self.place,
            "what": self.what,
            "healed": self.healed,
            "how": self.how or None,
        }


@dataclass
class Verified:
    """What a run read and found. ``resumed``: the digest at which it went on where an earlier run had stopped."""

    resumed: str = ""
    blobs: int = 0
    bytes: int = 0
    engines: int = 0
    forms: int = 0
    programs: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether all is well now."""
        return all(finding.healed for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        return {
            "resumed": self.resumed or None,
            "read": {"blobs": self.blobs, "bytes": self.bytes},
            "rows": {"engines": self.engines, "forms": self.forms, "programs": self.programs},
            "findings": [finding.as_json() for finding in self.findings],
            "sound": self.sound,
        }
