"""Symbolic dimensions, used: canonical form, bounds, values, and two ways to print them.

Symbols are renamed ``s0, s1 …`` by first use (DESIGN: "Symbolic dims are numbered by first use, with ranges
and equalities"); operands of commutative calls are sorted after that, so the order in which SymPy happened
to print them, which follows the old names, is no matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import TypeGuard

from farm.errors import BadProgram
from farm.graph_symbols import COMMUTATIVE, Call, Expr, Number, Sym

Range = tuple[int | None, int | None]
"""Inclusive bounds of a dimension; ``None`` is no bound."""

_FLIPPED = {"GreaterThan": "LessThan", "StrictGreaterThan": "StrictLessThan"}
_SAME = {"CleanDiv": "FloorDiv"}


def symbols(expr: Expr) -> Iterator[str]:
    """Names of the symbols in ``expr``, left to right, repeats included."""
    if isinstance(expr, Sym):
        yield expr.name
    elif isinstance(expr, Call):
        for arg in expr.args:
            yield from symbols(arg)


def simplify(expr: Expr) -> Expr:
    """``expr`` with integer constants folded and spellings unified; its symbols untouched."""
    if isinstance(expr, Sym):
        return Sym(expr.name)
    if not isinstance(expr, Call):
        return expr
    args = tuple(simplify(arg) for arg in expr.args)
    name = expr.name
    if name == "Identity":
        return args[0]
    if name in _FLIPPED:
        return Call(_FLIPPED[name], args[::-1])
    if name == "Pow" and type(args[0]) is int and args[1] == -1 and args[0] > 0:
        return 1 if args[0] == 1 else Number("Rational", f"1/{args[0]}")
    if name in ("Add", "Mul"):
        return _folded(name, args)
    return Call(_SAME.get(name, name), args)


def _folded(name: str, args: tuple[Expr, ...]) -> Expr:
    """An ``Add`` or ``Mul`` with its integers folded into one leading constant (none when neutral)."""
    parts = [part for arg in args for part in (arg.args if _is(arg, name) else (arg,))]
    if name == "Add":
        return _sum(parts)
    constant = 1
    for part in parts:
        constant *= part if type(part) is int else 1
    rest = [part for part in parts if type(part) is not int]
    if constant == 0 or not rest:
        return constant
    if constant != 1 and len(rest) == 1 and isinstance(rest[0], Call) and rest[0].name == "Add":
        return _sum([_folded("Mul", (constant, term)) for term in rest[0].args])
    return _joined("Mul", [*([constant] if constant != 1 else []), *rest])


def _sum(parts: list[Expr]) -> Expr:
    """A sum with like terms collected, as SymPy does by itself."""
    constant, factors = 0, dict[Expr, int]()
    for part in (inner for arg in parts for inner in (arg.args if _is(arg, "Add") else (arg,))):
        if type(part) is int:
            constant += part
            continue
        factor, term = 1, part
        if isinstance(part, Call) and part.name == "Mul" and type(part.args[0]) is int:
            factor, term = part.args[0], _joined("Mul", list(part.args[1:]))
        factors[term] = factors.get(term, 0) + factor
    terms = [_folded("Mul", (factor, term)) if factor != 1 else term for term, factor in factors.items() if factor]
    return _joined("Add", [*([constant] if constant or not terms else []), *terms])


def _joined(name: str, parts: list[Expr]) -> Expr:
    return parts[0] if len(parts) == 1 else Call(name, tuple(parts))


def _is(expr: Expr, name: str) -> TypeGuard[Call]:
    return isinstance(expr, Call) and expr.name == name


@lru_cache(maxsize=4096)
def same(left: Expr, right: Expr) -> bool:
    """Whether two expressions over the same symbols are one once simplified and put in order."""
    return left == right or _sorted(simplify(left), text) == _sorted(simplify(right), text)


@lru_cache(maxsize=4096)
def text(expr: Expr) -> str:
    """Prefix text of ``expr``: injective, so it may be digested and sorted by."""
    if isinstance(expr, Sym):
        return expr.name
    if isinstance(expr, Number):
        return f"{expr.kind}:{expr.text}"
    if isinstance(expr, Call):
        return f"{expr.name}({','.join(map(text, expr.args))})"
    return str(expr)


def _sorted(expr: Expr, key: Callable[[Expr], str]) -> Expr:
    if not isinstance(expr, Call):
        return expr
    args = tuple(_sorted(arg, key) for arg in expr.args)
    return Call(expr.name, tuple(sorted(args, key=key)) if expr.name in COMMUTATIVE else args)


def _renamed(expr: Expr, names: Mapping[str, str]) -> Expr:
    if isinstance(expr, Sym):
        return Sym(names.get(expr.name, "?"))
    if isinstance(expr, Call):
        return Call(expr.name, tuple(_renamed(arg, names) for arg in expr.args))
    return expr


@dataclass(slots=True)
class Numbering:
    """The canonical names of a program's symbols, given out by first use."""

    names: dict[str, str] = field(default_factory=dict)

    def canonical(self, expr: Expr) -> Expr:
        """``expr`` over canonical symbols, operands in order; symbols not met before get the next names.

        Where one expression brings several new symbols at once, their order is that of the expression with
        the new names blotted out, so that it does not follow what the exporter called them.
        """
        expr = simplify(expr)
        if any(name not in self.names for name in symbols(expr)):
            blind = _sorted(expr, key=lambda arg: text(_renamed(arg, self.names)))
            for name in symbols(blind):
                self.names.setdefault(name, f"s{len(self.names)}")
        return _sorted(_renamed(expr, self.names), key=text)


