"""Symbolic dimensions, read: the grammar of the expressions that programs carry.

An exporter writes a dimension such as ``2*s77 + 1`` in one of two spellings: SymPy's ``srepr``
(``Add(Mul(Integer(2), Symbol('s77', …)), Integer(1))``, torch ≥ 2.7) or an infix string (range keys, ONNX
``dim_param``). Both are read here with one real grammar; nothing is ever given to ``eval`` or ``sympify``
(reference/tensorrt.md: loading executes code from ``expr_str``).

An expression is an ``int``, a ``Sym``, a ``Number`` or a ``Call``: immutable, hashable values. What is done
with them (canonical form, bounds, values, printing) is in ``graph_dims``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from farm.errors import BadProgram


@dataclass(frozen=True, slots=True)
class Sym:
    """A symbol. ``assumptions`` (``positive=True`` …) only matter when it is printed for SymPy again."""

    name: str
    assumptions: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Number:
    """What is not an integer: ``Float`` or ``Rational`` text, ``true``, ``false``, ``oo``, ``int_oo`` …"""

    kind: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """An operation on expressions, by SymPy's or torch's name for it."""

    name: str
    args: tuple[Expr, ...]


Expr = int | Sym | Number | Call


def _names(text: str) -> list[str]:
    return text.split()


COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Equality", "Unequality"})
FUNCTIONS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("Add", "Mul", "Max", "Min", "And", "Or"), (1, 4096)),
    **dict.fromkeys(
        _names(
            "Equality Unequality GreaterThan LessThan StrictGreaterThan StrictLessThan Pow FloorDiv "
            "Mod PythonMod CleanDiv CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv "
            "IntTrueDiv RoundDecimal BitwiseFn_bitwise_and BitwiseFn_bitwise_or BitwiseFn_bitwise_xor "
            "ExprCondPair"
        ),
        (2, 2),
    ),
    **dict.fromkeys(
        _names(
            "Not CeilToInt FloorToInt TruncToFloat TruncToInt RoundToInt ToFloat Identity Abs "
            "OpaqueUnaryFn_acos OpaqueUnaryFn_asin OpaqueUnaryFn_asinh OpaqueUnaryFn_atan "
            "OpaqueUnaryFn_cos OpaqueUnaryFn_cosh OpaqueUnaryFn_exp OpaqueUnaryFn_log "
            "OpaqueUnaryFn_log2 OpaqueUnaryFn_sin OpaqueUnaryFn_sinh OpaqueUnaryFn_sqrt "
            "OpaqueUnaryFn_tan OpaqueUnaryFn_tanh"
        ),
        (1, 1),
    ),
    "Where": (3, 3),
    "ModularIndexing": (3, 3),
    "Piecewise": (1, 64),
}
"""Every function that an expression may call, with the number of arguments it takes: what torch 2.13's
loader knows (``torch.utils._sympy.functions``) and SymPy's own arithmetic. Anything else is refused."""

_ALIASES = {"Eq": "Equality", "Ne": "Unequality", "Ge": "GreaterThan", "Le": "LessThan"} | {
    "Gt": "StrictGreaterThan",
    "Lt": "StrictLessThan",
}
_CONSTANTS = {"true", "false", "True", "False", "oo", "int_oo", "zoo", "nan"}
_TOKEN = re.compile(
    r"\s*(?:(?P<float>\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)|(?P<int>\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<text>'[^'\\\n]*')|(?P<mark>//|\*\*|==|!=|<=|>=|[-+*/%(),=<>&|~]))",
    re.ASCII,
)
_MAX_TEXT = 20_000
_MAX_DEPTH = 60
_MAX_INT = 1 << 63
_MAX_POWER = 64


def refuse(text: str, why: str) -> BadProgram:
    """The error for an expression that is not one."""
    shown = text if len(text) <= 80 else text[:77] + "…"
    return BadProgram(
        f"the symbolic expression {shown!r} cannot be read: {why}",
        "Export the program again; farm reads only arithmetic over dimensions here, and runs nothing.",
    )


def parse(text: str) -> Expr:
    """Read ``srepr`` or infix ``text``. ``BadProgram`` for anything outside the grammar."""
    if len(text) > _MAX_TEXT:
        raise refuse(text, f"it is {len(text)} characters long")
    return _Parser(text).whole()


