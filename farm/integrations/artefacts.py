"""A program artefact put together with its program: the compiled module, without building anything.

The artefact holds plans and says what each is of; it holds no code and no weights of what stays in PyTorch. The program
has both. Lowering and partitioning it again, which takes a small part of a build's time and is the same every time,
asks for each subgraph's engine by key, and the artefact has it; one that it does not have shows that the two do not
belong together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch_tensorrt

from farm.builders.torch_tensorrt import PROGRAM_KIND
from farm.container import Header, header_for, unpack
from farm.errors import BadInput, CorruptBlob
from farm.integrations.compiling import settings_of, specs_of
from farm.integrations.interpreting import Found, interpreted
from farm.integrations.place import place_of, toolchain_here
from farm.integrations.subgraphs import Asked, Place


def load(artefact: Path | str, program: Any) -> Any:
    """The compiled module of the ``ExportedProgram`` ``program``, with the engines of the file ``artefact`` (as
    ``farm pull`` places it). ``BadInput`` when it is none, or another program's or toolchain's; ``CorruptBlob``."""
    header, plans = unpack(Path(artefact).read_bytes())
    if header.detail.get("kind") != PROGRAM_KIND:
        raise BadInput(f"{artefact} is no program that Torch-TensorRT compiled", "give what 'farm pull' placed for one")
    if header.toolchain != str(toolchain_here()):
        raise BadInput(
            f"{artefact} was made by {header.toolchain}, and this process has {toolchain_here()}",
            "its engines are bound to it: build the program with the toolchain that you run it with",
        )
    engines = {str(told["key"]): _engine(told, header, plans) for told in header.detail["engines"]}
    capabilities = tuple(int(name.removeprefix("sm_")) for name in header.target.split("+"))

    def place(settings: Any) -> Place:
        return replace(place_of(settings), capabilities=capabilities)

    def find(asked: Asked) -> Found:
        if asked.key not in engines:
            raise BadInput(f"{artefact} has no engine for a part of this program", "it is another program's artefact")
        return engines[asked.key]

    told = header.detail
    with tempfile.TemporaryDirectory(prefix="farm-load-") as folder, interpreted(place, find, lambda *_: None):
        inputs, named = specs_of(program, told["profiles"])
        settings = settings_of(told["settings"], Path(folder))
        return torch_tensorrt.dynamo.compile(program, arg_inputs=inputs, kwarg_inputs=named, **settings)


def _engine(told: Mapping[str, Any], whole: Header, plans: memoryview) -> Found:
    """One engine of the artefact, verified by its own digest."""
    start, size = int(told["offset"]), int(told["size"])
    plan = plans[start : start + size]
    header = header_for(
        plan,
        key=str(told["key"]),
        recipe=str(told["recipe"]),
        toolchain=whole.toolchain,
        target=whole.target,
        bindings=told["bindings"],
        detail=told["detail"],
    )
    if header.engine != told["digest"]:
        raise CorruptBlob(f"the engine {told['name']} is not the one that the artefact names", "fetch it again")
    return header, plan
