"""Values of a live FX graph: metadata of fake tensors, symbolic expressions, constants."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._sympy.numbers import int_oo

from farm.errors import BadProgram
from farm.graph import Graph, Meta
from farm.graph_symbols import Expr, Number, parse


def bound(value: Any) -> int | None:
    """A range's bound as a whole number; None for an infinite one."""
    return None if value in (sympy.oo, -sympy.oo, int_oo, -int_oo) else int(value)


def plain_constant(value: Any) -> Any:
    """A constant argument or result; ``BadProgram`` for what no saved program could hold."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise BadProgram(
        f"a {type(value).__name__} is passed as a constant", "Export the program with tensors and numbers only."
    )


class LiveMetadata:
    """``Meta`` of what FX records in ``meta['val']``."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[tuple[Any, ...], Meta] = {}
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []
        self._places: dict[Expr, int] = {}
        self._expressions: list[Expr] = []

    def maybe(self, node: torch.fx.Node) -> Meta | None:
        """The metadata of ``node``'s only result; None where nothing is recorded."""
        value = node.meta.get("val")
        return None if value is None else self.of(value)

    def of(self, value: Any) -> Meta:
        """The metadata of one tensor or symbolic number."""
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, bool | torch.SymBool):
            return self.graph.meta("bool", (self.truth(value),), scalar=True)
        if isinstance(value, int | torch.SymInt):
            return self.graph.meta("int", (self.dim(value),), scalar=True)
        if isinstance(value, float | torch.SymFloat):
            return self.graph.meta("float", (self.real(value),), scalar=True)
        raise BadProgram(f"a node returns a {type(value).__name__}", "Export the program with torch.export.")

    def tensor(self, value: torch.Tensor) -> Meta:
        """The metadata of a tensor; one ``Meta`` for all that look alike."""
        numbers = self._numbers
        sizes = []
        for size in value.shape:
            if type(size) is not int:
                size = numbers.get(id(size.node._expr)) or self._numbered(size)
            sizes.append(size)
        device = value.fake_device if type(value) is FakeTensor else value.device
        key = (tuple(sizes), value.dtype, device, value.layout)
        found = self._known.get(key)
        if found is None:
            dims = tuple([size if size >= 0 else self._expressions[-1 - size] for size in sizes])
            found = Meta(dtype_name(value.dtype), dims, device_name(device), layout_name(value.layout), False)
            self._known[key] = found
        return found

    def _numbered(self, size: torch.SymInt) -> int:
        """A number for a symbolic size: itself if it is a number after all, else a negative one, which no size
        can be, for its expression. Kept by SymPy's object (``_kept`` holds it, so that its ``id`` stays its own)."""
        dim, raw = self.dim(size), size.node._expr
        if type(dim) is int:
            return dim
        number = -1 - len(self._expressions)
        found = self._places.setdefault(dim, number)
        if found == number:
            self._expressions.append(dim)
        self._kept.append(raw)
        self._numbers[id(raw)] = found
        return found

    def strides(self, value: torch.Tensor) -> tuple[Meta, ...]:
        """How a tensor lies in memory."""
        dims = tuple(self.dim(size) for size in [*value.stride(), value.storage_offset()])
        return (self.graph.meta("strides", dims, scalar=True),)

    def dim(self, size: Any) -> Expr:
        """A size: a number or an expression."""
        if type(size) is int:
            return size
        if isinstance(size, torch.SymInt):
            expr = size.node.expr
            return int(expr) if expr.is_number else self.expression(expr)
        return int(size)

    def truth(self, value: Any) -> Expr:
        """A boolean, symbolic or not."""
        if isinstance(value, torch.SymBool):
            return self.expression(value.node.expr)
        return Number("true" if value else "false")

    def real(self, value: Any) -> Expr:
        """A float, symbolic or not."""
        if isinstance(value, torch.SymFloat):
            return self.expression(value.node.expr)
        return Number("Float", float(value).hex())

    def expression(self, expr: Any) -> Expr:
        """A SymPy expression in farm's own terms, by way of the text that a saved program holds."""
        return _expression(expr)


@lru_cache(maxsize=4096, typed=True)
def _expression(expr: Any) -> Expr:
    return parse(sympy.printing.repr.srepr(expr))


@cache
def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype)[6:]


@lru_cache(maxsize=256)
def device_name(device: torch.device) -> str:
    """``cuda:0`` for ``torch.device("cuda", 0)``."""
    return str(device)


@cache
def layout_name(layout: torch.layout) -> str:
    """``strided`` for ``torch.strided``."""
    return str(layout)[6:].lstrip("_")
