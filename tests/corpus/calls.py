"""Pairs about one call written in two ways: defaults, None, aliases, places counted from the back, sizes left open."""

from __future__ import annotations

import torch
from torch.export import Dim
from torch.nn import functional as F

from .cases import IMAGE, INTEGERS, V, W, X, Y, agree, differ, pair, shaped

ROWS = Dim("rows", min=4, max=16)

# What may be left out

agree("no least", lambda m, x: torch.clamp(x, None, 1.0), lambda m, x: x.clamp(max=1.0))
agree("no greatest", lambda m, x: torch.clamp(x, 0.0, None), lambda m, x: x.clamp(0.0))
differ("least or greatest", lambda m, x: torch.clamp(x, None, 0.5), lambda m, x: torch.clamp(x, 0.5, None))
agree("no dim of a sum", lambda m, x: x.sum(dim=None), lambda m, x: x.sum())
agree("no dim of a mean", lambda m, x: x.mean(dim=None), lambda m, x: x.mean())
agree("all dims of a sum", lambda m, x: x.sum((0, 1)), lambda m, x: x.sum())
agree("all dims of a greatest one", lambda m, x: x.amax((1, 0)), lambda m, x: x.amax())
agree("dims of a sum in another order", lambda m, x: x.sum((3, 1)), lambda m, x: x.sum((1, 3)), IMAGE)
differ("one dim or all", lambda m, x: x.sum((0, 1)), lambda m, x: x.sum((0, 1), keepdim=True)[0, 0] + x[0, 0] * 0)
differ("one dim of a square sum", lambda m, x: x.sum(0), lambda m, x: x.sum(1), W)
differ("some dims or all of them", lambda m, x: x.sum((0, 1, 2)).sum(), lambda m, x: x.sum((0, 1, 3)).sum(), IMAGE)
agree("no dim of an index", lambda m, x: x.argmax(dim=None), lambda m, x: x.argmax())
agree("no rounding", lambda m, x: torch.div(x, x, rounding_mode=None), lambda m, x: x / x)
differ("some rounding", lambda m, x: torch.div(x, x, rounding_mode="trunc"), lambda m, x: x / x)
agree("to no decimals", lambda m, x: x.round(decimals=0), lambda m, x: x.round())
differ("to one decimal", lambda m, x: x.round(decimals=1), lambda m, x: x.round())
agree("no memory format", lambda m, x: x.clone(memory_format=None), lambda m, x: x.clone())
agree("memory format kept", lambda m, x: x.clone(memory_format=torch.preserve_format), lambda m, x: x.clone())
differ("memory format changed", lambda m, x: x.clone(memory_format=torch.contiguous_format), lambda m, x: x.clone())
agree(
    "memory format of the like kept",
    lambda m, x: torch.zeros_like(x, memory_format=torch.preserve_format) + x,
    lambda m, x: torch.zeros_like(x) + x,
)
agree("layout written out", lambda m, x: torch.zeros(4, layout=torch.strided) + x, lambda m, x: torch.zeros(4) + x)
agree("value of padding", lambda m, x: F.pad(x, (1, 1), value=0.0), lambda m, x: F.pad(x, (1, 1)))
differ("negative zero as padding", lambda m, x: F.pad(x, (1, 1), value=-0.0), lambda m, x: F.pad(x, (1, 1)))
agree("from zero on", lambda m, x: torch.arange(0, 4) + x, lambda m, x: torch.arange(4) + x)
agree("one by one", lambda m, x: torch.arange(1, 5, 1) + x, lambda m, x: torch.arange(1, 5) + x)
differ("from zero or one on", lambda m, x: torch.arange(1, 5) + x, lambda m, x: torch.arange(4) + x)
differ("floats or integers in a row", lambda m, x: torch.arange(4.0) + x, lambda m, x: torch.arange(4) + x)
agree("correction left out", lambda m, x: x.var(correction=1), lambda m, x: x.var())
agree("correction by a flag", lambda m, x: x.std(1, correction=1), lambda m, x: x.std(1, unbiased=True))
agree("no correction by a flag", lambda m, x: x.var(1, correction=0), lambda m, x: x.var(1, unbiased=False))
differ("no correction or two", lambda m, x: x.var(1, correction=0), lambda m, x: x.var(1, correction=2))
agree("no bias", lambda m, x: F.linear(x, m.w, None), lambda m, x: F.linear(x, m.w), w=W)
agree("by keyword", lambda m, x: torch.softmax(input=x, dim=1), lambda m, x: x.softmax(1))
agree("operands by keyword", lambda m, x, y: torch.sub(other=y, input=x), lambda m, x, y: x - y, X, Y)
agree(
    "attention spelt out",
    lambda m, x: F.scaled_dot_product_attention(x, x, x, None, 0.0, False, scale=None),
    lambda m, x: F.scaled_dot_product_attention(x, x, x),
    IMAGE,
)

