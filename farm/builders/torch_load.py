"""A sanitised ``.pt2`` becomes an ``ExportedProgram`` in a child, to be converted or to be run; needs torch alone.

What ``torch.export`` needs help with when it loads one is done here:

- output types that are not registered with pytree in this process (a transformers ``ModelOutput``, say) get
  placeholders: the child has no need of the model's own packages, and must not import them;
- loading a program with derived dims (``2*s``) leaves expressions among the symbols of its shape environment,
  which stops every later decomposition: they are taken out, as the symbols' own ranges imply them;
- a program that was exported on a GPU is loaded onto the CPU.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch._export.serde import serialize as serde
from torch.export import ExportedProgram
from torch.export.pt2_archive import _package as archives
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from farm.builders.child import Channel

_FRAME = re.compile(r'File "(?P<file>[^"]*)", line (?P<line>\d+), in (?P<function>\S+)')
_NOT_THE_MODEL = re.compile(r"-packages/torch/|^<")


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


def line_of(stack_trace: str) -> str:
    """The innermost line of the model's own code: ``model.py:12 (forward)``; empty where none is recorded."""
    own = [frame for frame in _FRAME.finditer(stack_trace) if not _NOT_THE_MODEL.search(frame["file"])]
    return f"{Path(own[-1]['file']).name}:{own[-1]['line']} ({own[-1]['function']})" if own else ""
