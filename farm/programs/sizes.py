"""Sizes that follow from the inputs alone: known by their expression, not by the way they were computed.

``x.shape[0] * 4``, ``4 * x.shape[0]`` and the same of another input with that dim are one value, so they are one
node. An exporter's word is not taken for it: a size counts as known only when the expression that is recorded
for it is what its own operands give, down to the dims of the inputs. Anything else stays an ordinary node.
"""

from __future__ import annotations

from collections.abc import Sequence

from farm.canonical import encode
from farm.graph import Graph, Meta, Node
from farm.graph_dims import same
from farm.graph_symbols import Call, Expr

_HEAD = encode(["size"])
_OPERATORS = {
    "_operator.add": "Add",
    "_operator.mul": "Mul",
    "_operator.floordiv": "FloorDiv",
    "torch.sym_max": "Max",
    "torch.sym_min": "Min",
}


class Sizes:
    """``known`` maps nodes of ``graph`` to the size that they are."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[int, Expr] = {}
        self._dims: dict[int, tuple[Expr, ...]] = {}

    def add_input(self, node: int, meta: Meta) -> None:
        """``node`` is an argument of the program: what it is said to be, it is."""
        if not meta.scalar:
            self._dims[node] = meta.dims
        elif meta.dtype == "int":
            self.known[node] = meta.dims[0]

    def of_dim(self, node: int, dim: object) -> Expr | None:
        """Size ``dim`` of ``node``, if that is an input."""
        dims = self._dims.get(node, ())
        return dims[dim] if type(dim) is int and -len(dims) <= dim < len(dims) else None

    @staticmethod
    def of_call(target: str, operands: Sequence[Expr | None]) -> Expr | None:
        """What arithmetic on known sizes gives."""
        if len(operands) != (1 if target == "_operator.neg" else 2):
            return None
        known = [operand for operand in operands if operand is not None]
        if len(known) != len(operands):
            return None
        if target == "_operator.neg":
            return Call("Mul", (-1, known[0]))
        if target == "_operator.sub":
            return Call("Add", (known[0], Call("Mul", (-1, known[1]))))
        name = _OPERATORS.get(target)
        return None if name is None else Call(name, tuple(known))

    def place(self, op: str, expr: Expr | None, metas: tuple[Meta, ...], label: str, source: object) -> int | None:
        """Add the node of a known size; None (and nothing added) where the record does not bear it out."""
        if expr is None or len(metas) != 1 or not metas[0].scalar or metas[0].dtype != "int":
            return None
        if not same(expr, metas[0].dims[0]):
            return None
        number = self.graph.add(Node(op, _HEAD, (), metas, label, source))
        self.known[number] = metas[0].dims[0]
        return number
