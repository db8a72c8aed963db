"""Pairs about operators, their arguments, their wiring and their results."""

from __future__ import annotations

import math
from collections import namedtuple

import torch
from torch import nn
from torch.nn import functional as F

from .cases import IMAGE, INTEGERS, Case, Fn, V, W, X, Y, agree, differ, pair

# Operators, overloads and arguments

differ("overload", lambda m, x: x + 1, lambda m, x: x - 1)
differ("softmax dim", lambda m, x: x.softmax(0), lambda m, x: x.softmax(1))
differ("order of operands", lambda m, x, y: x - y, lambda m, x, y: y - x, X, Y)
differ("reflected subtraction", lambda m, x: x - 2, lambda m, x: 2 - x)
differ("order of matmul", lambda m, x, y: x @ y, lambda m, x, y: y @ x, W, W + 1)
differ("int or float scalar", lambda m, x: x * 2, lambda m, x: x * 2.0)
differ("int scalar on integers", lambda m, x: x * 2, lambda m, x: x * 2.0, INTEGERS)
differ("bool or int scalar", lambda m, x: x + 1, lambda m, x: torch.add(x, True))
differ("last bit of a float", lambda m, x: x * 0.1, lambda m, x: x * math.nextafter(0.1, 1))
differ("signed zero", lambda m, x: torch.clamp(x, min=0.0), lambda m, x: torch.clamp(x, min=-0.0))
differ("NaN or zero", lambda m, x: x.masked_fill(x > 0, math.nan), lambda m, x: x.masked_fill(x > 0, 0.0))
differ("infinities", lambda m, x: torch.clamp(x, max=math.inf), lambda m, x: torch.clamp(x, max=-math.inf))
agree("NaN is NaN", lambda m, x: x.nan_to_num(math.nan), lambda m, x: x.nan_to_num(-math.nan))
differ("None or a value", lambda m, x: torch.clamp(x, 0.0), lambda m, x: torch.clamp(x, 0.0, 1.0))
differ("min or max", lambda m, x: torch.clamp(x, min=0.5), lambda m, x: torch.clamp(x, max=0.5))
differ("alpha", lambda m, x, y: torch.add(x, y), lambda m, x, y: torch.add(x, y, alpha=2), X, Y)
agree("default alpha", lambda m, x, y: torch.add(x, y), lambda m, x, y: torch.add(x, y, alpha=1), X, Y)
agree("default approximate", lambda m, x: F.gelu(x), lambda m, x: F.gelu(x, approximate="none"))
differ("string argument", lambda m, x: F.gelu(x), lambda m, x: F.gelu(x, approximate="tanh"))
agree("default keepdim", lambda m, x: torch.ops.aten.sum.dim_IntList(x, [1]), lambda m, x: x.sum(1, keepdim=False))
differ("keepdim", lambda m, x: x.sum(1).sum(), lambda m, x: x.sum(1, keepdim=True).sum())
differ("negative dim", lambda m, x: x.cumsum(0), lambda m, x: x.cumsum(1))
differ("correction", lambda m, x: x.var(1), lambda m, x: x.var(1, unbiased=False))
differ("stride", lambda m, x: F.avg_pool2d(x, 2, 2), lambda m, x: F.avg_pool2d(x, 2, 1), IMAGE)
agree("pool stride left out", lambda m, x: F.max_pool2d(x, 2), lambda m, x: F.max_pool2d(x, 2, 2), IMAGE)
differ("padding mode", lambda m, x: F.pad(x, (1, 1)), lambda m, x: F.pad(x, (1, 1), value=1.0))
differ("equation", lambda m, x: torch.einsum("ij->ji", x), lambda m, x: torch.einsum("ij->ij", x), W)
differ("dtype argument", lambda m, x: x.to(torch.float16), lambda m, x: x.to(torch.bfloat16))
differ("rounding mode", lambda m, x, y: torch.div(x, y), lambda m, x, y: torch.div(x, y, rounding_mode="floor"), X, Y)
differ("eps", lambda m, x: F.layer_norm(x, (4,)), lambda m, x: F.layer_norm(x, (4,), eps=1e-6))
agree("eps written out", lambda m, x: F.layer_norm(x, (4,)), lambda m, x: F.layer_norm(x, (4,), eps=1e-05))
differ("order in cat", lambda m, x, y: torch.cat([x, y]), lambda m, x, y: torch.cat([y, x]), X, Y)
differ("list length", lambda m, x, y: torch.cat([x, y]), lambda m, x, y: torch.cat([x, y, y]), X, Y)
differ(
    "optional operand", lambda m, x, w: F.layer_norm(x, (4,), w), lambda m, x, w: F.layer_norm(x, (4,), None, w), X, V
)
differ("index", lambda m, x: x[0], lambda m, x: x[1])
differ("index tensors", lambda m, x, i: x[i], lambda m, x, i: x[:, i], W, torch.tensor([0, 1]))

