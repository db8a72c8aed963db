"""The ONNX front end: a model's own bytes become a canonical ``Graph``. Neither onnx nor protobuf is needed."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from farm.errors import BadProgram
from farm.graph import Graph, Input, Node, Output, canonicalise
from farm.graph_symbols import parse
from farm.programs.archive import open_regular
from farm.programs.describe import shorten, source_line
from farm.programs.identity import FileIdentity
from farm.programs.onnx_messages import EXPLAINED, MESSAGES
from farm.programs.onnx_nodes import Frame, Message, Names, OnnxNodes, names_read, opsets_of
from farm.programs.onnx_tensors import OnnxTensors
from farm.programs.onnx_wire import NotAMessage, Reader
from farm.programs.program import Loaded, Program, build_program
from farm.programs.pt2 import normal_range
from farm.programs.weights import StoredTensor, Weights, kind_of

_RANGES = "pkg.torch.export.ExportedProgram.range_constraints"
_MAX_RANGES = 1_000_000
_RANGE = re.compile(r"([^{},:]{1,200}+): VR\[(-?\w+), (-?\w+)\]")
_HINT = "Export the model again, with torch.onnx.export(..., dynamo=True) or as a .pt2."


def open_onnx(path: Path, custom_ops: Mapping[str, str]) -> tuple[Program, Mapping[Path, FileIdentity]]:
    """The model at ``path`` and every file that it is made of. ``BadProgram`` says what is wrong."""
    loaded, nodes = _read(path, custom_ops, MESSAGES)
    tensors = _classified(nodes)
    weights = Weights([tensors[number] for number in loaded.canonical.lifted])
    program = build_program(path, "onnx", loaded, weights, lambda: load_onnx(path, custom_ops))
    if nodes.values.doubles:
        program = replace(program, uses_float64=True)
    return program, nodes.tensors.files


def load_onnx(path: Path, custom_ops: Mapping[str, str]) -> Loaded:
    """The graph of a model that was opened before, with what its nodes say of their origin."""
    return _read(path, custom_ops, EXPLAINED)[0]


def _read(path: Path, custom_ops: Mapping[str, str], tables: Any) -> tuple[Loaded, OnnxNodes]:
    descriptor = open_regular(path)
    try:
        identity = FileIdentity.of(os.fstat(descriptor))
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            return _decoded(path, identity, Reader(view, tables), custom_ops)
    finally:
        os.close(descriptor)


def _decoded(
    path: Path, identity: FileIdentity, reader: Reader, custom_ops: Mapping[str, str]
) -> tuple[Loaded, OnnxNodes]:
    try:
        model = reader.message("ModelProto", 0, len(reader.data))
        if not model.get("graph", {}).get("output") or not model.get("opset_import"):
            raise BadProgram(f"{path} is neither a .pt2 nor an ONNX model", _HINT)
        nodes = OnnxNodes(OnnxTensors(path, identity, reader), model.get("functions", []), custom_ops)
        graph = _graph(model, nodes)
        return Loaded(graph, canonicalise(graph), _describe), nodes
    except NotAMessage as error:
        raise BadProgram(f"{path} is not a valid ONNX model: {error}", _HINT) from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadProgram(f"{path} is not a valid ONNX model: {type(error).__name__} at {error}", _HINT) from None


def _graph(model: Message, nodes: OnnxNodes) -> Graph:
    graph, message = nodes.graph, model["graph"]
    frame = Frame(Names(), opsets_of(model["opset_import"]), 0)
    frame.read = names_read(message, [one.get("name", "") for one in message["output"]])
    nodes.initializers(message, frame.names)
    for one in message.get("input", []):
        if one.get("name", "") not in frame.names.values:
            _read_input(one, nodes, frame)
    nodes.read(message.get("node", []), frame)
    for one in message["output"]:
        number, index = frame.names.find(one.get("name", ""))
        shaped = "shape" in one.get("type", {}).get("tensor_type", {})
        meta = nodes.meta(one) if shaped else None
        graph.outputs.append(Output("user_output", (number, (index,)), None, None, one.get("name", ""), meta))
    graph.effects = frame.ordered
    _read_ranges(model, graph)
    return graph


def _read_input(one: Message, nodes: OnnxNodes, frame: Frame) -> None:
    name, position = one.get("name", ""), len(nodes.graph.inputs)
    meta = nodes.meta(one)
    if meta is None:
        raise BadProgram(f"input {name!r} is no tensor", "Give the model tensors as inputs.")
    leaf = nodes.graph.leaf("input", [position], meta, name)
    frame.names.define(name, (leaf, 0))
    nodes.ranks[leaf, 0] = len(meta.dims)
    nodes.varying.add(leaf)
    nodes.graph.inputs.append(Input(name, leaf, meta))


def _read_ranges(model: Message, graph: Graph) -> None:
    """Ranges as torch's exporter leaves them in the model's metadata."""
    for one in [*model.get("metadata_props", []), *model["graph"].get("metadata_props", [])]:
        if one.get("key") == _RANGES:
            told = one.get("value", "")
            if len(told) > _MAX_RANGES:
                raise NotAMessage(f"the ranges of its dims are {len(told):,} characters long")
            for name, low, high in _RANGE.findall(told):
                found = normal_range(_bound(low), _bound(high))
                if name.strip().isidentifier():
                    graph.ranges[name.strip()] = found
                else:
                    graph.expression_ranges.append((parse(name.strip()), found))


def _bound(text: str) -> int | None:
    digits = text.removeprefix("-")
    return int(text) if digits.isdigit() and len(digits) < 20 else None


def _classified(nodes: OnnxNodes) -> list[StoredTensor]:
    """Tensors with their kinds: a weight is used as weights only."""
    returned = {nodes.graph.leaves.get(one.value[0]) for one in nodes.graph.outputs if one.value is not None}
    found = []
    for number, tensor in enumerate(nodes.tensors.tensors):
        lasting = number in nodes.used and number not in nodes.unrefittable and number not in returned
        found.append(replace(tensor, kind=kind_of(tensor.dtype, tensor.shape, lasting)))
    return found


def _describe(node: Node) -> tuple[str, str]:
    message = node.source
    if not isinstance(message, dict):
        return "", ""
    shown = ", ".join([*message.get("input", []), *(one.get("name", "") for one in message.get("attribute", []))])
    properties = {one.get("key", ""): one.get("value", "") for one in message.get("metadata_props", [])}
    return shorten(shown), source_line(properties.get("pkg.torch.onnx.stack_trace", ""))
