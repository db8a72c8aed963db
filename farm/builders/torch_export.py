"""A ``.pt2`` program becomes an ONNX model. Runs in the export child only.

``torch.onnx.export`` does the conversion. What it needs help with, or is silent about, is done here (and in
``torch_load``):

- conversion runs under ``no_grad``. With gradients on, scaled-dot-product attention with a learned bias takes
  another path than at export, whose result has other strides, and the ``view`` after it fails (Swin, T5);
- averaging windows larger than their input, which TensorRT does not take, are clipped to it;
- Python constants among the outputs, which no engine can return, are left out and told;
- mutation of buffers and inputs, silently dropped on the way to ONNX, is refused.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxscript
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind

from farm.builders.notes import Notes, append_notes
from farm.builders.onnx_form import describe_doubles, finish, save
from farm.builders.torch_load import line_of, load

if TYPE_CHECKING:
    from farm.builders.child import Channel


def exporter_text() -> str:
    """The versions that the form depends on."""
    return f"torch=={torch.__version__.partition('+')[0]} onnxscript=={onnxscript.__version__}"


def export_program(program: Path, graph: Path, data: str, channel: Channel) -> dict[str, Any]:
    """Convert the archive ``program`` to the ONNX file ``graph`` with its weights in ``data`` beside it."""
    warnings.simplefilter("ignore")
    channel.ready()
    with channel.phase("load"):
        exported = load(program, channel)
    left_out = drop_constant_outputs(exported)
    clip_pooling(exported)
    refuse_objects(exported, channel)
    with channel.phase("export"):
        model, decomposed = convert(exported)
    refuse_mutation(decomposed, channel)
    inputs = input_names(exported)
    nodes = finish(model, inputs, origins(decomposed))
    with channel.phase("save"):
        stored = save(model, graph, data)
        outputs = tuple(value.name for value in model.graph.outputs)
        notes = Notes(
            inputs=inputs,
            outputs=outputs,
            exporter=exporter_text(),
            doubles=describe_doubles(model),
            left_out=left_out,
            nodes=nodes,
        )
        append_notes(graph, notes)
    return {"weights_apart": stored}


def drop_constant_outputs(exported: ExportedProgram) -> tuple[str, ...]:
    """Turn constant outputs into ``None``, which the exporter leaves out; what they were, by position."""
    signature = exported.graph_signature
    output = exported.graph_module.graph.output_node()
    values, told = list(output.args[0]), []
    position = 0
    for index, spec in enumerate(signature.output_specs):
        if isinstance(spec.arg, ConstantArgument):
            told.append(f"{position}: {spec.arg.value!r}")
            values[index] = None
            spec.arg = replace(spec.arg, value=None)
        position += spec.kind is OutputKind.USER_OUTPUT
    output.args = (tuple(values),)
    exported.graph_module.recompile()
    return tuple(told)


def clip_pooling(exported: ExportedProgram) -> None:
    """Let no averaging window be larger than what it averages: TensorRT takes no window of 2560², as EfficientNet
    has it for "all of the picture". Exact: without padding, torch divides by the part of a window that is inside.
    """
    for node in exported.graph_module.graph.nodes:
        if node.target is not torch.ops.aten.avg_pool2d.default:
            continue
        source, kernel, *rest = node.args
        padding = rest[1] if len(rest) > 1 else [0]
        sizes = source.meta["val"].shape[-2:]
        fixed = all(isinstance(size, int) for size in sizes)
        if fixed and len(kernel) == 2 and not any(padding):
            node.args = (source, [min(pair) for pair in zip(kernel, sizes, strict=True)], *rest)
    exported.graph_module.recompile()


def refuse_objects(exported: ExportedProgram, channel: Channel) -> None:
    """TorchBind objects and effect tokens have no counterpart in an engine."""
    for spec in exported.graph_signature.input_specs:
        if spec.kind in (InputKind.CUSTOM_OBJ, InputKind.TOKEN):
            raise channel.Refused(what="object", text=spec.target or spec.arg.name)


def refuse_mutation(decomposed: ExportedProgram, channel: Channel) -> None:
    """The engine would compute from the state before the first call for ever."""
    signature = decomposed.graph_signature
    mutated = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if mutated:
        raise channel.Refused(what="mutation", names=sorted(set(mutated))[:10])


def convert(exported: ExportedProgram) -> tuple[Any, ExportedProgram]:
    """The ONNX model (``onnx_ir``), and the program as it was decomposed for it."""
    with torch.no_grad():
        converted = torch.onnx.export(exported, dynamo=True, optimize=True, verbose=False)
    assert converted is not None and converted.exported_program is not None
    return converted.model, converted.exported_program


def input_names(exported: ExportedProgram) -> tuple[str, ...]:
    """The program's inputs that an engine has, by name and in order: Python constants are baked in."""
    return tuple(
        spec.arg.name
        for spec in exported.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT and not isinstance(spec.arg, ConstantArgument)
    )


def why(error: BaseException) -> dict[str, Any]:
    """An exporter's failure: its first cause, and the operator and line of the model that it is about."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    node = next((found for cause in reversed(causes) if (found := node_of(cause)) is not None), None)
    about = {} if node is None else {"operator": operator_of(node), "where": where_of(node)}
    return {"what": "convert", "text": first_line(causes[-1]), "type": type(causes[-1]).__name__, **about}


def node_of(error: BaseException) -> torch.fx.Node | None:
    """The node that was being worked on, innermost first: the exporter's frames hold it, its messages do not."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        for name in ("node", "n"):
            held = frame.f_locals.get(name)
            if isinstance(held, torch.fx.Node) and held.op == "call_function":
                return held
    return None


def origins(decomposed: ExportedProgram) -> dict[str, str]:
    """Where each node of the decomposed graphs comes from: node name → text of ``origin``."""
    modules = [module for module in decomposed.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    nodes = [node for module in modules for node in module.graph.nodes if node.op == "call_function"]
    return {node.name: origin(node) for node in nodes}


def origin(node: torch.fx.Node) -> str:
    """Where a node comes from, for people: ``aten.linear.default at model.py:12 (forward)``."""
    return " at ".join(part for part in (operator_of(node), where_of(node)) if part)


def operator_of(node: torch.fx.Node) -> str:
    """The operator as the program has it: decomposition may have put others in its place."""
    target = str(node.target)
    sources = node.meta.get("from_node") or []
    while sources:
        target = str(sources[-1].target)
        sources = sources[-1].from_node or []
    return target


def where_of(node: torch.fx.Node) -> str:
    return line_of(node.meta.get("stack_trace") or "")


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, else its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]
