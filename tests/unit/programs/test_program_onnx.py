"""ONNX models: the same canonical form, read without onnx; external data only from beside the model."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from farm.errors import BadProgram
from farm.programs import Program, TensorSpec, open_program
from farm.programs.onnx_messages import DTYPES, MESSAGES
from farm.programs.onnx_operators import WEIGHT_SLOTS

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

pytestmark = pytest.mark.torch
F32 = TensorProto.FLOAT
W = np.arange(12, dtype=np.float32).reshape(3, 4)


def value(name: str, *shape: int | str | None, kind: int = F32) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[Any],
    inputs: list[Any] | None = None,
    outputs: list[Any] | None = None,
    weights: Mapping[str, Any] | None = None,
    opset: int = 18,
    **more: Any,
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        inputs or [value("x", 2, 3)],
        outputs or [value("y", None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *more.pop("imports", [])]
    return helper.make_model(graph, opset_imports=imports, **more)


def opened(path: Path, proto: Any, **more: Any) -> Program:
    """The model written to a file of its own beside ``path``, and opened."""
    path = path.with_name(f"{len(list(path.parent.iterdir()))}-{path.name}")
    path.write_bytes(proto.SerializeToString())
    return open_program(path, **more)


def identity(program: Program, policy: str = "content") -> tuple[str, str]:
    if policy == "content":
        return program.structure_digest, program.weights.content_digest()
    return program.graph_digest, program.weights.metadata_digest()


N = helper.make_node


def test_a_model_is_described(tmp_path: Path) -> None:
    nodes = [N("MatMul", ["x", "w"], ["h"], name="mm"), N("Relu", ["h"], ["y"])]
    program = opened(tmp_path / "m.onnx", model(nodes, [value("x", "batch", 3)], [value("y", "batch", 4)], {"w": W}))
    assert program.format == "onnx"
    assert program.inputs == (TensorSpec("x", "float32", ("s0", 3), 0),)
    assert program.outputs == (TensorSpec("y", "float32", ("s0", 4), 0),)
    assert program.symbols["s0"].name == "batch"
    assert program.operators == frozenset({"MatMul", "Relu"})
    assert [node.name for node in program.nodes()] == ["mm", ""]
    (weight,) = program.weights.tensors()
    assert (weight.name, weight.kind, weight.shape) == ("w", "weight", (3, 4))
    assert program.match_nodes(["mm"]) != ()


def _relu(*names: str) -> Any:
    x, h, y = names
    return model([N("MatMul", [x, "w"], [h]), N("Relu", [h], [y])], [value(x, "n", 3)], [value(y, "n", 4)], {"w": W})


def _in_order(first: str, second: str) -> Any:
    nodes = {"a": N("Sin", ["x"], ["a"]), "b": N("Cos", ["x"], ["b"])}
    return model([nodes[first], nodes[second], N("Mul", ["a", "b"], ["y"])])


def _one(op: str, inputs: list[str] | None = None, weights: Any = None, opset: int = 18, **attributes: Any) -> Any:
    return model([N(op, inputs or ["x"], ["y"], **attributes)], weights=weights, opset=opset)


def _typed(array: Any, op: str = "MatMul") -> Any:
    """A model whose weight lies in a typed field rather than as raw bytes."""
    proto = model([N(op, ["x", "w"], ["y"])], weights={"w": array})
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    typed = helper.make_tensor("w", kind, array.shape, array.flatten().tolist())
    assert not typed.raw_data
    proto.graph.initializer[0].CopyFrom(typed)
    return proto


def _constant(array: Any) -> Any:
    return model([N("Constant", [], ["c"], value=numpy_helper.from_array(array)), N("Add", ["x", "c"], ["y"])])


def _if(then: str, otherwise: str, renamed: str = "") -> Any:
    def branch(op: str, name: str) -> Any:
        return helper.make_graph([N(op, ["x"], [renamed + name])], name, [], [value(renamed + name, None)])

    nodes = [
        N("ReduceSum", ["x"], ["s"], keepdims=0),
        N("Greater", ["s", "zero"], ["c"]),
        N("If", ["c"], ["y"], then_branch=branch(then, "t"), else_branch=branch(otherwise, "e")),
    ]
    return model(nodes, weights={"zero": np.float32(0)})


def _function(body: str = "Sin", name: str = "Twice") -> Any:
    function = helper.make_function(
        "mine", name, ["a"], ["b"], [N(body, ["a"], ["t"]), N("Add", ["t", "t"], ["b"])], [helper.make_opsetid("", 18)]
    )
    return model([N(name, ["x"], ["y"], domain="mine")], imports=[helper.make_opsetid("mine", 1)], functions=[function])


def _inlined(body: str = "Sin") -> Any:
    return model([N(body, ["x"], ["t"]), N("Add", ["t", "t"], ["y"])])


def _dims(first: str | int, second: str | int) -> Any:
    return model([N("Add", ["x", "z"], ["y"])], [value("x", first, 3), value("z", second, 3)])


def _explained(text: str) -> Any:
    proto = _one("Relu")
    proto.producer_name, proto.doc_string, proto.graph.name = text, text, text
    proto.graph.node[0].doc_string = text
    proto.graph.node[0].name = text
    return proto


SAME: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "names": (lambda: _relu("x", "h", "y"), lambda: _relu("in", "mid", "out")),
    "order": (lambda: _in_order("a", "b"), lambda: _in_order("b", "a")),
    "texts": (lambda: _explained("a"), lambda: _explained("b")),
    "dead code": (
        lambda: _one("Relu"),
        lambda: model([N("Exp", ["x"], ["dead"]), N("Relu", ["x"], ["y"])]),
    ),
    "dead weights": (lambda: _one("Relu"), lambda: _one("Relu", weights={"w": W})),
    "default attribute": (lambda: _one("LeakyRelu"), lambda: _one("LeakyRelu", alpha=0.01)),
    "default axis": (lambda: _one("Softmax"), lambda: _one("Softmax", axis=-1)),
    "identity": (lambda: _one("Relu"), lambda: model([N("Identity", ["x"], ["i"]), N("Relu", ["i"], ["y"])])),
    "dropout": (lambda: _one("Relu"), lambda: model([N("Dropout", ["x"], ["i"]), N("Relu", ["i"], ["y"])])),
    "typed data": (
        lambda: model([N("MatMul", ["x", "w"], ["y"])], weights={"w": W}),
        lambda: _typed(W),
    ),
    "typed half data": (
        lambda: model([N("MatMul", ["x", "w"], ["y"])], weights={"w": W.astype(np.float16)}),
        lambda: _typed(W.astype(np.float16)),
    ),
    "typed integers": (
        lambda: model([N("Gather", ["x", "w"], ["y"])], weights={"w": np.array([-1, 1], np.int64)}),
        lambda: _typed(np.array([-1, 1], np.int64), "Gather"),
    ),
    "constant or initializer": (
        lambda: _constant(W[:1, :3]),
        lambda: model([N("Add", ["x", "c"], ["y"])], weights={"c": W[:1, :3]}),
    ),
    "names in branches": (lambda: _if("Sin", "Cos"), lambda: _if("Sin", "Cos", "other_")),
    "names of functions": (lambda: _function(), lambda: _function(name="Zwei")),
    "function or not": (lambda: _function(), _inlined),
    "operator sets that agree": (lambda: _one("Relu", opset=17), lambda: _one("Relu", opset=18)),
    "spelling of the domain": (
        lambda: _one("Relu"),
        lambda: model([N("Relu", ["x"], ["y"], domain="ai.onnx")]),
    ),
    "named dims": (lambda: _dims("n", "m"), lambda: _dims("batch", "length")),
    "optional operand left out": (lambda: _one("Clip"), lambda: _one("Clip", ["x", "", ""])),
}

DIFFERENT: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "operator": (lambda: _one("Sin"), lambda: _one("Cos")),
    "attribute": (lambda: _one("LeakyRelu"), lambda: _one("LeakyRelu", alpha=0.02)),
    "last bit of an attribute": (
        lambda: _one("LeakyRelu", alpha=0.1),
        lambda: _one("LeakyRelu", alpha=float(np.nextafter(np.float32(0.1), np.float32(1)))),
    ),
    "wiring": (
        lambda: model([N("Sub", ["x", "z"], ["y"])], [value("x", 2), value("z", 2)]),
        lambda: model([N("Sub", ["z", "x"], ["y"])], [value("x", 2), value("z", 2)]),
    ),
    "dtype": (
        lambda: _one("Relu"),
        lambda: model([N("Relu", ["x"], ["y"])], [value("x", 2, 3, kind=TensorProto.FLOAT16)]),
    ),
    "shape": (lambda: _one("Relu"), lambda: model([N("Relu", ["x"], ["y"])], [value("x", 2, 4)])),
    "rank": (lambda: _one("Relu"), lambda: model([N("Relu", ["x"], ["y"])], [value("x", 6)])),
    "dynamic": (lambda: _one("Relu"), lambda: model([N("Relu", ["x"], ["y"])], [value("x", "n", 3)])),
    "equal dims": (lambda: _dims("n", "n"), lambda: _dims("n", "m")),
    "weights": (
        lambda: model([N("MatMul", ["x", "w"], ["y"])], weights={"w": W}),
        lambda: model([N("MatMul", ["x", "w"], ["y"])], weights={"w": W + 1}),
    ),
    "constants": (lambda: _constant(W[:1, :3]), lambda: _constant(W[1:2, :3])),
    "branches": (lambda: _if("Sin", "Cos"), lambda: _if("Cos", "Sin")),
    "function body": (lambda: _function("Sin"), lambda: _function("Cos")),
    "an output more": (
        lambda: _one("Relu"),
        lambda: model([N("Relu", ["x"], ["y"])], outputs=[value("y", None), value("x", None)]),
    ),
    "unused input": (
        lambda: _one("Relu"),
        lambda: model([N("Relu", ["x"], ["y"])], [value("x", 2, 3), value("z", 2)]),
    ),
    "results that are asked for": (
        lambda: model([N("Split", ["x"], ["y", "b"], num_outputs=2)]),
        lambda: model([N("Split", ["x"], ["y", "b", "c"], num_outputs=3)]),
    ),
    "optional operand": (
        lambda: _one("Clip", ["x", "w"], {"w": np.float32(0)}),
        lambda: _one("Clip", ["x", "", "w"], {"w": np.float32(0)}),
    ),
    "version of an operator's meaning": (lambda: _one("Softmax", opset=12, axis=-1), lambda: _one("Softmax", opset=13)),
    "draws": (
        lambda: model([N("RandomUniformLike", ["x"], ["a"]), N("Add", ["a", "a"], ["y"])]),
        lambda: model(
            [N("RandomUniformLike", ["x"], ["a"]), N("RandomUniformLike", ["x"], ["b"]), N("Add", ["a", "b"], ["y"])]
        ),
    ),
    "training": (
        lambda: _one("Relu"),
        lambda: model(
            [N("Dropout", ["x", "r", "t"], ["i"]), N("Relu", ["i"], ["y"])],
            weights={"r": np.float32(0.5), "t": np.array(True)},
        ),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_models_that_are_one(tmp_path: Path, name: str) -> None:
    first, second = (opened(tmp_path / "m.onnx", make()) for make in SAME[name])
    assert identity(first) == identity(second)


@pytest.mark.parametrize("name", DIFFERENT)
def test_models_that_are_not(tmp_path: Path, name: str) -> None:
    first, second = (opened(tmp_path / "m.onnx", make()) for make in DIFFERENT[name])
    assert identity(first) != identity(second)
    assert (first.graph_digest, identity(first)[1]) != (second.graph_digest, identity(second)[1])


def test_an_initializer_is_a_weight_only_where_a_refit_could_replace_it(tmp_path: Path) -> None:
    nodes = [N("MatMul", ["x", "w"], ["h"]), N("Add", ["h", "b"], ["a"]), N("Clip", ["a", "low"], ["y"])]
    weights = {"w": W, "b": W[0], "low": np.float32(0)}
    program = opened(tmp_path / "m.onnx", model(nodes, weights=weights))
    assert {one.name: one.kind for one in program.weights.tensors()} == {
        "w": "weight",
        "b": "weight",
        "low": "constant",
    }
    returned = model(nodes, outputs=[value("y", None), value("w", 3, 4)], weights=weights)
    kinds = {one.name: one.kind for one in opened(tmp_path / "m.onnx", returned).weights.tensors()}
    assert kinds["w"] == "constant"


def test_fine_tunes_share_an_identity_when_refittable(tmp_path: Path) -> None:
    nodes = [N("MatMul", ["x", "w"], ["h"]), N("Clip", ["h", "low"], ["y"])]
    one, other, clipped = (
        opened(tmp_path / "m.onnx", model(nodes, weights={"w": w, "low": np.float32(low)}))
        for w, low in ((W, 0), (W + 1, 0), (W, 1))
    )
    assert identity(one, "metadata") == identity(other, "metadata") != identity(clipped, "metadata")


def test_unnamed_dims_are_free(tmp_path: Path) -> None:
    program = opened(tmp_path / "m.onnx", model([N("Relu", ["x"], ["y"])], [value("x", None, 3), value("z", None)]))
    assert [one.shape for one in program.inputs] == [("s0", 3), ("s1",)]


def test_float64_is_seen(tmp_path: Path) -> None:
    assert opened(tmp_path / "m.onnx", _one("Cast", to=TensorProto.DOUBLE)).uses_float64
    assert not opened(tmp_path / "m.onnx", _one("Cast", to=TensorProto.FLOAT16)).uses_float64


def test_custom_operators_need_a_declared_digest(tmp_path: Path) -> None:
    proto = model([N("MyOp", ["x"], ["y"], domain="mine")], imports=[helper.make_opsetid("mine", 1)])
    with pytest.raises(BadProgram, match="mine::MyOp"):
        opened(tmp_path / "m.onnx", proto)
    digests = {
        opened(tmp_path / "m.onnx", proto, custom_ops={"mine::MyOp": "sha256:" + one * 64}).structure_digest
        for one in "ab"
    }
    assert len(digests) == 2


# External data


def external(tmp_path: Path, location: str = "w.bin", **entries: Any) -> Path:
    proto = model([N("MatMul", ["x", "w"], ["y"])], weights={"w": W})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(text))
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_is_the_same_as_internal(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"padding!" + W.tobytes() + b"rest")
    program = open_program(external(tmp_path, offset=8, length=W.nbytes))
    inside = opened(tmp_path / "i.onnx", model([N("MatMul", ["x", "w"], ["y"])], weights={"w": W}))
    assert identity(program) == identity(inside)


def test_a_change_of_external_data_is_noticed(tmp_path: Path) -> None:
    from farm.programs.weights import WeightsMemory

    (tmp_path / "w.bin").write_bytes(W.tobytes())
    memory = WeightsMemory(tmp_path / "memory", clock_ns=lambda: 1 << 62)
    path = external(tmp_path)
    before = open_program(path, memory=memory).weights.content_digest()
    assert open_program(path, memory=memory).weights.known_digests() == (before_digest(path),)
    (tmp_path / "w.bin").write_bytes((W + 1).tobytes())
    assert open_program(path, memory=memory).weights.content_digest() != before


def before_digest(path: Path) -> str:
    return open_program(path).weights.tensors()[0].digest


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "", "sub/../../w.bin", "w.bin\0", "..", "."]
)
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    with pytest.raises(BadProgram):
        open_program(external(folder, location)).weights.content_digest()


def test_external_data_behind_links_and_pipes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(W.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    (folder / "dir").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.bin")
    for location in ("link.bin", "dir/secret"):
        with pytest.raises(BadProgram, match="symbolic link"):
            open_program(external(folder, location))
    with pytest.raises(BadProgram, match="not a regular file"):
        open_program(external(folder, "pipe.bin"))


@pytest.mark.parametrize(
    "entries", [{"offset": 8}, {"length": 4}, {"offset": -1}, {"offset": "x"}, {"offset": 1 << 40}, {"length": 1 << 62}]
)
def test_external_data_of_another_size_is_refused(tmp_path: Path, entries: dict[str, Any]) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    with pytest.raises(BadProgram):
        open_program(external(tmp_path, **entries)).weights.content_digest()


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadProgram, match=r"w\.bin"):
        open_program(external(tmp_path))


# Hostile models


@pytest.mark.parametrize(
    "data", [b"hello, I am a model", b"\n" * 100, bytes(100), b"\x08\x07", b"\xff" * 64, b"\x3a\xff"]
)
def test_files_that_are_no_models(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(BadProgram) as caught:
        open_program(tmp_path / "m.onnx")
    assert "\n" not in caught.value.message


def test_damage_never_ends_in_anything_else(tmp_path: Path) -> None:
    draw, path = random.Random(5), tmp_path / "m.onnx"
    for make in (lambda: _if("Sin", "Cos"), _function, lambda: _relu("x", "h", "y")):
        data = make().SerializeToString()
        for _ in range(200):
            damaged = bytearray(data)
            for _ in range(draw.randint(1, 5)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            path.write_bytes(damaged[: draw.randint(1, len(damaged))] if draw.random() < 0.3 else damaged)
            try:
                program = open_program(path)
                program.graph_digest, program.weights.content_digest(), program.nodes()
            except BadProgram:
                pass


def test_functions_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    """Thirty functions, each calling the next one twice, unfold to a billion nodes."""
    functions = []
    for level in range(30):
        body = [N(f"f{level + 1}", ["a"], ["t"], domain="mine"), N(f"f{level + 1}", ["t"], ["b"], domain="mine")]
        body = body if level < 29 else [N("Sin", ["a"], ["b"])]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
        functions.append(helper.make_function("mine", f"f{level}", ["a"], ["b"], body, imports))
    proto = model([N("f0", ["x"], ["y"], domain="mine")], imports=[helper.make_opsetid("mine", 1)], functions=functions)
    with pytest.raises(BadProgram, match="more than 200,000 nodes"):
        opened(tmp_path / "m.onnx", proto)


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "f", ["a"], ["b"], [N("f", ["a"], ["b"], domain="mine")], imports)
    proto = model([N("f", ["x"], ["y"], domain="mine")], imports=imports[1:], functions=[function])
    with pytest.raises(BadProgram, match="nested more than"):
        opened(tmp_path / "m.onnx", proto)


def test_deeply_nested_branches_are_refused(tmp_path: Path) -> None:
    graph = helper.make_graph([N("Sin", ["x"], ["r"])], "g", [], [value("r", None)])
    for _ in range(31):
        graph = helper.make_graph([N("If", ["c"], ["r"], then_branch=graph)], "g", [], [value("r", None)])
    node = onnx.NodeProto(op_type="Relu", input=["x"], output=["y"])
    proto = model([node], [value("x", 2), value("c", kind=TensorProto.BOOL)])
    proto.graph.node[0].CopyFrom(graph.node[0])
    proto.graph.node[0].output[0] = "y"
    with pytest.raises(BadProgram, match="nested"):
        opened(tmp_path / "m.onnx", proto)


def test_nodes_out_of_order_are_refused(tmp_path: Path) -> None:
    proto = model([N("Relu", ["h"], ["y"]), N("Sin", ["x"], ["h"])])
    with pytest.raises(BadProgram, match="used before it is made"):
        opened(tmp_path / "m.onnx", proto)


# The tables


def test_messages_are_onnx_s() -> None:
    nested = {"Tensor": onnx.TypeProto.Tensor, "Dimension": onnx.TensorShapeProto.Dimension}
    for message, fields in MESSAGES.items():
        descriptor = (nested.get(message) or getattr(onnx, message)).DESCRIPTOR
        for number, (name, kind) in fields.items():
            field = descriptor.fields_by_number[number]
            assert field.name == name
            # Packed numbers are read as one place each, so those fields repeat as well.
            assert kind.endswith("*") == field.is_repeated


def test_dtypes_are_onnx_s() -> None:
    for number, name in DTYPES.items():
        theirs = TensorProto.DataType.Name(number)
        plain = name.replace("_", "").upper().removesuffix("FNU")
        assert theirs in (plain, {"FLOAT32": "FLOAT", "FLOAT64": "DOUBLE"}.get(plain), plain.replace("E8M0FNU", "E8M0"))


def test_weight_slots_are_operands() -> None:
    for op, slots in WEIGHT_SLOTS.items():
        assert max(slots) < len(onnx.defs.get_schema(op).inputs)


def test_the_table_of_operators_is_current() -> None:
    tool = Path(__file__).parents[3] / "tools" / "onnx_operators.py"
    assert subprocess.run([sys.executable, str(tool), "--check"], timeout=120, check=False).returncode == 0


def test_exports_of_one_model_are_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import warnings

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fc = torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return torch.softmax(self.fc(x), -1)

    found = []
    for name, batch in (("one", 2), ("other", 3)):
        shapes = {"x": {0: torch.export.Dim(name, min=2, max=8)}}
        program = torch.export.export(Net().eval(), (torch.ones(batch, 4),), dynamic_shapes=shapes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(program, dynamo=True, verbose=False).save(str(tmp_path / f"{name}.onnx"))
        found.append(open_program(tmp_path / f"{name}.onnx"))
    assert identity(found[0]) == identity(found[1])
    (symbol,) = found[0].symbols.values()
    assert (symbol.minimum, symbol.maximum) == (2, 8)
    assert found[0].nodes()[0].source.split(":")[0] == __file__
