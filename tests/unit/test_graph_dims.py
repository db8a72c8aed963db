"""Symbolic dimensions: canonical names, bounds, values."""

from __future__ import annotations

import pytest

from farm.errors import BadProgram
from farm.graph_dims import Numbering, bounds, holds, same, show, simplify, value
from farm.graph_symbols import parse

RANGES = {"s0": (2, 16), "s1": (0, None), "s2": (-4, 4)}


def test_symbols_are_numbered_by_first_use_whatever_they_are_called() -> None:
    first, second = Numbering(), Numbering()
    for mine, theirs in [("s77", "s3"), ("2*s77 + s5", "2*s3 + s99"), ("s5", "s99")]:
        assert first.canonical(parse(mine)) == second.canonical(parse(theirs))
    assert first.names == {"s77": "s0", "s5": "s1"}


def test_the_order_in_which_operands_are_printed_is_no_matter() -> None:
    names = {"b": "s0", "a": "s1"}
    assert Numbering(dict(names)).canonical(parse("a + b*2")) == Numbering(dict(names)).canonical(parse("2*b + a"))
    assert Numbering().canonical(parse("x//2 + y")) == Numbering().canonical(parse("q + p//2"))


def test_which_symbol_is_which_is_a_matter() -> None:
    one, other = Numbering(), Numbering()
    for numbering in (one, other):
        numbering.canonical(parse("a"))
        numbering.canonical(parse("b"))
    assert one.canonical(parse("a - b")) != other.canonical(parse("b - a"))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("s0", (2, 16)),
        ("2*s0 + 1", (5, 33)),
        ("-s0", (-16, -2)),
        ("s0 - 3", (-1, 13)),
        ("s1 + 1", (1, None)),
        ("2*s1", (0, None)),
        ("-s1", (None, 0)),
        ("s0*s1", (0, None)),
        ("s0*s2", (-64, 64)),
        ("s0//3", (0, 5)),
        ("s0 % 4", (0, 3)),
        ("Max(s0, s1)", (2, None)),
        ("Min(s0, s1)", (0, 16)),
        ("s9", (None, None)),
        ("s0**2", (None, None)),
    ],
)
def test_bounds(expression: str, expected: tuple[int | None, int | None]) -> None:
    assert bounds(simplify(parse(expression)), RANGES) == expected


@pytest.mark.parametrize("condition", ["s0 >= 2", "s0 > 1", "16 >= s0", "s0 != 1", "2*s0 <= 32", "s1 >= 0", "True"])
def test_what_the_ranges_imply_holds(condition: str) -> None:
    assert holds(parse(condition), RANGES)


@pytest.mark.parametrize("condition", ["s0 >= 3", "s0 > 2", "s0 != 4", "s0 == 2", "s1 <= 99", "s9 >= 0", "False"])
def test_what_they_do_not_imply_does_not(condition: str) -> None:
    assert not holds(parse(condition), RANGES)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("2*s0 + 1", 9), ("s0//3", 1), ("s0 % 3", 1), ("Max(s0, 9)", 9), ("s0**2", 16), ("s0/2", 2), ("-s0//3", -2)],
)
def test_value(expression: str, expected: int) -> None:
    assert value(parse(expression), {"s0": 4}) == expected


@pytest.mark.parametrize("expression", ["s0/3", "s1", "s0//0", "s1//2", "OpaqueUnaryFn_sqrt(s0)"])
def test_a_dimension_without_a_whole_value_is_refused(expression: str) -> None:
    with pytest.raises(BadProgram, match="has no whole value"):
        value(parse(expression), {"s0": 4})


@pytest.mark.parametrize("expression", ["2*s0 + 1", "s0//2", "s0 - s1", "Max(1, s0)", "(s0 + 1)*s1", "s0**2", "s0 % 3"])
def test_what_is_shown_reads_back(expression: str) -> None:
    expr = parse(expression)
    assert same(parse(show(simplify(expr))), expr)


def test_shown_as_people_write_it() -> None:
    assert show(Numbering().canonical(parse("1 + 2*s77"))) == "2*s0 + 1"


def test_same_sees_through_arithmetic_on_constants_only() -> None:
    assert same(parse("s0*4"), parse("4*s0"))
    assert same(parse("s0 + s0"), parse("2*s0"))
    assert not same(parse("s0*4"), parse("s1*4"))
    assert not same(parse("s0//2*2"), parse("s0"))