def bounds(expr: Expr, ranges: Mapping[str, Range]) -> Range:
    """Bounds of ``expr`` given its symbols'; ``(None, None)`` where nothing is known."""
    if type(expr) is int:
        return expr, expr
    if isinstance(expr, Sym):
        return ranges.get(expr.name, (None, None))
    if not isinstance(expr, Call):
        return None, None
    parts = [bounds(arg, ranges) for arg in expr.args]
    if expr.name == "Add":
        return _total([low for low, _ in parts]), _total([high for _, high in parts])
    if expr.name == "Mul":
        product = parts[0]
        for part in parts[1:]:
            product = _product(product, part)
        return product
    if expr.name == "FloorDiv" and type(expr.args[1]) is int and expr.args[1] > 0:
        (low, high), divisor = parts[0], expr.args[1]
        return None if low is None else low // divisor, None if high is None else high // divisor
    if expr.name == "Max":
        lows = [low for low, _ in parts if low is not None]
        return max(lows, default=None), _most([high for _, high in parts], max)
    if expr.name == "Min":
        highs = [high for _, high in parts if high is not None]
        return _most([low for low, _ in parts], min), min(highs, default=None)
    if expr.name in ("Mod", "PythonMod") and type(expr.args[1]) is int and expr.args[1] > 0:
        return 0, expr.args[1] - 1
    return None, None


def _total(values: list[int | None]) -> int | None:
    return None if None in values else sum(value for value in values if value is not None)


def _most(values: list[int | None], pick: Callable[[list[int]], int]) -> int | None:
    return None if None in values else pick([value for value in values if value is not None])


def _product(left: Range, right: Range) -> Range:
    """Bounds of a product: exact when all bounds are known, else only for factors that are not negative."""
    if None not in (*left, *right):
        ends = [a * b for a in left for b in right if a is not None and b is not None]
        return min(ends), max(ends)
    (low, high), (low2, high2) = left, right
    if low is None or low2 is None or low < 0 or low2 < 0:
        return _negative_product(left, right)
    return low * low2, None if high is None or high2 is None else high * high2


def _negative_product(left: Range, right: Range) -> Range:
    """A constant below zero times a half-open range that is not negative; unknown otherwise."""
    for constant, other in ((left, right), (right, left)):
        if constant[0] is not None and constant[0] == constant[1] and constant[0] < 0:
            low, high = other
            factor = constant[0]
            return None if high is None else factor * high, None if low is None else factor * low
    return None, None


def holds(condition: Expr, ranges: Mapping[str, Range]) -> bool:
    """Whether the ranges alone imply ``condition`` (a comparison of expressions); False when unsure."""
    condition = simplify(condition)
    if isinstance(condition, Number):
        return condition.kind == "true"
    if not isinstance(condition, Call) or condition.name not in (
        "LessThan",
        "StrictLessThan",
        "Equality",
        "Unequality",
        "And",
    ):
        return False
    if condition.name == "And":
        return all(holds(arg, ranges) for arg in condition.args)
    (low, high), (low2, high2) = (bounds(arg, ranges) for arg in condition.args)
    below = high is not None and low2 is not None and (high, low2)
    above = high2 is not None and low is not None and (high2, low)
    if condition.name == "LessThan":
        return bool(below) and below[0] <= below[1] if below else False
    if condition.name == "StrictLessThan":
        return below[0] < below[1] if below else False
    if condition.name == "Equality":
        return low is not None and low == high == low2 == high2
    return bool((below and below[0] < below[1]) or (above and above[0] < above[1]))


