"""What CI systems are told: always well-formed, whatever a reason holds."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from farm.prebuilding.report import junit, line, markdown, workflow_commands
from farm.prebuilding.standing import Item, Prebuild, State
from farm.prebuilds.entries import Entry, Model, PrebuildSpec, Source

ITEMS = st.builds(
    lambda model, target, variant, state, why, required: Item(
        Entry(Model(model, Source(), line=7), target, variant, required=required), state, why=(why,)
    ),
    *(st.text(max_size=8) for _ in range(3)),
    st.sampled_from(State),
    st.text(max_size=20),
    st.booleans(),
)


def found(items: list[Item]) -> Prebuild:
    return Prebuild(PrebuildSpec("dir/farm,1:2.yaml", ()), tuple(items))


@settings(deadline=None)
@given(st.lists(ITEMS, max_size=5))
def test_junit_counts_what_it_holds(items: list[Item]) -> None:
    (suite,) = ElementTree.fromstring(junit(found(items)))
    cases = list(suite)
    assert len(cases) == int(suite.get("tests") or 0) == len(items)
    assert sum(case.find("failure") is not None for case in cases) == int(suite.get("failures") or 0)
    assert sum(case.find("skipped") is not None for case in cases) == int(suite.get("skipped") or 0)
    for case, item in zip(cases, items, strict=True):
        bad = item.entry.required and item.state in (State.FAILED, State.MISSING)
        assert (case.find("failure") is not None) is bad


@settings(deadline=None)
@given(st.lists(ITEMS, max_size=3), st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_junit_fails_where_the_lock_file_may_not_change(items: list[Item], refused: list[str]) -> None:
    (suite,) = ElementTree.fromstring(junit(found(items), refused))
    assert len(suite) == int(suite.get("tests") or 0) == len(items) + 1
    assert suite[-1].get("classname") == "farm.lock" and suite[-1].find("failure") is not None
    assert sum(case.find("failure") is not None for case in suite) == int(suite.get("failures") or 0)


@settings(deadline=None)
@given(st.lists(ITEMS, max_size=5), st.lists(st.text(max_size=20), max_size=3))
def test_a_workflow_command_is_one_line(items: list[Item], changes: list[str]) -> None:
    told = workflow_commands(found(items), changes, True)
    absent = [item for item in items if not item.state.there]
    assert len(told) == len(absent) + len(changes)
    for text in told:
        assert "\n" not in text and "\r" not in text
        head, _, _ = text.removeprefix("::").partition("::")
        kind, _, fields = head.partition(" ")
        assert kind in ("error", "warning")
        assert dict(part.split("=", 1) for part in fields.split(","))["file"] == "dir/farm%2C1%3A2.yaml"


@settings(deadline=None)
@given(st.lists(ITEMS, max_size=5))
def test_a_table_has_a_row_for_each_entry(items: list[Item]) -> None:
    rows = [text for text in markdown(found(items), []).split("\n") if text.startswith("| ")]
    assert len(rows) == len(items) + 1
    for row in rows:
        assert len(row.replace("\\\\", "").replace("\\|", "").split("|")) == 8


def test_counts_in_one_line() -> None:
    items = [Item(Entry(Model("m", Source()), "sm_86"), state) for state in (State.BUILT, State.LOCKED, State.BUILT)]
    assert line(found(items)) == "3 entries: 1 locked, 2 built" and line(found(items[:1])) == "1 entry: 1 built"
