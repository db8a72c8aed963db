"""The graphs of a sanitised archive: every field of torch's export schema (8.20) that farm lets through.

Torch's loader resolves an operator's name by attributes from ``torch``, ``operator`` or ``math``, whatever it
leads to (``torch.os.system`` too), so operators come from farm's table. Names go into generated Python code,
expressions through ``eval``: see the checks. What describes only where a node comes from is kept where the
export uses it (stack trace, module stack) and else left behind.

Graphs are read and written node by node: neither a large program nor a hostile one is ever held as objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from farm.programs.describe import source_line
from farm.programs.operators import SCALAR_OPERATORS, SUBGRAPH_OPERATORS, operator
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
    natural,
    nullable,
    number,
    plain_text,
    record,
    shown,
    text,
    union,
    within,
    word,
)
from farm.programs.sanitise_symbols import expression
from farm.programs.schema import DTYPES, LAYOUTS, MEMORY_FORMATS

MAX_NESTING = 30
FORBIDDEN = frozenset({"aten._print.default"})
"""Operators whose effect is outside the program's tensors. Those on files are in no table of farm's."""

_DEVICES = frozenset({"cpu", "cuda", "xpu", "mps", "hpu", "npu", "xla", "mtia", "hip"})
_MAX_TRACE = 64 << 10
_MAX_GIVEN = 100_000
_OPERATOR_PREFIX = "torch.ops."
_HIGHER = "torch.ops.higher_order."
_NOT_KNOWN = "is no operator of torch's own that farm knows"


def one_of(table: Mapping[int, str]) -> Check:
    """A number of an enumeration."""

    def check(value: Any) -> int:
        if integer(value) not in table:
            raise Refused(f"{value} is none of the known kinds")
        return int(value)

    return check


def device(value: Any) -> dict[str, Any]:
    """Always the CPU: an engine's ONNX form says nothing of devices, and the machine that exports may have no GPU."""
    given = record({"type": text}, {"index": nullable(natural)})(value)
    if given["type"] == "meta":
        return {"type": "meta", "index": None}
    if given["type"] not in _DEVICES:
        raise Refused(f"the device {shown(given['type'])} is not known")
    return {"type": "cpu", "index": None}


# Numbers that may be symbolic


def _symbolic(concrete: str, check: Check, hint: str) -> Check:
    hints = union({hint: check})
    return union({"as_expr": record({"expr_str": expression}, {"hint": nullable(hints)}), concrete: check})


SYM_INT = _symbolic("as_int", integer, "as_int")
SYM_FLOAT = _symbolic("as_float", number, "as_float")
SYM_BOOL = _symbolic("as_bool", boolean, "as_bool")
SYM_INT_ARGUMENT = union({"as_name": identifier, "as_int": integer})
SYM_FLOAT_ARGUMENT = union({"as_name": identifier, "as_float": number})
SYM_BOOL_ARGUMENT = union({"as_name": identifier, "as_bool": boolean})

DTYPE = one_of(DTYPES)
TENSOR = record({"name": identifier})
TENSOR_META = record(
    {
        "dtype": DTYPE,
        "sizes": listing(SYM_INT),
        "requires_grad": boolean,
        "device": device,
        "strides": listing(SYM_INT),
        "storage_offset": SYM_INT,
        "layout": one_of(LAYOUTS | {0: "unknown"}),
    }
)

# Arguments

_SCALARS: Mapping[str, Check] = {
    "as_int": integer,
    "as_float": number,
    "as_bool": boolean,
    "as_sym_int": SYM_INT_ARGUMENT,
    "as_sym_float": SYM_FLOAT_ARGUMENT,
    "as_sym_bool": SYM_BOOL_ARGUMENT,
}
_LISTS: Mapping[str, Check] = {
    "as_ints": listing(integer),
    "as_floats": listing(number),
    "as_bools": listing(boolean),
    "as_sym_ints": listing(SYM_INT_ARGUMENT),
    "as_sym_floats": listing(SYM_FLOAT_ARGUMENT),
    "as_sym_bools": listing(SYM_BOOL_ARGUMENT),
}
_VALUES: Mapping[str, Check] = {**_SCALARS, "as_none": boolean, "as_tensor": TENSOR}
USER_ARGUMENT = union({**_VALUES, "as_string": plain_text})
"""What a program can take or give. Torch puts its strings between quotes into code (guards)."""

OUTPUT_ARGUMENT = union({**_VALUES, **_LISTS, "as_tensors": listing(TENSOR)})
SCALAR_ARGUMENT = union({**_SCALARS, **_LISTS})

