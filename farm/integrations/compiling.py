"""What ``torch_tensorrt.dynamo.compile`` is told, from plain data: settings by farm's names, shapes by position."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch_tensorrt
from torch.utils import _pytree as pytree

from farm.errors import BadInput

Shapes = Sequence[Sequence[int]]
"""min, opt and max."""


def settings_of(settings: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    """Keywords for ``dynamo.compile``, of Torch-TensorRT's own types; what its release does not have is left out.
    Engine caching is farm's, and stays off there; ``scratch`` is where its timing cache goes."""
    known = set(inspect.signature(torch_tensorrt.dynamo.compile).parameters)
    told = {name: value for name, value in settings.items() if name in known and name != "device"}
    for name in ("torch_executed_ops", "autocast_excluded_ops"):
        if told.get(name):
            told[name] = {operator(text) for text in told[name]}
    for name in ("autocast_excluded_nodes", "disabled_constant_fold_exclusions"):
        if name in told:
            told[name] = set(told[name])
    if told.get("autocast_low_precision_type"):
        told["autocast_low_precision_type"] = getattr(torch, told["autocast_low_precision_type"])
    if told.get("enabled_precisions"):
        told["enabled_precisions"] = {getattr(torch, name) for name in told["enabled_precisions"]}
    if "engine_capability" in told:
        told["engine_capability"] = torch_tensorrt.EngineCapability[told["engine_capability"]]
    if settings.get("device"):
        told["device"] = torch_tensorrt.Device(str(settings["device"]))
    told |= {"cache_built_engines": False, "reuse_cached_engines": False, "dryrun": False}
    return told | {"timing_cache_path": str(scratch / "timing.bin")}


def operator(text: str) -> Any:
    """``aten.add.Tensor`` → ``torch.ops.aten.add.Tensor``."""
    found: Any = torch.ops
    for part in text.removeprefix("torch.ops.").split("."):
        found = getattr(found, part)
    return found


def specs_of(program: Any, profiles: Sequence[Mapping[str, Shapes]]) -> tuple[list[Any], dict[str, Any]]:
    """The inputs' specs, as the program takes them: by position, and by keyword. ``BadInput`` for shapes that are
    missing, or several profiles: Torch-TensorRT has one."""
    if len(profiles) > 1:
        raise BadInput("Torch-TensorRT builds with one profile, and several are given", "give one")
    shapes = profiles[0] if profiles else {}
    specs = [spec_of(node, shapes.get(str(n))) for n, node in enumerate(user_inputs(program))]
    args, kwargs = pytree.tree_unflatten(specs, program.call_spec.in_spec)
    return list(args), dict(kwargs)


def user_inputs(program: Any) -> list[Any]:
    """The inputs' nodes or, for constants, their values, in order."""
    named = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    found: list[Any] = []
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            found.append(spec.arg.value if hasattr(spec.arg, "value") else named[spec.arg.name])
    return found


def outputs_of(program: Any) -> list[Any]:
    """The outputs' nodes or values, in order."""
    (returned,) = next(node for node in program.graph.nodes if node.op == "output").args
    specs = program.graph_signature.output_specs
    return [node for node, spec in zip(returned, specs, strict=True) if spec.kind.name == "USER_OUTPUT"]


def spec_of(node: Any, shapes: Shapes | None) -> Any:
    """One input's spec; a value that is no tensor is its own."""
    value: Any = node.meta["val"] if isinstance(node, torch.fx.Node) else node
    if not isinstance(value, torch.Tensor):
        return value
    if shapes is not None:
        least, best, most = (tuple(shape) for shape in shapes)
        if least != most:
            return torch_tensorrt.Input(min_shape=least, opt_shape=best, max_shape=most, dtype=value.dtype)
        return torch_tensorrt.Input(shape=best, dtype=value.dtype)
    if not all(type(size) is int for size in value.shape):
        raise BadInput(f"no shapes are given for {node.name}", "give min, opt and max shapes for it")
    return torch_tensorrt.Input(shape=tuple(value.shape), dtype=value.dtype)


def binding(node: Any) -> dict[str, Any]:
    """A binding of the program's: -1 is a dynamic size."""
    value = node.meta.get("val") if isinstance(node, torch.fx.Node) else None
    if not isinstance(value, torch.Tensor):
        return {"name": str(node), "dtype": "", "shape": []}
    shape = [size if type(size) is int else -1 for size in value.shape]
    return {"name": node.name, "dtype": str(value.dtype).removeprefix("torch."), "shape": shape}
