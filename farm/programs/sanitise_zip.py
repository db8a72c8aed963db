"""Write the stored zip that torch reads: members aligned for memory maps, large ones streamed.

``zipfile`` would do but for two things: torch aligns members to 64 bytes, and a weight of many GiB must pass
through a buffer, not through memory.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import BinaryIO

_ALIGNMENT = 64
_NARROW = 0xFFFFFFFF
_BUFFER = 8 << 20
_UTF8 = 0x0800
_FIRST_OF_1980 = 0x0021
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_CRC_AT = 14


class StoredZip:
    """A zip that is being written to ``file`` (seekable, empty). Use as a context manager."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._directory: list[bytes] = []

    def __enter__(self) -> StoredZip:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self._finish()

    def add(self, name: str, size: int, content: Iterable[bytes | memoryview]) -> None:
        """Add a member of ``size`` bytes, which ``content`` gives in pieces. ``ValueError`` if it gives others."""
        start = self._file.tell()
        self._file.write(_local_header(name, size, start))
        crc = written = 0
        for piece in content:
            crc = zlib.crc32(piece, crc)
            written += self._file.write(piece)
        if written != size:
            raise ValueError(f"{name} has {written} bytes, not {size}")
        end = self._file.tell()
        self._file.seek(start + _CRC_AT)
        self._file.write(struct.pack("<I", crc))
        self._file.seek(end)
        self._directory.append(_entry(name, size, start, crc))

    def _finish(self) -> None:
        start, count = self._file.tell(), len(self._directory)
        self._file.write(b"".join(self._directory))
        size = self._file.tell() - start
        if count >= 0xFFFF or start + size >= _NARROW:
            record = self._file.tell()
            self._file.write(_END64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start))
            self._file.write(_LOCATOR.pack(b"PK\x06\x07", 0, record, 1))
        few = min(count, 0xFFFF)
        self._file.write(_END.pack(b"PK\x05\x06", 0, 0, few, few, min(size, _NARROW), min(start, _NARROW), 0))


def _local_header(name: str, size: int, start: int) -> bytes:
    """A header (its checksum comes later) that lets the content begin on an aligned byte, as torch's writer does."""
    encoded = name.encode()
    wide = struct.pack("<HHQQ", 1, 16, size, size) if size >= _NARROW else b""
    padding = -(start + _LOCAL.size + len(encoded) + len(wide) + 4) % _ALIGNMENT
    extra = wide + struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    narrow = min(size, _NARROW)
    fixed = _LOCAL.pack(
        b"PK\x03\x04", 45 if wide else 20, _UTF8, 0, 0, _FIRST_OF_1980, 0, narrow, narrow, len(encoded), len(extra)
    )
    return fixed + encoded + extra


def _entry(name: str, size: int, start: int, crc: int) -> bytes:
    encoded = name.encode()
    values = (struct.pack("<QQ", size, size) if size >= _NARROW else b"") + (
        struct.pack("<Q", start) if start >= _NARROW else b""
    )
    extra = struct.pack("<HH", 1, len(values)) + values if values else b""
    version = 45 if values else 20
    narrow = min(size, _NARROW)
    return (
        _ENTRY.pack(
            b"PK\x01\x02", version, version, _UTF8, 0, 0, _FIRST_OF_1980, crc, narrow, narrow,
            len(encoded), len(extra), 0, 0, 0, 0, min(start, _NARROW),
        )
        + encoded
        + extra
    )  # fmt: skip


def read_pieces(descriptor: int, start: int, size: int) -> Iterator[memoryview]:
    """``size`` bytes of a file from ``start`` on, through one buffer. Fewer, if the file has become shorter.

    Read, not mapped: a map of a file that someone cuts short kills the process that looks at it.
    """
    buffer = memoryview(bytearray(min(size, _BUFFER)))
    done = 0
    while done < size:
        got = os.preadv(descriptor, [buffer[: size - done]], start + done)
        if got == 0:
            return
        yield buffer[:got]
        done += got
