"""Print which real architectures build, by the plain path and by farm's: ``python tools/architectures.py [NAME…]``.

The plain path is ``torch.onnx.export`` of the program as it was exported, and TensorRT's parser; farm's begins with
the saved ``.pt2`` in a process that knows nothing of the model. Its seconds include that process's imports (torch and
ONNX: three or more), which the plain path, run here, pays for once.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "builders"))

from farm.builders import Form, Job, Limits, Watch
from farm.builders.tensorrt import TensorRTBuilder
from farm.errors import FarmError
from farm.hosts.packages import installed_toolchains
from farm.programs.sanitise import sanitise_pt2
from farm.toolchains import Toolchain

LIMITS = Limits(seconds=300)
TARGET = ("sm_86",)


def build(form: Form, toolchain: Toolchain, folder: Path) -> None:
    TensorRTBuilder().build(Job(toolchain, form, {}, TARGET, (), folder, limits=LIMITS), Watch())


def plain(program: Any, toolchain: Toolchain, folder: Path) -> None:
    import torch

    torch.onnx.export(program, dynamo=True, verbose=False).save(folder / "plain.onnx")
    build(Form(folder / "plain.onnx", None, (), ()), toolchain, folder)


def ours(program: Any, toolchain: Toolchain, folder: Path) -> None:
    import torch

    torch.export.save(program, folder / "model.pt2")
    sanitise_pt2(folder / "model.pt2", folder / "safe.pt2")
    form = TensorRTBuilder().export(folder / "safe.pt2", folder, LIMITS, Watch(), {})
    build(form, toolchain, folder)


def tried(way: Callable[[Any, Toolchain, Path], None], program: Any, toolchain: Toolchain) -> tuple[str, float]:
    """``built``, or why not; and the seconds it took."""
    from torch.onnx.errors import OnnxExporterError

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            way(program, toolchain, Path(folder))
            said = "built"
        except FarmError as error:
            said = error.message
        except OnnxExporterError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            said = f"torch.onnx: {str(cause).splitlines()[0]}"
    return said, time.monotonic() - began


def main(names: list[str]) -> None:
    from architectures import ALL, exported

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    toolchain = next(found for found in installed_toolchains() if found.flavour == "tensorrt_rtx")
    counts = {"plain": 0, "farm": 0, "all": 0}
    print(f"{'architecture':16} {'kind':16} {'plain s':>8} {'farm s':>7}  outcome")
    for architecture in ALL:
        if names and architecture.name not in names:
            continue
        program = exported(architecture)
        plainly, plain_seconds = tried(plain, program, toolchain)
        by_farm, farm_seconds = tried(ours, program, toolchain)
        counts["all"] += 1
        counts["plain"] += plainly == "built"
        counts["farm"] += by_farm == "built"
        outcome = "both" if plainly == by_farm == "built" else f"plain: {plainly} | farm: {by_farm}"
        times = f"{plain_seconds:8.1f} {farm_seconds:7.1f}"
        print(f"{architecture.name:16} {architecture.kind:16} {times}  {outcome}", flush=True)
    print(f"built: plain {counts['plain']} of {counts['all']}, farm {counts['farm']} of {counts['all']}")


if __name__ == "__main__":
    main(sys.argv[1:])
