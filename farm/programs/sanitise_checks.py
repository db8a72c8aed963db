"""What a sanitised archive may say: small checks that are put together into a schema.

A check takes what the JSON holds and returns what goes into the new archive, or raises ``Refused``. A record
copies only the fields that it names and a union only the tags that it names, so what no table mentions never
gets through.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

Check = Callable[[Any], Any]

MAX_PIECE = 16 << 20
"""Bytes of JSON that are unfolded into objects at a time: bounds the memory that any archive can ask for."""

_MAX_TEXT = 1 << 20
_MAX_NAME = 2000
_UNSAFE = re.compile(r"[\x00-\x1f\x7f'\"\\]")
_DUNDER = re.compile(r"__\w+__")
_SYMBOLS = re.compile(r"[-\w./:+@$=,<>()\[\]|~*! ]+")


class Refused(Exception):
    """Something that is not let through. ``where`` names the place, once the checks have been left."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self._path: list[str] = []

    def at(self, step: str) -> Refused:
        """The same, one level further out."""
        self._path.append(step)
        return self

    @property
    def where(self) -> str:
        """A path such as ``nodes[3].target``; empty at the top."""
        return "".join(reversed(self._path)).lstrip(".")


def shown(value: object) -> str:
    """A value for people, in at most a few words."""
    text = value if isinstance(value, str) else repr(value)
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def decode(piece: msgspec.Raw | bytes) -> Any:
    """A piece of JSON as objects."""
    size = len(memoryview(piece))
    if size > MAX_PIECE:
        raise Refused(f"it is {size:,} bytes long, more than {MAX_PIECE:,}")
    return msgspec.json.decode(piece)


def integer(value: Any) -> int:
    """A whole number of 64 bits."""
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise Refused(f"{shown(value)} is not a whole number of 64 bits")
    return value


def natural(value: Any) -> int:
    """A whole number that is not negative."""
    if integer(value) < 0:
        raise Refused(f"{value} is negative")
    return int(value)


def boolean(value: Any) -> bool:
    """True or False."""
    if type(value) is not bool:
        raise Refused(f"{shown(value)} is not true or false")
    return value


def number(value: Any) -> float | str:
    """A float; torch spells those that JSON does not have as words."""
    if value in ("Infinity", "-Infinity", "NaN") and isinstance(value, str):
        return value
    if type(value) not in (float, int):
        raise Refused(f"{shown(value)} is not a number")
    return float(value) if type(value) is float else float(integer(value))


def text(value: Any) -> str:
    """Any text: only for what torch never makes part of code."""
    if not isinstance(value, str):
        raise Refused(f"{shown(value)} is not text")
    if len(value) > _MAX_TEXT:
        raise Refused(f"a text is {len(value):,} characters long")
    return value


def plain_text(value: Any) -> str:
    """Text that stays text between quotes of either kind: torch puts some into code so."""
    if _UNSAFE.search(text(value)):
        raise Refused(f"{shown(value)} has quotes, backslashes or control characters, which are not let through here")
    return str(value)


def word(value: Any) -> str:
    """The name of an operator's argument: it may be a word that Python reserves (``from``)."""
    if not text(value).isidentifier() or not value.isascii() or len(value) > _MAX_NAME:
        raise Refused(f"{shown(value)} is not a name")
    return str(value)


def identifier(value: Any) -> str:
    """The name of a value or argument. FX writes it into Python code as it stands, so it must be one token."""
    if not text(value).isidentifier() or keyword.iskeyword(value) or len(value) > _MAX_NAME:
        raise Refused(f"{shown(value)} is not a name")
    if not value.isascii() and unicodedata.normalize("NFKC", value) != value:
        raise Refused(f"Python would read the name {shown(value)} as another one")
    if _DUNDER.fullmatch(value):
        raise Refused(f"{shown(value)} is a name that Python keeps for itself")
    return str(value)


def qualified(value: Any) -> str:
    """A dotted name of a tensor or module. FX puts parts that are no identifiers between quotes as they stand."""
    if not _SYMBOLS.fullmatch(text(value)) or len(value) > _MAX_NAME:
        raise Refused(f"{shown(value)} has characters that a name in a program does not have")
    if any(_DUNDER.fullmatch(part) for part in value.split(".")):
        raise Refused(f"{shown(value)} has a part that Python keeps for itself")
    return str(value)


def nullable(check: Check) -> Check:
    """``check``, or null."""
    return lambda value: None if value is None else check(value)


def listing(check: Check) -> Check:
    """A list of what ``check`` lets through."""

    def apply(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise Refused(f"{shown(value)} is not a list")
        made: list[Any] = []
        try:
            for item in value:
                made.append(check(item))
        except Refused as refused:
            raise refused.at(f"[{len(made)}]") from None
        return made

    return apply


def mapping(name: Check, check: Check) -> Check:
    """An object whose keys are data."""

    def apply(value: Any) -> dict[str, Any]:
        made = {}
        for key, item in fields_of(value).items():
            try:
                made[name(key)] = check(item)
            except Refused as refused:
                raise refused.at(f"[{shown(key)}]") from None
        return made

    return apply


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with known fields; others are left behind, as torch's own loader does."""

    def apply(value: Any) -> dict[str, Any]:
        given = fields_of(value)
        made = {}
        for table, needed in ((required, True), (optional or {}, False)):
            for name, check in table.items():
                if name in given:
                    made[name] = within(name, check, given[name])
                elif needed:
                    raise Refused(f"{name} is missing")
        return made

    return apply


def union(tags: Mapping[str, Check]) -> Check:
    """An object with one field, whose name says what it holds."""

    def apply(value: Any) -> dict[str, Any]:
        given = fields_of(value)
        if len(given) != 1:
            raise Refused(f"{shown(value)} should have one field")
        ((tag, content),) = given.items()
        if tag not in tags:
            raise Refused(f"{shown(tag)} is not let through here")
        return {tag: within(tag, tags[tag], content)}

    return apply


def within(step: str, check: Check, value: Any) -> Any:
    """Apply ``check`` to the field ``step``."""
    try:
        return check(value)
    except Refused as refused:
        raise refused.at(f".{step}") from None


def fields_of(value: Any) -> dict[str, Any]:
    """``value``, an object."""
    if not isinstance(value, dict):
        raise Refused(f"{shown(value)} is not an object")
    return value
