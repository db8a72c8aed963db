"""Entries of Torch-TensorRT's engine cache, as containers and back. Pure.

An entry is a tuple whose fields changed between releases, in the order of the parameters of ``BaseEngineCache.pack``:
plan, names of inputs and outputs, input specs, settings; then ``weight_name_map`` (2.9), ``requires_output_allocator``,
``requires_native_multidevice`` (from 2.12) and ``aliased_io`` (from 2.14). They are read by name here, so that one
farm serves them all, and an entry with a field that this farm does not know is not kept.

A container holds the plan and what is plain data. Specs and settings are handed back as the asker's own: an equal key
says that they are equal where it matters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from farm.container import Header, header_for, pack
from farm.errors import BadInput
from farm.integrations.subgraphs import Asked

PLAN, INPUTS, OUTPUTS, SPECS, SETTINGS = (
    "serialized_engine",
    "input_names",
    "output_names",
    "input_specs",
    "compilation_settings",
)
ALLOCATOR, MULTIDEVICE, ALIASED, NAME_MAP = (
    "requires_output_allocator",
    "requires_native_multidevice",
    "aliased_io",
    "weight_name_map",
)
FLAGS = (ALLOCATOR, MULTIDEVICE)
# A map for a faster refit in 2.9, of types that are no plain data: without one the refit takes the longer way.
KNOWN = frozenset({PLAN, INPUTS, OUTPUTS, SPECS, SETTINGS, *FLAGS, ALIASED, NAME_MAP})
DTYPES = {"f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16", "f8": "float8_e4m3fn", "b": "bool"}
DTYPES |= {"u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64"}
"""Torch-TensorRT's words for data types, and PyTorch's."""


def fields_of(packer: Callable[..., Any]) -> tuple[str, ...]:
    """The fields of this release's entries: the parameters of its ``BaseEngineCache.pack``."""
    return tuple(inspect.signature(packer).parameters)


def container_of(asked: Asked, entry: Sequence[Any], fields: Sequence[str]) -> bytes:
    """The container of ``entry``. ``BadInput`` for an entry of other fields than this farm knows."""
    if len(entry) != len(fields) or not set(fields) <= KNOWN:
        raise BadInput(
            f"an engine cache entry has {len(entry)} fields, of {', '.join(fields)}",
            "use a farm that knows this release of Torch-TensorRT",
        )
    values = dict(zip(fields, entry, strict=True))
    plan = memoryview(values[PLAN]).cast("B")
    return pack(_header(asked, values, plan), plan)


def _header(asked: Asked, values: Mapping[str, Any], plan: memoryview) -> Header:
    detail: dict[str, Any] = {name: bool(values[name]) for name in FLAGS if name in values}
    if ALIASED in values:
        detail[ALIASED] = {str(name): [str(one) for one in pair] for name, pair in dict(values[ALIASED]).items()}
    identity = asked.identity
    return header_for(
        plan,
        key=identity.key,
        recipe=identity.recipe,
        toolchain=identity.toolchain,
        target=identity.target,
        bindings=_bindings(asked, values),
        detail={"naming": asked.naming, "entry": detail},
    )


def _bindings(asked: Asked, values: Mapping[str, Any]) -> dict[str, Any]:
    """The plan's bindings by name, with what is known of their dtypes and shapes (-1 is a dynamic size)."""
    specs = [_of_spec(spec) for spec in asked.specs]
    return {
        "inputs": _named(values[INPUTS], specs),
        "outputs": _named(values[OUTPUTS], asked.outputs),
    }


def _named(names: Sequence[str], told: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    unknown: dict[str, Any] = {"dtype": "", "shape": []}
    known = [*told, *[unknown] * (len(names) - len(told))]
    return [{"name": str(name), **about} for name, about in zip(names, known, strict=False)]


def _of_spec(spec: Any) -> dict[str, Any]:
    shape = spec.shape
    if isinstance(shape, Mapping):
        least, most = shape["min_shape"], shape["max_shape"]
        sizes = [int(low) if low == high else -1 for low, high in zip(least, most, strict=True)]
    else:
        sizes = [int(size) for size in shape]
    short = str(getattr(spec, "dtype", "")).rpartition(".")[2]
    return {"dtype": DTYPES.get(short, short), "shape": sizes}


def entry_of(header: Header, plan: bytes | memoryview, asked: Asked, fields: Sequence[str]) -> tuple[Any, ...]:
    """The entry of a container, as this release takes it, with the asker's own specs and settings."""
    told = header.detail.get("entry", {})
    values: dict[str, Any] = {
        PLAN: bytes(plan),
        INPUTS: [binding["name"] for binding in header.bindings["inputs"]],
        OUTPUTS: [binding["name"] for binding in header.bindings["outputs"]],
        SPECS: asked.specs,
        SETTINGS: asked.settings,
        ALIASED: {name: tuple(pair) for name, pair in told.get(ALIASED, {}).items()},
        NAME_MAP: None,
        **{name: bool(told.get(name, False)) for name in FLAGS},
    }
    return tuple(values[name] for name in fields)
