"""Sanitising: what is refused, what is left behind, what is written anew. Hand-made archives, without torch."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile.forge import CONSTANTS, MODEL, SAMPLE, WEIGHTS, write

from farm.errors import BadProgram
from farm.programs import sanitise_zip
from farm.programs.archive import Archive
from farm.programs.sanitise import sanitise_pt2
from farm.programs.sanitise_zip import StoredZip

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


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def graph_of(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["graph_module"]["graph"]
    return found


def calling_of(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["graph_module"]["module_call_graph"][0]["signature"]
    return found


# What comes out


def test_only_what_torch_needs_is_written(bench: Bench) -> None:
    extra = {"extra/notes.txt": b"hello", "data/aotinductor/model/a.so": b"ELF", "models/other.json": b"{}"}
    extra |= {"data/weights/weight_1": b"unused", ".data/serialization_id": b"1", "data/mtia/x": b"?"}
    made = bench.sanitise(members() | extra)
    needed = {".data/version", "archive_format", "archive_version", "byteorder", MODEL, WEIGHTS, CONSTANTS, SAMPLE}
    assert set(made) == needed | {"data/weights/weight_0"}
    assert made[SAMPLE] == b""
    assert made["data/weights/weight_0"] == bytes(range(24))


def test_the_program_itself_is_kept(bench: Bench) -> None:
    made = bench.model(lambda content: None)
    expected = model()
    expected["graph_module"]["graph"]["nodes"][0]["metadata"].pop("torch_fn")
    expected["schema_version"]["minor"] = 0
    assert made == expected


def test_the_result_does_not_depend_on_the_file_names(bench: Bench, tmp_path: Path) -> None:
    bench.sanitise()
    write(tmp_path / "b.pt2", members(), root="b")
    sanitise_pt2(tmp_path / "b.pt2", tmp_path / "elsewhere.pt2")
    assert (tmp_path / "elsewhere.pt2").read_bytes() == bench.safe.read_bytes()


def test_members_are_aligned_as_torch_aligns_them(bench: Bench) -> None:
    bench.sanitise()
    with Archive(bench.safe) as archive:
        assert archive.root == "program"
        assert all(member.start % 64 == 0 for member in archive.members.values())


def test_data_larger_than_the_buffer_passes_unchanged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitise_zip, "_BUFFER", 1000)
    data = os.urandom(24_000)
    table = {"config": {"w": payload(tensor_meta=tensor(2000, 3))}}
    made = bench.sanitise(members(weights=table) | {"data/weights/weight_0": data})
    assert made["data/weights/weight_0"] == data


def test_an_existing_file_is_not_overwritten(bench: Bench) -> None:
    bench.safe.write_text("mine")
    write(bench.source, members())
    with pytest.raises(FileExistsError):
        sanitise_pt2(bench.source, bench.safe)
    assert bench.safe.read_text() == "mine"


def test_unknown_fields_and_code_are_left_behind(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        content["guards_code"] = ["evil()"]
        content["surprise"] = content["graph_module"]["surprise"] = {"evil": True}
        content["graph_module"]["metadata"] = {"custom": "[[[["}
        content["graph_module"]["treespec_namedtuple_fields"] = {"evil": {"field_names": ["evil"]}}
        node = graph_of(content)["nodes"][0]
        node["surprise"] = "evil"
        node["metadata"] |= {"source_fn_stack": "a,torch.evil", "from_node": "evil", "custom": "evil"}
        graph_of(content)["tensor_values"]["x"]["surprise"] = "evil"

    made = bench.model(change)
    assert "evil" not in json.dumps(made)
    assert made["guards_code"] == []


def test_traces_are_kept_and_unreadable_module_stacks_dropped(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        nodes = graph_of(content)["nodes"]
        nodes[0]["metadata"] = {
            "stack_trace": 'File "m.py", line 1',
            "nn_module_stack": "L__self__,,m.A;a,b,f[c,(d,e)]",
        }
        nodes.append(call("torch.ops.aten.relu.default", "relu", self=named("add")))
        nodes[1]["metadata"] = {"stack_trace": 3, "nn_module_stack": "one,two"}

    first, second = graph_of(bench.model(change))["nodes"]
    assert first["metadata"] == {
        "stack_trace": 'File "m.py", line 1',
        "nn_module_stack": "L__self__,,m.A;a,b,f[c,(d,e)]",
    }
    assert second["metadata"] == {}


def test_a_file_that_names_no_verifier_gets_torchs_own(bench: Bench) -> None:
    assert bench.model(lambda content: content.update(verifiers=[]))["verifiers"] == ["TRAINING"]


def test_every_tensor_comes_to_the_cpu(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        graph_of(content)["tensor_values"]["x"]["device"] = {"type": "cuda", "index": 3}
        graph_of(content)["nodes"][0] = call(
            "torch.ops.aten.to.device", "add", self=named("x"), device={"as_device": {"type": "cuda", "index": None}}
        )

    made = graph_of(bench.model(change))
    assert made["tensor_values"]["x"]["device"] == {"type": "cpu", "index": None}
    assert made["nodes"][0]["inputs"][1]["arg"] == {"as_device": {"type": "cpu", "index": None}}


def symbolic(text: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        size = {"as_expr": {"expr_str": text, "hint": {"as_int": 4}}}
        graph_of(content)["tensor_values"]["x"]["sizes"][0] = size

    return change


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("Symbol('s77', positive=True, integer=True)", "Symbol('s77', positive=True, integer=True)"),
        ("Mul(Integer(2), Symbol('s0'))", "Mul(Integer(2), Symbol('s0'))"),
        (" Add( Integer(-1),Symbol('s0') ) ", "Add(Integer(-1), Symbol('s0'))"),
        ("FloorDiv(Symbol('s0'), Integer(2))", "FloorDiv(Symbol('s0'), Integer(2))"),
        ("2*s0 + 1", "Add(Mul(Integer(2), Symbol('s0')), Integer(1))"),
    ],
)
def test_expressions_are_written_anew(bench: Bench, given: str, written: str) -> None:
    made = graph_of(bench.model(symbolic(given)))["tensor_values"]["x"]["sizes"][0]
    assert made == {"as_expr": {"expr_str": written, "hint": {"as_int": 4}}}


# What is refused


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Symbol('s0').name",
        "Symbol('__import__(\"os\")')",
        "Symbol('print')",
        "Symbol('s0', evil=True)",
        "Symbol('s0', positive=print())",
        "eval('1')",
        "Function('f')(Integer(1))",
        "[1][0]",
        "(lambda: 1)()",
        "Integer(1) if 1 else 2",
        "f'{1}'",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "9**9**9**9",
        "Pow(Pow(Pow(Integer(9), Integer(64)), Integer(64)), Integer(64))",
        "Pow(Integer(2), Symbol('s0'))",
        "LShift(Integer(1), Integer(1000000))",
        "Max(" + ", ".join(f"Symbol('s{index}')" for index in range(100)) + ")",
        "Add(" + ", ".join(["Integer(1)"] * 3000) + ")",
        "(" * 500 + "1" + ")" * 500,
        "9" * 5000,
        "",
        "Integer(1)\n__import__('os')",
        "ｅｖａｌ(1)",
    ],
)
def test_expressions_that_are_not_plain_arithmetic(bench: Bench, text: str) -> None:
    assert "expr_str" in bench.refuses_model(symbolic(text))


@pytest.mark.parametrize(
    "name",
    [
        "x=print()",
        "x y",
        "x\n",
        "x\ny",
        "x;y",
        "x)",
        "x#",
        "1x",
        "",
        "lambda",
        "None",
        "__class__",
        "a.b",
        "ﬁ",
        "x\u2028",
        "x" * 5000,
        5,
        None,
        ["x"],
    ],
)
def test_names_that_are_no_identifiers(bench: Bench, name: Any) -> None:
    def in_inputs(content: dict[str, Any]) -> None:
        graph_of(content)["inputs"][1]["as_tensor"]["name"] = name

    def in_outputs(content: dict[str, Any]) -> None:
        graph_of(content)["nodes"][0]["outputs"] = [{"as_tensor": {"name": name}}]

    def in_signature(content: dict[str, Any]) -> None:
        content["graph_module"]["signature"]["input_specs"][1]["user_input"]["arg"]["as_tensor"]["name"] = name

    def in_arguments(content: dict[str, Any]) -> None:
        calling_of(content)["forward_arg_names"] = [name]

    for change in (in_inputs, in_outputs, in_signature, in_arguments):
        bench.refuses_model(change)


@pytest.mark.parametrize("name", ['a"b', "a'b", "a\\b", "a\nb", "a#b", "a{b}", "a.__class__", "", "a;b", "a%b"])
def test_names_of_tensors_that_could_leave_their_quotes(bench: Bench, name: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = name

    assert "parameter_name" in bench.refuses_model(change)
    assert "config" in bench.refuses(weights={"config": {name: payload()}})


def test_names_of_tensors_that_modules_really_have(bench: Bench) -> None:
    for name in ("layers.0.weight", "a-b", "Größe.w", "p:q/r", "x y"):
        bench.safe.unlink(missing_ok=True)
        bench.sanitise(weights={"config": {name: payload()}})


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten._print.default",
        "torch.ops.aten.add",
        "torch.ops.aten.add.Tensor.__class__",
        "torch.ops.mine.op.default",
        "torch.ops.higher_order.print",
        "torch.ops.higher_order.triton_kernel_wrapper_mutation",
        "torch.ops.higher_order.cond.__class__",
        "torch.export.custom_ops._call_custom_autograd_function_in_pre_dispatch",
        "torch._C._functions",
        "_operator.call",
        "_operator.attrgetter",
        "_operator.__builtins__.eval",
        "math.__loader__.exec_module",
        "#extension:op",
        "eval",
        "",
    ],
)
def test_functions_that_a_program_may_not_call(bench: Bench, target: str) -> None:
    def called(content: dict[str, Any]) -> None:
        graph_of(content)["nodes"][0]["target"] = target

    def given(content: dict[str, Any]) -> None:
        graph_of(content)["nodes"][0]["inputs"][0]["arg"] = {"as_operator": target}

    message = bench.refuses_model(called)
    assert "nodes[0].target" in message
    assert "as_operator" in bench.refuses_model(given)


def test_an_unknown_operator_is_told_with_the_line_of_the_model(bench: Bench) -> None:
    message = bench.refuses_model(
        lambda content: graph_of(content)["nodes"][0].update(target="torch.ops.my.op.default")
    )
    assert "torch.ops.my.op.default" in message
    assert "model.py:3" in message


@pytest.mark.parametrize(
    "argument",
    [
        {"as_custom_obj": {"name": "o", "class_fqn": "a.B"}},
        {"as_surprise": 1},
        {"as_int": "1"},
        {"as_int": True},
        {"as_int": 1.5},
        {"as_int": 1 << 70},
        {"as_int": {"a": 1}},
        {"as_ints": 3},
        {"as_bool": 1},
        {"as_float": "1.0"},
        {"as_float": "infinity"},
        {"as_string": ["a"]},
        {"as_scalar_type": 99},
        {"as_memory_format": 0},
        {"as_device": {"type": "cpu:0"}},
        {"as_device": {"type": "privateuseone", "index": 0}},
        {"as_device": {"type": "cuda", "index": -1}},
        {"as_string_to_argument": {"a": {"as_string_to_argument": {"b": {"as_custom_obj": {"name": "o"}}}}}},
        {"as_int": 1, "as_float": 1.0},
        {},
    ],
)
def test_arguments_that_are_not_let_through(bench: Bench, argument: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        graph_of(content)["nodes"][0]["inputs"][0]["arg"] = argument

    assert "nodes[0].inputs[0]" in bench.refuses_model(change)


def test_arithmetic_on_sizes_takes_numbers_only(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        graph_of(content)["nodes"][0] = call("_operator.mul", "add", a={"as_string": "x"}, b={"as_int": 1 << 40})

    assert "as_string" in bench.refuses_model(change)


def test_objects_among_the_values(bench: Bench) -> None:
    def valued(content: dict[str, Any]) -> None:
        graph_of(content)["custom_obj_values"] = {"o": {"name": "o", "class_fqn": "a.B"}}

    def lifted(content: dict[str, Any]) -> None:
        spec = {"custom_obj": {"arg": {"name": "o", "class_fqn": "a.B"}, "custom_obj_name": "o"}}
        content["graph_module"]["signature"]["input_specs"][0] = spec

    assert "object" in bench.refuses_model(valued)
    assert "custom_obj" in bench.refuses_model(lifted)


def test_a_region_under_autocast_for_a_gpu(bench: Bench) -> None:
    def with_region(device: str, enabled: bool) -> Change:
        def change(content: dict[str, Any]) -> None:
            inner = copy.deepcopy(graph_of(content))
            arguments = [{"as_string": device}, {"as_scalar_type": 6}, {"as_bool": enabled}, {"as_none": True}]
            arguments += [{"as_graph": {"name": "inner", "graph": inner}}, named("p_w"), named("x")]
            node = call("torch.ops.higher_order.wrap_with_autocast", "add")
            node["inputs"] = [{"name": "", "arg": argument, "kind": 1} for argument in arguments]
            graph_of(content)["nodes"][0] = node

        return change

    assert "autocast" in bench.refuses_model(with_region("cuda", True))
    for device, enabled in (("cuda", False), ("cpu", True)):
        bench.safe.unlink(missing_ok=True)
        made = graph_of(bench.model(with_region(device, enabled)))
        assert made["nodes"][0]["inputs"][4]["arg"]["as_graph"]["graph"]["nodes"][0]["name"] == "add"


@pytest.mark.parametrize(
    "spec",
    [
        container("collections.defaultdict", {"default_factory_module": "os", "default_factory_name": "system"}, LEAF),
        container("builtins.dict", json.dumps([{"__enum__": True, "fqn": "os:x", "name": "y"}]), LEAF),
        container("builtins.dict", '["a\\"b"]', LEAF),
        container("builtins.dict", '["a\\nb"]', LEAF),
        container("builtins.dict", "not json", LEAF),
        container("builtins.list", '{"__enum__": true}', LEAF),
        container("mine.Type", {"deep": [{"__enum__": True}]}, LEAF),
        container("mine.Type", json.dumps({"__enum__": True, "fqn": "os:x"}), LEAF),
        container("torch.evil", "null", LEAF),
        container("builtins.evil", "null", LEAF),
        container("no_module", "null", LEAF),
        container("a.b\nc", "null", LEAF),
        {**LEAF, "context": "x"},
        {"type": 3, "context": None, "children_spec": []},
        {"type": None},
        "text",
        None,
    ],
)
def test_containers_that_would_import_something(bench: Bench, spec: Any) -> None:
    for which in ("in_spec", "out_spec"):
        message = bench.refuses_model(
            lambda content, which=which: calling_of(content).update({which: json.dumps([1, spec])})
        )
        assert which in message


@pytest.mark.parametrize("text", ["", "[2, null]", "[1]", "{}", "[" * 100_000, "[1, " + "9" * 5000 + "]", "[true, {}]"])
def test_containers_that_are_not_described(bench: Bench, text: str) -> None:
    assert "out_spec" in bench.refuses_model(lambda content: calling_of(content).update(out_spec=text))


def test_containers_that_programs_really_have(bench: Bench) -> None:
    factory = {"default_factory_module": "builtins", "default_factory_name": "list", "dict_context": ["a"]}
    specs = [
        container("collections.OrderedDict", '["last_hidden_state", 3]', LEAF, LEAF),
        container("collections.defaultdict", factory, LEAF),
        container("collections.namedtuple", "mine.Point", LEAF),
        container("collections.deque", "3", LEAF),
        container("transformers.modeling_outputs.BaseModelOutput", '["last_hidden_state"]', LEAF),
    ]
    tree = json.dumps([1, container("builtins.tuple", "null", *specs)])
    made = calling_of(bench.model(lambda content: calling_of(content).update(out_spec=tree)))
    assert json.loads(made["out_spec"]) == json.loads(tree)


def test_keywords_that_are_no_identifiers(bench: Bench) -> None:
    keywords = container("builtins.dict", '["a b"]', LEAF)
    tree = json.dumps([1, container("builtins.tuple", "null", container("builtins.tuple", "null"), keywords)])
    assert "in_spec" in bench.refuses_model(lambda content: calling_of(content).update(in_spec=tree))


@pytest.mark.parametrize("text", ["a'b", 'a"b', "a\\", "a\nb", "\x00"])
def test_strings_among_the_inputs_that_could_leave_their_quotes(bench: Bench, text: str) -> None:
    def change(content: dict[str, Any]) -> None:
        graph_of(content)["inputs"][1] = {"as_string": text}

    assert "inputs[1].as_string" in bench.refuses_model(change)


@pytest.mark.parametrize(
    "ranges",
    [
        {"s0": {"min_val": 5, "max_val": 2}},
        {"u99999999999": {"min_val": 0, "max_val": 2}},
        {"u0 + u1": {"min_val": 0, "max_val": 2}},
        {"print()": {"min_val": 0, "max_val": 2}},
        {"s0": {"min_val": "0", "max_val": 2}},
        {"s0": {"min_val": 0, "max_val": 1 << 80}},
        {"s0": [0, 1]},
        ["s0"],
    ],
)
def test_ranges(bench: Bench, ranges: Any) -> None:
    assert "range_constraints" in bench.refuses_model(lambda content: content.update(range_constraints=ranges))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (payload(use_pickle=True), "pickle"),
        (payload(tensor_meta=None), "pickle"),
        (payload(path_name="opaque_obj_0"), "unpickle"),
        (payload(path_name="custom_obj_0"), "unpickle"),
        (payload(path_name="../../models/model.json"), "unpickle"),
        (payload(path_name="weight_0\n"), "unpickle"),
        (payload(path_name="weight_7"), "no member"),
        (payload(tensor_meta=tensor(2, 4)), "beyond"),
        (payload(tensor_meta=tensor(2, 3, dtype=8)), "beyond"),
        (payload(tensor_meta=tensor(2, 3, storage_offset={"as_int": 1})), "beyond"),
        (payload(tensor_meta=tensor(2, 3, storage_offset={"as_int": -1})), "negative"),
        (payload(tensor_meta=tensor(2, 3, strides=[{"as_int": -3}, {"as_int": 1}])), "negative"),
        (payload(tensor_meta=tensor(2, 3, strides=[{"as_int": 1 << 62}, {"as_int": 1}])), "beyond"),
        (payload(tensor_meta=tensor(2, 3, strides=[{"as_int": 1}])), "strides"),
        (payload(tensor_meta=tensor(1 << 40, 1 << 20, strides=[{"as_int": 0}, {"as_int": 0}])), "spread"),
        (payload(tensor_meta=tensor(-2, 3)), "negative"),
        (payload(tensor_meta=tensor(2, 3, dtype=0)), "known kinds"),
    ],
)
def test_tables_of_weights(bench: Bench, entry: dict[str, Any], why: str) -> None:
    assert why in bench.refuses(weights={"config": {"w": entry}})


def test_weights_without_values(bench: Bench) -> None:
    """Torch would take zeros for them."""
    assert "without its values" in bench.refuses(members() | {"data/weights/weight_0": b""})


def test_one_datum_read_as_two_types(bench: Bench) -> None:
    """Torch reads it as the first entry says: the graph's digest and torch would not mean the same program."""
    table = {"config": {"w": payload(), "v": payload(tensor_meta=tensor(2, 3, dtype=4))}}
    assert "another type" in bench.refuses(weights=table)


