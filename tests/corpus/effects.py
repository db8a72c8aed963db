"""Pairs about effects, subgraphs, custom operators, and what does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .cases import IMAGE, Body, Case, Fn, W, X, agree, differ, pair

# Inference: what does nothing

agree("dropout at inference", lambda m, x: F.dropout(x, 0.1, training=False) * 2, lambda m, x: x * 2)
agree(
    "rate of dropout at inference",
    lambda m, x: F.dropout(x, 0.1, training=False) * 2,
    lambda m, x: F.dropout(x, 0.5, training=False) * 2,
)
agree("detach", lambda m, x: x.detach() * 2, lambda m, x: x * 2)


def _no_grad(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x.sin()
    return y * 2


agree("no_grad", _no_grad, lambda m, x: x.sin() * 2)


def _autocast(enabled: bool, dtype: torch.dtype = torch.bfloat16) -> Body:
    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            y = x @ m.w
        return y.float() * 2

    return body


agree("autocast switched off", _autocast(False), lambda m, x: (x @ m.w).float() * 2, X, w=W)
differ("autocast on or off", _autocast(False), _autocast(True), X, w=W)
differ("autocast dtype", _autocast(True), _autocast(True, torch.float16), X, w=W)

# Effects

differ(
    "two draws or one",
    lambda m, x: torch.rand(4) + torch.rand(4) + x,
    lambda m, x: (lambda r: r + r + x)(torch.rand(4)),
)
differ(
    "draws in the other order",
    lambda m, x: (torch.rand(4) + x, torch.randn(4) + x),
    lambda m, x: (lambda n, u: (u + x, n + x))(torch.randn(4), torch.rand(4)),
)
differ(
    "dropout in training", lambda m, x: F.dropout(x, 0.5, training=True), lambda m, x: F.dropout(x, 0.5, training=False)
)
differ(
    "two masks or one",
    lambda m, x: F.dropout(x, 0.5, True) + F.dropout(x, 0.5, True),
    lambda m, x: (lambda d: d + d)(F.dropout(x, 0.5, True)),
)


def _write_after(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    z = y * 2
    y.add_(1)
    return z, y


def _write_before(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    y.add_(1)
    z = y * 2
    return z, y


def _write_through_view(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    y[0].add_(1)
    return y * 2


def _write_elsewhere(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    y[1].add_(1)
    return y * 2


def _write_to_copy(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    y[0].clone().add_(1)
    return y * 2


differ("read before or after a write", _write_after, _write_before)
differ("write through a view", _write_through_view, _write_elsewhere)
differ("write to a view or a copy", _write_through_view, _write_to_copy)
differ("written input or not", lambda m, x: x.add_(1), lambda m, x: x + 1, X.clone())
differ("two writes in order", lambda m, x: x.clone().add_(1).mul_(2), lambda m, x: x.clone().mul_(2).add_(1))


class _Counter(nn.Module):
    def __init__(self, step: int = 1, writes: bool = True) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(4))
        self.step, self.writes = step, writes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.writes:
            self.count.add_(self.step)
        return x + self.count


pair("mutated buffer", False, lambda: Case(_Counter(), (X,)), lambda: Case(_Counter(writes=False), (X,)))
pair("how a buffer is mutated", False, lambda: Case(_Counter(), (X,)), lambda: Case(_Counter(2), (X,)))
pair(
    "mutated buffer, functional",
    False,
    lambda: Case(_Counter(), (X,), decompose=True),
    lambda: Case(_Counter(2), (X,), decompose=True),
)
pair(
    "batch norm in training",
    False,
    lambda: Case(nn.BatchNorm2d(3), (IMAGE,), train=True),
    lambda: Case(nn.BatchNorm2d(3), (IMAGE,)),
)

# Control flow


def _cond(when_true: Body, when_false: Body) -> Body:
    return lambda m, x: torch.cond(x.sum() > 0, lambda v: when_true(v), lambda v: when_false(v), (x,))


differ("branches swapped", _cond(torch.sin, torch.cos), _cond(torch.cos, torch.sin))
differ("another branch", _cond(torch.sin, torch.cos), _cond(torch.sin, torch.tan))
agree(
    "names in branches",
    _cond(lambda v: v.sin() + 1, torch.cos),
    _cond(lambda value: value.sin() + 1, lambda other: other.cos()),
)
agree(
    "dead code in a branch",
    _cond(lambda v: (v.exp(), v.sin() + 1)[1], torch.cos),
    _cond(lambda v: v.sin() + 1, torch.cos),
)
differ("condition", _cond(torch.sin, torch.cos), lambda m, x: torch.cond(x.sum() < 0, torch.sin, torch.cos, (x,)))


def _loop(limit: int) -> Body:
    from torch._higher_order_ops.while_loop import while_loop

    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        start = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda i, v: i < limit, lambda i, v: (i + 1, v * 2), (start, x))[1]

    return body


differ("times a loop runs", _loop(3), _loop(4))

# Custom operators


@torch.library.custom_op("farmtests::twice", mutates_args=())
def _twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@_twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def _custom(digit: str, body: Body = lambda m, x: torch.ops.farmtests.twice(x) + 1) -> Callable[[], Case]:
    return lambda: Case(Fn(body), (X,), custom_ops={"farmtests::twice": "sha256:" + digit * 64})


pair("declared custom operator", True, _custom("a"), _custom("a"))
pair("another implementation of it", False, _custom("a"), _custom("b"))
pair(
    "custom operator, computed twice",
    False,
    _custom("a", lambda m, x: torch.ops.farmtests.twice(x) + torch.ops.farmtests.twice(x)),
    _custom("a", lambda m, x: (lambda t: t + t)(torch.ops.farmtests.twice(x))),
)

# Exact dialects

pair(
    "decomposed or not",
    False,
    lambda: Case(nn.LayerNorm(4), (X,)),
    lambda: Case(nn.LayerNorm(4), (X,), decompose=True),
)
differ("strided view", lambda m, x: x.as_strided((2, 2), (1, 2)), lambda m, x: x.as_strided((2, 2), (2, 1)))
pair(
    "strides that an operator reads",
    False,
    lambda: Case(Fn(lambda m, x: x.as_strided((2, 2), (1, 2))), (W,)),
    lambda: Case(Fn(lambda m, x: x.as_strided((2, 2), (1, 2))), (W.T,)),
)
pair(
    "strides that no operator reads",
    True,
    lambda: Case(Fn(lambda m, x: x * 2), (W,)),
    lambda: Case(Fn(lambda m, x: x * 2), (W.T,)),
)
