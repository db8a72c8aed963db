"""A small program written by hand, its archive, and a bench on which archives are sanitised. Needs no torch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile.forge import CONSTANTS, MODEL, SAMPLE, WEIGHTS, write

from farm.errors import BadProgram
from farm.programs.sanitise import sanitise_pt2

LEAF = {"type": None, "context": None, "children_spec": []}
Change = Callable[[dict[str, Any]], object]


def container(kind: str, context: Any, *children: Any) -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": list(children)}


def tensor(*sizes: int, **changed: Any) -> dict[str, Any]:
    strides = [1] * len(sizes)
    for index in reversed(range(len(sizes) - 1)):
        strides[index] = strides[index + 1] * sizes[index + 1]
    return {
        "dtype": 7,
        "sizes": [{"as_int": size} for size in sizes],
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
        "strides": [{"as_int": stride} for stride in strides],
        "storage_offset": {"as_int": 0},
        "layout": 7,
        **changed,
    }


def named(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def call(target: str, output: str, **given: Any) -> dict[str, Any]:
    return {
        "target": target,
        "inputs": [{"name": name, "arg": argument, "kind": 1} for name, argument in given.items()],
        "outputs": [named(output)],
        "metadata": {"stack_trace": 'File "model.py", line 3, in forward', "torch_fn": "add;add"},
        "is_hop_single_tensor_return": None,
        "name": output,
    }


def model() -> dict[str, Any]:
    """``x + w``, where ``w`` is a parameter."""
    arguments = container("builtins.tuple", "null", LEAF)
    in_spec = container("builtins.tuple", "null", arguments, container("builtins.dict", "[]"))
    signature = {
        "inputs": [],
        "outputs": [],
        "in_spec": json.dumps([1, in_spec]),
        "out_spec": json.dumps([1, LEAF]),
        "forward_arg_names": ["x"],
    }
    graph = {
        "inputs": [named("p_w"), named("x")],
        "outputs": [named("add")],
        "nodes": [call("torch.ops.aten.add.Tensor", "add", self=named("x"), other=named("p_w"))],
        "tensor_values": {"p_w": tensor(2, 3), "x": tensor(2, 3), "add": tensor(2, 3)},
        "sym_int_values": {},
        "sym_bool_values": {},
        "is_single_tensor_return": False,
        "custom_obj_values": {},
        "sym_float_values": {},
    }
    specs = [{"parameter": {"arg": {"name": "p_w"}, "parameter_name": "w"}}, {"user_input": {"arg": named("x")}}]
    module = {
        "graph": graph,
        "signature": {"input_specs": specs, "output_specs": [{"user_output": {"arg": named("add")}}]},
        "module_call_graph": [{"fqn": "", "signature": signature}],
        "metadata": {},
        "treespec_namedtuple_fields": {},
    }
    return {
        "graph_module": module,
        "opset_version": {"aten": 10},
        "range_constraints": {},
        "schema_version": {"major": 8, "minor": 20},
        "verifiers": ["TRAINING"],
        "torch_version": "2.13.0",
        "guards_code": [],
    }


def payload(**changed: Any) -> dict[str, Any]:
    return {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": tensor(2, 3), **changed}


def members(**changed: Any) -> dict[str, bytes]:
    """The members of an archive of ``model()``; JSON in ``changed`` by short names."""
    content = {"model": model(), "weights": {"config": {"w": payload()}}, "constants": {"config": {}}} | changed
    return {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        ".data/version": b"6\n",
        MODEL: json.dumps(content["model"]).encode(),
        WEIGHTS: json.dumps(content["weights"]).encode(),
        CONSTANTS: json.dumps(content["constants"]).encode(),
        SAMPLE: b"a pickle",
        "data/weights/weight_0": bytes(range(24)),
    }


class Bench:
    """Sanitises archives in a folder, and reads the result."""

    def __init__(self, folder: Path) -> None:
        self.source, self.safe = folder / "untrusted.pt2", folder / "safe.pt2"

    def sanitise(self, content: dict[str, bytes] | None = None, **changed: Any) -> dict[str, bytes]:
        """The members of the sanitised archive, without its root."""
        write(self.source, members(**changed) if content is None else content)
        sanitise_pt2(self.source, self.safe)
        with zipfile.ZipFile(self.safe) as archive:
            assert archive.testzip() is None
            return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}

    def model(self, change: Change) -> dict[str, Any]:
        """The sanitised model JSON of a model that ``change`` has changed."""
        changed = model()
        change(changed)
        made: dict[str, Any] = json.loads(self.sanitise(model=changed)[MODEL])
        return made

    def refuses(self, content: dict[str, bytes] | None = None, **changed: Any) -> str:
        """The one line that says why an archive is refused; nothing is written then."""
        write(self.source, members(**changed) if content is None else content)
        return self.refuses_file()

    def refuses_file(self) -> str:
        with pytest.raises(BadProgram) as refused:
            sanitise_pt2(self.source, self.safe)
        assert "\n" not in refused.value.message
        assert refused.value.hint
        assert not self.safe.exists()
        return refused.value.message

    def refuses_model(self, change: Change) -> str:
        changed = model()
        change(changed)
        return self.refuses(model=changed)


def graph_of(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["graph_module"]["graph"]
    return found


def calling_of(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["graph_module"]["module_call_graph"][0]["signature"]
    return found
