"""``farm settings``: the one table of settings, for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from farm.cli.output import Column, Table, card, cut, fancy, say
from farm.settings.docs import statuses
from farm.settings.model import FLAVOURS, Field, json_of
from farm.settings.table import FIELDS, find_field

NAME_WIDTH, TYPE_WIDTH, DEFAULT_WIDTH = 30, 11, 9
"""What an 80-column terminal has room for; a pipe gets everything whole."""

HEADS = ("trt", "rtx", "torch")
WORDS = {"honoured": "yes", "refused": "no"}
LEGEND = "trt, rtx, torch: the builders tensorrt, tensorrt_rtx and torch_tensorrt."
STATUSES = "yes: honoured; moot: cannot matter; inert: accepted, no effect; no: refused."


def chosen(names: Sequence[str]) -> list[Field]:
    """The fields called ``names``, or all; ``BadSettings`` with the nearest names for one that is not there."""
    return [find_field(name) for name in names] or list(FIELDS.values())


def document(field: Field) -> dict[str, Any]:
    """All about one field."""
    return {
        "name": field.name,
        "type": field.type,
        "default": json_of(field.default),
        "allowed": field.allowed,
        "group": field.group,
        "role": str(field.role),
        "description": field.description,
        "rule": field.rule,
        "source": field.source,
        "deprecated": field.deprecated,
        "builders": statuses(field),
    }


def show_all(fields: Sequence[Field]) -> None:
    """One line a setting, under the specification's headings, with each builder's status."""
    table = Table([Column("setting"), Column("type"), Column("default"), Column("role"), *map(Column, HEADS)], gap=1)
    for group, rows in groupby(fields, key=lambda field: field.group):
        table.add(*[""] * len(table.columns))
        table.add(group if not fancy() else cut(group, NAME_WIDTH, "tail"), *[""] * (len(table.columns) - 1))
        for field in rows:
            told = [getattr(field, flavour).status.value for flavour in FLAVOURS]
            table.add(*_named(field), str(field.role), *(WORDS.get(word, word) for word in told))
    table.show()
    say()
    say(LEGEND)
    say(STATUSES)


def _named(field: Field) -> tuple[str, str, str]:
    """Name, type and default, cut to what there is room for."""
    if not fancy():
        return (f"  {field.name}", field.type, field.default_text)
    kind = field.type.replace(" or none", "?").replace("int (bytes)", "bytes").replace(" (regex)", "")
    if kind.startswith("set of "):
        kind = f"{{{kind.removeprefix('set of ')}}}"
    return (
        cut(f" {field.name}", NAME_WIDTH + 1, "tail"),
        cut(kind, TYPE_WIDTH, "tail"),
        cut(field.default_text, DEFAULT_WIDTH, "tail"),
    )


def show_one(field: Field) -> None:
    """Everything about one setting."""
    facts = [
        ("type", field.type),
        ("default", field.default_text),
        ("takes", field.allowed),
        ("role", str(field.role)),
        ("group", field.group),
        ("rule", field.rule),
        ("from", field.source),
        *statuses(field).items(),
    ]
    card(field.name + ("  (deprecated)" if field.deprecated else ""), [("", field.description), *facts])
    say()
