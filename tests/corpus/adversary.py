"""Pairs by somebody who wants a wrong hit, or a missed one: aliases, exact arguments, sizes, trees, control flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .cases import IMAGE, INTEGERS, B, Body, C, Case, Fn, V, W, X, Y, agree, differ, pair, shaped

# Memory: aliases, writes, out=


def _dead_write(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    z = y * 2
    y.add_(1)
    return z


def _write_to_nobody(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x.clone().add_(1)
    return x * 2


def _through_transpose(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.t()[0].mul_(3)
    return y


def _through_row(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[0].mul_(3)
    return y


def _stale_view(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    view = y[0]
    y.zero_()
    return view + 1


def _stale_copy(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    copy = y[0].clone()
    y.zero_()
    return copy + 1


def _swap_in_place(first: bool) -> Body:
    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        left, right = y[:, :2], y[:, 2:]
        if first:
            left.add_(right)
            right.mul_(left)
        else:
            right.mul_(left)
            left.add_(right)
        return y

    return body


agree("a write after the last read", _dead_write, lambda m, x: x.clone() * 2)
agree("a write that nobody reads", _write_to_nobody, lambda m, x: x * 2)
differ("a write through a transposed view", _through_transpose, _through_row, W)
differ("a view or a copy, then a write", _stale_view, _stale_copy)
differ("overlapping writes in order", _swap_in_place(True), _swap_in_place(False))
differ("a written input, returned or copied", lambda m, x: x.add_(1), lambda m, x: x.add_(1).clone(), X.clone())
differ("which input is written", lambda m, x, y: x.add_(y), lambda m, x, y: y.add_(x), X.clone(), Y.clone())
differ("copied from or to", lambda m, x, y: x.copy_(y), lambda m, x, y: y.copy_(x), X.clone(), Y.clone())


class _Counters(nn.Module):
    """Two buffers of equal value; ``order`` in which they are written."""

    def __init__(self, order: str = "ab", tied: bool = False) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(4))
        self.register_buffer("b", self.a if tied else torch.zeros(4))
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.order:
            getattr(self, name).add_(1 if name == "a" else 2)
        return x + self.a - self.b


pair("order of independent state", True, lambda: Case(_Counters("ab"), (X,)), lambda: Case(_Counters("ba"), (X,)))
pair("which state is written", False, lambda: Case(_Counters("a"), (X,)), lambda: Case(_Counters("b"), (X,)))
pair(
    "state tied or only equal", False, lambda: Case(_Counters("a", tied=True), (X,)), lambda: Case(_Counters("a"), (X,))
)


class _Overlapping(nn.Module):
    """A buffer that may lie within another, which is written."""

    def __init__(self, overlaps: bool, row: int = 0) -> None:
        super().__init__()
        self.register_buffer("whole", torch.zeros(2, 4))
        self.register_buffer("part", self.whole[row] if overlaps else torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.whole.add_(1)
        return x + self.part


pair("state within other state", False, lambda: Case(_Overlapping(True), (X,)), lambda: Case(_Overlapping(False), (X,)))

pair(
    "which row of other state", False, lambda: Case(_Overlapping(True), (X,)), lambda: Case(_Overlapping(True, 1), (X,))
)


class _ReadAround(nn.Module):
    """One buffer under two names: written by one, read by the other, before or after."""

    def __init__(self, after: bool) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(4))
        self.register_buffer("b", self.a)
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read = None if self.after else x + self.b
        self.a.add_(1)
        return x + self.b if read is None else read


pair(
    "read under another name, before or after",
    False,
    lambda: Case(_ReadAround(True), (X,)),
    lambda: Case(_ReadAround(False), (X,)),
)
pair(
    "views of one memory, none of it written",
    True,
    lambda: Case(Fn(lambda m, x: x @ m.a @ m.b, a=W, b=W.T), (X,)),
    lambda: Case(Fn(lambda m, x: x @ m.a @ m.b, a=W, b=W.T.contiguous()), (X,)),
)

# Arguments, exactly

differ("beyond a double's integers", lambda m, x: x + 2**53, lambda m, x: x + (2**53 + 1), INTEGERS)
differ("negative zero where", lambda m, x: torch.where(x > 0, x, 0.0), lambda m, x: torch.where(x > 0, x, -0.0))
differ("negative zero held", lambda m, x: x * torch.tensor([0.0]), lambda m, x: x * torch.tensor([-0.0]))
differ("a single or a double's tenth", lambda m, x: x * 0.1, lambda m, x: x * 0.10000000149011612)
differ("a NaN in a list", lambda m, x: x + torch.tensor([math.nan]), lambda m, x: x + torch.tensor([math.inf]))
differ("number or tensor of no dims", lambda m, x: x * 2.0, lambda m, x: x * torch.tensor(2.0))
differ("no dims or one", lambda m, x: x.sum() + m.v, lambda m, x: x.sum(0, keepdim=True)[:, 0] + m.v, X, v=V[:1])
differ("promoted by a tensor", lambda m, x: x + m.d, lambda m, x: x + m.f, X, d=V.double(), f=V)
differ("memory format", lambda m, x: x.clone(), lambda m, x: x.clone(memory_format=torch.channels_last), IMAGE)
differ("dtype of a lifted constant", lambda m, x: x + torch.tensor([1]), lambda m, x: x + torch.tensor([1]).int())
differ("bool or bytes", lambda m, x: x * torch.tensor([True]), lambda m, x: x * torch.tensor([1], dtype=torch.uint8))
differ(
    "place of None among indices", lambda m, x: x[:, m.i, m.i], lambda m, x: x[m.i, :, m.i], IMAGE, i=INTEGERS[0, :2]
)
differ(
    "mask or indices", lambda m, x: x[m.b], lambda m, x: x[m.i], X, b=torch.tensor([1, 0, 1]).bool(), i=INTEGERS[0, :2]
)
differ("real or imaginary", lambda m, x: torch.complex(x, x * 2).real, lambda m, x: torch.complex(x, x * 2).imag)
differ(
    "conjugate or not",
    lambda m, x: torch.view_as_real(m.z * x),
    lambda m, x: torch.view_as_real(m.z.conj() * x),
    X,
    z=torch.complex(V, V + 1),
)
agree("device written out", lambda m, x: x + torch.zeros(4), lambda m, x: x + torch.zeros(4, device="cpu"))
differ(
    "side of a search", lambda m, x: torch.bucketize(x, m.v), lambda m, x: torch.bucketize(x, m.v, right=True), X, v=V
)
differ("diagonal", lambda m, x: x.tril(), lambda m, x: x.tril(1))
differ("sizes of a split", lambda m, x: x.split([1, 3], 1)[0].exp(), lambda m, x: x.split([3, 1], 1)[1].exp())


def _quantised(scale: float, zero: int) -> Body:
    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        import torch.ao.quantization.fx._decomposed

        limits = (scale, zero, -128, 127, torch.int8)
        quantised = torch.ops.quantized_decomposed.quantize_per_tensor.default(x, *limits)
        return torch.ops.quantized_decomposed.dequantize_per_tensor.default(quantised, *limits)

    return body


differ("scale of a quantisation", _quantised(0.1, 0), _quantised(0.2, 0))
differ("zero point of a quantisation", _quantised(0.1, 0), _quantised(0.1, 1))

# Tensors held

differ(
    "shape of what is empty",
    lambda m, x: torch.cat([x, m.e]),
    lambda m, x: torch.cat([x, m.e]).sum(),
    X,
    e=torch.zeros(0, 4),
)
agree(
    "one empty tensor or two",
    lambda m, x: torch.cat([x, m.e, m.f]),
    lambda m, x: torch.cat([x, m.e, m.e]),
    X,
    e=torch.zeros(0, 4),
    f=torch.zeros(0, 4),
)
agree("expanded or written out", lambda m, x: x + m.e, lambda m, x: x + m.f, X, e=V.expand(3, 4), f=V.repeat(3, 1))
agree(
    "transposed beside itself",
    lambda m, x: x @ m.a @ m.b,
    lambda m, x: x @ m.a @ m.c,
    X,
    a=W,
    b=W.T,
    c=W.T.contiguous(),
)
differ(
    "halves of the same bits",
    lambda m, x: x * m.h,
    lambda m, x: x * m.b,
    X.half(),
    h=V.half(),
    b=V.half().view(torch.bfloat16),
)


# Sizes

for _name, _first, _second in (
    ("floor or ceiling of a size", lambda x: x * (x.shape[0] // 2), lambda x: x * ((x.shape[0] + 1) // 2)),
    ("greatest of a size", lambda x: x * torch.sym_max(x.shape[0], 3), lambda x: x * torch.sym_max(x.shape[0], 4)),
    (
        "greatest or least of a size",
        lambda x: x * torch.sym_max(x.shape[0], 3),
        lambda x: x * torch.sym_min(x.shape[0], 3),
    ),
    ("remainder of a size", lambda x: x * (x.shape[0] % 3), lambda x: x * (x.shape[0] % 5)),
    ("power of a size", lambda x: x * x.shape[0], lambda x: x * x.shape[0] ** 2),
    ("numbers as many as rows", lambda x: torch.arange(x.shape[0]), lambda x: torch.arange(1, x.shape[0] + 1)),
    ("size or elements", lambda x: x * x.shape[0], lambda x: x * x.numel()),
):
    pair(
        _name,
        False,
        shaped([{0: B}], X, body=lambda m, x, body=_first: body(x)),
        shaped([{0: B}], X, body=lambda m, x, body=_second: body(x)),
    )
for _name, _first, _second in (
    (
        "a sum of sizes in either order",
        lambda x, y: x.shape[0] + 2 * y.shape[0],
        lambda x, y: 2 * y.shape[0] + x.shape[0],
    ),
    ("a size, taken twice", lambda x, y: x.shape[0] + x.shape[0], lambda x, y: 2 * x.shape[0]),
    ("difference of sizes", lambda x, y: x.shape[0] + 3 - 1, lambda x, y: 2 + x.shape[0]),
):
    pair(
        _name,
        True,
        shaped([{0: B}, {0: C}], X, Y, body=lambda m, x, y, size=_first: torch.zeros(size(x, y)) + y.sum()),
        shaped([{0: B}, {0: C}], X, Y, body=lambda m, x, y, size=_second: torch.zeros(size(x, y)) + y.sum()),
    )
pair(
    "whose size it is",
    False,
    shaped([{0: B}, {0: C}], X, Y, body=lambda m, x, y: (x * x.shape[0], y)),
    shaped([{0: B}, {0: C}], X, Y, body=lambda m, x, y: (x * y.shape[0], y)),
)


def _asserted(*limits: tuple[int, int]) -> Body:
    def body(m: nn.Module, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        sizes = [a.item(), b.item()]
        for size, (least, most) in zip(sizes, limits, strict=True):
            torch._check(size >= least)
            torch._check(size <= most)
        return torch.zeros(sizes[0], sizes[1])

    return body


differ(
    "which value is bounded how", _asserted((0, 8), (0, 9)), _asserted((0, 9), (0, 8)), torch.tensor(3), torch.tensor(5)
)

# Trees


class _First(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor


class _Second(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor


@dataclass
class _Record:
    a: torch.Tensor
    b: torch.Tensor


for _kind in (_First, _Second):
    torch.utils._pytree._register_namedtuple(_kind, serialized_type_name=f"tests.corpus.{_kind.__name__}")
torch.export.register_dataclass(_Record, serialized_type_name="tests.corpus.Record")
# torch saves the example inputs too, and loads no class that it was not told of.
torch.serialization.add_safe_globals([_Record, _First])

differ("which named tuple", lambda m, x: _First(x.sin(), x.cos()), lambda m, x: _Second(x.sin(), x.cos()))
differ("record or dict", lambda m, x: _Record(x.sin(), x.cos()), lambda m, x: {"a": x.sin(), "b": x.cos()})
differ("fields of a record", lambda m, x: _Record(x.sin(), x.cos()), lambda m, x: _Record(b=x.sin(), a=x.cos()))
differ("None or nothing in a list", lambda m, x: [x.sin(), None, 1], lambda m, x: [x.sin(), 1, None])
differ("bool or int output", lambda m, x: (x.sin(), True), lambda m, x: (x.sin(), 1))
agree("one result given twice", lambda m, x: (x.sin(), x.sin()), lambda m, x: (lambda s: (s, s))(x.sin()))
differ("inputs returned", lambda m, x, y: (x, y), lambda m, x, y: (y, x), X, Y)


class _Keywords(nn.Module):
    def forward(self, *, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b


class _Record2(nn.Module):
    def forward(self, both: Any) -> torch.Tensor:
        return both.a - both.b


pair(
    "order of keywords, which is that of the inputs",
    False,
    lambda: Case(_Keywords(), (), {"a": X, "b": Y}),
    lambda: Case(_Keywords(), (), {"b": Y, "a": X}),
)
pair(
    "inputs in a record",
    True,
    lambda: Case(_Record2(), (_Record(X, Y),)),
    lambda: Case(_Record2(), (_First(X, Y),)),
    runs=False,
)

# Control flow, regions, draws


def _mapped(body: Body) -> Body:
    from torch._higher_order_ops.map import map as mapped

    return lambda m, x: mapped(body, x, torch.ones(4))


def _scanned(body: Callable[..., Any], reverse: bool = False) -> Body:
    from torch._higher_order_ops.scan import scan

    return lambda m, x: scan(body, torch.zeros(4), x, dim=0, reverse=reverse)


def _running(carry: torch.Tensor, x: torch.Tensor) -> Any:
    return carry + x, carry * 2


def _running_otherwise(carry: torch.Tensor, x: torch.Tensor) -> Any:
    return carry + x, x * 2


def _held_in_branch(value: float) -> Body:
    constant = torch.full((4,), value)
    return lambda m, x: torch.cond(x.sum() > 0, lambda v: v + constant, lambda v: v - constant, (x,))


def _nested(inner: Body) -> Body:
    def outer(v: torch.Tensor) -> torch.Tensor:
        return torch.cond(v.mean() > 1, lambda u: inner(u), lambda u: u.cos(), (v,))

    return lambda m, x: torch.cond(x.sum() > 0, outer, lambda v: v.tan(), (x,))


def _two_regions(first: bool, second: bool) -> Body:
    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=first):
            y = x @ m.w
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=second):
            z = y @ m.w
        return z.float()

    return body


def _off_within_on(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ m.w
        with torch.autocast("cpu", enabled=False):
            z = y.float() @ m.w
        return z @ m.w


def _on_throughout(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x @ m.w).float() @ m.w @ m.w


def _grad(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x.sin()
        with torch.enable_grad():
            z = y.cos()
        return z * 2


differ("body of a map", _mapped(lambda row, one: row + one), _mapped(lambda row, one: row - one))
differ("body of a scan", _scanned(_running), _scanned(_running_otherwise))
differ("direction of a scan", _scanned(_running), _scanned(_running, reverse=True))
differ("constant in a branch", _held_in_branch(1.0), _held_in_branch(2.0))
differ("branch within a branch", _nested(torch.sin), _nested(torch.exp))
differ("which region casts", _two_regions(True, False), _two_regions(False, True), X, w=W)
differ("a region switched off within one", _off_within_on, _on_throughout, X, w=W)
agree("regions of gradients within each other", _grad, lambda m, x: x.sin().cos() * 2)
differ("rate of dropout in training", lambda m, x: F.dropout(x, 0.5, True), lambda m, x: F.dropout(x, 0.25, True))
differ("bounds of a draw", lambda m, x: x + torch.randint(0, 5, (4,)), lambda m, x: x + torch.randint(0, 6, (4,)))
differ(
    "whose draw it is",
    lambda m, x: (lambda a, b: (a + x, b))(torch.rand(4), torch.rand(4)),
    lambda m, x: (lambda a, b: (b + x, a))(torch.rand(4), torch.rand(4)),
)
differ("a draw that nobody reads", lambda m, x: (torch.rand(4), torch.rand(4) + x)[1], lambda m, x: torch.rand(4) + x)
