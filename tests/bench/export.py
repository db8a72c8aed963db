"""Writes the programs that the benchmarks ask about. Run as a script, in a process of its own: imports torch.

``python export.py long FILE`` writes a decoder of more than 5,000 nodes; ``… large FILE N`` a stack of N linear
layers with 256 MiB of weights each; ``… small FILE`` a convolution that builds in a moment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

LAYERS = 100
WIDTH = 64
HEADS = 4
SIDE = 8192
"""A square float32 matrix of this side has 256 MiB."""


class RootMeanSquare(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, value: Tensor) -> Tensor:
        return value * torch.rsqrt(value.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale


def turn(value: Tensor) -> Tensor:
    """The second half's negative before the first half, as rotary embeddings want it."""
    first, second = value.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


class Layer(nn.Module):
    """Attention with rotary embeddings written out, then a gated feed-forward layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = RootMeanSquare(width), RootMeanSquare(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(width, 96), nn.Linear(width, 96), nn.Linear(96, width)

    def split(self, value: Tensor) -> Tensor:
        batch, length, width = value.shape
        return value.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, value: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        normed = self.before(value)
        query, key, content = (self.split(layer(normed)) for layer in (self.query, self.key, self.value))
        query = query * cosine + turn(query) * sine
        key = key * cosine + turn(key) * sine
        scores = query @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5 + mask
        mixed = (scores.softmax(-1) @ content).transpose(1, 2).reshape(value.shape)
        value = value + self.out(mixed)
        normed = self.after(value)
        return value + self.down(nn.functional.silu(self.gate(normed)) * self.up(normed))


class Decoder(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(512, WIDTH)
        self.layers = nn.ModuleList(Layer(WIDTH, HEADS) for _ in range(layers))
        self.norm = RootMeanSquare(WIDTH)
        self.register_buffer("speeds", 10_000.0 ** -torch.linspace(0, 1, WIDTH // HEADS // 2))

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        angles = torch.outer(places.float(), self.speeds).repeat(1, 2)
        later = places[None, :] > places[:, None]
        mask = torch.zeros_like(later, dtype=torch.float32).masked_fill(later, float("-inf"))
        value = self.embed(tokens)
        for layer in self.layers:
            value = layer(value, angles.cos(), angles.sin(), mask)
        return self.norm(value) @ self.embed.weight.T


class Stack(nn.Module):
    """``count`` linear layers of ``SIDE`` × ``SIDE``; random weights, so that no page is like another."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(SIDE, SIDE, bias=False, device="meta") for _ in range(count))
        for layer in self.layers:
            layer.weight = nn.Parameter(torch.empty(SIDE, SIDE).uniform_(-1, 1))

    def forward(self, value: Tensor) -> Tensor:
        for layer in self.layers:
            value = torch.relu(layer(value))
        return value


def long(layers: int = LAYERS) -> ExportedProgram:
    """Dynamic batch and length."""
    ranges = {"tokens": {0: Dim("batch", min=1, max=8), 1: Dim("length", min=2, max=256)}}
    return torch.export.export(Decoder(layers).eval(), (torch.randint(0, 512, (2, 16)),), dynamic_shapes=ranges)


def large(count: int = 16) -> ExportedProgram:
    return torch.export.export(Stack(count).eval(), (torch.randn(1, SIDE),))


def small() -> ExportedProgram:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    return torch.export.export(model.eval(), (torch.randn(1, 3, 32, 32),))


MAKERS: dict[str, Callable[..., ExportedProgram]] = {"long": long, "large": large, "small": small}


def main(name: str, path: Path, *numbers: str) -> None:
    torch.manual_seed(0)
    partial = path.with_name(f".part-{path.name}")
    torch.export.save(MAKERS[name](*map(int, numbers)), partial)
    partial.replace(path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