_OPTIONAL_TENSOR = union({"as_tensor": TENSOR, "as_none": boolean})


def _is_operator(name: str) -> bool:
    """Whether ``name`` is an operator that torch itself has. Nothing else is ever looked up or called."""
    short = name.removeprefix(_OPERATOR_PREFIX)
    return short != name and short not in FORBIDDEN and operator(short) is not None


def operator_name(value: Any) -> str:
    """An operator as an argument, by its full name."""
    if not _is_operator(text(value)):
        raise Refused(f"{shown(value)} {_NOT_KNOWN}")
    return str(value)


_PLAIN: Mapping[str, Check] = {
    **_VALUES,
    **_LISTS,
    "as_tensors": listing(TENSOR),
    "as_nested_tensors": listing(listing(TENSOR)),
    "as_optional_tensor": _OPTIONAL_TENSOR,
    "as_optional_tensors": listing(_OPTIONAL_TENSOR),
    "as_string": text,
    "as_strings": listing(text),
    "as_int_lists": listing(listing(integer)),
    "as_float_lists": listing(listing(number)),
    "as_complex": record({"real": number, "imag": number}),
    "as_scalar_type": DTYPE,
    "as_memory_format": one_of(MEMORY_FORMATS),
    "as_layout": one_of(LAYOUTS),
    "as_device": device,
    "as_operator": operator_name,
}
ARGUMENT = union({**_PLAIN, "as_string_to_argument": mapping(text, union(_PLAIN))})
"""An argument of a call, but for graphs. Objects (TorchBind, opaque) are no arguments."""


# Graphs


class _Given(Struct):
    name: str
    arg: dict[str, Raw]
    kind: int | None = None


class _Node(Struct):
    target: str
    inputs: list[Raw]
    outputs: Raw
    metadata: dict[str, Raw] = {}
    is_hop_single_tensor_return: bool | None = None
    name: str | None = None


class _Graph(Struct):
    inputs: list[Raw]
    outputs: list[Raw]
    nodes: list[Raw]
    tensor_values: dict[str, Raw]
    sym_int_values: dict[str, Raw] = {}
    sym_bool_values: dict[str, Raw] = {}
    sym_float_values: dict[str, Raw] = {}
    custom_obj_values: dict[str, Raw] = {}
    is_single_tensor_return: bool = False


class _Subgraph(Struct):
    name: str
    graph: Raw


prepare(_Given, _Node, _Graph, _Subgraph)


def graph(content: Raw | bytes, depth: int = 0) -> Raw:
    """A graph, read, checked and written piece by piece."""
    if depth > MAX_NESTING:
        raise Refused(f"graphs are nested more than {MAX_NESTING} deep")
    found = msgspec.json.decode(content, type=_Graph)
    if found.custom_obj_values:
        raise Refused(f"it has an object ({shown(next(iter(found.custom_obj_values)))}), and an object is code")
    made = {
        "inputs": within("inputs", _arguments, found.inputs),
        "outputs": within("outputs", _arguments, found.outputs),
        "nodes": within("nodes", lambda raws: _each(raws, lambda raw: _node(raw, depth)), found.nodes),
        "tensor_values": _table("tensor_values", found.tensor_values, TENSOR_META),
        "sym_int_values": _table("sym_int_values", found.sym_int_values, SYM_INT),
        "sym_bool_values": _table("sym_bool_values", found.sym_bool_values, SYM_BOOL),
        "sym_float_values": _table("sym_float_values", found.sym_float_values, SYM_FLOAT),
        "custom_obj_values": {},
        "is_single_tensor_return": found.is_single_tensor_return,
    }
    return Raw(msgspec.json.encode(made))


def _piece(raw: Raw, check: Check) -> Raw:
    return Raw(msgspec.json.encode(check(decode(raw))))


def _each(raws: list[Raw], make: Callable[[Raw], Raw]) -> list[Raw]:
    """``make`` of each, with its number in the error."""
    made: list[Raw] = []
    try:
        for raw in raws:
            made.append(make(raw))
    except Refused as refused:
        raise refused.at(f"[{len(made)}]") from None
    return made


def _arguments(raws: list[Raw]) -> list[Raw]:
    return _each(raws, lambda raw: _piece(raw, USER_ARGUMENT))


def _table(what: str, raws: Mapping[str, Raw], check: Check) -> dict[str, Raw]:
    made = {}
    for name, raw in raws.items():
        try:
            made[identifier(name)] = _piece(raw, check)
        except Refused as refused:
            raise refused.at(f".{what}[{shown(name)}]") from None
    return made


