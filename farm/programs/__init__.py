"""Programs: read a ``.pt2`` or ``.onnx`` without torch, without onnx, and without executing anything in it."""

from __future__ import annotations

from farm.programs.opening import open_program
from farm.programs.program import Program
from farm.programs.specs import NodeInfo, TensorSpec

__all__ = ["NodeInfo", "Program", "TensorSpec", "open_program"]
