"""Symbolic numbers whose expression is certain, rather than only claimed.

``x.shape[0] * 4``, ``4 * x.shape[0]`` and the same of another input with that dim are one value, so they are one
node; an assertion that the ranges imply is none. An exporter's word is not taken for either: an expression counts
only when it is what the operands give, down to the dims of the inputs and the values that the program reads
(which are their symbols by definition). Anything else stays an ordinary node.
"""

from __future__ import annotations

from collections.abc import Sequence

from farm.canonical import encode
from farm.graph import Graph, Meta, Node
from farm.graph_dims import same
from farm.graph_symbols import Call, Expr, Number, Sym

_HEAD = encode(["size"])
_OPERATORS = {
    "_operator.add": "Add",
    "_operator.mul": "Mul",
    "_operator.floordiv": "FloorDiv",
    "torch.sym_max": "Max",
    "torch.sym_min": "Min",
    "_operator.eq": "Equality",
    "_operator.ne": "Unequality",
    "_operator.ge": "GreaterThan",
    "_operator.le": "LessThan",
    "_operator.gt": "StrictGreaterThan",
    "_operator.lt": "StrictLessThan",
}


class Sizes:
    """``certain`` maps nodes of ``graph`` to the expression that they are."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.certain: dict[int, Expr] = {}
        self._from_inputs: set[int] = set()
        self._dims: dict[int, tuple[Expr, ...]] = {}

    def add_input(self, node: int, meta: Meta) -> None:
        """``node`` is an argument of the program: what it is said to be, it is."""
        if not meta.scalar:
            self._dims[node] = meta.dims
        elif meta.dtype == "int":
            self.certain[node] = meta.dims[0]
            self._from_inputs.add(node)

    def add_read(self, node: int, metas: tuple[Meta, ...]) -> None:
        """``node`` reads a number from a tensor."""
        if len(metas) == 1 and metas[0].scalar and isinstance(metas[0].dims[0], Sym):
            self.certain[node] = metas[0].dims[0]

    def of_dim(self, node: int, dim: object) -> Expr | None:
        """Size ``dim`` of ``node``, if that is an input."""
        dims = self._dims.get(node, ())
        return dims[dim] if type(dim) is int and -len(dims) <= dim < len(dims) else None

    def of_call(self, target: str, operands: Sequence[int | Expr | None], nodes: Sequence[int]) -> Expr | None:
        """What arithmetic or a comparison gives: ``operands`` are numbers, or None for the next of ``nodes``."""
        pending = iter(nodes)
        found = [self.certain.get(next(pending, -1)) if one is None else one for one in operands]
        known = [one for one in found if one is not None]
        if len(known) != len(found):
            return None
        return _applied(target, known)

    def place(
        self, op: str, expr: Expr | None, nodes: Sequence[int], metas: tuple[Meta, ...], label: str, source: object
    ) -> int | None:
        """Add the node of a size that follows from the inputs; None (and nothing added) for any other."""
        if not self._is_borne_out(expr, metas) or metas[0].dtype != "int":
            return None
        if not all(node in self._from_inputs or node in self._dims for node in nodes):
            return None
        number = self.graph.add(Node(op, _HEAD, (), metas, label, source))
        self.certain[number] = metas[0].dims[0]
        self._from_inputs.add(number)
        return number

    def note(self, node: int, expr: Expr | None, metas: tuple[Meta, ...]) -> None:
        """``node`` computes ``expr``, if that is what is recorded of it."""
        if self._is_borne_out(expr, metas):
            self.certain[node] = metas[0].dims[0]

    @staticmethod
    def _is_borne_out(expr: Expr | None, metas: tuple[Meta, ...]) -> bool:
        return expr is not None and len(metas) == 1 and metas[0].scalar and same(expr, metas[0].dims[0])


def _applied(target: str, operands: Sequence[Expr]) -> Expr | None:
    if target == "_operator.neg" and len(operands) == 1:
        return Call("Mul", (-1, operands[0]))
    if len(operands) != 2 or any(isinstance(one, Number) for one in operands):
        return None
    if target == "_operator.sub":
        return Call("Add", (operands[0], Call("Mul", (-1, operands[1]))))
    name = _OPERATORS.get(target)
    return None if name is None else Call(name, tuple(operands))
