"""Pairs about what real models are made of, and about how programs are exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .cases import IMAGE, INTEGERS, Case, Fn, W, X, Y, agree, differ, pair

HEADS = torch.linspace(-1, 1, 2 * 2 * 3 * 4).reshape(2, 2, 3, 4)
IDS = torch.tensor([[1, 2, 3], [0, 2, 1]])


# Attention, convolution, recurrence, embedding

differ(
    "causal or not",
    lambda m, q: F.scaled_dot_product_attention(q, q, q),
    lambda m, q: F.scaled_dot_product_attention(q, q, q, is_causal=True),
    HEADS,
)
differ(
    "scale of attention",
    lambda m, q: F.scaled_dot_product_attention(q, q, q),
    lambda m, q: F.scaled_dot_product_attention(q, q, q, scale=0.25),
    HEADS,
)
differ(
    "dropout in attention",
    lambda m, q: F.scaled_dot_product_attention(q, q, q),
    lambda m, q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.1),
    HEADS,
)


def _attend_first(m: nn.Module, q: torch.Tensor) -> torch.Tensor:
    a = F.scaled_dot_product_attention(q, q, q)
    b = F.scaled_dot_product_attention(q * 2, q, q)
    return a - b


def _attend_last(m: nn.Module, q: torch.Tensor) -> torch.Tensor:
    b = F.scaled_dot_product_attention(q * 2, q, q)
    a = F.scaled_dot_product_attention(q, q, q)
    return a - b


agree("order of independent attentions", _attend_first, _attend_last, HEADS)


def _conv(**more: Any) -> Callable[[], Case]:
    def build() -> Case:
        torch.manual_seed(0)
        return Case(nn.Conv2d(4, 4, 3, bias=False, **more), (torch.cat([IMAGE, IMAGE[:, :1]], 1),))

    return build


pair("stride of a convolution", False, _conv(), _conv(stride=2))
pair("padding of a convolution", False, _conv(), _conv(padding=1))
pair("dilation", False, _conv(), _conv(dilation=2))
pair("one size or two", True, _conv(padding=1), _conv(padding=(1, 1)))
pair("padding by name", False, _conv(padding="same"), _conv(padding="valid"))
pair("groups, refittable", False, _conv(), _conv(groups=2), policy="metadata")


def _lstm(**more: Any) -> Callable[[], Case]:
    def build() -> Case:
        torch.manual_seed(0)
        return Case(nn.LSTM(4, 4, **more), (X[None],))

    return build


pair("batch first", False, _lstm(batch_first=True), _lstm())
pair("reverse direction", False, _lstm(batch_first=True, bidirectional=True), _lstm(batch_first=True, num_layers=2))
differ(
    "embedding or rows",
    lambda m, i: F.embedding(i, m.w),
    lambda m, i: F.embedding(i, m.w.flip(0)),
    IDS,
    w=W,
)
differ(
    "interpolation",
    lambda m, x: F.interpolate(x, scale_factor=2, mode="nearest"),
    lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    IMAGE,
)
differ(
    "aligned corners",
    lambda m, x: F.interpolate(x, size=(4, 4), mode="bilinear", align_corners=False),
    lambda m, x: F.interpolate(x, size=(4, 4), mode="bilinear", align_corners=True),
    IMAGE,
)
differ("comparison", lambda m, x: x > 0, lambda m, x: x >= 0)
differ("branches of where", lambda m, x, y: torch.where(x > 0, x, y), lambda m, x, y: torch.where(x > 0, y, x), X, Y)
differ("length of a range", lambda m, x: torch.arange(4) + x, lambda m, x: torch.arange(1, 5) + x)
differ("value of a fill", lambda m, x: torch.full((4,), 1.0) + x, lambda m, x: torch.full((4,), 2.0) + x)
differ("zeros or ones", lambda m, x: torch.zeros(4) + x, lambda m, x: torch.ones(4) + x)
differ("descending", lambda m, x: x.sort(1).values, lambda m, x: x.sort(1, descending=True).values)
differ("permutation", lambda m, x: x.permute(0, 2, 1, 3), lambda m, x: x.permute(0, 3, 2, 1), HEADS)
differ("shape of a view", lambda m, x: x.reshape(2, 6), lambda m, x: x.reshape(6, 2))
differ("slice", lambda m, x: x[:, 1:3], lambda m, x: x[:, 0:2])
differ("step of a slice", lambda m, x: x[:, ::2], lambda m, x: x[:, 1::2])
differ("floor or true division", lambda m, x: x // 2, lambda m, x: x / 2, INTEGERS)
differ("power", lambda m, x: x**2, lambda m, x: x**3)
differ("integer or float power", lambda m, x: x**2, lambda m, x: x**2.0)
differ("reduction", lambda m, x: x.sum(1), lambda m, x: x.mean(1))
differ("accumulation dtype", lambda m, x: x.sum(1), lambda m, x: x.sum(1, dtype=torch.float64).float())
agree("default of softmax dtype", lambda m, x: x.softmax(1), lambda m, x: x.softmax(1, dtype=None))
differ("gather or scatter", lambda m, x, i: x.gather(1, i), lambda m, x, i: x.scatter(1, i, 0.0), W[:2, :3], IDS)
differ("type of a literal", lambda m, x: torch.where(x > 0, 1, 0), lambda m, x: torch.where(x > 0, 1.0, 0.0))


def _branches(first_left: bool) -> Callable[[], Case]:
    """Two branches of convolutions whose activations write in place, as vision models have them."""

    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        def left() -> torch.Tensor:
            return torch.relu_(F.conv2d(x, m.a))

        def right() -> torch.Tensor:
            return torch.relu_(F.conv2d(x, m.b)).mul_(2)

        if first_left:
            one, other = left(), right()
        else:
            other, one = right(), left()
        return one - other

    def build() -> Case:
        torch.manual_seed(0)
        return Case(Fn(body, a=torch.randn(4, 3, 3, 3), b=torch.randn(4, 3, 3, 3)), (IMAGE,))

    return build


pair("order of branches that write in place", True, _branches(True), _branches(False))

# Modules

pair(
    "a flag that nothing reads",
    True,
    lambda: Case(Fn(lambda m, x: x @ m.w, w=W), (X,), train=True),
    lambda: Case(Fn(lambda m, x: x @ m.w, w=W), (X,)),
)


def _frozen(frozen: bool) -> Callable[[], Case]:
    def build() -> Case:
        module = Fn(lambda m, x: x @ m.w, w=W)
        module.w.requires_grad_(not frozen)
        return Case(module, (X,))

    return build


pair("frozen weights", True, _frozen(True), _frozen(False))
pair("batch norm's statistics", False, lambda: _norm(0.0), lambda: _norm(1.0))
pair("batch norm's statistics, refittable", True, lambda: _norm(0.0), lambda: _norm(1.0), policy="metadata", runs=False)


def _norm(mean: float) -> Case:
    module = nn.BatchNorm2d(3)
    module.running_mean.fill_(mean)
    return Case(module, (IMAGE,))


class _Sequence(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def _layers() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)]


pair(
    "a loop over layers", True, lambda: Case(_Sequence(_layers()), (X,)), lambda: Case(nn.Sequential(*_layers()), (X,))
)
pair(
    "layers in another order",
    False,
    lambda: Case(_Sequence(_layers()), (X,)),
    lambda: Case(_Sequence(_layers()[::-1]), (X,)),
)
pair(
    "activation as module or function",
    True,
    lambda: Case(nn.ReLU(), (X,)),
    lambda: Case(Fn(lambda m, x: torch.relu(x)), (X,)),
)

# How inputs come in


class _Nested(nn.Module):
    def forward(self, both: Any) -> torch.Tensor:
        first, second = both.values() if isinstance(both, dict) else both
        return first - second


pair("inputs in a list", True, lambda: Case(_Nested(), ([X, Y],)), lambda: Case(_Nested(), ((X, Y),)), runs=False)
pair(
    "inputs in a dict",
    True,
    lambda: Case(_Nested(), ({"a": X, "b": Y},)),
    lambda: Case(Fn(lambda m, x, y: x - y), (X, Y)),
    runs=False,
)
pair(
    "strict or not",
    True,
    lambda: Case(_Sequence(_layers()), (X,)),
    lambda: Case(_Sequence(_layers()), (X,), strict=True),
)
