"""Sanitising a program's JSON: expressions, names, functions, arguments, containers. Without torch."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hostile.handmade import LEAF, Bench, Change, call, calling_of, container, graph_of, named, payload


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


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
        container("collections.defaultdict", {"default_factory_module": "builtins", "default_factory_name": ["eval"]}),
        container("collections.defaultdict", {"default_factory_module": "builtins", "default_factory_name": "eval"}),
        container("collections.defaultdict", "builtins.list", LEAF),
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
        container("collections.deque", "3", LEAF),
        container("transformers.modeling_outputs.BaseModelOutput", '["last_hidden_state"]', LEAF),
    ]
    tree = json.dumps([1, container("builtins.tuple", "null", *specs)])
    made = calling_of(bench.model(lambda content: calling_of(content).update(out_spec=tree)))
    assert json.loads(made["out_spec"]) == json.loads(tree)


def test_a_named_tuple_becomes_a_tuple(bench: Bench) -> None:
    tree = json.dumps([1, container("collections.namedtuple", "mine.Point", LEAF, LEAF)])
    made = calling_of(bench.model(lambda content: calling_of(content).update(out_spec=tree)))
    assert json.loads(made["out_spec"]) == [1, container("builtins.tuple", "null", LEAF, LEAF)]


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
