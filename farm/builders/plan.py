"""The header of a serialised TensorRT-RTX engine, read without a GPU. Pure.

Layout as measured on TensorRT-RTX 1.7.1.116 (reference, "Targets"): the magic ``vtrt``; the file's length as an
unsigned 64-bit integer at 16; the version's four parts at 24; the mask of compute capabilities at 32. All of
it little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = b"vtrt"
HEADER_SIZE = 36

CAPABILITY_BITS = {0x01: "sm_75", 0x02: "sm_80", 0x04: "sm_86", 0x08: "sm_89", 0x10: "sm_120", 0x20: "sm_121"}


@dataclass(frozen=True)
class Header:
    """What a plan says of itself: its length in bytes, its builder's version, the capabilities it is for.

    ``unknown`` holds the bits of the mask that this module has no name for.
    """

    length: int
    version: str
    capabilities: tuple[str, ...]
    unknown: int = 0


def read_header(start: bytes) -> Header:
    """Read the header from a plan's first bytes (36 suffice). ``ValueError`` says why it is none."""
    if len(start) < HEADER_SIZE:
        raise ValueError(f"a plan has a header of {HEADER_SIZE} bytes, this file has {len(start)}")
    if start[:4] != MAGIC:
        raise ValueError(f"a plan begins with {MAGIC!r}, this file with {start[:4]!r}")
    (length,) = struct.unpack_from("<Q", start, 16)
    version = ".".join(str(part) for part in start[24:28])
    (mask,) = struct.unpack_from("<I", start, 32)
    named = tuple(name for bit, name in CAPABILITY_BITS.items() if mask & bit)
    return Header(length, version, named, mask & ~sum(CAPABILITY_BITS))


def mismatch(header: Header, size: int, version: str, capabilities: tuple[str, ...]) -> str | None:
    """Why a plan of ``size`` bytes with this header is not what was asked for; ``None`` if it is.

    ``capabilities`` is sorted as jobs hold it. An engine that claims more than was asked for is as wrong as
    one that claims less: it would be handed to a GPU that its body holds no code for.
    """
    if header.length != size:
        return f"its header says {header.length:,} bytes, the file has {size:,}"
    if header.version != version:
        return f"it was made by version {header.version}, not {version}"
    if set(header.capabilities) != set(capabilities) or header.unknown:
        claimed = [*header.capabilities, *([f"unknown ({header.unknown:#x})"] if header.unknown else [])]
        return f"it is for {'+'.join(claimed) or 'no GPU'}, not {'+'.join(capabilities)}"
    return None