def _node(raw: Raw, depth: int) -> Raw:
    node = msgspec.json.decode(raw, type=_Node)
    _known_target(node)
    given = within("inputs", lambda raws: _calling(raws, node.target, depth), node.inputs)
    if node.target == _HIGHER + "wrap_with_autocast":
        _refuse_autocast(node.inputs)
    made = {
        "target": node.target,
        "inputs": given,
        "outputs": within("outputs", listing(OUTPUT_ARGUMENT), decode(node.outputs)),
        "metadata": origin(node.metadata),
        "is_hop_single_tensor_return": node.is_hop_single_tensor_return,
        "name": within("name", nullable(identifier), node.name or None),
    }
    return Raw(msgspec.json.encode(made))


def _known_target(node: _Node) -> None:
    higher = node.target.removeprefix(_HIGHER)
    known = _is_operator(node.target) if higher == node.target else higher in SUBGRAPH_OPERATORS
    if not known and node.target not in SCALAR_OPERATORS:
        line = source_line(origin(node.metadata).get("stack_trace", "")).rpartition("/")[2]
        raise Refused(f"it calls {shown(node.target)}{line and f' at {shown(line)}'}, which {_NOT_KNOWN}").at(".target")


def _calling(raws: list[Raw], target: str, depth: int) -> list[Raw]:
    """The arguments of a call. A higher-order operator's names become Python keywords, an operator's do not."""
    if len(raws) > _MAX_GIVEN:
        raise Refused(f"a call has {len(raws):,} arguments")
    name = _keyword if target.startswith(_HIGHER) else word
    return _each(raws, lambda raw: _given(msgspec.json.decode(raw, type=_Given), name, target, depth))


def _keyword(value: Any) -> str:
    return identifier(value) if value else ""


def _given(given: _Given, name: Check, target: str, depth: int) -> Raw:
    kind = given.kind if given.kind in (None, 0, 1, 2) else 0
    argument = within("arg", lambda arg: _argument(arg, target, depth), given.arg)
    return Raw(msgspec.json.encode({"name": within("name", name, given.name), "arg": argument, "kind": kind}))


def _argument(given: Mapping[str, Raw], target: str, depth: int) -> Any:
    if len(given) != 1:
        raise Refused(f"an argument has {len(given)} kinds")
    ((tag, raw),) = given.items()
    if tag == "as_graph":
        return {tag: _subgraph(raw, depth)}
    return (SCALAR_ARGUMENT if target in SCALAR_OPERATORS else ARGUMENT)({tag: decode(raw)})


def _subgraph(raw: Raw, depth: int) -> dict[str, Any]:
    found = msgspec.json.decode(raw, type=_Subgraph)
    name = within("name", identifier, found.name)
    return {"name": name, "graph": within(name, lambda content: graph(content, depth + 1), found.graph)}


def _refuse_autocast(raws: list[Raw]) -> None:
    """A region under autocast for a GPU means other casts on the CPU, where the export runs."""
    device_type, _, enabled, *_ = [msgspec.json.decode(raw, type=_Given).arg for raw in raws[:3]] + [{}, {}, {}]
    on_cpu = bytes(device_type.get("as_string", b"")) == b'"cpu"'
    if not on_cpu and bytes(enabled.get("as_bool", b"")) != b"false":
        raise Refused("a part of it runs under autocast for a GPU, which only holds on one")


# Where a node comes from


def origin(metadata: Mapping[str, Raw]) -> dict[str, str]:
    """The stack trace and the stack of modules, for error messages and the names in the ONNX model."""
    trace, modules = (_short_text(metadata.get(name)) for name in ("stack_trace", "nn_module_stack"))
    made = {"stack_trace": trace} if trace else {}
    return made | ({"nn_module_stack": modules} if modules and _is_module_stack(modules) else {})


def _short_text(raw: Raw | None) -> str | None:
    if raw is None or len(memoryview(raw)) > _MAX_TRACE:
        return None
    found = decode(raw)
    return found if isinstance(found, str) else None


def _is_module_stack(modules: str) -> bool:
    """Whether torch can take it apart: entries between semicolons, each of three parts between commas."""
    return all(_commas_outside(entry) == 2 for entry in modules.split(";"))


_NESTED = re.compile(r"[,()\[\]]")


def _commas_outside(entry: str) -> int:
    depth = found = 0
    for mark in _NESTED.findall(entry):
        depth += (mark in "([") - (mark in ")]")
        found += mark == "," and depth == 0
    return found
