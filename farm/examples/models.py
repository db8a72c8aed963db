"""The example programs' models, in plain torch: small enough to build in seconds, shaped like the real ones."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class Residual(nn.Module):  # type: ignore[misc]
    """Two convolutions and a short cut, as in a ResNet of 18 layers."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        same = stride == 1 and channels == out
        self.short = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, value: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(value)))
        return torch.relu(self.second_norm(self.second(inner)) + self.short(value))


class ResNet(nn.Module):  # type: ignore[misc]
    """11.7 million parameters. ``image``: float32 (batch, 3, 64, 64); the result: (batch, 1000)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        widths = (64, 64, 128, 256, 512)
        self.stem = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        blocks = []
        for stage, (before, after) in enumerate(itertools.pairwise(widths)):
            blocks += [Residual(before, after, 1 if stage == 0 else 2), Residual(after, after, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        value = torch.relu(self.norm(self.stem(image)))
        value = nn.functional.max_pool2d(value, 3, 2, 1)
        return self.head(self.blocks(value).mean((2, 3)))


class Block(nn.Module):  # type: ignore[misc]
    """Causal self-attention and a feed-forward layer, each with its norm before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.before_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, value: Tensor) -> Tensor:
        value = value + self.attention(self.before_attention(value))
        return value + self.feed(self.before_feed(value))

    def attention(self, value: Tensor) -> Tensor:
        batch, length, width = value.shape
        split = self.mix(value).view(batch, length, 3, self.heads, width // self.heads)
        query, key, content = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, content, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Gpt(nn.Module):  # type: ignore[misc]
    """10.3 million parameters. ``tokens``: int64 (1, length); the result: float32 (1, length, 8192)."""

    def __init__(self, vocabulary: int = 8192, width: int = 320, layers: int = 4, heads: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Embedding(256, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        value = self.blocks(self.embed(tokens) + self.place(places))
        return self.head(self.norm(value))
