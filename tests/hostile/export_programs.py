"""Writes the programs that the hostile files are made of. Run as a script, in a process of its own: imports torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, export, save


class Conv(nn.Module):
    """Parameters, buffers of both kinds, a constant from the code."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3)
        self.b = nn.BatchNorm2d(8)
        self.l = nn.Linear(8, 4)
        self.register_buffer("scale", torch.ones(8, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.b(self.c(x)) * self.scale + torch.tensor([1.5]))
        return self.l(y.mean((2, 3)))


class Batch(nn.Module):
    """A dynamic batch, whose size is computed with."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.l(x.reshape(x.shape[0], -1)).softmax(-1) * x.shape[0]


class Derived(nn.Module):
    """One input twice as long as the other; a float that depends on a dimension."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([x, x]) + y, y[::2] * (x.shape[0] / 3)


class Keywords(nn.Module):
    """Keyword arguments, containers on both sides, a parameter whose name is no identifier."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.ParameterDict({"a-b": nn.Parameter(torch.ones(3)), "k": nn.Parameter(torch.ones(3))})

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor, extra: dict[str, Any]) -> dict[str, Any]:
        more = [x * 2.0 * self.p["k"], (extra["u"], extra["v"][0] + 1)]
        return {"sum": x + mask * self.p["a-b"], "more": more}


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.l(x).sin(), lambda x: x.cos(), (x,))


class Unknown(nn.Module):
    """Sizes that depend on values."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count = x.max().item()
        torch._check(count >= 2)
        torch._check(count < 100)
        return torch.zeros(count) + 1, x.nonzero()


class Text(nn.Module):
    """A string among the inputs."""

    def forward(self, x: torch.Tensor, mode: str) -> torch.Tensor:
        return x + 1 if mode == "up" else x - 1


def main(folder: Path) -> None:
    torch.manual_seed(0)
    x, batch, length = torch.randn(2, 3), Dim("batch", min=2, max=64), Dim("n", min=2, max=32)
    programs = {
        "conv": export(Conv().eval(), (torch.randn(1, 3, 8, 8),)),
        "batch": export(Batch(), (torch.randn(3, 4, 4),), dynamic_shapes={"x": {0: batch}}),
        "derived": export(
            Derived(), (torch.randn(3, 4), torch.randn(6, 4)), dynamic_shapes={"x": {0: length}, "y": {0: 2 * length}}
        ),
        "keywords": export(Keywords(), (x,), {"mask": x, "extra": {"u": x, "v": [x + 1]}}),
        "branches": export(Branches(), (torch.randn(3, 4),)),
        "unknown": export(Unknown(), (torch.tensor([3, 4]),)),
        "text": export(Text(), (torch.randn(3, 4), "up")),
    }
    for name, program in programs.items():
        save(program, folder / f"{name}.pt2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
