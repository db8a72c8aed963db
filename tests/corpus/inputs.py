"""Pairs about inputs: dtypes, shapes, symbolic dims, names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from .cases import B, Body, C, Case, Fn, W, X, Y, agree, differ, pair, shaped

# Inputs: dtypes, shapes, symbolic dims


pair("dtype", False, lambda: Case(Fn(lambda m, x: x * 2), (X,)), lambda: Case(Fn(lambda m, x: x * 2), (X.half(),)))
pair("shape", False, lambda: Case(Fn(lambda m, x: x * 2), (X,)), lambda: Case(Fn(lambda m, x: x * 2), (X[:2],)))
pair(
    "values of the example",
    True,
    lambda: Case(Fn(lambda m, x: x * 2), (X,)),
    lambda: Case(Fn(lambda m, x: x * 2), (Y,)),
)
pair("static or dynamic", False, shaped([None], X), shaped([{0: B}], X))
pair("example batch size", True, shaped([{0: B}], X), shaped([{0: B}], torch.ones(7, 4)), runs=False)
pair("name of a dim", True, shaped([{0: B}], X), shaped([{0: Dim("batch", min=2, max=16)}], X))
pair("upper bound", False, shaped([{0: B}], X), shaped([{0: Dim("b", min=2, max=17)}], X))
pair("lower bound", False, shaped([{0: B}], X), shaped([{0: Dim("b", min=3, max=16)}], X))
pair("no upper bound", False, shaped([{0: B}], X), shaped([{0: Dim("b", min=2)}], X))
pair("which dim", False, shaped([{0: B}], W), shaped([{1: B}], W))


def _two(m: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.sin(), y.cos()


pair("one dim or two", False, shaped([{0: B}, {0: B}], X, Y, body=_two), shaped([{0: B}, {0: C}], X, Y, body=_two))
pair(
    "dims named the other way",
    True,
    shaped([{0: B}, {0: C}], X, Y, body=_two),
    shaped([{0: C}, {0: B}], X, Y, body=_two),
)
pair(
    "derived dim",
    False,
    shaped([{0: B}, {0: B}], X, Y, body=_two),
    shaped([{0: B}, {0: 2 * B}], X, torch.ones(6, 4), body=_two),
)
pair(
    "coefficient of a derived dim",
    False,
    shaped([{0: B}, {0: 2 * B}], X, torch.ones(6, 4), body=_two),
    shaped([{0: B}, {0: 3 * B}], X, torch.ones(9, 4), body=_two),
)
pair(
    "offset of a derived dim",
    False,
    shaped([{0: B}, {0: B + 1}], X, torch.ones(4, 4), body=_two),
    shaped([{0: B}, {0: B + 2}], X, torch.ones(5, 4), body=_two),
)
pair(
    "derived dim, other names",
    True,
    shaped([{0: B}, {0: 2 * B}], X, torch.ones(6, 4), body=_two),
    shaped([{0: C}, {0: 2 * C}], torch.ones(5, 4), torch.ones(10, 4), body=_two),
    runs=False,
)
pair(
    "sizes as values",
    False,
    shaped([{0: B}], X, body=lambda m, x: x * x.shape[0]),
    shaped([{0: B}], X, body=lambda m, x: x * (x.shape[0] + 1)),
)
pair(
    "order of a size's product",
    True,
    shaped([{0: B}], X, body=lambda m, x: x.reshape(x.shape[0] * 4)),
    shaped([{0: B}], X, body=lambda m, x: x.reshape(4 * x.shape[0])),
)
pair(
    "flattened or not by -1",
    False,
    shaped([{0: B}], X, body=lambda m, x: x.reshape(x.shape[0] * 2, 2)),
    shaped([{0: B}], X, body=lambda m, x: x.reshape(x.shape[0], 2, 2)),
)
pair(
    "int argument",
    False,
    lambda: Case(Fn(lambda m, x, n: x * n), (X, 2)),
    lambda: Case(Fn(lambda m, x, n: x * n), (X, 3)),
)


class _Scaled(nn.Module):
    def forward(self, x: torch.Tensor, *, scale: float = 2.0, flip: bool = False) -> torch.Tensor:
        return x * scale if not flip else -x * scale


pair(
    "keyword constant",
    False,
    lambda: Case(_Scaled(), (X,), {"scale": 2.0}),
    lambda: Case(_Scaled(), (X,), {"scale": 3.0}),
)


class _Named(nn.Module):
    def forward(self, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        return alpha - beta


class _NamedOtherwise(nn.Module):
    def forward(self, zeta: torch.Tensor, eta: torch.Tensor) -> torch.Tensor:
        return zeta - eta


class _NamedBackwards(nn.Module):
    def forward(self, beta: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        return alpha - beta


pair("names of inputs", True, lambda: Case(_Named(), (X, Y)), lambda: Case(_NamedOtherwise(), (X, Y)))
pair("names that hide a swap", False, lambda: Case(_Named(), (X, Y)), lambda: Case(_NamedBackwards(), (X, Y)))
pair(
    "names of dynamic inputs",
    True,
    lambda: Case(_Named(), (X, Y), dynamic=({0: B}, {0: B})),
    lambda: Case(_NamedOtherwise(), (X, Y), dynamic=({0: C}, {0: C})),
)
pair(
    "positional or keyword",
    True,
    lambda: Case(_Named(), (X, Y)),
    lambda: Case(_Named(), (), {"alpha": X, "beta": Y}),
    runs=False,
)

# Data-dependent sizes


def _items(least: int, most: int, add: int = 0) -> Body:
    def body(m: nn.Module, n: torch.Tensor) -> torch.Tensor:
        size = n.item()
        torch._check(size >= least)
        torch._check(size <= most)
        return torch.zeros(size + add)

    return body


differ("asserted range", _items(0, 8), _items(0, 9), torch.tensor(4))
agree(
    "asserted twice", _items(0, 8), lambda m, n: (torch._check(n.item() <= 8), _items(0, 8)(m, n))[1], torch.tensor(4)
)
differ("size from a value", _items(0, 8), _items(0, 8, add=1), torch.tensor(4))
differ(
    "which value is a size",
    lambda m, a, b: torch.zeros(_sized(a)),
    lambda m, a, b: torch.zeros(_sized(b)),
    torch.tensor(3),
    torch.tensor(5),
)


def _sized(value: torch.Tensor) -> Any:
    size = value.item()
    torch._check(size >= 0)
    torch._check(size <= 8)
    return size
