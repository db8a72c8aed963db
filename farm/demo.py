"""The demonstration's sweep: what ``farm demo`` asks for, as a file that a user can change and ask for again."""

from __future__ import annotations

from pathlib import Path

from farm.errors import Unavailable
from farm.examples import ensure_examples

SWEEP = "sweep.yaml"
REPORT = "report.html"

TEXT = """\
# What 'farm demo' asks for. Change it, and ask again: farm sweep -c {path}
# Only what differs in effect is built; everything else is a hit.
models:
  resnet:
    path: resnet.pt2
    profiles:
      small: {{min: "image:1x3x64x64", opt: "image:1x3x64x64", max: "image:4x3x64x64"}}
      large: {{min: "image:1x3x64x64", opt: "image:8x3x64x64", max: "image:16x3x64x64"}}
  gpt:
    path: gpt.pt2
    profiles:
      small: {{min: "tokens:1x1", opt: "tokens:1x16", max: "tokens:1x32"}}
      large: {{min: "tokens:1x1", opt: "tokens:1x128", max: "tokens:1x256"}}
targets: [sm_86, sm_89, sm_120]
grid:
  profile: [small, large]
  disable_tf32: [false, true]
  enable_weight_streaming: [false, true]
  optimization_level: [1, 3, 5]
  tiling_optimization_level: [none, fast, moderate, full]
"""


def prepare(folder: Path) -> Path:
    """Put the example programs and the sweep's file into ``folder``; returns the file. What is there is kept."""
    try:
        ensure_examples(folder)
        path = folder / SWEEP
        if not path.exists():
            path.write_text(TEXT.format(path=path), "utf-8")
    except OSError as error:
        raise Unavailable(
            f"{folder} cannot be written: {error.strerror or error}", "name another folder: farm demo DIR"
        ) from error
    return path
