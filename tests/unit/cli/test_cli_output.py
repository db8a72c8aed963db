"""What people see: sizes, times, tables that fit, and nothing cut off where a script reads."""

from __future__ import annotations

import json

import pytest

from farm.cli.output import Column, Table, card, cut, emit, emit_line, note
from farm.human import (
    count_of,
    human_ago,
    human_seconds,
    human_size,
    settings_text,
    short,
    size_text,
    value_text,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (47_123_456, "47.1 MB"),
        (99_949_000, "99.9 MB"),
        (352_000_000, "352 MB"),
        (999_600_000, "1.0 GB"),
        (4_169_000_000, "4.2 GB"),
        (5e15, "5000 TB"),
        (None, ""),
    ],
)
def test_sizes(count: float | None, text: str) -> None:
    assert human_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.42, "0.42 s"),
        (0.996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (65, "1 m 05 s"),
        (7800, "2 h 10 m"),
        (None, ""),
    ],
)
def test_times(seconds: float | None, text: str) -> None:
    assert human_seconds(seconds) == text


def test_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    ages = [1_000_000 - age for age in (0, 42, 60, 7200, 3 * 86400)]
    assert [human_ago(when) for when in ages] == ["just now", "42 s ago", "1 min ago", "2 h ago", "3 d ago"]
    assert human_ago(None) == ""


def test_words() -> None:
    assert short("sha256:" + "0123456789abcdef" * 4) == "0123456789ab" and short("babc") == "babc" and short(None) == ""
    assert [count_of(n, "build") for n in (0, 1, 1234)] == ["0 builds", "1 build", "1,234 builds"]
    assert (
        settings_text({"a": None, "b": True, "c": ["x", "y"], "d": [], "e": 0.5}) == "a=none b=true c=x,y d=none e=0.5"
    )
    assert value_text(False) == "false"
    assert [size_text(n) for n in (2**30, 3 * 2**20, 2**20 + 1, 0)] == ["1G", "3M", "1048577", "0"]


def test_a_table_for_a_pipe_is_aligned_whole_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table([Column("model", cut="head"), Column("size", right=True), Column("key")])
    table.add("m" * 200, "1 B", "k")
    table.add("n", "10.5 MB", "")
    table.show()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "size", "key"] and "m" * 200 in lines[1]
    assert lines[1].index("1 B") + 3 == lines[2].index("10.5 MB") + 7
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)


def test_a_cell_of_several_lines_keeps_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table([Column("check"), Column("found")])
    table.add("gpu", "none\n→ not needed")
    table.show()
    assert capsys.readouterr().out.splitlines() == ["check  found", "gpu    none", "       → not needed"]


def test_an_empty_table_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Table([Column("a")]).show()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("room", [30, 40, 80])
def test_columns_that_may_be_cut_give_way(room: int) -> None:
    table = Table([Column("model", cut="head"), Column("text", cut="tail"), Column("key")])
    table.add("m" * 50, "t" * 20, "k" * 8)
    widths = table._fitted(room)
    assert sum(widths) + 2 * table.gap <= room and widths[2] == 8


def test_a_table_that_fits_is_left_alone() -> None:
    table = Table([Column("model", cut="head"), Column("key")])
    table.add("m" * 10, "k" * 8)
    assert table._fitted(80) == [10, 8]


def test_cutting() -> None:
    assert cut("/a/b/model.pt2", 10, "head") == "…model.pt2"
    assert cut("a long text", 6, "tail") == "a lon…"
    assert cut("short", 10, "tail") == "short" and cut("kept whole", 4, "") == "kept whole"


def test_a_card_leaves_out_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    card("build b1", [("state", "failed"), ("engine", ""), ("grid", "a=1\nb=2")])
    assert capsys.readouterr().out.splitlines() == ["build b1", "  state  failed", "  grid   a=1", "         b=2"]


def test_json_is_one_document_and_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": ["é", 1.5, None]})
    assert json.loads(capsys.readouterr().out) == {"a": ["é", 1.5, None]}
    emit_line({"text": "two\nlines"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and json.loads(out) == {"text": "two\nlines"}


def test_json_is_indented_for_whoever_looks_at_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {"trials": [{"number": 1}]}
    emit(document)
    assert capsys.readouterr().out.count("\n") == 1
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    emit(document)
    out = capsys.readouterr().out
    assert out.count("\n") == 7 and json.loads(out) == document


def test_control_characters_of_a_name_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A model's name is anybody's choice; it must neither break the table nor move the cursor."""
    table = Table([Column("model"), Column("target")])
    table.add("a\r\x1b[31m\x9b.pt2", "sm_89")
    table.show()
    note("\x1b]0;title\x07")
    shown = capsys.readouterr()
    assert "a\\x0d\\x1b[31m\\x9b.pt2" in shown.out
    assert "\x1b" not in shown.out + shown.err and "\x07" not in shown.err
