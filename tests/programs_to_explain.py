"""Writes pairs of programs that differ in one thing each. Run as a script, in a process of its own: imports torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim


class Base(nn.Module):
    """What every other program here is like, but for one thing."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = torch.relu(layer(x))  # differs: Base
        return x * torch.tensor([2.0]), x.sum(1)


class OtherNode(Base):
    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = torch.sigmoid(layer(x))  # differs: OtherNode
        return x * torch.tensor([2.0]), x.sum(1)


class OtherArgument(Base):
    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = torch.clamp(layer(x), min=0.125)  # differs: OtherArgument
        return x * torch.tensor([2.0]), x.sum(1)


class MoreNodes(Base):
    def forward(self, x: torch.Tensor) -> Any:
        product, total = super().forward(x)
        return product, total.exp()  # differs: MoreNodes


class OtherConstant(Base):
    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x * torch.tensor([3.0]), x.sum(1)


class SwappedOutputs(Base):
    def forward(self, x: torch.Tensor) -> Any:
        product, total = super().forward(x)
        return total, product


class OtherStructure(Base):
    def forward(self, x: torch.Tensor) -> Any:
        product, total = super().forward(x)
        return {"product": product, "total": total}


class OneOutput(Base):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x)[0]


class MoreInputs(Base):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return super().forward(x + y)


class Doubles(Base):
    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x.double().float())


class Renamed(Base):
    """The same program under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.stages, self.layers = self.layers, nn.ModuleList()

    def forward(self, tokens: torch.Tensor) -> Any:
        for stage in self.stages:
            tokens = stage(tokens).relu()
        twice = tokens * torch.tensor([2.0])
        return twice, tokens.sum(1)


def save(
    folder: Path, name: str, module: nn.Module, *more: torch.Tensor, rows: int | None = 32, width: int = 8
) -> None:
    """Export ``module`` with up to ``rows`` rows (``None``: three of them), its weights drawn anew from one seed."""
    example = (torch.randn(3, width), *more)
    ranges = tuple({0: Dim("rows", min=1, max=rows)} if rows else None for _ in example)
    program = torch.export.export(module.eval(), example, dynamic_shapes=ranges if rows else None)
    torch.export.save(program, folder / f"{name}.pt2")


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return make()


def main(folder: Path) -> None:
    kinds = (OtherNode, OtherArgument, MoreNodes, OtherConstant, SwappedOutputs, OtherStructure, OneOutput, Doubles)
    for kind in (Base, *kinds):
        save(folder, kind.__name__, seeded(kind))
    save(folder, "MoreInputs", seeded(MoreInputs), torch.randn(3, 8))
    save(folder, "OtherRange", seeded(Base), rows=64)
    save(folder, "Static", seeded(Base), rows=None)
    save(folder, "Narrow", nn.ReLU())
    save(folder, "Wide", nn.ReLU(), width=16)
    save(folder, "Renamed", seeded(Renamed))
    tuned = seeded(Base)
    with torch.no_grad():
        tuned.layers[1].bias.add_(1.0)  # type: ignore[union-attr, index, operator]
    save(folder, "OneWeight", tuned)
    deep = seeded(lambda: Base(4))
    save(folder, "Deep", deep)
    with torch.no_grad():
        for parameter in deep.parameters():
            parameter.mul_(0.5)
    save(folder, "DeepTuned", deep)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
