"""Make an untrusted ``.pt2`` safe to load: nothing that torch could execute is passed on.

``torch.export.load`` of torch 2.13, and the export to ONNX after it, run what a file says in many ways: pickles
(sample inputs, weights, constants, opaque objects), ``expr_str`` through SymPy, ``guards_code``, names that FX
writes into Python code, operators found by attribute look-ups, modules imported for descriptions of containers,
compiled libraries (``data/aotinductor``), and whatever further program lies in ``models/``. docs and tests/hostile
list each with a file that shows it.

So nothing is copied but raw tensor bytes. The members that torch needs are written anew from what the checks
(``sanitise_graph``, ``sanitise_trees``, ``sanitise_symbols``) have let through; what no table names is refused
or left behind; sample inputs become an empty member, which the loader takes for none.

No torch here, and bounded memory: JSON is unfolded node by node, tensors pass through one buffer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

import msgspec
from msgspec import Raw, Struct

from farm.errors import BadProgram
from farm.programs import schema
from farm.programs.archive import Archive, Member, open_regular
from farm.programs.sanitise_checks import Refused
from farm.programs.sanitise_model import sanitise_model
from farm.programs.sanitise_tensors import Tensors, sanitise_table
from farm.programs.sanitise_zip import StoredZip, read_pieces

MODEL = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_ROOT = "program"
_HINT = "Export the model again with torch 2.10 to 2.13 (torch.export.export, torch.export.save), as tensors only."
_MAX_MARKS = 16_000_000
_T = TypeVar("_T")


def sanitise_pt2(src: Path, dst: Path) -> None:
    """Write to ``dst``, a new file, what can be loaded safely of the program at ``src``.

    The result has the same graph, weights and calling convention and exports to the same ONNX model; it lacks
    sample inputs, guards, extra files and compiled parts, and all its tensors are on the CPU. ``BadProgram``
    says what of ``src`` cannot be made safe; ``OSError`` if ``dst`` cannot be written. ``dst`` then does not exist.
    """
"""
