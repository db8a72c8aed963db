"""``open_program``: what kind of file it is, and whether it has been read before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from farm.errors import BadProgram
from farm.programs.archive import open_regular
from farm.programs.identity import FileIdentity
from farm.programs.memory import WeightsMemory
from farm.programs.pause import collection_paused
from farm.programs.program import Program
from farm.programs.recall import recall, remember
from farm.programs.torch_graph import check_custom_ops

_SAVE = "Save the program with torch.export.save(program, 'name.pt2'), or give an ONNX model."
_KNOWN = (
    (b"\x80", "is a pickle or torch.save checkpoint, not an exported program"),
    (b"\x89HDF", "is an HDF5 file, not an exported program"),
    (b"ftrt", "is a TensorRT engine already, not a program"),
    (b"ptrt", "is a TensorRT engine already, not a program"),
    (b"vtrt", "is a TensorRT-RTX engine already, not a program"),
    (b"GGUF", "is a GGUF checkpoint, not an exported program"),
    (b"version https://git-lfs", "is a Git LFS pointer: the program itself was not fetched"),
)


def open_program(
    path: Path | str, *, custom_ops: Mapping[str, str] | None = None, memory: WeightsMemory | None = None
) -> Program:
    """Open a ``.pt2`` or ``.onnx`` file. No torch or onnx is imported, nothing in the file is executed.

    ``custom_ops`` declares implementation digests of custom operators (``{"ns::op.overload": "sha256:…"}``).
    With ``memory``, a file that was read before and has not changed is not read again. ``BadProgram`` in one
    line for anything that is not a program.
    """
    path = Path(path)
    declared = check_custom_ops(custom_ops)
    if memory is not None:
        found = recall(memory, path, declared)
        if found is not None:
            return found
    try:
        with collection_paused():
            program, files = _opened(path, declared)
    except BadProgram as error:
        if str(path) in error.message:
            raise
        raise BadProgram(f"{path}: {error.message}", error.hint) from None
    if memory is not None:
        remember(memory, program, declared, files)
    return program


def _opened(path: Path, custom_ops: Mapping[str, str]) -> tuple[Program, Mapping[Path, FileIdentity]]:
    start = _start(path)
    for magic, what in _KNOWN:
        if start.startswith(magic):
            raise BadProgram(f"{path} {what}", _SAVE)
    if start.startswith(b"PK\x03\x04"):
        from farm.programs.pt2_archive import open_pt2

        program, identity = open_pt2(path, custom_ops)
        return program, {path: identity}
    if path.suffix == ".pt2":
        raise BadProgram(f"{path} is not a .pt2 archive (it does not start as a zip does)", _SAVE)
    from farm.programs.onnx import open_onnx

    return open_onnx(path, custom_ops)


def _start(path: Path) -> bytes:
    descriptor = open_regular(path)
    try:
        start = os.read(descriptor, 64)
    finally:
        os.close(descriptor)
    if not start:
        raise BadProgram(f"{path}: the file is empty", _SAVE)
    return start
