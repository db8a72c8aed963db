"""Hostile ``.pt2`` archives: a real one, taken apart, changed and put together again. Needs no torch.

Whatever a payload here executes only creates one empty file, the marker.
"""

from __future__ import annotations

import copy
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLE = "data/sample_inputs/model.pt"

NAMES = ("conv", "batch", "derived", "keywords", "branches", "unknown", "text")
"""The programs of ``export_programs``."""

Edit = Callable[[dict[str, Any]], None]


class Archive:
    """The members of an archive, by name without its root folder; its JSON as objects."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            self.members = {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}

    def json(self, name: str) -> Any:
        return json.loads(self.members[name])

    def forge(
        self,
        path: Path,
        edit: Edit | None = None,
        *,
        weights: Edit | None = None,
        constants: Edit | None = None,
        members: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Write a changed copy to ``path``: edited JSON, and members added or replaced."""
        changed = dict(self.members)
        for name, change in ((MODEL, edit), (WEIGHTS, weights), (CONSTANTS, constants)):
            if change is not None:
                content = copy.deepcopy(self.json(name))
                change(content)
                changed[name] = json.dumps(content).encode()
        return write(path, changed | dict(members or {}))


def write(path: Path, members: Mapping[str, bytes], root: str = "forged") -> Path:
    """A stored zip of ``members`` under ``root``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(f"{root}/{name}" if root else name, content)
    return path


class Touch:
    """Unpickling one creates ``marker``."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


def pickled(marker: Path) -> bytes:
    """A bare pickle that creates ``marker``; ``torch.load`` reads such files too."""
    return pickle.dumps(Touch(marker), protocol=2)


def code(marker: Path) -> str:
    """A Python expression that creates ``marker``."""
    return f"open({str(marker)!r}, 'w').close()"