_EXACT: Mapping[str, Callable[..., Fraction]] = {
    "Add": lambda *args: sum(args, Fraction(0)),
    "Max": lambda *args: max(args),
    "Min": lambda *args: min(args),
    "FloorDiv": lambda a, b: Fraction(a // b),
    "CleanDiv": lambda a, b: Fraction(a // b),
    "CeilDiv": lambda a, b: Fraction(-(-a // b)),
    "Mod": lambda a, b: a % b,
    "PythonMod": lambda a, b: a % b,
    "ModularIndexing": lambda a, b, c: Fraction(a // b) % c,
    "IntTrueDiv": lambda a, b: a / b,
    "FloatTrueDiv": lambda a, b: a / b,
    "LShift": lambda a, b: a * 2 ** int(b),
    "RShift": lambda a, b: Fraction(a // 2 ** int(b)),
    "Where": lambda cond, a, b: a if cond else b,
    "ToFloat": lambda a: a,
    "Identity": lambda a: a,
    "Abs": abs,
    "Not": lambda a: Fraction(not a),
    "FloorToInt": lambda a: Fraction(a.__floor__()),
    "CeilToInt": lambda a: Fraction(a.__ceil__()),
    "TruncToInt": lambda a: Fraction(a.__trunc__()),
    "TruncToFloat": lambda a: Fraction(a.__trunc__()),
    "RoundToInt": lambda a: Fraction(round(a)),
    "Equality": lambda a, b: Fraction(a == b),
    "Unequality": lambda a, b: Fraction(a != b),
    "LessThan": lambda a, b: Fraction(a <= b),
    "GreaterThan": lambda a, b: Fraction(a >= b),
    "StrictLessThan": lambda a, b: Fraction(a < b),
    "StrictGreaterThan": lambda a, b: Fraction(a > b),
    "And": lambda *args: Fraction(all(args)),
    "Or": lambda *args: Fraction(any(args)),
}


def value(expr: Expr, values: Mapping[str, int]) -> int:
    """The whole number that ``expr`` is when its symbols have ``values``. ``BadProgram`` if it is none."""
    result = _exact(expr, values)
    if result is None or result.denominator != 1:
        raise BadProgram(
            f"the dimension {show(expr)} has no whole value for {dict(values)}",
            "Give shapes for which every dimension comes out whole.",
        )
    return int(result)


def _exact(expr: Expr, values: Mapping[str, int]) -> Fraction | None:
    if isinstance(expr, Sym):
        return Fraction(values[expr.name]) if expr.name in values else None
    if isinstance(expr, Number):
        return Fraction(expr.text) if expr.kind in ("Float", "Rational") else None
    if not isinstance(expr, Call):
        return Fraction(expr)
    args = [_exact(arg, values) for arg in expr.args]
    known = [arg for arg in args if arg is not None]
    if len(known) != len(args):
        return None
    try:
        return _applied(expr.name, known)
    except ZeroDivisionError:
        return None


def _applied(name: str, args: list[Fraction]) -> Fraction | None:
    if name == "Mul":
        product = Fraction(1)
        for arg in args:
            product *= arg
        return product
    if name in ("Pow", "PowByNatural"):
        base, power = args
        return base ** int(power) if power.denominator == 1 and abs(power) <= 64 else None
    operation = _EXACT.get(name)
    return None if operation is None else operation(*args)


_INFIX = {"FloorDiv": "//", "CleanDiv": "//", "Mod": "%", "PythonMod": "%", "Pow": "**", "Equality": "=="} | {
    "LessThan": "<=",
    "GreaterThan": ">=",
    "StrictLessThan": "<",
    "StrictGreaterThan": ">",
    "Unequality": "!=",
}


def show(expr: Expr, outer: bool = True) -> str:
    """``expr`` as people write it: ``2*s0 + 1``. ``graph_symbols.parse`` reads it back."""
    if isinstance(expr, Sym):
        return expr.name
    if isinstance(expr, Number):
        return expr.text if expr.kind == "Float" else f"({expr.text})" if expr.text else expr.kind
    if not isinstance(expr, Call):
        return str(expr) if outer or expr >= 0 else f"({expr})"
    if expr.name == "Add":
        terms = sorted(expr.args, key=lambda arg: type(arg) is int)
        shown = " + ".join(show(arg, outer=False) for arg in terms)
        return shown if outer else f"({shown})"
    if expr.name == "Mul":
        return "*".join(show(arg, outer=False) for arg in expr.args)
    if expr.name in _INFIX:
        shown = f"{show(expr.args[0], False)}{_INFIX[expr.name]}{show(expr.args[1], False)}"
        return shown if outer else f"({shown})"
    return f"{expr.name}({', '.join(map(show, expr.args))})"


def srepr(expr: Expr) -> str:
    """``expr`` as SymPy's ``srepr`` prints it, from our own tree: what a sanitised archive carries."""
    if isinstance(expr, Sym):
        facts = "".join(f", {name}={truth}" for name, truth in expr.assumptions)
        return f"Symbol('{expr.name}'{facts})"
    if isinstance(expr, Number):
        return _number(expr)
    if isinstance(expr, Call):
        return f"{expr.name}({', '.join(map(srepr, expr.args))})"
    return f"Integer({expr})"


def _number(number: Number) -> str:
    if number.kind == "Float":
        return f"Float('{number.text}', precision=53)"
    if number.kind == "Rational":
        return "Rational({}, {})".format(*number.text.split("/"))
    return number.kind
