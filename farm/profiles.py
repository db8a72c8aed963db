"""Optimisation profiles: the shapes that an engine is built for. Pure.

Given in trtexec's grammar (``--min-shapes x:1x3x224x224,y:1x77``), or derived from the program's ranges by a
fixed rule that never looks at example values (DESIGN, Profiles): for each symbol, min is the lower bound, max
the upper bound, opt the middle rounded down; derived dims follow from their expression. A profile is valid when
some value of each symbol gives its min, its opt and its max, within the symbol's range; TensorRT itself checks
only opt strictly (reference/tensorrt.md).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from farm.errors import BadInput, BadProgram
from farm.graph_dims import show, symbols, value
from farm.graph_symbols import Expr, Sym, parse

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
KINDS = ("min", "opt", "max")


class InputSpec(Protocol):
    """What a profile needs of an input (``farm.programs.TensorSpec``)."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int | str, ...]: ...


class SymbolSpec(Protocol):
    """What a profile needs of a symbol (``farm.graph.Symbol``)."""

    @property
    def minimum(self) -> int | None: ...
    @property
    def maximum(self) -> int | None: ...


@dataclass(frozen=True)
class Profile:
    """Shapes of every dynamic input, by name; ``positions`` are the inputs' places in the program."""

    min: Shapes
    opt: Shapes
    max: Shapes
    positions: Mapping[str, int]

    def canonical(self) -> dict[str, Any]:
        """The profile for a key: by input position, free of names."""
        return {
            str(self.positions[name]): {kind: list(getattr(self, kind)[name]) for kind in KINDS}
            for name in sorted(self.positions, key=lambda name: self.positions[name])
        }


def parse_shapes(text: str) -> dict[str, Shape]:
    """``x:1x3x224x224,y:1x77`` as shapes by input name; ``x:`` or ``x:scalar`` is a scalar.

    As trtexec reads it: the last colon ends the name, so names may hold colons; a name that holds a comma is
    quoted, ``'a,b':1x3`` or ``"a,b":1x3``. ``BadInput`` for anything else.
    """
    found: dict[str, Shape] = {}
    for entry in _entries(text):
        name, colon, sizes = entry.rpartition(":")
        name = name.strip()
        if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"":
            name = name[1:-1]
        if not colon or not name:
            raise BadInput(f"shapes: {entry!r} is not NAME:SHAPE", "Write shapes as x:1x3x224x224,y:1x77.")
        if name in found:
            raise BadInput(f"shapes: {name} is given twice", "Give each input once.")
        found[name] = _sizes(name, sizes.strip())
    return found


def _entries(text: str) -> list[str]:
    """``text`` at its commas, those within quotes left alone."""
    entries, quote = [""], ""
    for mark in text:
        if quote:
            quote = "" if mark == quote else quote
        elif mark in "'\"" and not entries[-1].strip():
            quote = mark
        elif mark == ",":
            entries.append("")
            continue
        entries[-1] += mark
    if quote:
        raise BadInput(f"shapes: the quote {quote} in {text!r} is not closed", "Close it.")
    return [entry.strip() for entry in entries]


def _sizes(name: str, text: str) -> Shape:
    if text in ("", "scalar"):
        return ()
    parts = text.split("x")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise BadInput(f"shapes: {text!r} is not a shape for {name}", "Write sizes joined by x: 1x3x224x224.")
    return tuple(int(part) for part in parts)


def resolve(
    inputs: Sequence[InputSpec],
    symbols: Mapping[str, SymbolSpec],
    given: Sequence[Mapping[str, Mapping[str, Sequence[int]]]] = (),
) -> tuple[Profile, ...]:
    """The profiles of a program: those ``given`` (``{"min": shapes, "opt": shapes, "max": shapes}`` each), else
    the one that its ranges give. A program without dynamic inputs has none.

    Of a profile's three, missing ones follow as in trtexec: without opt, opt is max; beside opt, a missing min
    or max is opt. With max alone min is the range's lower bound, and with min alone max is its upper bound if
    there is one (trtexec, which knows no ranges, takes the one that was given). Inputs that share a symbol need
    be named once; symbols that nothing decides follow the ranges. ``BadInput`` names the input and the dim.
    """
    program = _Program(inputs, symbols)
    for one in given:
        program.check_names(one)
    if not program.dynamic:
        return ()
    return tuple(program.profile(one) for one in given) or (program.profile({}),)


