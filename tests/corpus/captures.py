"""Pairs about what branches and loops take from around them: in any order, more than they need, or made inside."""

from __future__ import annotations

from typing import Any

import torch

from .cases import B, Body, Case, Fn, V, W, X, Y, agree, differ, pair, shaped


def _cond(*operands: str, swapped: bool = False) -> Body:
    """``x + 2 a`` or ``x - a``; operands in the order of ``operands``, parameters as well unless they are swapped."""

    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        given = {"x": x, "a": m.a, "unused": m.b}

        def branch(factor: int) -> Any:
            def taken(*values: torch.Tensor) -> torch.Tensor:
                named = dict(zip(reversed(operands) if swapped else operands, values, strict=True))
                return named["x"] + factor * named["a"]

            return taken

        return torch.cond(x.sum() > 0, branch(2), branch(-1), tuple(given[name] for name in operands))

    return body


HELD = {"a": W[:3], "b": W[1:]}
agree("order of a branch's operands", _cond("x", "a"), _cond("a", "x"), X, **HELD)
agree("an operand that no branch reads", _cond("x", "a"), _cond("x", "unused", "a"), X, **HELD)
differ("operands swapped, parameters not", _cond("x", "a"), _cond("x", "a", swapped=True), X, **HELD)
agree(
    "made outside of a branch",
    lambda m, x: torch.cond(x.sum() > 0, lambda v: v.exp().sin(), lambda v: v.cos(), (x,)),
    lambda m, x: torch.cond(x.sum() > 0, lambda e, v: e.sin(), lambda e, v: v.cos(), (x.exp(), x)),
)
differ(
    "which of two values a branch takes",
    lambda m, x: torch.cond(x.sum() > 0, lambda v, w: v.sin(), lambda v, w: w.cos(), (x.exp(), x.tan())),
    lambda m, x: torch.cond(x.sum() > 0, lambda v, w: w.sin(), lambda v, w: v.cos(), (x.exp(), x.tan())),
)
differ(
    "which branch takes it",
    lambda m, x: torch.cond(x.sum() > 0, lambda v: v + m.a, lambda v: v - m.b, (x,)),
    lambda m, x: torch.cond(x.sum() > 0, lambda v: v + m.b, lambda v: v - m.a, (x,)),
    X,
    **HELD,
)


def _nested(order: bool) -> Body:
    def inner(v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        first = (lambda v, w: v - w) if order else (lambda w, v: v - w)
        return torch.cond(v.mean() > 1, first, lambda *both: both[0] * both[1], (v, w) if order else (w, v))

    return lambda m, x: torch.cond(x.sum() > 0, inner, lambda v, w: v + w, (x, m.a))


differ("order in a product within a branch", _nested(True), _nested(False), X, **HELD)


def _written(before: bool, hands_on: bool = False) -> Body:
    """A copy that is written before or after branches that read it."""

    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        if before:
            y.add_(1)
        chosen = torch.cond(x.sum() > 0, lambda v: v.sin(), lambda v: v.cos(), (y,))
        if not before:
            y.add_(1)
        return chosen + (y if hands_on else 0)

    return body


differ("written before branches or after", _written(True), _written(False))
differ("written before branches or after, and returned", _written(True, True), _written(False, True))


def _drawn(first: bool) -> Body:
    noisy, plain = (lambda v: v + torch.rand(4)), (lambda v: v * 2)
    return lambda m, x: torch.cond(x.sum() > 0, noisy if first else plain, plain if first else noisy, (x,))


differ("which branch draws", _drawn(True), _drawn(False))
differ(
    "drawn outside or inside",
    _drawn(True),
    lambda m, x: torch.cond(x.sum() > 0, lambda v, r: v + r, lambda v, r: v * 2, (x, torch.rand(4))),
)


def _loop(step: str, swap: bool = False, reach: str = "a") -> Body:
    from torch._higher_order_ops.while_loop import while_loop

    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        def advance(i: torch.Tensor, v: torch.Tensor) -> Any:
            if swap:
                return i + 1, torch.sub(other=getattr(m, step), input=v) * getattr(m, reach)
            return i + 1, (v - getattr(m, step)) * getattr(m, reach)

        return while_loop(lambda i, v: i < 3, advance, (torch.zeros((), dtype=torch.int64), x))[1]

    return body


WEIGHTS = {"a": V, "b": V + 1, "c": V + 1, "d": V}
agree("names of what a loop takes", _loop("a", reach="b"), _loop("d", reach="c"), X, **WEIGHTS)
agree("what a loop takes, by keyword", _loop("b", reach="a"), _loop("b", True, "a"), X, **WEIGHTS)
differ("what a loop takes, swapped", _loop("a", reach="b"), _loop("b", reach="a"), X, **WEIGHTS)
pair(
    "a size that a branch takes",
    False,
    shaped(
        [{0: B}, None], X, Y, body=lambda m, x, y: torch.cond(y.sum() > 0, lambda v: v * v.shape[0], torch.sin, (x,))
    ),
    shaped([{0: B}, None], X, Y, body=lambda m, x, y: torch.cond(y.sum() > 0, lambda v: v * 3, torch.sin, (x,))),
)
pair(
    "a value that is carried or only taken",
    False,
    lambda: Case(Fn(_loop("a", reach="b"), **WEIGHTS), (X,)),
    lambda: Case(Fn(lambda m, x: x - m.a * m.b, **WEIGHTS), (X,)),
)
