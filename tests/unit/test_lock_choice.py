"""Which lock lines a target means."""

from __future__ import annotations

from typing import Any

import pytest

from farm.gpus import Gpu
from farm.prebuilds.lock import LockEntry
from farm.pulling.choice import chosen, named
from farm.targets import parse_target

RTX, TRT = "tensorrt_rtx==1.7.1.116", "tensorrt==10.14.1"


def line(model: str, target: str, toolchain: str = RTX, variant: str = "") -> LockEntry:
    digest = "sha256:" + "a" * 64
    return LockEntry(model, target, digest, digest, digest, 1, toolchain, digest, variant=variant)


LINES = [
    *(line("m", target) for target in ("sm_86", "sm_89", "sm_89/windows", "sm_80+sm_86")),
    line("m", "l4", TRT),
    line("m", "rtx4090@tensorrt_rtx==1.8.0.1", "tensorrt_rtx==1.8.0.1"),
    line("n", "sm_89", variant="fast"),
    line("n", "sm_89", variant="small"),
    line("o", "sm_9999"),
]


def targets(text: str, **options: Any) -> list[str]:
    choices = chosen(LINES, [parse_target(text, lambda: Gpu("l4", 89, "x86_64"))], **options)
    return [f"{one.line.model} {one.line.target} {one.line.variant}".strip() for one in choices]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("sm_86", ["m sm_86"]),
        ("rtx3090", ["m sm_86"]),
        ("sm_89/windows", ["m sm_89/windows"]),
        ("sm_86+sm_80", ["m sm_80+sm_86"]),
        ("sm_80", []),
        ("sm_89", ["m sm_89", "m rtx4090@tensorrt_rtx==1.8.0.1", "n sm_89 fast", "n sm_89 small"]),
        ("sm_89@tensorrt_rtx==1.8.0.1", ["m rtx4090@tensorrt_rtx==1.8.0.1"]),
        ("l4@tensorrt", ["m l4"]),
        ("local@tensorrt==10.14.1", ["m l4"]),
        ("sm_89@tensorrt", []),
        ("sm_120", []),
    ],
)
def test_the_very_place(asked: str, found: list[str]) -> None:
    assert targets(asked) == found


def test_a_portable_one_where_nothing_is_exact() -> None:
    def manifest(entry: LockEntry) -> dict[str, Any]:
        numbers = [int(part[3:]) for part in entry.target.partition("/")[0].split("+") if part.startswith("sm_")]
        if entry.target == "l4":
            return {"parts": {"target": {"class": "ampere_plus"}}}
        return {"parts": {"target": {"capabilities": numbers}}}

    assert targets("sm_80", manifest=manifest) == ["m sm_80+sm_86"]
    assert targets("sm_86", manifest=manifest) == ["m sm_86"], "no portable one beside an exact one"
    assert targets("sm_120", manifest=manifest) == ["m l4"], "hardware-compatible: Ampere and newer"
    assert targets("sm_75", manifest=manifest) == []
    bound = {"parts": {"target": {"gpu": "l4", "capabilities": [89]}}}
    assert targets("rtx4090@tensorrt", manifest=lambda entry: bound) == [], "it is bound to its GPU"


def test_names_and_the_beginnings_of_digests() -> None:
    assert len(named(LINES, [])) == len(LINES) and len(named(LINES, ["n"])) == 2
    assert len(named(LINES, ["aaaa"])) == len(LINES) and named(LINES, ["aaa"]) == []
    assert chosen(LINES, []) and len(chosen(LINES, [])) == len(LINES)
