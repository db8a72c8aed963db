"""YAML that people write: read within bounds, and every value under its line. Pure, but for the reading.

``noun`` is what the file is, in the errors' words: a ``sweep``, a ``manifest``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import yaml

from farm.errors import BadInput

Place = tuple[str | int, ...]
"""Where a value stands in a document: names and numbers, from the outside in."""

MAX_BYTES = 4 << 20
MAX_DEPTH = 32
MAX_NODES = 200_000
MAX_TEXT = 4096
MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path, noun: str, example: str) -> tuple[str, dict[str, Any]]:
    """The file's text, and the mapping that it is. ``BadInput`` says file and line, and gives ``example``."""
    text = _read(path, noun)
    try:
        _bound(path, text, noun)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise _broken(path, error) from error
    if not isinstance(document, dict):
        raise BadInput(f"{path} is no {noun}: it must map names to values", example)
    return text, document


def _read(path: Path, noun: str) -> str:
    """The file's text, of which no more is ever read than such a file may have."""
    try:
        # A pipe that nobody writes to would otherwise be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadInput(f"{path} is no regular file", f"write the {noun} into a file, and give that one's path")
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise BadInput(
                f"{path} is larger than a {noun} may be ({MAX_BYTES >> 20} MiB)",
                f"give the path of the {noun}'s YAML file",
            )
        return content.decode("utf-8")
    except FileNotFoundError as error:
        raise BadInput(f"{path}: there is no such file", f"give the path of the {noun}'s YAML file") from error
    except IsADirectoryError as error:
        raise BadInput(f"{path} is a folder", f"give the path of the {noun}'s YAML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


def _bound(path: Path, text: str, noun: str) -> None:
    """``BadInput`` for YAML that is nested deeper, or unfolds into more (by aliases of aliases), than any such file."""
    anchors, counts, names = dict[str, int](), [0], [""]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            # What is still open contains itself; what is unknown is for the composer to refuse.
            anchor = event.anchor or ""
            counts[-1] += MAX_NODES + 1 if anchor in names else anchors.get(anchor, 0)
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            counts.append(1)
            names.append(event.anchor or "")
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionEndEvent)):
            anchors[names.pop()] = counts[-1]
            counts[-2:] = [counts[-2] + counts[-1]]
        where = f"{path}:{event.start_mark.line + 1}" if event.start_mark else str(path)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_TEXT:
            raise BadInput(f"{where}: a value of more than {MAX_TEXT:,} characters, as no {noun} has")
        if len(counts) > MAX_DEPTH:
            raise BadInput(f"{where}: nested more than {MAX_DEPTH} deep, as no {noun} is")
        if counts[-1] > MAX_NODES:
            raise BadInput(f"{where}: more than {MAX_NODES:,} values, aliases unfolded, as no {noun} has")


def _broken(path: Path, error: Exception) -> BadInput:
    """``ValueError`` is what the reader makes of ``0x`` and of the 31st of February."""
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    return BadInput(f"{where}: not valid YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}")


class Lines:
    """The lines of one text's values; composed once."""

    def __init__(self, text: str) -> None:
        self._root = yaml.compose(text, Loader=yaml.SafeLoader)

    def of(self, place: Place) -> int:
        """The line (from 1) at which the deepest part of ``place`` that is in the file stands."""
        node, line = self._root, 1
        for part in place:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line

    def doubled(self) -> tuple[int, str] | None:
        """The first name that one mapping has twice, and its line: YAML's readers keep the last, and say nothing."""
        left = [self._root]
        while left:
            node = left.pop()
            if isinstance(node, yaml.SequenceNode):
                left += reversed(node.value)
            elif isinstance(node, yaml.MappingNode):
                names: set[str] = set()
                for name, _ in node.value:
                    if isinstance(name, yaml.ScalarNode) and name.value in names and name.tag != MERGE:
                        return name.start_mark.line + 1, name.value
                    names.add(str(name.value))
                left += [value for _, value in reversed(node.value)]
        return None


def line_of(text: str, place: Place) -> int:
    """``Lines.of`` for a single value."""
    return Lines(text).of(place)


def _child(node: Any, part: str | int) -> tuple[int, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        value = node.value[part]
        return value.start_mark.line + 1, value
    return None
