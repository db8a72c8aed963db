"""Exports the two programs that are swept: ``python -m tests.bench.export_gpts FOLDER LAYERS``.

GPT-like, of two widths, random weights, sequences of dynamic length; of twelve layers a build takes seconds, as real
ones do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.export import Dim

from farm.examples.models import Gpt

WIDTHS = {"narrow": 192, "wide": 256}
LONGEST = 256
VOCABULARY = 2048


def main(folder: Path, layers: int) -> None:
    for name, width in WIDTHS.items():
        torch.manual_seed(width)
        model = Gpt(VOCABULARY, width, layers=layers, heads=width // 32).eval()
        tokens = torch.randint(0, VOCABULARY, (1, 64))
        ranges = {"tokens": {1: Dim("tokens", min=1, max=LONGEST)}}
        torch.export.save(torch.export.export(model, (tokens,), dynamic_shapes=ranges), folder / f"{name}.pt2")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
