"""A machine's own shelf of engines for Torch-TensorRT: containers in a folder, whatever becomes of the farm."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from farm.container import Header, unpack
from farm.errors import BadInput, CorruptBlob

SUFFIX = ".engine"


class LocalShelf:
    """``folder`` holds one container for each recipe, at most ``max_bytes`` of them; the least recently used go first.

    A container that is damaged, or under another's name, is removed and missed. Several processes may use one folder.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def find(self, key: str, recipe: str) -> tuple[Header, memoryview] | None:
        """The container of ``recipe``, if it is there and whole and of ``key``."""
        path = self._path(recipe)
        try:
            header, plan = unpack(path.read_bytes())
        except OSError:
            return None
        except (BadInput, CorruptBlob):
            path.unlink(missing_ok=True)
            return None
        if (header.key, header.recipe) != (key, recipe):
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return header, plan

    def keep(self, recipe: str, container: bytes) -> bool:
        """Keep a container; ``False`` when the folder cannot be written to, or it is too large for it."""
        if len(container) > self._max_bytes:
            return False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".", dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(container)
            Path(name).replace(self._path(recipe))
            self._make_room()
        except OSError:
            return False
        return True

    def _path(self, recipe: str) -> Path:
        return self._folder / (recipe.removeprefix("sha256:") + SUFFIX)

    def _make_room(self) -> None:
        found = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            left -= size
