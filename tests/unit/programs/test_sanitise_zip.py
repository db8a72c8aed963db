"""The stored zip that a sanitised archive is."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from farm.programs import sanitise_zip
from farm.programs.archive import Archive
from farm.programs.sanitise_zip import StoredZip


class Sparse(io.FileIO):
    """A file that leaves out large pieces of zeros instead of writing them."""

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size < 1 << 20:
            return super().write(data)
        self.seek(size, os.SEEK_CUR)
        return size


def test_members_and_archives_beyond_four_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitise_zip.zlib, "crc32", lambda data, value=0: 0)
    zeros, size = memoryview(bytes(1 << 24)), 5 << 30
    with Sparse(tmp_path / "big.zip", "w") as file, StoredZip(file) as target:  # type: ignore[arg-type]
        target.add("r/large", size, (zeros for _ in range(size >> 24)))
        target.add("r/late", 5, [b"hello"])
    with Archive(tmp_path / "big.zip") as archive:
        assert {name: member.size for name, member in archive.members.items()} == {"large": size, "late": 5}
        assert all(member.start % 64 == 0 for member in archive.members.values())
        assert archive.read("late") == b"hello"
    with zipfile.ZipFile(tmp_path / "big.zip") as archive:
        assert archive.getinfo("r/large").file_size == size
        assert archive.getinfo("r/late").header_offset > size


def test_more_members_than_a_small_directory_holds(tmp_path: Path) -> None:
    with (tmp_path / "many.zip").open("xb") as file, StoredZip(file) as target:
        for index in range(70_000):
            target.add(f"r/{index}", 0, [])
    with Archive(tmp_path / "many.zip") as archive:
        assert len(archive.members) == 70_000


def test_a_member_of_another_size_than_announced(tmp_path: Path) -> None:
    with (tmp_path / "a.zip").open("xb") as file, StoredZip(file) as target:
        for content in (b"123", b"12345"):
            with pytest.raises(ValueError, match="bytes"):
                target.add("r/a", 4, [content])
