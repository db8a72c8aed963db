"""The corpus. Each pair is small enough to be read as a claim: these two are (or are not) one program."""

from __future__ import annotations

from . import adversary, calls, captures, effects, inputs, more, operators, spelling, tensors
from .cases import PAIRS

__all__ = ["PAIRS", "adversary", "calls", "captures", "effects", "inputs", "more", "operators", "spelling", "tensors"]
