"""A blob's name: ``sha256:`` and 64 lower-case hexadecimal digits, and nothing else, ever, near a file system."""

from __future__ import annotations

import hashlib
import re

from farm.errors import BadInput, CorruptBlob

PREFIX = "sha256:"
HEX = re.compile(r"[0-9a-f]{64}")


def hex_of(digest: str) -> str:
    """The digits of a blob's name. ``BadInput`` for anything else: a path, another algorithm, a shortened name."""
    digits = digest.removeprefix(PREFIX)
    if not digest.startswith(PREFIX) or not HEX.fullmatch(digits):
        raise BadInput(f"{digest!r} is no blob's name", "a name is 'sha256:' and 64 lower-case hexadecimal digits")
    return digits


def name_of(hasher: hashlib._Hash) -> str:
    return PREFIX + hasher.hexdigest()


def corrupt(digest: str, where: str, what: str = "disk") -> CorruptBlob:
    return CorruptBlob(
        f"the bytes of {digest} in {where} are not what their name says",
        f"check that {what}; the blob is set aside, and is made or stored again when it is next asked for",
    )
