"""Small models, each with one thing about it that an export must get right. Kept in a file of its own, so that
error messages can name its lines."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Pair = namedtuple("Pair", ["first", "second"])


class Shared(nn.Module):
    """Two inputs whose first dims are one."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a.sum()


class Derived(nn.Module):
    """Dims ``s``, ``2*s`` and ``s+1``."""

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([a, a]) + b, c[1:] * a


class Unused(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a * 2


class Passed(nn.Module):
    """An output that is an input."""

    def forward(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a, a * 2


class Repeated(nn.Module):
    """One tensor three times, in a structure."""

    def forward(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        y = a * 2
        return y, y, {"again": y}


class Constants(nn.Module):
    """Outputs that are a buffer, a parameter, and no tensors at all."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(3))
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, a: torch.Tensor) -> tuple[Any, ...]:
        return a * 2, self.scale, None, 3, self.weight, 2.5


class Keywords(nn.Module):
    def forward(self, a: torch.Tensor, *, late: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return a - late


class PlainArguments(nn.Module):
    """Python numbers as arguments, which an export bakes in."""

    def forward(self, a: torch.Tensor, n: int, flag: bool, b: torch.Tensor) -> torch.Tensor:
        return a * n + b if flag else a


class Remembers(nn.Module):
    """A buffer that every call changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(6))

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        self.total.add_(a.sum(0))
        return a + self.total


class ChangesItsInput(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        a.add_(1)
        return a * 2


class Doubles(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return (a.double() * 2).float()


class Spectrum(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        y = a * 2
        return torch.fft.rfft(y).abs()


class SingularValues(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(a + 1)[1]


class Dropped(nn.Module):
    """Dropout that is on."""

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(a, 0.5, training=True)


@dataclass
class Result:
    value: torch.Tensor
    pair: Pair


class Structured(nn.Module):
    """Outputs in types of the model's own."""

    def forward(self, a: torch.Tensor) -> Result:
        return Result(a * 2, Pair(a + 1, a - 1))


class OnItsDevice(nn.Module):
    """Names the device that it was exported on: in a weight, and in an argument of an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((6,), 3.0))

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return a * self.scale + torch.arange(6, device=a.device)


class Averages(nn.Module):
    """A window far larger than the picture, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.AvgPool2d(2560, ceil_mode=True)
        self.some = nn.AvgPool2d(2, padding=1, ceil_mode=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.all(x), self.some(x)


class Branches(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.cond(a.sum() > 0, lambda t: t + 1, lambda t: t - 1, (a,))


class Tied(nn.Module):
    """One weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, 16)
        self.head = nn.Linear(16, 500, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(tokens))


class BiasedAttention(nn.Module):
    """Attention with a learned bias, then a view: as in Swin and T5."""

    def __init__(self, heads: int = 2, size: int = 8) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.qkv = nn.Linear(heads * size, 3 * heads * size)
        self.bias = nn.Parameter(torch.randn(1, heads, 4, 4))
        self.out = nn.Linear(heads * size, heads * size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        return self.out(y.transpose(1, 2).contiguous().reshape(batch, length, width))


@torch.library.custom_op("farmtests::plus_one", mutates_args=())
def plus_one(x: torch.Tensor) -> torch.Tensor:
    return x + 1


@plus_one.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Custom(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.ops.farmtests.plus_one(a) * 2