class _Parser:
    """Precedence climbing over a token list; depth is bounded, so recursion is too."""

    _BINARY: Mapping[str, tuple[int, str]] = {
        "|": (1, "Or"),
        "&": (2, "And"),
        "==": (3, "Equality"),
        "!=": (3, "Unequality"),
        "<": (3, "StrictLessThan"),
        "<=": (3, "LessThan"),
        ">": (3, "StrictGreaterThan"),
        ">=": (3, "GreaterThan"),
        "+": (4, "Add"),
        "-": (4, "-"),
        "*": (5, "Mul"),
        "/": (5, "/"),
        "//": (5, "FloorDiv"),
        "%": (5, "Mod"),
        "**": (7, "Pow"),
    }

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens(text))
        self.at = 0

    def _tokens(self, text: str) -> Iterator[tuple[str, str]]:
        end = len(text.rstrip())
        at = 0
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise refuse(text, f"unexpected character {text[at]!r}")
            yield found.lastgroup, found.group(found.lastgroup)
            at = found.end()
        yield "end", ""

    def _take(self, mark: str) -> bool:
        if self.tokens[self.at] == ("mark", mark):
            self.at += 1
            return True
        return False

    def _need(self, mark: str) -> None:
        if not self._take(mark):
            found = self.tokens[self.at][1] or "the end"
            raise refuse(self.text, f"{mark!r} expected, {found!r} found")

    def whole(self) -> Expr:
        expr = self._expr(0, 0)
        if self.tokens[self.at][0] != "end":
            raise refuse(self.text, f"unexpected {self.tokens[self.at][1]!r}")
        return expr

    def _expr(self, binding: int, depth: int) -> Expr:
        if depth > _MAX_DEPTH:
            raise refuse(self.text, "it is nested too deeply")
        left = self._prefix(depth)
        while True:
            kind, mark = self.tokens[self.at]
            power, name = self._BINARY.get(mark, (-1, "")) if kind == "mark" else (-1, "")
            if power <= binding and not (name == "Pow" and power == binding):
                return left
            self.at += 1
            left = self._binary(name, left, self._expr(power - (name == "Pow"), depth + 1))

    def _binary(self, name: str, left: Expr, right: Expr) -> Expr:
        if name == "-":
            return self._call("Add", (left, self._call("Mul", (-1, right))))
        if name == "/":
            return self._call("Mul", (left, self._call("Pow", (right, -1))))
        return self._call(name, (left, right))

    def _prefix(self, depth: int) -> Expr:
        kind, word = self.tokens[self.at]
        self.at += 1
        if kind == "int":
            return self._int(word)
        if kind == "float":
            return Number("Float", word)
        if kind == "name":
            return self._named(word, depth)
        if kind == "mark" and word in "+-~":
            operand = self._expr(6, depth + 1)
            return operand if word == "+" else self._negated(word, operand)
        if (kind, word) == ("mark", "("):
            inner = self._expr(0, depth + 1)
            if self._take(","):  # A case of a Piecewise, as str() spells it.
                inner = self._call("ExprCondPair", (inner, self._expr(0, depth + 1)))
            self._need(")")
            return inner
        raise refuse(self.text, f"unexpected {word or 'end'!r}")

    def _negated(self, mark: str, operand: Expr) -> Expr:
        if mark == "~":
            return self._call("Not", (operand,))
        return -operand if type(operand) is int else self._call("Mul", (-1, operand))

    def _int(self, word: str) -> int:
        value = int(word) if len(word) < 20 else _MAX_INT + 1
        if value > _MAX_INT:
            raise refuse(self.text, "a number does not fit 64 bits")
        return value

    def _named(self, word: str, depth: int) -> Expr:
        if not self._take("("):
            if word in _CONSTANTS:
                return Number(word.lower())
            return Sym(word)
        if word == "Symbol":
            return self._symbol()
        if word in ("Integer", "Rational", "Float"):
            return self._number(word)
        args = [self._expr(0, depth + 1)]
        while self._take(","):
            args.append(self._expr(0, depth + 1))
        self._need(")")
        return self._call(_ALIASES.get(word, word), tuple(args))

    def _symbol(self) -> Expr:
        name = self._text()
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise refuse(self.text, "a symbol's name is not an identifier")
        assumptions = []
        while self._take(","):
            kind, word = self.tokens[self.at]
            truth = self.tokens[self.at + 2] if self.at + 2 < len(self.tokens) else ("", "")
            if kind != "name" or self.tokens[self.at + 1] != ("mark", "=") or truth[1] not in ("True", "False"):
                raise refuse(self.text, "a symbol's assumptions are not names set to True or False")
            assumptions.append((word, truth[1] == "True"))
            self.at += 3
        self._need(")")
        return Sym(name, tuple(assumptions))

    def _text(self) -> str:
        kind, word = self.tokens[self.at]
        if kind != "text":
            raise refuse(self.text, "a quoted name or number is missing")
        self.at += 1
        return word[1:-1]

    def _number(self, kind: str) -> Expr:
        if kind == "Float":
            text = self._text()
            if not re.fullmatch(r"[-+]?\d*\.?\d+\.?(?:[eE][-+]?\d{1,4})?", text):
                raise refuse(self.text, "a Float's text is not a number")
            if self._take(",") and not (self._tail("precision") or self._tail("dps")):
                raise refuse(self.text, "a Float's precision is not a number")
            self._need(")")
            return Number("Float", text)
        numerator = self._signed()
        if kind == "Integer":
            self._need(")")
            return numerator
        self._need(",")
        denominator = self._signed()
        self._need(")")
        return Number("Rational", f"{numerator}/{denominator}")

    def _tail(self, word: str) -> bool:
        if self.tokens[self.at] != ("name", word) or self.tokens[self.at + 1] != ("mark", "="):
            return False
        if self.tokens[self.at + 2][0] != "int":
            return False
        self.at += 3
        return True

    def _signed(self) -> int:
        sign = -1 if self._take("-") else 1
        kind, word = self.tokens[self.at]
        if kind != "int":
            raise refuse(self.text, "a whole number is missing")
        self.at += 1
        return sign * self._int(word)

    def _call(self, name: str, args: tuple[Expr, ...]) -> Expr:
        if name not in FUNCTIONS:
            raise refuse(self.text, f"{name!r} is not one of the functions that a dimension may use")
        least, most = FUNCTIONS[name]
        if not least <= len(args) <= most:
            raise refuse(self.text, f"{name} does not take {len(args)} arguments")
        if name in ("Pow", "PowByNatural") and not _is_power(args[1]):
            raise refuse(self.text, "a power is too large")
        if name in ("Add", "Mul", "Max", "Min", "And", "Or"):
            args = tuple(
                inner for arg in args for inner in (arg.args if isinstance(arg, Call) and arg.name == name else (arg,))
            )
        return Call(name, args)


def _is_power(exponent: Expr) -> bool:
    """Whether a power of it stays small enough to be worked out by whoever evaluates the expression."""
    return isinstance(exponent, Sym) or (type(exponent) is int and abs(exponent) <= _MAX_POWER)
