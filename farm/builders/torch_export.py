"""A ``.pt2`` program becomes an ONNX model. Runs in the export child only; the only module that imports torch.

``torch.onnx.export`` does the conversion. What it needs help with, or is silent about, is done here:

- output types that are not registered with pytree in this process (a transformers ``ModelOutput``, say) get
  placeholders: the child has no need of the model's own packages, and must not import them;
- loading a program with derived dims (``2*s``) leaves expressions among the symbols of its shape environment,
  which stops every later decomposition: they are taken out, as the symbols' own ranges imply them;
- a program that was exported on a GPU is loaded onto the CPU;
- conversion runs under ``no_grad``. With gradients on, scaled-dot-product attention with a learned bias takes
  another path than at export, whose result has other strides, and the ``view`` after it fails (Swin, T5);
- averaging windows larger than their input, which TensorRT does not take, are clipped to it;
- Python constants among the outputs, which no engine can return, are left out and told;
- mutation of buffers and inputs, silently dropped on the way to ONNX, is refused.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import onnxscript
import torch
from torch._export.serde import serialize as serde
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.export.pt2_archive import _package as archives
from torch.utils import _pytree as pytree

from farm.builders.notes import Notes, append_notes
from farm.builders.onnx_form import describe_doubles, finish, save

if TYPE_CHECKING:
    from farm.builders.child import Channel

_FRAME = re.compile(r'File "(?P<file>[^"]*)", line (?P<line>\d+), in (?P<function>\S+)')
_NOT_THE_MODEL = re.compile(r"-packages/torch/|^<")


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


def load(program: Path, channel: Channel) -> ExportedProgram:
    """Load the archive. It has been sanitised: nothing in it is executed by this."""
    model = read_model(program)
    refuse_unknown_operators(model, channel)
    register_unknown_types(model)
    with on_the_cpu():
        # Not torch.export.load, which puts the reason of a failure into its log and raises another.
        exported = archives.load_pt2(str(program)).exported_programs["model"]
    drop_derived_symbols(exported)
    return exported


@contextlib.contextmanager
def on_the_cpu() -> Iterator[None]:
    """Load what was exported on a GPU onto the CPU: a machine that builds need not have one, and an engine has no
    use for the devices that a program names."""

    def cpu(device: Any) -> torch.device:
        return torch.device("cpu")

    with mock.patch.object(archives, "deserialize_device", cpu), mock.patch.object(serde, "deserialize_device", cpu):
        yield


def read_model(program: Path) -> dict[str, Any]:
    """The archive's own description of the program."""
    with zipfile.ZipFile(program) as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        model: dict[str, Any] = json.loads(archive.read(name))
    return model


def refuse_unknown_operators(model: dict[str, Any], channel: Channel) -> None:
    """A custom operator lives in its own package, which is not here and is not to be imported."""
    for node in model["graph_module"]["graph"]["nodes"]:
        target = str(node["target"])
        if target.startswith("torch.ops.") and not resolves(target.split(".")[1:]):
            raise channel.Refused(
                what="operator",
                operator=target.removeprefix("torch.ops."),
                where=line_of(node.get("metadata", {}).get("stack_trace", "")),
            )


def resolves(names: list[str]) -> bool:
    """Whether ``names`` lead from ``torch`` to something that exists."""
    held: Any = torch
    for name in names:
        held = getattr(held, name, None)
        if held is None:
            return False
    return True


def register_unknown_types(model: dict[str, Any]) -> None:
    """Register a placeholder for every container type of the program's inputs and outputs that pytree lacks."""
    for name, fields in (model["graph_module"].get("treespec_namedtuple_fields") or {}).items():
        if name not in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE:
            stand_in = namedtuple(name.rpartition(".")[2], fields["field_names"], rename=True)  # type: ignore[misc]
            pytree._register_namedtuple(stand_in, serialized_type_name=name)
    for name in sorted(unknown_types(model)):
        placeholder = type(name.rpartition(".")[2], (list,), {})
        pytree._register_pytree_node(
            placeholder,
            lambda value: (list(value), None),
            lambda children, context, made=placeholder: made(children),
            serialized_type_name=name,
            to_dumpable_context=lambda context: context,
            from_dumpable_context=lambda context: context,
        )


def unknown_types(model: dict[str, Any]) -> set[str]:
    specs = [
        json.loads(entry["signature"][spec])[1]
        for entry in model["graph_module"]["module_call_graph"]
        if entry.get("signature")
        for spec in ("in_spec", "out_spec")
        if entry["signature"].get(spec)
    ]
    return {name for spec in specs for name in spec_types(spec)} - set(pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE)


def spec_types(spec: dict[str, Any]) -> Iterator[str]:
    """The types that a serialised tree names."""
    if spec["type"] is not None:
        yield spec["type"]
    for child in spec["children_spec"]:
        yield from spec_types(child)


def drop_derived_symbols(exported: ExportedProgram) -> None:
    """Leave only symbols among the symbols of the shape environment (see the module's text)."""
    from torch._export.utils import _get_shape_env_from_gm

    environment = _get_shape_env_from_gm(exported.graph_module)
    for table in ("var_to_range", "backed_var_to_val", "var_to_range_sloc"):
        entries = getattr(environment, table, None)
        if isinstance(entries, dict):
            for key in [key for key in entries if not getattr(key, "is_Symbol", True)]:
                del entries[key]


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


def line_of(stack_trace: str) -> str:
    """The innermost line of the model's own code: ``model.py:12 (forward)``; empty where none is recorded."""
    own = [frame for frame in _FRAME.finditer(stack_trace) if not _NOT_THE_MODEL.search(frame["file"])]
    return f"{Path(own[-1]['file']).name}:{own[-1]['line']} ({own[-1]['function']})" if own else ""


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, else its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]
