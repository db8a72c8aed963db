"""The ONNX front end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from farm.errors import BadProgram
from farm.programs.identity import FileIdentity
from farm.programs.program import Loaded, Program


def open_onnx(path: Path, custom_ops: Mapping[str, str]) -> tuple[Program, Mapping[Path, FileIdentity]]:
    raise BadProgram(f"{path} is not a program that farm reads", "Give a .pt2 file.")


def load_onnx(path: Path, custom_ops: Mapping[str, str]) -> Loaded:
    raise BadProgram(f"{path} is not a program that farm reads", "Give a .pt2 file.")
