"""Values of a live FX graph: metadata of fake tensors, symbolic expressions, constants."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from operator import attrgetter
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


_device_of: Callable[[FakeTensor], torch.device] = attrgetter(
    "_fake_device" if isinstance(vars(FakeTensor).get("fake_device"), property) else "fake_device"
)
"""The device that a fake tensor stands for: where torch keeps it, if it hands it out by a property in Python."""


class LiveMetadata:
    """``Meta`` of what FX records in ``meta['val']``."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[tuple[Any, ...], tuple[Meta]] = {}
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
        device = value.fake_device if type(value) is FakeTensor else value.device
        return self._alike(value, self._sizes(value.shape), device)[0]

    def of_fakes(self, nodes: Iterable[torch.fx.Node]) -> dict[torch.fx.Node, tuple[Meta]]:
        """The metadata of each call among ``nodes`` that gives one fake tensor, as most do.

        In one go, since ``__torch_function__`` can then be off meanwhile: a fake tensor has none, and to look
        for it takes longer than to read what is asked for."""
        known, found = self._known, {}
        with torch._C.DisableTorchFunctionSubclass():
            for node in nodes:
                value = node.meta.get("val")
                if type(value) is FakeTensor and node.op == "call_function":
                    shape = value.shape
                    sizes = self._sizes(shape) if value._has_symbolic_sizes_strides else shape
                    device = _device_of(value)
                    found[node] = known.get((sizes, value.dtype, device, value.layout)) or self._alike(
                        value, tuple(sizes), device
                    )
        return found

    def _sizes(self, shape: torch.Size) -> tuple[int, ...]:
        """The sizes that are numbers, and what ``_numbered`` gives for the others."""
        numbers = self._numbers
        return tuple(
            [size if type(size) is int else numbers.get(id(size.node._expr)) or self._numbered(size) for size in shape]
        )

    def _alike(self, value: torch.Tensor, sizes: tuple[int, ...], device: torch.device) -> tuple[Meta]:
        key = (sizes, value.dtype, device, value.layout)
        found = self._known.get(key)
        if found is None:
            dims = tuple([size if size >= 0 else self._expressions[-1 - size] for size in sizes])
            meta = Meta(dtype_name(value.dtype), dims, device_name(device), layout_name(value.layout), False)
            found = self._known[key] = (meta,)
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
