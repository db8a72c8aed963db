"""The grammar of symbolic expressions: reads what exporters write, and nothing else."""

from __future__ import annotations

import pytest

from farm.errors import BadProgram
from farm.graph_dims import Numbering, srepr, text
from farm.graph_symbols import Call, Number, Sym, parse

S0 = "Symbol('s0', integer=True, positive=True)"


@pytest.mark.parametrize(
    ("spelled", "infix"),
    [
        (S0, "s0"),
        (f"Mul(Integer(2), {S0})", "2*s0"),
        (f"Add(Mul(Integer(2), {S0}), Integer(1))", "2*s0 + 1"),
        (f"Add({S0}, Integer(-3))", "s0 - 3"),
        (f"FloorDiv({S0}, Integer(2))", "(s0//2)"),
        (f"Mod({S0}, Integer(2))", "Mod(s0, 2)"),
        (f"Mod({S0}, Integer(2))", "s0 % 2"),
        (f"Pow({S0}, Integer(2))", "s0**2"),
        (f"Mul(Integer(-1), {S0})", "-s0"),
        (f"Max(Integer(1), {S0})", "Max(1, s0)"),
        (f"GreaterThan({S0}, Integer(2))", "s0 >= 2"),
        (f"LessThan(Integer(2), {S0})", "s0 >= 2"),
        (f"Mul(Integer(6), {S0})", "2*s0*3"),
        (f"Mul(Integer(2), {S0})", "s0 + s0"),
        (f"Add(Integer(2), Mul(Integer(2), {S0}))", "2*(s0 + 1)"),
        ("Integer(7)", "2*3 + 1"),
        (f"Mul(Rational(1, 2), {S0})", "s0/2"),
        (
            f"Piecewise(ExprCondPair({S0}, StrictGreaterThan({S0}, Integer(2))), ExprCondPair(Integer(1), true))",
            "Piecewise((s0, s0 > 2), (1, True))",
        ),
    ],
)
def test_both_spellings_are_one_expression(spelled: str, infix: str) -> None:
    assert Numbering().canonical(parse(spelled)) == Numbering().canonical(parse(infix))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2*s0", "3*s0"),
        ("s0 + 1", "s0 + 2"),
        ("s0 - s1", "s1*s0"),
        ("s0//2", "s0 % 2"),
        ("2*s0", "s0**2"),
        ("s0 >= 2", "s0 > 2"),
        ("s0 >= 2", "s0 <= 2"),
        ("s0 + s1", "s0 + s0"),
        ("s0//2 + 1", "(s0 + 1)//2"),
        ("2**s0", "s0**2"),
    ],
)
def test_different_expressions_stay_different(one: str, other: str) -> None:
    assert text(Numbering().canonical(parse(one))) != text(Numbering().canonical(parse(other)))


def test_precedence_is_arithmetics() -> None:
    assert parse("1 + s0*2") == Call("Add", (1, Call("Mul", (Sym("s0"), 2))))
    assert parse("-s0**2") == Call("Mul", (-1, Call("Pow", (Sym("s0"), 2))))
    assert parse("s0 - s1 - s2") == parse("(s0 - s1) - s2")
    assert parse("(s0 + 1)**2 % 3") == Call("Mod", (Call("Pow", (Call("Add", (Sym("s0"), 1)), 2)), 3))


def test_assumptions_are_kept_for_printing_and_not_for_identity() -> None:
    expr = parse(S0)
    assert expr == Sym("s0", (("integer", True), ("positive", True)))
    assert srepr(expr) == S0
    assert Numbering().canonical(expr) == Sym("s0")


def test_floats_and_constants_are_read() -> None:
    assert parse("Float('2.5', precision=53)") == Number("Float", "2.5")
    assert parse("int_oo") == Number("int_oo")
    assert parse("true") == parse("True") == Number("true")


@pytest.mark.parametrize(
    "hostile",
    [
        "__import__('os').system('touch x')",
        "Integer(1).__class__",
        "s0; s1",
        "(lambda: 1)()",
        "[s0]",
        "{s0}",
        "s0 if s1 else s2",
        "'text'",
        "exec('1')",
        "eval(s0)",
        "Symbol('s0').name",
        "Symbol('a' or 'b')",
        "Symbol('s 0')",
        "Symbol('s0', positive=__import__)",
        "Symbol('s0', **x)",
        "Float('1' + '2')",
        "Float('nan()')",
        "Function('f')(s0)",
        "s0.func",
        "s0 := 1",
        "s0\n+\ns1; import os",
        "9**9**9**9",
        "Pow(Integer(9), Integer(99999))",
        "1" * 40,
        "Integer(" + "9" * 400 + ")",
        "(" * 500 + "s0" + ")" * 500,
        "-" * 5000 + "s0",
        "s0 +" * 20_000 + "s0",
        "Add()",
        "FloorDiv(s0)",
        "FloorDiv(s0, 2, 3)",
        "s0 +",
        "* s0",
        "(s0",
        "s0)",
        "",
        " ",
        "s0 s1",
        "ſ0 + é",
        "s0\0",
    ],
)
def test_anything_else_is_refused(hostile: str) -> None:
    with pytest.raises(BadProgram) as caught:
        parse(hostile)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
