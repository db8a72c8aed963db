"""What a program says about itself: inputs, outputs, mutations, nodes. Plain values, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

Dim = int | str
"""A fixed size, or an expression over canonical symbols such as ``2*s0 + 1``."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output: a tensor, or a symbolic number (``scalar``; its shape is then empty).

    ``position`` counts all of the program's arguments (or results), those that were fixed at export included;
    those have no spec, since an engine has no binding for them.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    position: int
    scalar: bool = False


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One live node for people: ``source`` is ``file:line``, or empty where the program does not say."""

    digest: str
    op: str
    name: str
    description: str
    source: str
