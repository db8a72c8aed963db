"""Writes the programs of the vectors. Run once: what is checked in is never exported again, since another torch
may serialise the same program otherwise, and a vector must hold still. ``python -m tests.vectors.programs FOLDER``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.export import Dim, ExportedProgram

from tests.vectors.cases import CONV, GEMM, ONNX

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


def gemm_onnx() -> onnx.ModelProto:
    """The same idea as ONNX: a dynamic batch, a default attribute, a constant in the graph."""
    weight = numpy_helper.from_array(numpy.linspace(-1, 1, 12, dtype=numpy.float32).reshape(4, 3), "weight")
    half = numpy_helper.from_array(numpy.array([0.5], numpy.float32), "half")
    nodes = [
        helper.make_node("Gemm", ["x", "weight"], ["product"], name="first"),
        helper.make_node("Relu", ["product"], ["kept"]),
        helper.make_node("Mul", ["kept", "half"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", d]) for n, d in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "gemm", values[:1], values[1:], [weight, half])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    for name, program in ((CONV, conv()), (GEMM, gemm())):
        for node in program.graph.nodes:
            for trace in TRACES:
                node.meta.pop(trace, None)
        torch.export.save(program, folder / name)
    onnx.save(gemm_onnx(), folder / ONNX)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
