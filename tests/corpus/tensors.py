"""Pairs about parameters, buffers and constants."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .cases import Case, Fn, W, X, agree, differ, pair

# Weights, buffers, constants


class _Net(nn.Module):
    def __init__(self, first: str = "fc1", second: str = "fc2", seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.names = first, second
        setattr(self, first, nn.Linear(4, 5))
        setattr(self, second, nn.Linear(5, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.names[1])(torch.relu(getattr(self, self.names[0])(x)))


class _Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class _Declared(nn.Module):
    """Layers declared in the other order than they are used."""

    def __init__(self) -> None:
        super().__init__()
        net = _Net()
        self.b, self.a = net.fc2, net.fc1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))


pair("names of parameters", True, lambda: Case(_Net(), (X,)), lambda: Case(_Net("zz", "aa"), (X,)))
pair("structure of modules", True, lambda: Case(_Net(), (X,)), lambda: Case(_Wrapped(_Net()), (X,)))
pair("order of declaration", True, lambda: Case(_Net(), (X,)), lambda: Case(_Declared(), (X,)))
pair("weights", False, lambda: Case(_Net(), (X,)), lambda: Case(_Net(seed=1), (X,)))
pair(
    "weights, refittable",
    True,
    lambda: Case(_Net(), (X,)),
    lambda: Case(_Net(seed=1), (X,)),
    policy="metadata",
    runs=False,
)
pair(
    "width, refittable",
    False,
    lambda: Case(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), (X,)),
    lambda: Case(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), (X,)),
    policy="metadata",
)
differ("weights swapped", lambda m, x: x @ m.a @ m.b, lambda m, x: x @ m.b @ m.a, X, a=W, b=W.flip(0))
differ("tied or swapped", lambda m, x: x @ m.a @ m.a, lambda m, x: x @ m.a @ m.b, X, a=W, b=W.flip(0))
agree("weights named the other way", lambda m, x: x @ m.a @ m.b, lambda m, x: x @ m.d @ m.c, X, a=W, b=W.T, c=W.T, d=W)
agree("dead weights", lambda m, x: x @ m.a, lambda m, x: (x @ m.b, x @ m.a)[1], X, a=W, b=W + 1)
differ("bias or none", lambda m, x: F.linear(x, m.a), lambda m, x: F.linear(x, m.a, m.b), X, a=W, b=torch.zeros(4))


def _held(kind: str, value: torch.Tensor = W) -> Callable[[], Case]:
    def build() -> Case:
        module = Fn(lambda m, x: x @ m.held)
        if kind == "parameter":
            module.held = nn.Parameter(value)
        elif kind == "constant":
            module.held = value
        else:
            module.register_buffer("held", value, persistent=kind == "buffer")
        return Case(module, (X,))

    return build


pair("parameter or buffer", True, _held("parameter"), _held("buffer"))
pair("buffer or constant", True, _held("buffer"), _held("constant"))
pair("saved buffer or not", True, _held("buffer"), _held("unsaved"))
pair("values of a constant", False, _held("constant"), _held("constant", W + 1))
pair("values of a constant, refittable", False, _held("constant"), _held("constant", W + 1), policy="metadata")
pair("values of an unsaved buffer, refittable", False, _held("unsaved"), _held("unsaved", W + 1), policy="metadata")
pair("layout of a weight", True, _held("parameter", W.T.contiguous()), _held("parameter", W.T))
pair("offset of a weight", True, _held("parameter", torch.cat([W, W + 1])[4:]), _held("parameter", W + 1))
pair(
    "dtype of a weight",
    False,
    _held("parameter"),
    lambda: Case(Fn(lambda m, x: x @ m.held.float(), held=W.double()), (X,)),
)
pair(
    "layout of a weight, refittable",
    True,
    _held("parameter", W.T.contiguous()),
    _held("parameter", W.T),
    policy="metadata",
)
differ("integer buffer", lambda m, x: x[m.i], lambda m, x: x[m.j], W, i=torch.tensor([0, 1]), j=torch.tensor([1, 0]))
agree("inline constant", lambda m, x: x + torch.tensor([1.0, 2, 3, 4]), lambda m, x: x + torch.tensor([1.0, 2, 3, 4]))
differ("inline constants", lambda m, x: x + torch.tensor([1.0, 2, 3, 4]), lambda m, x: x + torch.tensor([1.0, 2, 3, 5]))
pair(
    "single number, refittable",
    False,
    lambda: Case(Fn(lambda m, x: x * m.s, s=torch.tensor([2.0])), (X,)),
    lambda: Case(Fn(lambda m, x: x * m.s, s=torch.tensor([3.0])), (X,)),
    policy="metadata",
)


class _Tied(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enc, self.dec = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        if tied:
            self.dec.weight = self.enc.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dec(self.enc(x))


class _Once(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enc = nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.enc(self.enc(x))


pair("tied or not", False, lambda: Case(_Tied(True), (X,)), lambda: Case(_Tied(False), (X,)))
pair(
    "tied or not, refittable",
    False,
    lambda: Case(_Tied(True), (X,)),
    lambda: Case(_Tied(False), (X,)),
    policy="metadata",
)
pair("tied or used twice", True, lambda: Case(_Tied(True), (X,)), lambda: Case(_Once(), (X,)))
