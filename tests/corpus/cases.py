"""How a corpus case is written down, exported and identified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from farm.programs import Program, open_program


class Fn(nn.Module):
    """A function as a module; ``tensors`` become parameters (floating) or buffers."""

    def __init__(self, function: Callable[..., Any], **tensors: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


@dataclass(frozen=True)
class Case:
    """A module and what it is exported with."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    dynamic: Any = None
    custom_ops: Mapping[str, str] | None = None
    train: bool = False
    decompose: bool = False
    strict: bool = False


@dataclass(frozen=True)
class Pair:
    """Two cases. ``same``: they are one program under ``policy`` (``content`` or ``metadata``)."""

    name: str
    same: bool
    first: Callable[[], Case]
    second: Callable[[], Case]
    policy: str = "content"
    runs: bool = True
    """Whether the two of a same pair can be run on the same inputs and must then agree."""


def export(case: Case) -> torch.export.ExportedProgram:
    module = case.module.train(case.train)
    program = torch.export.export(module, case.args, dict(case.kwargs), dynamic_shapes=case.dynamic, strict=case.strict)
    return program.run_decompositions() if case.decompose else program


def save(case: Case, path: Path) -> Path:
    torch.export.save(export(case), path)
    return path


def identity(program: Program, policy: str = "content") -> tuple[str, str]:
    """What a key takes of a program."""
    if policy == "content":
        return program.structure_digest, program.weights.content_digest()
    return program.graph_digest, program.weights.metadata_digest()


def opened(case: Case, path: Path) -> Program:
    return open_program(save(case, path), custom_ops=case.custom_ops)


X = torch.linspace(-1, 1, 12).reshape(3, 4)
Y = torch.linspace(2, 5, 12).reshape(3, 4)
INTEGERS = torch.arange(12).reshape(3, 4)
IMAGE = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
W = torch.linspace(-2, 2, 16).reshape(4, 4)
V = torch.linspace(0, 1, 4)
B, C = Dim("b", min=2, max=16), Dim("c", min=2, max=16)
Body = Callable[..., Any]

PAIRS: list[Pair] = []


def pair(name: str, same: bool, first: Callable[[], Case], second: Callable[[], Case], **more: Any) -> None:
    PAIRS.append(Pair(name, same, first, second, **more))


def differ(name: str, first: Body, second: Body, *args: Any, **tensors: torch.Tensor) -> None:
    """Two functions of the same inputs that are two programs."""
    given = args or (X,)
    pair(name, False, lambda: Case(Fn(first, **tensors), given), lambda: Case(Fn(second, **tensors), given))


def agree(name: str, first: Body, second: Body, *args: Any, **tensors: torch.Tensor) -> None:
    """Two functions of the same inputs that are one program."""
    given = args or (X,)
    pair(name, True, lambda: Case(Fn(first, **tensors), given), lambda: Case(Fn(second, **tensors), given))


def shaped(dynamic: Any, *args: torch.Tensor, body: Body | None = None) -> Callable[[], Case]:
    """A case with dynamic dims, one entry of ``dynamic`` for each argument."""
    return lambda: Case(Fn(body or (lambda m, *xs: sum(xs, start=xs[0]) * 2)), args, dynamic={"args": tuple(dynamic)})
