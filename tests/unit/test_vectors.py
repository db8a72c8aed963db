"""The formats hold still: keys, recipes, digests, containers and lock files are what they were when checked in."""

from __future__ import annotations

from typing import Any

import pytest

from farm.container import unpack
from farm.prebuilds.lock import parse_lock
from tests.vectors import cases
from tests.vectors.regenerate import changed

WHAT_IT_MEANS = {
    "canonical": "the canonical encoding: every key, recipe and digest that was ever handed out",
    "keys": "keys or recipes: engines that are in farms now would not be found again, or would be for another ask",
    "programs": "how a program is read: its engines would not be found again, or would be for another program",
    "container": "the engine container: files that were written before could not be read, or not by older farms",
    "lock": "farm.lock: files in other people's repositories could not be read, or would all change",
}


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return cases.computed()


@pytest.mark.parametrize("section", WHAT_IT_MEANS)
def test_vectors(section: str, now: dict[str, Any]) -> None:
    before = cases.written()
    other = changed(before[section], now[section]) + changed(now[section], before[section])
    shown = "\n".join(f"  {section}.{path}" for path in dict.fromkeys(other))
    assert not other, (
        f"These vectors changed:\n{shown}\n\n"
        f"That changes {WHAT_IT_MEANS[section]}.\n"
        "If you did not mean to, undo what did it. If you did, it is a decision: raise the schema version that covers "
        "it (farm.canonical.SCHEMA for keys, recipes and digests; farm.container.SCHEMA; farm.prebuilds.lock.SCHEMA; "
        "or farm.toolchains.EXPORTER where only recipes of .pt2 programs change since the export does), say so in the "
        "change log, and write the vectors anew with\n  python -m tests.vectors.regenerate"
    )


def test_versions_are_those_of_the_vectors() -> None:
    """A version that rises alone would leave the vectors saying that nothing changed."""
    assert cases.written()["versions"] == cases.versions(), "run python -m tests.vectors.regenerate"


def test_every_section_is_compared(now: dict[str, Any]) -> None:
    assert set(now) == set(WHAT_IT_MEANS) == set(cases.written()) - {"versions"}
    for section, found in now.items():
        assert set(found) == set(cases.written()[section])


def test_what_was_written_can_be_read() -> None:
    """The checked-in bytes themselves, not what this code writes today."""
    vectors = cases.written()
    header, plan = unpack(bytes.fromhex(vectors["container"]["start"]) + cases.PLAN)
    assert vars(header) == vectors["container"]["header"] and bytes(plan) == cases.PLAN
    assert cases.ENTRY in parse_lock(vectors["lock"]["text"])


def test_no_two_vectors_share_a_key_that_differ(now: dict[str, Any]) -> None:
    """The cases are chosen to be engines apart, but for those that the key rules say are one."""
    by_key: dict[str, set[str]] = {}
    for name, found in now["keys"].items():
        by_key.setdefault(found["key"], set()).add(name)
    assert {frozenset(names) for names in by_key.values() if len(names) > 1} == {
        frozenset({"plain", "search settings", "onnx"}),
    }
    assert len({found["recipe"] for found in now["keys"].values()}) == len(now["keys"]) - 1, (
        "the inert level's is plain's"
    )


def test_changed_finds_what_differs() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": 0}
    assert changed(old, {"a": {"b": 1, "c": [1, 2]}, "d": 0, "new": 1}) == []
    assert changed(old, {"a": {"b": 2, "c": [1]}}) == ["d", "a.b", "a.c"]