class _Program:
    def __init__(self, inputs: Sequence[InputSpec], symbols: Mapping[str, SymbolSpec]) -> None:
        self.inputs = {one.name: one for one in inputs}
        self.symbols = symbols
        self.positions = {one.name: position for position, one in enumerate(inputs)}
        self.dims: dict[str, tuple[Expr, ...]] = {
            one.name: tuple(dim if isinstance(dim, int) else parse(dim) for dim in one.shape) for one in inputs
        }
        self.dynamic = [name for name, dims in self.dims.items() if any(type(dim) is not int for dim in dims)]

    def check_names(self, given: Mapping[str, Shapes | Mapping[str, Sequence[int]]]) -> None:
        """``BadInput`` for a name that is no input, or a fixed input given another shape."""
        for kind, shapes in given.items():
            if kind not in KINDS:
                raise BadInput(f"a profile has min, opt and max, not {kind}", "Correct the profile.")
            for name, shape in shapes.items():
                if name not in self.inputs:
                    raise _unknown(name, list(self.inputs))
                if name not in self.dynamic and tuple(shape) != self.dims[name]:
                    raise BadInput(
                        f"--{kind}-shapes {name}:{_shown(shape)}: the input has the fixed shape"
                        f" {_shown(self.inputs[name].shape)}",
                        "Export the program with dynamic_shapes, or leave the input out.",
                    )

    def profile(self, given: Mapping[str, Mapping[str, Sequence[int]]]) -> Profile:
        values = {kind: self._values(kind, given.get(kind) or {}) for kind in KINDS}
        self._complete(values)
        self._check_order(values)
        shapes = {kind: self._shapes(values[kind]) for kind in KINDS}
        positions = {name: self.positions[name] for name in self.dynamic}
        return Profile(shapes["min"], shapes["opt"], shapes["max"], positions)

    def _values(self, kind: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """The symbols' values for which the given shapes come out; ``BadInput`` if there are none."""
        values: dict[str, int] = {}
        pending: list[tuple[str, int, Expr, int]] = []
        for name, shape in shapes.items():
            dims = self.dims[name]
            if len(shape) != len(dims):
                raise BadInput(
                    f"--{kind}-shapes {name}:{_shown(shape)} has {len(shape)} dims, the input has {len(dims)}"
                    f" ({_shown(self.inputs[name].shape)})",
                    "Give every dim of the input.",
                )
            pending += [(name, index, dim, size) for index, (dim, size) in enumerate(zip(dims, shape, strict=True))]
        for name, index, dim, size in sorted(pending, key=lambda one: not isinstance(one[2], Sym)):
            solved = _solved(dim, size, values)
            if solved is not None:
                values.setdefault(*solved)
            self._check_dim(kind, name, index, dim, size, values)
        return values

    def _check_dim(self, kind: str, name: str, index: int, dim: Expr, size: int, values: Mapping[str, int]) -> None:
        what = f"--{kind}-shapes {name}: dim {index} is {size}"
        try:
            expected = value(dim, values)
        except BadProgram:
            raise BadInput(f"{what}, which {show(dim)} cannot be", "Give a size that the program takes.") from None
        if expected != size:
            raise BadInput(
                f"{what}, but the program needs {show(dim)} = {expected}"
                + (f" there ({_known(values)})" if values else ""),
                "Give shapes that agree with each other and with the program.",
            )
        for symbol, size_of in values.items():
            self._check_range(what, symbol, size_of)

    def _check_range(self, what: str, symbol: str, size: int) -> None:
        spec = self.symbols[symbol]
        low, high = _low(spec), spec.maximum
        if size < low or (high is not None and size > high):
            raise BadInput(
                f"{what}, outside the program's range {low} to {'∞' if high is None else high}",
                "Stay within the range, or export the program with a wider one.",
            )

    def _complete(self, values: Mapping[str, dict[str, int]]) -> None:
        """Fill in what no given shape decides, symbol by symbol (``resolve`` has the rule)."""
        needed = [symbol for name in self.dynamic for dim in self.dims[name] for symbol in symbols(dim)]
        for symbol in dict.fromkeys(needed):
            low, mid, high = (values[kind].get(symbol) for kind in KINDS)
            least, most = _low(self.symbols[symbol]), self.symbols[symbol].maximum
            if low is None and mid is None and high is None:
                if most is None:
                    raise self._unbounded(symbol)
                low, mid, high = least, (least + most) // 2, most
            if mid is None:
                low = least if low is None else low
                high = high if high is not None else low if most is None else most
                mid = high
            values["min"][symbol] = mid if low is None else low
            values["opt"][symbol] = mid
            values["max"][symbol] = mid if high is None else high

    def _unbounded(self, symbol: str) -> BadInput:
        name, index = next(
            (name, index)
            for name in self.dynamic
            for index, dim in enumerate(self.dims[name])
            if symbol in symbols(dim)
        )
        sizes = ["…" if type(dim) is not int else str(dim) for dim in self.dims[name][:8]]
        return BadInput(
            f"input {name}: dim {index} has no upper bound, so an engine needs a maximum",
            f"Give --max-shapes {name}:{'x'.join(sizes)} (and --min-shapes, --opt-shapes), or export with"
            " Dim(..., max=...).",
        )

    def _check_order(self, values: Mapping[str, Mapping[str, int]]) -> None:
        """min ≤ opt ≤ max for every dim of every dynamic input."""
        for name in self.dynamic:
            for index, dim in enumerate(self.dims[name]):
                low, mid, high = (value(dim, values[kind]) for kind in KINDS)
                if not low <= mid <= high:
                    raise BadInput(
                        f"input {name}: dim {index} has min {low}, opt {mid}, max {high}, out of order",
                        "Give shapes with min ≤ opt ≤ max.",
                    )

    def _shapes(self, values: Mapping[str, int]) -> dict[str, Shape]:
        return {name: tuple(value(dim, values) for dim in self.dims[name]) for name in self.dynamic}


def _solved(dim: Expr, size: int, values: Mapping[str, int]) -> tuple[str, int] | None:
    """The value of the one symbol in ``dim`` that makes it ``size``, for ``s``, ``a*s`` and ``a*s + b``."""
    unknown = {symbol for symbol in symbols(dim) if symbol not in values}
    if len(unknown) != 1:
        return None
    (symbol,) = unknown
    try:
        at_zero, at_one = (value(dim, {**values, symbol: guess}) for guess in (0, 1))
    except BadProgram:
        return None
    slope = at_one - at_zero
    if slope == 0 or (size - at_zero) % slope:
        return None
    return symbol, (size - at_zero) // slope


def _low(spec: SymbolSpec) -> int:
    """A symbol's lower bound, 1 where the program names none; a size is never negative."""
    return 1 if spec.minimum is None else max(0, spec.minimum)


def _known(values: Mapping[str, int]) -> str:
    return ", ".join(f"{symbol} = {size}" for symbol, size in values.items())


def _shown(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _unknown(name: str, known: list[str]) -> BadInput:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]}? " if close else ""
    return BadInput(f"the program has no input {name}", f"{hint}Its inputs are {', '.join(known) or 'none'}.")
