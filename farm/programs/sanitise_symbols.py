"""Symbolic expressions for a sanitised archive: read with farm's grammar, bounded, and written anew.

Torch's loader gives every ``expr_str`` to ``sympy.sympify``, which evaluates it as Python. What a sanitised
archive carries is therefore never the text that came in, but our own tree of it, printed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from farm.errors import BadProgram
from farm.graph_dims import srepr
from farm.graph_symbols import Call, Expr, Sym, parse
from farm.programs.sanitise_checks import Refused, integer, nullable, shown, text

_SYMBOL = re.compile(r"[a-z]{1,8}[0-9]{1,6}", re.ASCII)
_UNBACKED = re.compile(r"(?:u|zuf)[0-9]{1,6}", re.ASCII)
_ASSUMPTIONS = frozenset(
    {"integer", "real", "positive", "negative", "nonnegative", "nonpositive", "nonzero", "zero", "even", "odd"}
    | {"finite", "infinite", "rational", "commutative", "complex", "extended_real"}
)
_MAX_PARTS = 1000
_MAX_ALIKE = 32
_MAX_BITS = 4096
_POWERS = frozenset({"Pow", "PowByNatural", "LShift"})


def expression(value: Any) -> str:
    """``value`` in SymPy's notation, as farm prints it."""
    return _rewritten(text(value))


@lru_cache(maxsize=4096)
def _rewritten(value: str) -> str:
    """Most sizes of a program are a few expressions, over and over."""
    try:
        read = parse(value)
    except BadProgram as error:
        raise Refused(error.message) from None
    _bounded(read)
    return srepr(read)


def _bounded(read: Expr) -> None:
    """SymPy computes with constants at once and compares operands pairwise: neither may take for ever."""
    parts = list(_parts(read))
    if len(parts) > _MAX_PARTS:
        raise Refused("an expression is too large")
    for part in parts:
        if isinstance(part, Sym):
            _known_symbol(part)
        elif isinstance(part, Call) and part.name not in ("Add", "Mul") and len(part.args) > _MAX_ALIKE:
            raise Refused(f"{part.name} has {len(part.args)} operands in an expression")
    if _bits(read) > _MAX_BITS:
        raise Refused("an expression's value could have thousands of digits")


def _parts(read: Expr) -> list[Expr]:
    """Every node of the tree. The grammar bounds its depth and its text, so the list is bounded too."""
    found: list[Expr] = [read]
    for part in found:
        if isinstance(part, Call):
            found.extend(part.args)
    return found


def _known_symbol(symbol: Sym) -> None:
    if not _SYMBOL.fullmatch(symbol.name):
        raise Refused(f"{shown(symbol.name)} is not what torch calls a symbol")
    unknown = {name for name, _ in symbol.assumptions} - _ASSUMPTIONS
    if unknown:
        raise Refused(f"symbol {symbol.name} is said to be {shown(min(unknown))}, which SymPy does not know")


def _bits(read: Expr) -> int:
    """Roughly how many binary digits a value can have, symbols taken as 64-bit numbers."""
    if isinstance(read, int):
        return read.bit_length()
    if not isinstance(read, Call):
        return 64
    sizes = [_bits(arg) for arg in read.args]
    if read.name not in _POWERS:
        return sum(sizes) if read.name == "Mul" else max(sizes) + len(sizes)
    power = read.args[1]
    if not isinstance(power, int):
        raise Refused("an expression has a power that is not a constant")
    if abs(power) > 64:
        raise Refused("an expression has too large a power")
    return sizes[0] + power if read.name == "LShift" else sizes[0] * max(1, abs(power))


def range_name(value: Any) -> str:
    """What a range is given for: a symbol or an expression, compared as text by torch's loader.

    The number of an unbacked symbol is how often the loader counts, so it is bounded.
    """
    name = text(value)
    expression(name)
    if name.startswith(("u", "zuf")) and not _UNBACKED.fullmatch(name):
        raise Refused(f"torch cannot read a range for {shown(name)}")
    return name


def value_range(value: Any) -> dict[str, int | None]:
    """Least and greatest value, both included; null for none."""
    if not isinstance(value, dict):
        raise Refused(f"{shown(value)} is not a range")
    least, most = (nullable(integer)(value.get(name)) for name in ("min_val", "max_val"))
    if least is not None and most is not None and least > most:
        raise Refused(f"the range from {least} to {most} is empty")
    return {"min_val": least, "max_val": most}
