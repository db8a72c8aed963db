"""The JSON of a ``.pt2`` archive, as far as farm reads it (torch's export schema, major version 8).

Decoding checks types, ignores fields it does not know, and leaves what is rarely needed (stack traces, sizes)
as raw slices of the file, so that a model of 5,000 nodes is read in tens of milliseconds.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from farm.errors import BadProgram
from farm.programs.prepared import prepare

Argument = dict[str, Any]
"""A tagged union: one key, such as ``as_tensor``, and its value."""

SCHEMA_MAJOR = 8

DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
LAYOUTS = {
    1: "sparse_coo",
    2: "sparse_csr",
    3: "sparse_csc",
    4: "sparse_bsr",
    5: "sparse_bsc",
    6: "mkldnn",
    7: "strided",
}
MEMORY_FORMATS = {1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}


class Device(Struct, gc=False):
    type: str = ""
    index: int | None = None


class TensorMeta(Struct, gc=False):
    dtype: int
    sizes: Raw
    strides: Raw = Raw(b"[]")
    storage_offset: Raw = Raw(b'{"as_int":0}')
    device: Raw = Raw(b"{}")
    layout: int = 7


class NamedArgument(Struct, gc=False):
    name: str
    arg: Argument


class Node(Struct, gc=False):
    target: str
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: Raw = Raw(b"{}")
    name: str | None = None
    is_hop_single_tensor_return: bool | None = None


class Graph(Struct, gc=False):
    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[str, TensorMeta]
    sym_int_values: dict[str, Argument] = {}
    sym_bool_values: dict[str, Argument] = {}
    sym_float_values: dict[str, Argument] = {}


class GraphSignature(Struct, gc=False):
    input_specs: list[Argument]
    output_specs: list[Argument]


class ModuleCallSignature(Struct, gc=False):
    out_spec: str = ""


class ModuleCallEntry(Struct, gc=False):
    fqn: str
    signature: ModuleCallSignature | None = None


class GraphModule(Struct, gc=False):
    graph: Graph
    signature: GraphSignature
    module_call_graph: list[ModuleCallEntry] = []


class RangeConstraint(Struct, gc=False):
    min_val: int | None = None
    max_val: int | None = None


class SchemaVersion(Struct, gc=False):
    major: int
    minor: int = 0


class Model(Struct, gc=False):
    """``models/model.json``."""

    graph_module: GraphModule
    schema_version: SchemaVersion
    range_constraints: dict[str, RangeConstraint] = {}
    torch_version: str = ""


class Size(Struct, gc=False):
    """A size of a stored tensor: a number."""

    as_int: int


class StoredMeta(Struct, gc=False):
    """A stored tensor's description; unlike ``TensorMeta`` decoded at once, since all of it is needed."""

    dtype: int
    sizes: list[Size]
    strides: list[Size]
    storage_offset: Size


class PayloadMeta(Struct, gc=False):
    path_name: str
    is_param: bool = False
    use_pickle: bool = False
    tensor_meta: StoredMeta | None = None


class PayloadConfig(Struct, gc=False):
    """``model_weights_config.json`` and ``model_constants_config.json``."""

    config: dict[str, PayloadMeta]


prepare(Model, PayloadConfig)

NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError)
"""What decoding raises for bytes that are not what was asked for."""

MAX_NODES = 200_000
MAX_MARKS = 20_000_000


def bounded(data: bytes | memoryview, what: str) -> bytes:
    """``data``, once it cannot unfold into more objects than a program of ``MAX_NODES`` nodes has."""
    content = bytes(data)
    nodes = content.count(b'"target"')
    if nodes > MAX_NODES:
        raise BadProgram(
            f"{what} has about {nodes:,} nodes, farm reads up to {MAX_NODES:,}", "Split the program in two."
        )
    if content.count(b"{") + content.count(b"[") + content.count(b",") > MAX_MARKS:
        raise BadProgram(f"{what} is too large to be a program", "Export the program again.")
    return content


_Kind = TypeVar("_Kind")


def decode(data: bytes, kind: type[_Kind], what: str) -> _Kind:
    """``data`` as ``kind``; ``BadProgram`` that names the first thing out of place."""
    try:
        return msgspec.json.decode(bounded(data, what), type=kind)
    except RecursionError:
        raise BadProgram(f"{what} is nested too deeply to be a program", "Export the program again.") from None
    except NOT_JSON as error:
        raise BadProgram(
            f"{what} is not what torch.export writes: {error}",
            "Save the program again with torch.export.save (torch 2.10 or newer).",
        ) from None