def test_empty_and_expanded_tensors_are_fine(bench: Bench) -> None:
    expanded = payload(tensor_meta=tensor(100, 6, strides=[{"as_int": 0}, {"as_int": 1}]))
    table = {"config": {"w": payload(), "e": payload(path_name="weight_1", tensor_meta=tensor(0, 5)), "v": expanded}}
    made = bench.sanitise(members(weights=table) | {"data/weights/weight_1": b""})
    assert made["data/weights/weight_1"] == b""


# Files that are no archives of ours


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"data/weights/model.pt": b"pickle"}, "pickle"),
        ({"data/constants/model.pt": b"pickle"}, "pickle"),
        ({"byteorder": b"big"}, "little-endian"),
        ({"archive_format": b"pt3"}, "torch.export.save"),
        ({"archive_version": b"1"}, "torch.export.save"),
        ({MODEL: b'{"graph_module": {"graph": ' + b"[" * 200_000}, "model.json"),
        ({MODEL: b'{"graph_module": 5}'}, "not what torch.export writes"),
        ({MODEL: b"\xff\xfe{}"}, "not what torch.export writes"),
        ({MODEL: b""}, "not what torch.export writes"),
        ({MODEL: b"NaN"}, "not what torch.export writes"),
        ({WEIGHTS: b"{}"}, "not what torch.export writes"),
    ],
)
def test_members_of_another_kind(bench: Bench, changed: dict[str, bytes], why: str) -> None:
    assert why in bench.refuses(members() | changed)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, CONSTANTS, "archive_format", "archive_version"])