# Wiring

differ("which half", lambda m, x: x.split(2, 1)[0].relu(), lambda m, x: x.split(2, 1)[1].relu())
differ("which result", lambda m, x: x.max(1).values, lambda m, x: x.min(1).values)
differ("values or indices", lambda m, x: x.topk(2).values, lambda m, x: x.topk(2).indices)
differ("depth", lambda m, x: x.sin().sin(), lambda m, x: x.sin())
differ("shared or not", lambda m, x: (x.sin() + x.cos()).exp(), lambda m, x: x.sin() + x.cos().exp())
agree("computed twice", lambda m, x: x.sin() + x.sin(), lambda m, x: (lambda s: s + s)(x.sin()))
agree("dead code", lambda m, x: (x.exp(), x.sin())[1], lambda m, x: x.sin())
agree("dead branch", lambda m, x: (x.sin().cos().tan(), x * 2)[1], lambda m, x: x * 2)
differ("inputs swapped", lambda m, x, y: x.sin() + y, lambda m, x, y: y.sin() + x, X, Y)
differ("unused input", lambda m, x: x * 2, lambda m, x: x * 3)


def _left_first(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    a = x.sin()
    b = x.cos()
    return a * b


def _right_first(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    b = x.cos()
    a = x.sin()
    return a * b


agree("independent order", _left_first, _right_first)
pair(
    "an input that is not used counts",
    False,
    lambda: Case(Fn(lambda m, x, y: x * 2), (X, Y)),
    lambda: Case(Fn(lambda m, x: x * 2), (X,)),
)
pair(
    "the place of an unused input",
    False,
    lambda: Case(Fn(lambda m, x, y: x * 2), (X, Y)),
    lambda: Case(Fn(lambda m, x, y: y * 2), (X, Y)),
)
pair(
    "shape of an unused input",
    False,
    lambda: Case(Fn(lambda m, x, y: x * 2), (X, Y)),
    lambda: Case(Fn(lambda m, x, y: x * 2), (X, Y[:2])),
)

# Outputs

Point = namedtuple("Point", "a b")
torch.utils._pytree._register_namedtuple(Point, serialized_type_name="tests.corpus.Point")

differ("order of outputs", lambda m, x: (x.sin(), x.cos()), lambda m, x: (x.cos(), x.sin()))
differ("an output more", lambda m, x: (x.sin(),), lambda m, x: (x.sin(), x.sin()))
differ("tuple or list", lambda m, x: (x.sin(), x.cos()), lambda m, x: [x.sin(), x.cos()])
differ("tensor or tuple", lambda m, x: x.sin(), lambda m, x: (x.sin(),))
differ("nesting", lambda m, x: ((x.sin(), x.cos()), x.tan()), lambda m, x: (x.sin(), (x.cos(), x.tan())))
differ("dict keys", lambda m, x: {"a": x.sin(), "b": x.cos()}, lambda m, x: {"a": x.sin(), "c": x.cos()})
differ("named tuple", lambda m, x: Point(x.sin(), x.cos()), lambda m, x: (x.sin(), x.cos()))
differ("None output", lambda m, x: (x.sin(), None), lambda m, x: (x.sin(),))
differ("constant output", lambda m, x: (x.sin(), 1), lambda m, x: (x.sin(), 2))
differ("an input returned", lambda m, x: (x.sin(), x), lambda m, x: (x.sin(), x.sin()))
