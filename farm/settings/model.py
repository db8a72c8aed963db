"""What one row of the table of settings is: names for roles and statuses, and the row itself. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

from farm.errors import BadInput
from farm.settings.kinds import Kind, Value

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

FLAVOURS = ("tensorrt", "tensorrt_rtx", "torch_tensorrt")
"""The toolchains that a status is stated for. The first two are the ONNX-parser builder, which makes one
engine of the whole program; the third is Torch-TensorRT's own compiler."""

OLDEST = (2, 9)
"""The oldest release of Torch-TensorRT whose settings were read; what it has counts as always there."""

_VERSION = re.compile(r"\d+(\.\d+)*")


class Role(StrEnum):
    """What a setting changes, and so where it is recorded (DESIGN, "The key")."""

    ENGINE = "engine"
    """On the specification's engine-invariant list: always in the key."""
    GRAPH = "graph"
    """Shapes the graph or its conversion: in the key of what still reads it."""
    FORM = "form"
    """Changes what the artefact is: in the key where it has an effect."""
    SEARCH = "search"
    """Changes which kernels win, or whether any are found, not what the engine means: in the recipe only."""
    WORKFLOW = "workflow"
    """Concerns the act of compiling alone: in neither."""


class Status(StrEnum):
    """What a builder does with a setting (DESIGN, "The key")."""

    HONOURED = "honoured"
    MOOT = "moot"
    """Cannot matter to this builder: in neither key nor recipe; any but the default is warned about."""
    INERT = "inert"
    """Accepted, without effect in this version: in the key, not in the recipe, and the user is told."""
    REFUSED = "refused"
    """A value other than the default cannot be honoured: building says so, a key can still be computed."""


class Stage(StrEnum):
    """Who reads a setting last: Torch-TensorRT's work on the whole program, or the making of one engine."""

    PROGRAM = "program"
    ENGINE = "engine"


@dataclass(frozen=True)
class Handling:
    """A builder's status for one setting, and why, as the second half of a sentence.

    ``below`` bounds what was measured: at that version and above the setting counts as honoured, because
    leaving an effective setting out of a recipe would be wrong and keeping an inert one is merely wasteful.
    """

    status: Status
    why: str = ""
    below: tuple[int, ...] | None = None

    def at(self, version: tuple[int, ...]) -> Handling:
        return self if self.below is None or version < self.below else HONOURED


HONOURED = Handling(Status.HONOURED)


def moot(why: str) -> Handling:
    return Handling(Status.MOOT, why)


def inert(why: str, below: tuple[int, ...] | None = None) -> Handling:
    return Handling(Status.INERT, why, below)


def refused(why: str) -> Handling:
    return Handling(Status.REFUSED, why)


GONE = refused("Torch-TensorRT removed it")


@lru_cache(maxsize=64)
def version_tuple(version: str) -> tuple[int, ...]:
    """``"1.7.1.116"`` → ``(1, 7, 1, 116)``; suffixes (``a0``, ``+cu130``) are left off. ``BadInput``."""
    match = _VERSION.match(version)
    if match is None:
        raise BadInput(f"'{version}' is no version of a toolchain", "write its numbers, as in 1.7.1.116")
    return tuple(int(part) for part in match[0].split("."))


@dataclass(frozen=True)
class Field:
    """One setting: all that validation, keys, builders, documentation and ``farm settings`` need.

    ``description`` is one line for people. ``rule`` says in words how the effective value comes about, and
    ``source`` which sentence or measurement that rests on. ``since`` and ``until`` are the first and last
    releases of Torch-TensorRT whose ``CompilationSettings`` has the field (read from the released wheels).
    """

    name: str
    kind: Kind
    default: Value
    group: str
    role: Role
    description: str
    rule: str
    source: str
    tensorrt: Handling = HONOURED
    tensorrt_rtx: Handling = HONOURED
    torch_tensorrt: Handling = HONOURED
    since: tuple[int, int] = OLDEST
    until: tuple[int, int] | None = None
    dropped: Handling = GONE
    stage: Stage = Stage.ENGINE
    deprecated: bool = False

    @property
    def type(self) -> str:
        """The type in Torch-TensorRT's terms, as ``int or none``."""
        return self.kind.type

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        return self.kind.words

    @property
    def default_text(self) -> str:
        """The default as one would write it on the command line."""
        return text_of(self.default)

    def handling(self, flavour: str, version: str) -> Handling:
        """What ``flavour`` at ``version`` does with it. ``BadInput`` for an unknown flavour or no version."""
        if flavour not in FLAVOURS:
            raise BadInput(f"'{flavour}' is no TensorRT flavour", f"it is one of {', '.join(FLAVOURS)}")
        numbers = version_tuple(version)
        if flavour == "torch_tensorrt":
            return self._in_torch_tensorrt(numbers)
        return (self.tensorrt if flavour == "tensorrt" else self.tensorrt_rtx).at(numbers)

    def _in_torch_tensorrt(self, version: tuple[int, ...]) -> Handling:
        if version[:2] < self.since != OLDEST:
            return refused(f"Torch-TensorRT has it from {_dotted(self.since)} on; use that or a later one")
        if self.until is not None and version[:2] > self.until:
            return self.dropped
        return self.torch_tensorrt.at(version)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def json_of(value: Value) -> Json:
    """The canonical JSON form: sets become sorted lists, everything else stays."""
    if isinstance(value, frozenset):
        members: list[Json] = [*sorted(value)]
        return members
    return value


def text_of(value: Value) -> str:
    """The form that ``parse_value`` reads back: ``none``, ``true``, ``a,b`` (or JSON, within patterns)."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, frozenset):
        return json.dumps(sorted(value)) if any("," in item for item in value) else ",".join(sorted(value)) or "none"
    return str(value)


Table: TypeAlias = Mapping[str, Field]