def test_missing_members(bench: Bench, name: str) -> None:
    assert name in bench.refuses({other: content for other, content in members().items() if other != name})


def test_another_major_version_of_the_schema(bench: Bench) -> None:
    for major in (0, 7, 9):
        message = bench.refuses_model(lambda content, major=major: content.update(schema_version={"major": major}))
        assert f"version {major}" in message


def test_deep_nesting_inside_a_string_argument(bench: Bench) -> None:
    argument: dict[str, Any] = {"as_int": 1}
    for _ in range(300):
        argument = {"as_string_to_argument": {"a": argument}}

    def change(content: dict[str, Any]) -> None:
        graph_of(content)["nodes"][0]["inputs"][0]["arg"] = argument

    bench.refuses_model(change)


def test_deeply_nested_graphs(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        for _ in range(40):
            inner = copy.deepcopy(graph_of(content))
            node = call("torch.ops.higher_order.wrap", "add")
            node["inputs"] = [{"name": "", "arg": {"as_graph": {"name": "inner", "graph": inner}}, "kind": 1}]
            graph_of(content)["nodes"] = [node]

    assert "nested" in bench.refuses_model(change)


def test_compressed_members(bench: Bench) -> None:
    with zipfile.ZipFile(bench.source, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members().items():
            archive.writestr(f"a/{name}", content + b"\0" * 1_000_000)
    assert "compressed" in bench.refuses_file()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(bench: Bench) -> None:
    with zipfile.ZipFile(bench.source, "w") as archive:
        for name, content in [*members().items(), (MODEL, b"{}")]:
            archive.writestr(f"a/{name}", content)
    assert "two members" in bench.refuses_file()


def test_names_that_lead_out_of_the_archive(bench: Bench) -> None:
    assert "leads out" in bench.refuses(members() | {"../../etc/passwd": b"x"})


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + b"\0" * 18, b"\x80\x02}q\0."])
def test_files_that_are_no_zip(bench: Bench, content: bytes) -> None:
    bench.source.write_bytes(content)
    bench.refuses_file()


