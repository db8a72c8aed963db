"""Symbolic expressions against SymPy, which writes them: read back, worked out and renamed to the same thing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import BadProgram
from farm.graph_dims import Numbering, bounds, same, show, simplify, srepr, value
from farm.graph_symbols import parse

sympy = pytest.importorskip("sympy")
functions = pytest.importorskip("torch.utils._sympy.functions")

pytestmark = pytest.mark.torch
NAMES = ("s0", "s1", "u7")


def symbols(names: tuple[str, ...] = NAMES) -> list[Any]:
    return [sympy.Symbol(name, integer=True, positive=True) for name in names]


def _combined(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    two = st.tuples(children, children)
    return st.one_of(
        two.map(lambda pair: pair[0] + pair[1]),
        two.map(lambda pair: pair[0] * pair[1]),
        two.map(lambda pair: pair[0] - pair[1]),
        st.tuples(children, st.integers(1, 7)).map(lambda pair: functions.FloorDiv(pair[0], sympy.Integer(pair[1]))),
        st.tuples(children, st.integers(2, 7)).map(lambda pair: functions.PythonMod(pair[0], sympy.Integer(pair[1]))),
        two.map(lambda pair: functions.Max(*pair)),
        two.map(lambda pair: functions.Min(*pair)),
        children.map(lambda one: one**2),
    )


EXPRESSIONS = st.recursive(st.sampled_from(symbols()) | st.integers(-9, 9).map(sympy.Integer), _combined, max_leaves=6)
VALUES = st.fixed_dictionaries({name: st.integers(1, 50) for name in NAMES})


def plain(expr: Any, values: dict[str, int]) -> int:
    return int(expr.subs({symbol: values[symbol.name] for symbol in expr.free_symbols}))


@settings(deadline=None)
@given(EXPRESSIONS, VALUES)
def test_what_sympy_writes_is_worked_out_as_sympy_does(expr: Any, values: dict[str, int]) -> None:
    ours = parse(sympy.printing.repr.srepr(expr))
    assert value(ours, values) == plain(expr, values)
    assert value(simplify(ours), values) == plain(expr, values)
    assert value(parse(show(simplify(ours))), values) == plain(expr, values)


@settings(deadline=None)
@given(EXPRESSIONS)
def test_what_we_write_is_what_sympy_wrote(expr: Any) -> None:
    text = sympy.printing.repr.srepr(expr)
    assert parse(srepr(parse(text))) == parse(text)


@settings(deadline=None)
@given(EXPRESSIONS)
def test_both_spellings_agree(expr: Any) -> None:
    assert same(parse(sympy.printing.repr.srepr(expr)), parse(str(expr)))


@settings(deadline=None)
@given(EXPRESSIONS, st.permutations([91, 4, 37]))
def test_the_names_of_symbols_are_no_matter(expr: Any, numbers: list[int]) -> None:
    """SymPy orders operands by name, so renaming reorders what it prints; the canonical form is the same."""
    fresh = [f"{name[0]}{number}" for name, number in zip(NAMES, numbers, strict=True)]
    renamed = expr.subs(dict(zip(symbols(), symbols(tuple(fresh)), strict=True)), simultaneous=True)
    found = []
    for one, names in ((expr, NAMES), (renamed, fresh)):
        numbering = Numbering()
        for name in names:
            numbering.canonical(parse(name))
        found.append(numbering.canonical(parse(sympy.printing.repr.srepr(one))))
    assert found[0] == found[1]


@settings(deadline=None)
@given(EXPRESSIONS, VALUES, st.integers(0, 20))
def test_bounds_hold(expr: Any, values: dict[str, int], width: int) -> None:
    ranges = {name: (max(1, values[name] - width), values[name] + width) for name in NAMES}
    low, high = bounds(simplify(parse(sympy.printing.repr.srepr(expr))), ranges)
    actual = plain(expr, values)
    assert low is None or low <= actual
    assert high is None or actual <= high


@given(st.text(max_size=60) | st.text("s0123456789+-*/%()<>=&|~,. 'SymbolAdInteger", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadProgram):
        parse(text)
