"""The benchmarks' own arithmetic: what a row says, and what makes it fail."""

from __future__ import annotations

import sys

import pytest

from tests.bench.measure import (
    Times,
    Unavailable,
    alternated,
    beside,
    limited,
    output,
    processes,
    repeated,
    shown,
    skipped,
)


def test_a_limit_is_held_or_not() -> None:
    held, missed = limited("x", 2.0, "ms", 4.0), limited("x", 5.0, "ms", 4.0)
    assert (held.ok, held.ratio, held.limit) == (True, 0.5, 4.0) and missed.ok is False
    assert {"name", "value", "unit", "limit", "against", "ratio", "ok"} <= set(held.as_json())


def test_a_peers_figure_is_the_measure() -> None:
    held, missed = beside("x", 3.0, "s", "peer", 2.0, 1.5), beside("x", 3.0, "s", "peer", 2.0, 1.25)
    assert (held.ok, held.ratio, held.limit) == (True, 1.5, 3.0) and (missed.ok, missed.limit) == (False, 2.5)
    assert "peer: 2 s" in held.against
    assert beside("x", 3.0, "s", "peer", 2.0, None).ok is None


def test_what_is_only_shown_or_skipped_holds_nothing() -> None:
    assert shown("x", 1.0, "s").ok is None and skipped("x", "no torch").ok is None
    assert skipped("x", "no torch").note == "skipped: no torch"


def test_the_first_time_does_not_count() -> None:
    calls: list[str] = []
    assert len(repeated(lambda: calls.append("a"), 3).all) == 3 and len(calls) == 4
    calls.clear()
    alternated(lambda: calls.append("a"), lambda: calls.append("b"), 2)
    assert calls == ["a", "b"] * 3
    assert Times((3.0, 1.0, 2.0)).least == 1.0


def test_commands_that_fail_say_why() -> None:
    assert output([sys.executable, "-c", "print(1)"]) == "1\n"
    assert len(processes([sys.executable, "-c", "pass"], 2).cpu.all) == 2
    with pytest.raises(Unavailable, match="farm: no room"):
        output([sys.executable, "-c", "import sys; print('farm: no room'); print('}'); sys.exit(1)"])
