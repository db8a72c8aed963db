"""Triton's ``config.pbtxt`` for an engine, from the engine's own inputs and outputs. Pure.

Triton asks a plan for its tensors by their names, so an engine that was built for a model with other names gets two
configurations: its own, under the engine's names, and an *ensemble* of that one model under the asker's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farm.errors import BadInput

TYPES = {
    "FLOAT": "TYPE_FP32",
    "HALF": "TYPE_FP16",
    "BF16": "TYPE_BF16",
    "INT8": "TYPE_INT8",
    "UINT8": "TYPE_UINT8",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "BOOL": "TYPE_BOOL",
}
"""TensorRT's names of types and Triton's; what is missing here (FP8, INT4) no client can send."""
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine: TensorRT's type, and sizes, -1 where they may vary."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Served:
    """An engine's inputs and outputs, in order, and how many optimisation profiles it has."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    profiles: int = 0


def served(manifest: Mapping[str, Any]) -> Served:
    """What an engine's manifest says of it. ``BadInput`` for a manifest that does not."""
    try:
        sides = [
            tuple(Tensor(str(one["name"]), str(one["dtype"]), tuple(map(int, one["shape"]))) for one in several)
            for several in (manifest["bindings"]["inputs"], manifest["bindings"]["outputs"])
        ]
        return Served(sides[0], sides[1], len(manifest.get("profiles") or ()))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            "the engine's manifest does not say what its inputs and outputs are", "build it again"
        ) from error


def plan_config(name: str, found: Served) -> str:
    """The configuration of a model that is a plan: ``NAME/1/model.plan``. The batch is a dimension like any other."""
    lines = [f"name: {_text(name)}", 'platform: "tensorrt_plan"', "max_batch_size: 0"]
    lines += _tensors("input", found.inputs) + _tensors("output", found.outputs)
    if found.profiles > 1:
        numbers = ", ".join(f'"{number}"' for number in range(found.profiles))
        lines.append(f"instance_group [ {{ kind: KIND_GPU, profile: [ {numbers} ] }} ]")
    return "\n".join(lines) + "\n"


def ensemble_config(name: str, plan: str, found: Served, names: Mapping[str, Mapping[str, str]]) -> str:
    """The configuration of a model under the asker's ``names`` (of ``inputs`` and ``outputs``, by the engine's), which
    hands everything on to the model ``plan``."""
    mine = [_renamed(found.inputs, names["inputs"]), _renamed(found.outputs, names["outputs"])]
    lines = [f"name: {_text(name)}", 'platform: "ensemble"', "max_batch_size: 0"]
    lines += _tensors("input", mine[0]) + _tensors("output", mine[1])
    maps = [
        f"      {kind}_map {{ key: {_text(theirs.name)} value: {_text(own.name)} }}"
        for kind, several, owns in (("input", found.inputs, mine[0]), ("output", found.outputs, mine[1]))
        for theirs, own in zip(several, owns, strict=True)
    ]
    step = [f"      model_name: {_text(plan)}", "      model_version: -1", *maps]
    lines += ["ensemble_scheduling {", "  step [", "    {", *step, "    }", "  ]", "}"]
    return "\n".join(lines) + "\n"


def renames(found: Served, names: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether the asker calls anything otherwise than the engine does."""
    tensors = [*((one, names["inputs"]) for one in found.inputs), *((one, names["outputs"]) for one in found.outputs)]
    return any(own.get(one.name, one.name) != one.name for one, own in tensors)


def _renamed(tensors: Sequence[Tensor], names: Mapping[str, str]) -> list[Tensor]:
    mine = [Tensor(names.get(one.name, one.name), one.dtype, one.shape) for one in tensors]
    if len({one.name for one in mine}) < len(mine):
        raise BadInput("two of the model's tensors have one name, which Triton cannot serve", "use --layout plain")
    return mine


def _tensors(kind: str, tensors: Sequence[Tensor]) -> list[str]:
    if not tensors:
        return []
    return [f"{kind} [", ",\n".join(_tensor(one) for one in tensors), "]"]


def _tensor(tensor: Tensor) -> str:
    if tensor.dtype not in TYPES:
        raise BadInput(f"{tensor.name} is of type {tensor.dtype}, which Triton cannot serve", "use --layout plain")
    sizes = ", ".join(map(str, tensor.shape or (1,)))
    scalar = "" if tensor.shape else "\n    reshape: { shape: [ ] }"
    lines = [f"name: {_text(tensor.name)}", f"data_type: {TYPES[tensor.dtype]}", f"dims: [ {sizes} ]{scalar}"]
    return "\n    ".join(["  {", *lines]) + "\n  }"


def _text(text: str) -> str:
    """A string of a protobuf's text format."""
    return '"' + "".join(_ESCAPES.get(mark, mark) for mark in text) + '"'
