"""``models/model.json`` of a sanitised archive: the graph, its signature and calling convention, and ranges."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from farm.programs.prepared import prepare
from farm.programs.sanitise_checks import (
    Check,
    Refused,
    boolean,
    decode,
    identifier,
    integer,
    listing,
    mapping,
    nullable,
    number,
    plain_text,
    qualified,
    record,
    shown,
    text,
    union,
    within,
)
from farm.programs.sanitise_graph import TENSOR, USER_ARGUMENT, graph
from farm.programs.sanitise_symbols import range_name, value_range
from farm.programs.sanitise_trees import input_tree, output_tree
from farm.programs.schema import SCHEMA_MAJOR

_VERIFIERS = frozenset({"ATEN", "TRAINING"})
_USER = record({"arg": USER_ARGUMENT})
_CONSTANT = union(
    {
        "as_none": boolean,
        "as_int": integer,
        "as_float": number,
        "as_string": plain_text,
        "as_bool": boolean,
    }
)


def _lifted(name: str, **more: Check) -> Check:
    return record({"arg": TENSOR, name: qualified, **more})


_INPUT = union(
    {
        "user_input": _USER,
        "parameter": _lifted("parameter_name"),
        "buffer": _lifted("buffer_name", persistent=boolean),
        "tensor_constant": _lifted("tensor_constant_name"),
        "token": record({"arg": TENSOR}),
        "constant_input": record({"name": lambda name: identifier(name) if name else "", "value": _CONSTANT}),
    }
)
_OUTPUT = union(
    {
        "user_output": _USER,
        "loss_output": record({"arg": TENSOR}),
        "buffer_mutation": _lifted("buffer_name"),
        "parameter_mutation": _lifted("parameter_name"),
        "gradient_to_parameter": _lifted("parameter_name"),
        "gradient_to_user_input": _lifted("user_input_name"),
        "user_input_mutation": _lifted("user_input_name"),
        "token": record({"arg": TENSOR}),
    }
)
_SIGNATURE = record({"input_specs": listing(_INPUT), "output_specs": listing(_OUTPUT)})
_CALL = record(
    {
        "inputs": listing(USER_ARGUMENT),
        "outputs": listing(USER_ARGUMENT),
        "in_spec": input_tree,
        "out_spec": output_tree,
    },
    {"forward_arg_names": nullable(listing(identifier))},
)
_CALLS = listing(
    record({"fqn": lambda name: qualified(name) if name else ""}, {"signature": nullable(_CALL)}),
)
_RANGES = mapping(range_name, value_range)
_OPSETS = mapping(text, integer)


class _Version(Struct):
    major: int
    minor: int = 0


class _Module(Struct):
    graph: Raw
    signature: Raw
    module_call_graph: Raw


class _Model(Struct):
    graph_module: _Module
    schema_version: _Version
    range_constraints: Raw = Raw(b"{}")
    opset_version: Raw = Raw(b"{}")
    verifiers: list[str] = []
    torch_version: str = ""


prepare(_Model)


def sanitise_model(content: bytes) -> bytes:
    """The JSON that torch may read. ``Refused`` or ``MsgspecError`` for what may not be."""
    model = msgspec.json.decode(content, type=_Model)
    if model.schema_version.major != SCHEMA_MAJOR:
        raise Refused(f"its schema is version {model.schema_version.major}, farm knows {SCHEMA_MAJOR}")
    made = {
        "graph_module": within("graph_module", _module, model.graph_module),
        "opset_version": within("opset_version", _OPSETS, decode(model.opset_version)),
        "range_constraints": within("range_constraints", _RANGES, decode(model.range_constraints)),
        "schema_version": {"major": SCHEMA_MAJOR, "minor": 0},
        "verifiers": _verifiers(model.verifiers),
        "torch_version": text(model.torch_version),
        "guards_code": [],
    }
    return msgspec.json.encode(made)


def _module(module: _Module) -> dict[str, Any]:
    return {
        "graph": within("graph", graph, module.graph),
        "signature": within("signature", lambda raw: _SIGNATURE(decode(raw)), module.signature),
        "module_call_graph": within("module_call_graph", lambda raw: _CALLS(decode(raw)), module.module_call_graph),
        "metadata": {},
        "treespec_namedtuple_fields": {},
    }


def _verifiers(names: list[str]) -> list[str]:
    """Torch's own checks of the graph. A file that names none does not get round them."""
    unknown = set(names) - _VERIFIERS
    if unknown:
        raise Refused(f"its dialect is {shown(min(unknown))}, which torch alone does not have").at(".verifiers")
    return names or ["TRAINING"]
