"""ONNX models put into the form that the builder takes: repeatable bytes, weights apart, every binding its own.

Runs in the export child only, as it needs ``onnx_ir``.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from farm.builders.notes import Notes, append_notes

if TYPE_CHECKING:
    from farm.builders.child import Channel

APART = 1024
"""Tensors of at least this many bytes go to the data file. Parsing an engine's graph then costs the same
whatever the weights weigh, and they are mapped, not copied."""
_FX_NODE = re.compile(r"%(\w+) ")
_SYMBOL = re.compile(r"\b[su]\d+\b")


def finish(model: ir.Model, inputs: Sequence[str], origins: Mapping[str, str]) -> dict[str, str]:
    """Make ``model`` repeatable and its bindings what the program calls them; where its nodes come from.

    ``origins`` says that of the program's nodes, the result of the model's. All that names files of the machine
    that exported the program goes: stack traces, scopes, signatures. So do the symbols' names, which follow from
    the names of arguments: dims are ``d0``, ``d1`` … in the order that the inputs use them.
    """
    rename_inputs(model, inputs)
    give_outputs_their_own(model)
    found = {node.name: origin_of(node, origins) for node in every_node(model) if node.name}
    rename_symbols(model)
    strip(model)
    return {name: origin for name, origin in found.items() if origin}


def every_node(model: ir.Model) -> Iterator[ir.Node]:
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def every_value(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for function in model.functions.values():
        yield from function.inputs
    for node in every_node(model):
        yield from node.outputs
        for graph in subgraphs(node):
            yield from graph.inputs
            yield from graph.initializers.values()


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.value
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.value


def origin_of(node: ir.Node, origins: Mapping[str, str]) -> str:
    """Where ``node`` comes from: the exporter notes which of the program's nodes it was made of."""
    made_of = _FX_NODE.match(node.metadata_props.get("pkg.torch.onnx.fx_node", ""))
    return origins.get(made_of[1], "") if made_of else ""


def rename_inputs(model: ir.Model, names: Sequence[str]) -> None:
    """Give the graph's inputs the program's names: the exporter renames one that is an output too."""
    taken = {value.name: value for value in every_value(model)}
    for value, name in zip(model.graph.inputs, names, strict=True):
        other = taken.get(name)
        if other is not None and other is not value:
            other.name = unused(taken, f"{name}_out")
            taken[other.name] = other
        value.name = name
        taken[name] = value


def give_outputs_their_own(model: ir.Model) -> None:
    """An output that is an input, a constant, or an output already gets a node and a name of its own: TensorRT's
    parser drops the second of two, and renames an input that is one."""
    taken = {value.name: value for value in every_value(model)}
    seen: set[int] = set()
    for index, value in enumerate(model.graph.outputs):
        if id(value) not in seen and value.producer() is not None:
            seen.add(id(value))
            continue
        name = unused(taken, f"{value.name}_out")
        node = ir.node("Identity", [value], name=f"node_{name}")
        copy = node.outputs[0]
        copy.name, copy.shape, copy.type = name, value.shape, value.type
        taken[name] = copy
        model.graph.append(node)
        model.graph.outputs[index] = copy


def unused(taken: dict[str | None, Any], name: str) -> str:
    candidates = (name if number == 0 else f"{name}_{number}" for number in range(len(taken) + 1))
    return next(candidate for candidate in candidates if candidate not in taken)


def rename_symbols(model: ir.Model) -> None:
    """Number the symbolic dims by first use."""
    numbers: dict[str, str] = {}

    def renamed(match: re.Match[str]) -> str:
        return numbers.setdefault(match[0], f"d{len(numbers)}")

    for value in every_value(model):
        if value.shape is None:
            continue
        value.shape = ir.Shape([_renamed(dim, renamed) for dim in value.shape])


def _renamed(dim: int | ir.SymbolicDim, renamed: Callable[[re.Match[str]], str]) -> int | ir.SymbolicDim | str:
    named = isinstance(dim, ir.SymbolicDim) and dim.value is not None
    return _SYMBOL.sub(renamed, str(dim.value)) if isinstance(dim, ir.SymbolicDim) and named else dim


def strip(model: ir.Model) -> None:
    """Remove what does not belong to the computation."""
    model.metadata_props.clear()
    model.doc_string = None
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        graph.doc_string = None
    for node in every_node(model):
        node.metadata_props.clear()
        node.doc_string = None
    for value in every_value(model):
        value.metadata_props.clear()
        value.doc_string = None


def describe_doubles(model: ir.Model) -> tuple[str, ...]:
    """The names of values that are float64, the first twenty."""
    found = [value.name or "" for value in every_value(model) if value.dtype == ir.DataType.DOUBLE]
    return tuple(found[:20])


def save(model: ir.Model, graph: Path, data: str) -> bool:
    """Write the model, its large tensors apart; whether there were any."""
    ir.save(model, graph, external_data=data, size_threshold_bytes=APART)
    path = graph.with_name(data)
    if path.exists() and path.stat().st_size == 0:
        path.unlink()
    return path.exists()


def take_onnx(program: Path, graph: Path, data: str, channel: Channel) -> dict[str, Any]:
    """The form of a program that is ONNX already."""
    channel.ready()
    with channel.phase("load"):
        model = ir.load(program)
        check_data(model, program, channel)
    if not model.graph.outputs:
        raise channel.Refused(what="empty", text="")
    inputs = tuple(value.name or "" for value in model.graph.inputs if value.name not in model.graph.initializers)
    give_outputs_their_own(model)
    with channel.phase("save"):
        stored = save(model, graph, data)
        outputs = tuple(value.name or "" for value in model.graph.outputs)
        append_notes(graph, Notes(inputs, outputs, doubles=describe_doubles(model)))
    return {"weights_apart": stored}


def check_data(model: ir.Model, program: Path, channel: Channel) -> None:
    """External data must be plain files beside the program: no links (they would disclose other files), no pipes
    (they hang whoever opens one), nothing outside."""
    for value in every_value(model):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            check_file(program.parent, str(tensor.location), channel)


def check_file(folder: Path, location: str, channel: Channel) -> None:
    path = folder / location
    inside = not Path(location).is_absolute() and ".." not in Path(location).parts
    if not inside or not path.exists() or not stat.S_ISREG(path.lstat().st_mode):
        raise channel.Refused(what="data", text=location)
