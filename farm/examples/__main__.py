"""``python -m farm.examples FOLDER``: write the example programs there. Runs in a process of its own: torch is slow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch.export import Dim

from farm.examples import EXAMPLES
from farm.examples.models import Gpt, ResNet

SEED = 20
BATCH = Dim("batch", min=1, max=16)
TOKENS = Dim("tokens", min=1, max=256)


def resnet() -> torch.export.ExportedProgram:
    """Static 64 x 64 images, a dynamic batch."""
    model = ResNet().eval()
    return torch.export.export(model, (torch.randn(4, 3, 64, 64),), dynamic_shapes={"image": {0: BATCH}})


def gpt() -> torch.export.ExportedProgram:
    """One sequence of dynamic length."""
    model = Gpt().eval()
    tokens = torch.randint(0, 8192, (1, 64))
    return torch.export.export(model, (tokens,), dynamic_shapes={"tokens": {1: TOKENS}})


def write(program: torch.export.ExportedProgram, path: Path) -> None:
    """Whole or not at all: a program that is there may be used by others at once."""
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    torch.export.save(program, partial)
    partial.replace(path)


def main() -> None:
    folder = Path(sys.argv[1])
    for example, make in zip(EXAMPLES, (resnet, gpt), strict=True):
        torch.manual_seed(SEED)
        write(make(), folder / example.file)


if __name__ == "__main__":
    main()