def test_truncated_archives(bench: Bench) -> None:
    write(bench.source, members())
    whole = bench.source.read_bytes()
    for size in range(0, len(whole), 97):
        bench.source.write_bytes(whole[:size])
        bench.refuses_file()


def test_what_is_no_file(bench: Bench) -> None:
    bench.refuses_file()
    bench.source.mkdir()
    assert "folder" in bench.refuses_file()
    bench.source.rmdir()
    os.mkfifo(bench.source)
    assert "not a regular file" in bench.refuses_file()


def test_a_full_disk_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write(bench.source, members())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StoredZip, "add", fail)
    with pytest.raises(OSError, match="No space left"):
        sanitise_pt2(bench.source, bench.safe)
    assert not bench.safe.exists()


_BOUNDED = """
import resource, sys
from pathlib import Path
from farm.errors import BadProgram
from farm.programs.sanitise import sanitise_pt2
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    sanitise_pt2(Path(sys.argv[1]), Path(sys.argv[1] + ".safe"))
except BadProgram as error:
    print(error.message)
"""


@pytest.mark.parametrize(
    "content",
    [
        b'{"graph_module": {"graph": {"inputs": [' + b"{}," * 5_000_000 + b"{}]}}}",
        b'{"graph_module": {"graph": {"nodes": [' + b'{"target":"","inputs":[]},' * 300_000 + b"{}]}}}",
        b'{"graph_module": ' + b'{"a":' * 5_000_000,
    ],
    ids=["many values", "many nodes", "deep"],
)
def test_huge_json_ends_within_bounded_memory(bench: Bench, content: bytes) -> None:
    write(bench.source, members() | {MODEL: content})
    command = [sys.executable, "-c", _BOUNDED, bench.source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert str(bench.source) in done.stdout


# The zip that is written


class Sparse(io.FileIO):
    """A file that leaves out large pieces of zeros instead of writing them."""

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size < 1 << 20:
            return super().write(data)
        self.seek(size, os.SEEK_CUR)
        return size


def test_members_and_archives_beyond_four_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitise_zip.zlib, "crc32", lambda data, value=0: 0)
    zeros, size = memoryview(bytes(1 << 24)), 5 << 30
    with Sparse(tmp_path / "big.zip", "w") as file, StoredZip(file) as target:  # type: ignore[arg-type]
        target.add("r/large", size, (zeros for _ in range(size >> 24)))
        target.add("r/late", 5, [b"hello"])
    with Archive(tmp_path / "big.zip") as archive:
        assert {name: member.size for name, member in archive.members.items()} == {"large": size, "late": 5}
        assert all(member.start % 64 == 0 for member in archive.members.values())
        assert archive.read("late") == b"hello"
    with zipfile.ZipFile(tmp_path / "big.zip") as archive:
        assert archive.getinfo("r/large").file_size == size
        assert archive.getinfo("r/late").header_offset > size


def test_more_members_than_a_small_directory_holds(tmp_path: Path) -> None:
    with (tmp_path / "many.zip").open("xb") as file, StoredZip(file) as target:
        for index in range(70_000):
            target.add(f"r/{index}", 0, [])
    with Archive(tmp_path / "many.zip") as archive:
        assert len(archive.members) == 70_000


def test_a_member_of_another_size_than_announced(tmp_path: Path) -> None:
    with (tmp_path / "a.zip").open("xb") as file, StoredZip(file) as target:
        for content in (b"123", b"12345"):
            with pytest.raises(ValueError, match="bytes"):
                target.add("r/a", 4, [content])
