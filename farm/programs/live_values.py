"""Values of a live FX graph: metadata of fake tensors, symbolic expressions, constants."""

from __future__ import annotations

from functools import lru_cache
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
        self._known: dict[Any, Meta] = {}
        self._dims: dict[Any, Expr] = {}

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
        """The metadata of a tensor. Runs for every node: what has been described is known by what it was."""
        shape: tuple[Any, ...] = value.shape
        for size in shape:
            if type(size) is not int:
                shape = tuple([one if type(one) is int else one.node._expr for one in shape])
                break
        device = value.fake_device if type(value) is FakeTensor else value.device
        key = (value.dtype, shape, device, value.layout)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._described(value)
        return found

    def _described(self, value: torch.Tensor) -> Meta:
        dims = tuple(self.dim(size) for size in value.shape)
        return self.graph.meta(dtype_name(value.dtype), dims, str(value.device), layout_name(value.layout))

    def strides(self, value: torch.Tensor) -> tuple[Meta, ...]:
        """How a tensor lies in memory."""
        dims = tuple(self.dim(size) for size in [*value.stride(), value.storage_offset()])
        return (self.graph.meta("strides", dims, scalar=True),)

    def dim(self, size: Any) -> Expr:
        """A size: a number or an expression."""
        if type(size) is int:
            return size
        if not isinstance(size, torch.SymInt):
            return int(size)
        recorded = size.node._expr
        found = self._dims.get(recorded)
        if found is None:
            expr = size.node.expr
            found = self._dims[recorded] = int(expr) if expr.is_number else expression(expr)
        return found

    def truth(self, value: Any) -> Expr:
        """A boolean, symbolic or not."""
        if isinstance(value, torch.SymBool):
            return expression(value.node.expr)
        return Number("true" if value else "false")

    def real(self, value: Any) -> Expr:
        """A float, symbolic or not."""
        if isinstance(value, torch.SymFloat):
            return expression(value.node.expr)
        return Number("Float", float(value).hex())


@lru_cache(maxsize=4096)
def expression(expr: Any) -> Expr:
    """A SymPy expression in farm's own terms, by way of the text that a saved program holds."""
    return parse(sympy.printing.repr.srepr(expr))


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype)[6:]


def layout_name(layout: torch.layout) -> str:
    """``strided`` for ``torch.strided``."""
    return str(layout)[6:].lstrip("_")
