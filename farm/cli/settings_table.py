"""``farm settings``: the one table of settings, for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from farm.cli.output import Column, Table, card, cut, say
from farm.settings_docs import statuses
from farm.settings_model import FLAVOURS, Field
from farm.settings_table import FIELDS, find_field

DEFAULT_WIDTH = 14


def chosen(names: Sequence[str]) -> list[Field]:
    """The fields called ``names``, or all; ``BadSettings`` with the nearest names for one that is not there."""
    return [find_field(name) for name in names] or list(FIELDS.values())


def document(field: Field) -> dict[str, Any]:
    """All about one field."""
    return {
        "name": field.name,
        "type": field.type,
        "default": field.default_json if hasattr(field, "default_json") else _json(field),
        "allowed": field.allowed,
        "group": field.group,
        "role": str(field.role),
        "description": field.description,
        "rule": field.rule,
        "source": field.source,
        "deprecated": field.deprecated,
        "builders": statuses(field),
    }


def _json(field: Field) -> Any:
    from farm.settings_model import json_of

    return json_of(field.default)


def show_all(fields: Sequence[Field]) -> None:
    """One line a setting, under the specification's headings, with each builder's status."""
    names = max(len(field.name) for field in fields)
    for group, rows in groupby(fields, key=lambda field: field.group):
        table = Table(
            [Column(group.ljust(names)), Column("default"), Column("role"), *map(Column, ("trt", "rtx", "torch"))]
        )
        for field in rows:
            told = [getattr(field, flavour).status.value for flavour in FLAVOURS]
            table.add(field.name, cut(field.default_text, DEFAULT_WIDTH, "tail"), str(field.role), *told)
        table.show()
        say()
    say("trt, rtx: one engine of the whole program, by tensorrt or tensorrt_rtx; torch: torch_tensorrt.")


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
