"""Writes the two programs of the vectors. Run once: what is checked in is never exported again, since another torch
may serialise the same program otherwise, and a vector must hold still. ``python -m tests.vectors.programs FOLDER``
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from tests.vectors.cases import CONV, GEMM

# Says which machine and folder a program was exported in, and is no part of what it is.
TRACES = ("stack_trace", "from_node", "source_fn_stack", "nn_module_stack", "torch_fn")


class Conv(nn.Module):
    """Static: one convolution, normalised over the batch with the running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(image))).flatten(1)


class Gemm(nn.Module):
    """Dynamic: two matrix products that share a weight, a lifted constant, a default argument, two results."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = nn.functional.gelu(self.shared(left))
        product = self.shared(hidden) @ right.transpose(0, 1)
        return {"scores": product.softmax(-1) * torch.tensor([0.5]), "hidden": hidden}


def conv() -> ExportedProgram:
    return torch.export.export(Conv().eval(), (torch.randn(1, 2, 4, 4),))


def gemm() -> ExportedProgram:
    batch, rows = Dim("batch", min=1, max=8), Dim("rows", min=2, max=64)
    example = torch.randn(3, 4), torch.randn(5, 4)
    return torch.export.export(Gemm().eval(), example, dynamic_shapes=({0: batch}, {0: rows}))


def main(folder: Path) -> None:
    torch.manual_seed(0)
    for name, program in ((CONV, conv()), (GEMM, gemm())):
        for node in program.graph.nodes:
            for trace in TRACES:
                node.meta.pop(trace, None)
        torch.export.save(program, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
