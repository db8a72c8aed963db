"""The child that turns a program into its ONNX form. A task for ``child``; it imports torch.

The program is a ``.pt2`` archive that was sanitised before (nothing in it is executed by loading it), or an
``.onnx`` file. Its job: ``program``: the file; ``folder``, ``graph``, ``data``: where to write.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farm.builders.child import Channel


def run(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Write the form; what it returns is the message ``done``."""
    program, graph = Path(job["program"]), Path(job["folder"]) / job["graph"]
    # farm's own modules are light; torch and onnx are what takes the time here.
    if program.suffix == ".onnx":
        from farm.builders import onnx_form

        return onnx_form.take_onnx(program, graph, job["data"], channel)
    if not zipfile.is_zipfile(program):  # said at once, not after seconds of importing torch
        raise channel.Refused(what="load", text="it is no .pt2 archive")
    from farm.builders import torch_export

    return torch_export.export_program(program, graph, job["data"], channel)


def explain(error: BaseException, phase: str) -> dict[str, Any]:
    """What ``torch``, ``onnx_ir`` or the exporter raised: they raise anything, so the phase says what it was."""
    if isinstance(error, ImportError) and phase == "start":
        return {"what": "exporter", "text": str(error)}
    torch_export = sys.modules.get("farm.builders.torch_export")
    if torch_export is not None and phase == "export":
        return dict(torch_export.why(error))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return {"what": phase, "text": (lines or [""])[0][:500], "type": type(error).__name__}
