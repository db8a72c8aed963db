"""Small ``.pt2`` archives written by hand: no torch, and nothing in them that was not put there."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def tensor(*sizes: int | str, dtype: int = 7, strides: list[int] | None = None) -> Json:
    """A ``TensorMeta``; a size that is text is a symbol's name."""
    expression = [
        {"as_int": size} if isinstance(size, int) else {"as_expr": {"expr_str": f"Symbol('{size}')", "hint": None}}
        for size in sizes
    ]
    steps = strides if strides is not None else contiguous([size if isinstance(size, int) else 1 for size in sizes])
    return {
        "dtype": dtype,
        "sizes": expression,
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": step} for step in steps],
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }


def contiguous(sizes: list[int]) -> list[int]:
    steps, step = [], 1
    for size in reversed(sizes):
        steps.insert(0, step)
        step *= size
    return steps


def named(name: str) -> Json:
    return {"as_tensor": {"name": name}}


def call(target: str, output: str, *operands: str, **arguments: Json) -> Json:
    """A node; operands are named ``self``, ``other`` as in most operators."""
    inputs = [
        {"name": name, "arg": named(one), "kind": 1} for name, one in zip(("self", "other"), operands, strict=False)
    ]
    inputs += [{"name": name, "arg": argument, "kind": 1} for name, argument in arguments.items()]
    return {"target": target, "inputs": inputs, "outputs": [named(output)], "metadata": {}, "name": output}


def model(nodes: list[Json] | None = None, output: str = "y", **more: Any) -> Json:
    """A program of one float input ``x`` (2 × 3), one weight ``w`` (3) and ``nodes``."""
    nodes = nodes if nodes is not None else [call("torch.ops.aten.mul.Tensor", "y", "x", "w")]
    values = {"x": tensor(2, 3), "w": tensor(3)} | {
        one["outputs"][0]["as_tensor"]["name"]: tensor(2, 3) for one in nodes if "as_tensor" in one["outputs"][0]
    }
    graph = {
        "inputs": [named("w"), named("x")],
        "outputs": [named(output)],
        "nodes": nodes,
        "tensor_values": values | more.pop("values", {}),
        "sym_int_values": {},
        "sym_bool_values": {},
        "sym_float_values": {},
    } | more.pop("graph", {})
    signature = {
        "input_specs": [
            {"parameter": {"arg": {"name": "w"}, "parameter_name": "layer.w"}},
            {"user_input": {"arg": named("x")}},
        ],
        "output_specs": [{"user_output": {"arg": named(output)}}],
    } | more.pop("signature", {})
    tree = json.dumps([1, {"type": None, "context": None, "children_spec": []}])
    return {
        "graph_module": {
            "graph": graph,
            "signature": signature,
            "module_call_graph": [{"fqn": "", "signature": {"in_spec": tree, "out_spec": tree}}],
        },
        "opset_version": {"aten": 10},
        "range_constraints": {},
        "schema_version": {"major": 8, "minor": 20},
        "torch_version": "2.13.0",
        "guards_code": [],
    } | more


def payload(path: str, meta: Json, **more: Any) -> Json:
    return {"path_name": path, "is_param": True, "use_pickle": False, "tensor_meta": meta} | more


WEIGHT = b"\0\0\x80\x3f" * 3


def members(program: Json | None = None, **more: bytes) -> dict[str, bytes]:
    """The members of an archive, less its root folder."""
    weights = {"config": {"layer.w": payload("weight_0", tensor(3))}}
    return {
        "data/weights/weight_0": WEIGHT,
        "data/weights/model_weights_config.json": json.dumps(weights).encode(),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "models/model.json": json.dumps(program if program is not None else model()).encode(),
        "data/sample_inputs/model.pt": b"",
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
    } | more


def write(path: Path, content: dict[str, bytes], root: str = "tiny/", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(root + name), data, compress_type=method)
    return path


def tiny(path: Path, program: Json | None = None, **more: bytes) -> Path:
    """An archive at ``path``."""
    return write(path, members(program, **more))
