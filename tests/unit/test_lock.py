"""``farm.lock``: what is written is read back, in any order, and git can merge it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.errors import BadInput
from farm.prebuilds.lock import SCHEMA, LockEntry, format_lock, parse_lock

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def entry(model: str = "resnet", target: str = "sm_89", **changes: Any) -> LockEntry:
    values: dict[str, Any] = {
        "key": digest("a"),
        "recipe": digest("b"),
        "engine": digest("c"),
        "size": 1_234_567,
        "toolchain": "tensorrt_rtx==1.7.1.116",
        "manifest": digest("d"),
        "inputs": {"x": "image"},
        "outputs": {"linear_1": "logits"},
    }
    return LockEntry(model, target, **(values | changes))


DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)
NAMES = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
ENTRIES = st.builds(
    LockEntry,
    model=st.text(min_size=1, max_size=6),
    target=st.text(min_size=1, max_size=6),
    key=DIGESTS,
    recipe=DIGESTS,
    engine=DIGESTS,
    size=st.integers(0, (1 << 63) - 1),
    toolchain=st.text(min_size=1, max_size=6),
    manifest=DIGESTS,
    inputs=NAMES,
    outputs=NAMES,
    variant=st.text(max_size=3),
)
FILES = st.lists(ENTRIES, max_size=4, unique_by=lambda one: one.name)


@PATIENT
@given(FILES, st.randoms())
def test_round_trip_in_any_order(entries: list[LockEntry], chance: Any) -> None:
    text = format_lock(entries)
    assert sorted(entries, key=lambda one: one.name) == list(parse_lock(text))
    chance.shuffle(entries)
    assert format_lock(entries) == text
    head, *lines = text.splitlines(keepends=True)
    chance.shuffle(lines)
    assert parse_lock(head + "".join(lines)) == parse_lock(text), "a union merge leaves the lines in any order"


@PATIENT
@given(FILES)
def test_one_line_for_each_entry(entries: list[LockEntry]) -> None:
    lines = [line for line in format_lock(entries).split("\n") if line]
    assert len(lines) == 1 + len(entries) and json.loads(lines[0]) == {"farm.lock": SCHEMA}


@PATIENT
@given(FILES)
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(entries: list[LockEntry]) -> None:
    text = format_lock(entries)
    assert parse_lock("\ufeff" + text.replace("\n", "\r\n")) == parse_lock(text)


@PATIENT
@given(st.text(max_size=200))
def test_random_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadInput, match=r"farm\.lock"):
        parse_lock(text)


@PATIENT
@given(FILES.filter(bool), st.data())
def test_a_spoilt_line_is_named_or_harmless(entries: list[LockEntry], data: st.DataObject) -> None:
    """Any change to one character: another file that says what it says, or an error that names a line."""
    text = format_lock(entries)
    at = data.draw(st.integers(0, len(text) - 1))
    spoilt = text[:at] + data.draw(st.characters(codec="utf-8")) + text[at + 1 :]
    try:
        format_lock(parse_lock(spoilt))
    except BadInput as error:
        assert "line" in error.message or "schema" in error.message


def merged(
    tmp_path: Path, base: list[LockEntry], ours: list[LockEntry], theirs: list[LockEntry], *how: str
) -> tuple[int, str]:
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    for name, entries in (("base", base), ("ours", ours), ("theirs", theirs)):
        (tmp_path / name).write_text(format_lock(entries), "utf-8")
    command = ["git", "merge-file", "-p", *how, "ours", "base", "theirs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_git_merges_rebuilds_of_neighbouring_models(tmp_path: Path) -> None:
    base = [entry("a"), entry("b"), entry("c")]
    ours = [entry("a", engine=digest("1")), base[1], base[2]]
    theirs = [base[0], entry("b", engine=digest("2")), base[2]]
    code, text = merged(tmp_path, base, ours, theirs)
    assert code == 0
    assert parse_lock(text) == (ours[0], theirs[1], base[2])


def test_git_leaves_a_conflict_that_is_recognised(tmp_path: Path) -> None:
    base = [entry("a"), entry("c")]
    ours, theirs = [*base, entry("b", engine=digest("1"))], [*base, entry("b", engine=digest("2"))]
    code, text = merged(tmp_path, base, ours, theirs)
    number = text.splitlines().index(next(line for line in text.splitlines() if line.startswith("<<<<<<<"))) + 1
    assert code == 1
    with pytest.raises(BadInput, match=f"merge conflict at line {number}") as caught:
        parse_lock(text)
    assert "farm prebuild" in caught.value.hint


def test_a_union_merge_takes_both_sides_new_lines(tmp_path: Path) -> None:
    base = [entry("a"), entry("z")]
    new = entry("b"), entry("c")
    _, text = merged(tmp_path, base, [*base, new[0]], [*base, new[1]], "--union")
    assert parse_lock(text) == (base[0], *new, base[1])


def test_two_lines_that_disagree_are_both_named() -> None:
    text = format_lock([entry("a"), entry("b")])
    line = format_lock([entry("a", size=1)]).split("\n")[2]
    with pytest.raises(BadInput, match=r"two lines for a for sm_89: 3 and 7"):
        parse_lock(text + "\n" + line + "\n")
    with pytest.raises(BadInput, match="two different lock lines for a for sm_89"):
        format_lock([entry("a"), entry("a", size=1)])
    assert parse_lock(text + text.split("\n", 1)[1]) == parse_lock(text), "the same line twice says one thing"
    assert format_lock([entry("a"), entry("a")]) == format_lock([entry("a")])


def test_a_matrix_has_a_line_for_each_cell() -> None:
    cells = [entry("a", variant="fast"), entry("a", variant="small"), entry("a")]
    assert len(parse_lock(format_lock(cells))) == 3
    assert "variant" not in format_lock([entry("a")])


@pytest.mark.parametrize("marker", ["<<<<<<< ours", "||||||| base", "=======", ">>>>>>> theirs"])
def test_every_conflict_marker_is_known(marker: str) -> None:
    with pytest.raises(BadInput, match="merge conflict at line 3"):
        parse_lock(f'{{"farm.lock": 1}}\n\n{marker}\n')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1"),
        ("\n\n", "line 1"),
        ("[]", "line 1: it is no JSON object"),
        ("{}", "line 1: it should begin"),
        ('{"farm.lock": "1"}', "line 1: it should begin"),
        ('{"farm.lock": true}', "line 1: it should begin"),
        ('{"farm.lock": 0}', "line 1: it should begin"),
        ('{"farm.lock": 1, "more": 2}', "line 1: the head line holds more"),
        ('{"farm.lock": 2}\n{"of": "a later farm"}', "schema 2, and this farm reads up to 1"),
        ('{"farm.lock": 1}\n\n{}', "line 3: it lacks model"),
        ('{"farm.lock": 1}\n[1]', "line 2: it is no JSON object"),
        ('{"farm.lock": 1}\n{"model": "a", "model": "b"}', "line 2: it is no JSON"),
        ('{"farm.lock": 1}\n' + "[" * 100_000, "line 2: it is no JSON"),
    ],
)
def test_what_is_no_lock_file(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_lock(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": 1}, "no lock line has 'more'"),
        ({"model": ""}, "its model is no text"),
        ({"target": 89}, "its target is no text"),
        ({"engine": "b3:" + "a" * 64}, "its engine is no sha256: digest"),
        ({"key": digest("A")}, "its key is no sha256: digest"),
        ({"size": True}, "its size is no number"),
        ({"size": 1.5}, "its size is no number"),
        ({"inputs": ["x"]}, "its inputs are no map"),
        ({"outputs": {"x": 1}}, "its outputs are no map"),
        ({"variant": None}, "its variant is no text"),
    ],
)
def test_lines_that_make_no_sense_are_named(change: dict[str, Any], message: str) -> None:
    line = json.dumps(vars(entry()) | change)
    with pytest.raises(BadInput, match=f"line 2: .*{message}"):
        parse_lock(f'{{"farm.lock": 1}}\n{line}\n')


def test_two_outputs_may_be_one_value_of_the_model() -> None:
    """``return y, y`` gives two bindings that the model calls by one name."""
    twice = entry(outputs={"y": "y", "y_1": "y"})
    assert parse_lock(format_lock([twice])) == (twice,)