# One operator under two names

agree("clip or clamp", lambda m, x: torch.clip(x, 0.0, 1.0), lambda m, x: torch.clamp(x, 0.0, 1.0))
agree("concatenate or cat", lambda m, x: torch.concatenate([x, x], 1), lambda m, x: torch.cat([x, x], -1))
agree("swap or transpose", lambda m, x: x.swapaxes(-1, 0) * 2, lambda m, x: x.transpose(1, 0) * 2)
agree("divide or div", lambda m, x: torch.true_divide(x, x), lambda m, x: torch.div(x, x, rounding_mode=None))
agree("subtract with a factor", lambda m, x, y: torch.subtract(x, y, alpha=2), lambda m, x, y: x.sub(y, alpha=2), X, Y)
agree("square or power", lambda m, x: x.square(), lambda m, x: x**2)
agree("expit or sigmoid", lambda m, x: torch.special.expit(x), lambda m, x: x.sigmoid())
differ("greater or less", lambda m, x, y: torch.greater(x, y), lambda m, x, y: torch.less(x, y), X, Y)
differ("greater or at least", lambda m, x, y: torch.greater(x, y), lambda m, x, y: torch.greater_equal(x, y), X, Y)
# A product is rounded once, by torch as by TensorRT; how a power is worked out is each library's own affair.
differ("power or product", lambda m, x: x**2, lambda m, x: x * x)

# Places and sizes

agree("to the end", lambda m, x: x[:, 1:], lambda m, x: x[:, 1:4])
agree("beyond the end", lambda m, x: x[:, 1:], lambda m, x: x[:, 1:99])
agree("from the back on", lambda m, x: x[:, -3:], lambda m, x: x[:, 1:])
agree("up to the last but one", lambda m, x: x[:, :-1], lambda m, x: x[:, 0:3])
differ("up to the last but one or two", lambda m, x: x[:, :-1].sum(), lambda m, x: x[:, :-2].sum())
differ("the same count from another place", lambda m, x: x[:, :-1], lambda m, x: x[:, 1:])
differ("every other one", lambda m, x: x[:, ::2], lambda m, x: x[:, :2])
agree("nothing of it, either way", lambda m, x: x[3:1], lambda m, x: x[3:3])
agree("the last one", lambda m, x: x[:, -1], lambda m, x: x[:, 3])
differ("the last one or the one before", lambda m, x: x[:, -1], lambda m, x: x[:, -2])
differ("the last of other dims", lambda m, x: x[-1], lambda m, x: x[:, -1], W)
agree("a size left open", lambda m, x: x.view(-1) * 2, lambda m, x: x.view(12) * 2)
agree("one of several sizes left open", lambda m, x: x.reshape(2, -1) * 2, lambda m, x: x.reshape(2, 6) * 2)
differ("another size left open", lambda m, x: x.reshape(2, -1) * 2, lambda m, x: x.reshape(-1, 2) * 2)
agree("sizes kept", lambda m, x: x[None].expand(2, -1, -1) * 2, lambda m, x: x[None].expand(2, 3, 4) * 2)
agree("size of a part left open", lambda m, x: x.unflatten(1, (2, -1)), lambda m, x: x.unflatten(1, (2, 2)))
differ("nested otherwise", lambda m, x: x.unflatten(1, (4, -1)), lambda m, x: x.unflatten(1, (-1, 4)))
differ("number or place", lambda m, x: x + (-1), lambda m, x: x + 3, INTEGERS)
differ("the last value or the fourth", lambda m, x: m.v[-1] + x, lambda m, x: m.v[-2] + x, v=V)
for _name, _same, _first, _second in (
    ("no end, whatever the size", True, lambda x: x[1:], lambda x: x[1:None]),
    ("the last row, whatever the size", False, lambda x: x[-1], lambda x: x[2]),
    ("all but the last row, whatever the size", False, lambda x: x[:-1].sum(), lambda x: x[:2].sum()),
    ("all dims, whatever the size", True, lambda x: x.sum((1, 0)), lambda x: x.sum()),
):
    pair(
        _name,
        _same,
        shaped([{0: ROWS}], W, body=lambda m, x, body=_first: body(x)),
        shaped([{0: ROWS}], W, body=lambda m, x, body=_second: body(x)),
    )
