"""More pairs that want a wrong hit or a missed one: spellings of one call, unread state, memories that are equal."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .cases import IMAGE, B, Body, Case, V, W, X, agree, differ, pair, shaped

TOKENS = torch.tensor([[0, 1], [2, 3]])

# Dims from the back or from the front

agree("softmax from the back", lambda m, x: x.softmax(-1), lambda m, x: x.softmax(1))
agree("sums from the back", lambda m, x: x.sum((-1, -2)), lambda m, x: x.sum((1, 0)))
agree("cat from the back", lambda m, x: torch.cat([x, x], -2), lambda m, x: torch.cat([x, x], 0))
agree("stack from the back", lambda m, x: torch.stack([x, x], -1), lambda m, x: torch.stack([x, x], 2))
agree("unsqueeze from the back", lambda m, x: x.unsqueeze(-1), lambda m, x: x.unsqueeze(2))
agree("transpose from the back", lambda m, x: x.transpose(-1, -2) * 2, lambda m, x: x.transpose(1, 0) * 2)
agree("flatten from the back", lambda m, x: x.flatten(-3) * 2, lambda m, x: x.flatten(1, 3) * 2, IMAGE)
agree("split from the back", lambda m, x: x.split(2, -1)[1] * 2, lambda m, x: x.split(2, 1)[1] * 2)
agree("of one of two results", lambda m, x: x.max(1)[0].softmax(-1), lambda m, x: x.max(1)[0].softmax(0))
differ("stack or cat from the back", lambda m, x: torch.stack([x, x], -1), lambda m, x: torch.stack([x, x], 1))
differ("unsqueeze one further", lambda m, x: x.unsqueeze(-1), lambda m, x: x.unsqueeze(-2))
differ("index from the back is no dim", lambda m, x: x[-1], lambda m, x: x[0])
differ("shift is no dim", lambda m, x: x.roll(-1, 1), lambda m, x: x.roll(1, 1))

# What is not read, and what a result says anyway

agree("dtype that follows", lambda m, x: torch.full((4,), 2.0) + x, lambda m, x: _full(torch.float32) + x)
agree("dtype of a softmax that follows", lambda m, x: x.softmax(1), lambda m, x: x.softmax(1, dtype=torch.float32))
agree("dtype of a draw", lambda m, x: torch.rand(4) + x, lambda m, x: torch.rand(4, dtype=torch.float32) + x)
differ("dtype that does not follow", lambda m, x: torch.full((4,), 2.0) + x, lambda m, x: _full(torch.float64) + x)
differ("dtype of a sum", lambda m, x: x.half().sum(1), lambda m, x: x.half().sum(1, dtype=torch.float32).half())
agree("padding of an embedding", lambda m, i: F.embedding(i, m.w), lambda m, i: F.embedding(i, m.w, 1), TOKENS, w=W)
agree("sparse gradients", lambda m, i: F.embedding(i, m.w), lambda m, i: F.embedding(i, m.w, sparse=True), TOKENS, w=W)
differ(
    "padding of a bag",
    lambda m, i: F.embedding_bag(i, m.w, padding_idx=0, mode="sum"),
    lambda m, i: F.embedding_bag(i, m.w, padding_idx=1, mode="sum"),
    TOKENS,
    w=W,
)


def _full(dtype: torch.dtype) -> torch.Tensor:
    return torch.full((4,), 2.0, dtype=dtype)


def _norm(train: bool, **more: Any) -> Callable[[], Case]:
    return lambda: Case(nn.BatchNorm2d(3, **more), (IMAGE,), train=train)


pair("momentum at inference", True, _norm(False), _norm(False, momentum=0.01))
pair("momentum in training", False, _norm(True), _norm(True, momentum=0.01))


def _lstm(dropout: float, train: bool = False) -> Callable[[], Case]:
    def build() -> Case:
        torch.manual_seed(0)
        return Case(nn.LSTM(4, 4, num_layers=2, dropout=dropout), (X[None],), train=train)

    return build


pair("dropout between layers, at inference", True, _lstm(0.0), _lstm(0.5))
pair("dropout between layers, in training", False, _lstm(0.25, True), _lstm(0.5, True))

# State that no output reads


class _Unread(nn.Module):
    """Two buffers, registered in this or that order, and neither returned."""

    def __init__(self, order: str, first: float = 0.0) -> None:
        super().__init__()
        for name in order:
            self.register_buffer(name, torch.full((4,), first if name == "a" else 1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.a.add_(x.sum(0))
        self.b.mul_(2)
        return x * 2


for _dialect, _decompose in (("", False), (", functional", True)):
    pair(
        f"order of declaration of unread state{_dialect}",
        True,
        lambda d=_decompose: Case(_Unread("ab"), (X,), decompose=d),
        lambda d=_decompose: Case(_Unread("ba"), (X,), decompose=d),
    )
    pair(
        f"values of unread state{_dialect}",
        False,
        lambda d=_decompose: Case(_Unread("ab"), (X,), decompose=d),
        lambda d=_decompose: Case(_Unread("ab", 5.0), (X,), decompose=d),
    )


def _checked(first: bool) -> Body:
    def body(m: nn.Module, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        for value in (a, b) if first else (b, a):
            torch._check(value.item() > 2)
        return x * 2

    return body


agree("order of checks of unread values", _checked(True), _checked(False), X, torch.tensor(4), torch.tensor(5))

# Equal memories


def _two_clones(m: nn.Module, x: torch.Tensor) -> Any:
    a, b = x.clone(), x.clone()
    a.add_(1)
    b.add_(1)
    return a + b


def _one_clone(m: nn.Module, x: torch.Tensor) -> Any:
    a = x.clone()
    a.add_(1)
    a.add_(1)
    return a + a


def _written_clone(first: bool) -> Body:
    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a, b = x.clone(), x.clone()
        (a if first else b).add_(1)
        return a - 2 * b

    return body


def _empties(two: bool) -> Body:
    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a = torch.empty(4)
        b = torch.empty(4) if two else a
        a.fill_(1)
        b.fill_(2)
        return a + b + x

    return body


differ("two clones or one", _two_clones, _one_clone)
differ("which of equal clones is written", _written_clone(True), _written_clone(False))
differ("two empty ones or one", _empties(True), _empties(False))
differ(
    "writes that add up or not",
    lambda m, x: x.clone().index_put_((TOKENS[0] * 0,), x[:2], accumulate=True),
    lambda m, x: x.clone().index_put_((TOKENS[0] * 0,), x[:2], accumulate=False),
)

# Numbers and trees

differ("sign of an imaginary part", lambda m, x: _real(x * (1 + 2j)), lambda m, x: _real(x * (1 - 2j)))
differ("order of an infinite norm", lambda m, x: _norm_of(x, math.inf), lambda m, x: _norm_of(x, -math.inf))
differ("ordered dict or dict", lambda m, x: OrderedDict(a=x.sin()), lambda m, x: {"a": x.sin()})
differ("deque or list", lambda m, x: deque([x.sin()]), lambda m, x: [x.sin()])
differ("number or text as key", lambda m, x: {1: x.sin()}, lambda m, x: {"1": x.sin()})
differ("order of a dict's keys", lambda m, x: {"a": x.sin(), "b": x.cos()}, lambda m, x: {"b": x.sin(), "a": x.cos()})
differ("a parameter returned", lambda m, x: (x + m.a * m.b, m.a), lambda m, x: (x + m.a * m.b, m.b), X, a=V, b=V + 1)
differ("kind of float8", lambda m, x: _through(x, torch.float8_e4m3fn), lambda m, x: _through(x, torch.float8_e5m2))
differ("negative zero as a weight", lambda m, x: x * m.w, lambda m, x: x * m.v, X, w=V * 0, v=V * -0.0)


def _real(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(x)


def _norm_of(x: torch.Tensor, order: float) -> torch.Tensor:
    return torch.linalg.vector_norm(x, order)


def _through(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.to(dtype).float()


# Sizes, branches

for _name, _first, _second in (
    ("product of a size, in steps", lambda s: (s * 2) * 3, lambda s: 6 * s),
    ("a size's double and more", lambda s: 2 * (s + 1), lambda s: 2 * s + 2),
    ("a size that cancels", lambda s: s + 4 - s, lambda s: 4 + 0 * s),
):
    pair(
        _name,
        True,
        shaped([{0: B}], X, body=lambda m, x, size=_first: torch.zeros(size(x.shape[0])) + x.sum()),
        shaped([{0: B}], X, body=lambda m, x, size=_second: torch.zeros(size(x.shape[0])) + x.sum()),
    )


def _captured(first: str, second: str) -> Body:
    return lambda m, x: torch.cond(x.sum() > 0, lambda v: v + getattr(m, first), lambda v: v + getattr(m, second), (x,))


differ("parameters of branches swapped", _captured("a", "b"), _captured("b", "a"), X, a=V, b=V + 1)
agree("parameters of branches renamed", _captured("a", "b"), _captured("c", "d"), X, a=V, b=V + 1, c=V, d=V + 1)
