"""Read a ``.pt2`` archive's directory without trusting it.

Torch writes a plain zip of *stored* members. This reader takes that and nothing else: no compression (so no
zip bomb), no encryption, no overlapping members, no two members of one name, no names that climb out of the
archive, and local headers that agree with the directory. Its promise is that every other correct zip reader
finds the same bytes under the same names.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from farm.errors import BadProgram

MAX_MEMBERS = 250_000
_END = struct.Struct("<4sHHHHIIH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_EXPORT_HINT = "Save the program with torch.export.save(program, 'name.pt2')."


@dataclass(frozen=True, slots=True)
class Member:
    """A member's bytes: ``size`` of them at ``start`` of the file."""

    name: str
    start: int
    size: int


class Archive:
    """An open archive, memory-mapped read-only. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_regular(path)
        try:
            self.size = os.fstat(self._file).st_size
            if self.size == 0:
                raise BadProgram(f"{path}: the file is empty", _EXPORT_HINT)
            self.map = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)
            self.root, self.members = _Directory(path, self.map).read()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file. Views of its bytes must be released before."""
        self.map.close()
        os.close(self._file)

    def stat(self) -> os.stat_result:
        """``fstat`` of the file that is being read, whatever happened to its path."""
        return os.fstat(self._file)

    def read(self, name: str) -> bytes:
        """Bytes of member ``name``; ``BadProgram`` if there is none."""
        member = self.member(name)
        return self.map[member.start : member.start + member.size]

    def member(self, name: str) -> Member:
        """Member ``name``, without the archive's root folder."""
        found = self.members.get(name)
        if found is None:
            raise BadProgram(f"{self.path}: the archive has no {name}", _EXPORT_HINT)
        return found


def open_regular(path: Path) -> int:
    """A descriptor of ``path``, a regular file. Never waits (a FIFO), and never opens a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadProgram(f"{path}: {error.strerror}", "Check the path of the program.") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise BadProgram(f"{path} is {kind}, not a program", "Give the path of a .pt2 or .onnx file.")
    return descriptor


class _Directory:
    """The central directory, checked entry by entry."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data

    def bad(self, why: str) -> BadProgram:
        return BadProgram(f"{self.path}: the archive is damaged or not a .pt2: {why}", _EXPORT_HINT)

    def read(self) -> tuple[str, dict[str, Member]]:
        start, size, count, end = self._end()
        if count > MAX_MEMBERS:
            raise self.bad(f"it has {count:,} members, more than {MAX_MEMBERS:,}")
        if start + size > end:
            raise self.bad("its directory lies outside the file")
        found: dict[str, Member] = {}
        at = start
        for _ in range(count):
            member, at = self._entry(at, start + size)
            if member.name in found:
                raise self.bad(f"two members are named {member.name!r}")
            found[member.name] = member
        self._refuse_overlaps(found, start)
        return self._without_root(found)

    def _end(self) -> tuple[int, int, int, int]:
        """Directory start, size, entries, and where its trailer starts (zip64's if there is one)."""
        at = self.data.rfind(b"PK\x05\x06", max(0, len(self.data) - 65_557))
        if at < 0 or at + _END.size > len(self.data):
            raise self.bad("it has no end-of-directory record (truncated?)")
        _, disk, _, _, count, size, start, comment = _END.unpack_from(self.data, at)
        if disk or at + _END.size + comment != len(self.data):
            raise self.bad("its end-of-directory record does not end the file")
        if count != 0xFFFF and 0xFFFFFFFF not in (size, start):
            return start, size, count, at
        return self._end64(at)

    def _end64(self, at: int) -> tuple[int, int, int, int]:
        locator = at - _END64_LOCATOR.size
        if locator < 0 or self.data[locator : locator + 4] != b"PK\x06\x07":
            raise self.bad("its zip64 locator is missing")
        record = _END64_LOCATOR.unpack_from(self.data, locator)[2]
        if record + _END64.size > locator or self.data[record : record + 4] != b"PK\x06\x06":
            raise self.bad("its zip64 record is missing")
        *_, count, size, start = _END64.unpack_from(self.data, record)
        return start, size, count, record

    def _entry(self, at: int, end: int) -> tuple[Member, int]:
        if at + _ENTRY.size > end or self.data[at : at + 4] != b"PK\x01\x02":
            raise self.bad("its directory is cut short")
        fields = _ENTRY.unpack_from(self.data, at)
        flags, method, stored, size = fields[3], fields[4], fields[8], fields[9]
        name_size, extra_size, comment_size, offset = fields[10], fields[11], fields[12], fields[16]
        after = at + _ENTRY.size + name_size + extra_size + comment_size
        if after > end:
            raise self.bad("its directory is cut short")
        name = self._name(self.data[at + _ENTRY.size : at + _ENTRY.size + name_size])
        extra = self.data[at + _ENTRY.size + name_size : at + _ENTRY.size + name_size + extra_size]
        size, stored, offset = _wide(extra, size, stored, offset)
        if method != 0 or size != stored:
            raise self.bad(f"{name} is compressed; torch stores members as they are")
        if flags & 0x2041:
            raise self.bad(f"{name} is encrypted")
        return self._located(name, offset, size), after

    def _name(self, raw: bytes) -> str:
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad("a member's name is not text") from None
        parts = name.split("/")
        if not name or "\\" in name or "\0" in name or name[0] == "/" or ".." in parts:
            raise self.bad(f"the member name {name!r} leads out of the archive")
        return name

    def _located(self, name: str, offset: int, size: int) -> Member:
        """The member behind a directory entry; its local header must tell the same."""
        if offset + _LOCAL.size > len(self.data) or self.data[offset : offset + 4] != b"PK\x03\x04":
            raise self.bad(f"{name} is not where the directory says")
        fields = _LOCAL.unpack_from(self.data, offset)
        method, name_size, extra_size = fields[3], fields[9], fields[10]
        start = offset + _LOCAL.size + name_size + extra_size
        local = self.data[offset + _LOCAL.size : offset + _LOCAL.size + name_size]
        if method != 0 or local != name.encode() or start + size > len(self.data):
            raise self.bad(f"{name} is not what the directory says")
        return Member(name, start, size)

    def _refuse_overlaps(self, found: dict[str, Member], directory: int) -> None:
        end = 0
        for member in sorted(found.values(), key=lambda member: (member.start, member.size)):
            if member.start < end:
                raise self.bad(f"{member.name} overlaps another member")
            end = member.start + member.size
        if end > directory:
            raise self.bad("a member overlaps the directory")

    def _without_root(self, found: dict[str, Member]) -> tuple[str, dict[str, Member]]:
        """Members by their name under the archive's one root folder (the file's stem when it was saved)."""
        roots = {name.partition("/")[0] for name in found}
        if len(roots) != 1 or not all("/" in name for name in found):
            return "", found
        (root,) = roots
        return root, {name[len(root) + 1 :]: member for name, member in found.items()}


def _wide(extra: bytes, size: int, stored: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset with zip64's wide values put in where the narrow ones say so."""
    values = [size, stored, offset]
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = [
                struct.unpack_from("<Q", extra, position)[0]
                for position in range(at + 4, min(at + 4 + length, len(extra)) - 7, 8)
            ]
            for index, value in enumerate(values):
                if value == 0xFFFFFFFF and wide:
                    values[index] = wide.pop(0)
        at += 4 + length
    return values[0], values[1], values[2]
