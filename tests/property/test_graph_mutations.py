"""Real graphs, changed: every change of meaning changes the digest, no other change does.

The programs are exported by torch; the changes are made to the JSON that it saved, so that they are changes
that a file can really have. What is live is worked out here, not by the code under test.
"""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.export import Dim  # noqa: E402

from farm.graph import canonicalise  # noqa: E402
from farm.programs import schema  # noqa: E402
from farm.programs.operators import ASSERTIONS, operator  # noqa: E402
from farm.programs.pt2 import Pt2Graph  # noqa: E402

pytestmark = pytest.mark.torch
Json = dict[str, Any]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Any, mask: Any) -> Any:
        h = self.norm(x)
        q, k, v = self.q(h), self.k(h), self.v(h)
        scores = (q @ k.transpose(1, 2)) * 0.25 + mask
        out = scores.softmax(-1) @ v
        first, second = out.split(4, dim=-1)
        return {"out": x + torch.cat([second, first.tanh()], -1), "scores": scores}, x.shape[0] * 2


class Vision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Linear(4, 5)
        self.register_buffer("scale", torch.linspace(0.5, 1, 5))

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.bn(self.conv(x)))
        y = torch.nn.functional.max_pool2d(y, 2).mean((2, 3))
        return self.fc(y) * self.scale, y.max(1).values


class Drawn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Any) -> Any:
        self.seen.add_(1)
        noise = torch.rand(4) - torch.randn(4)
        y = torch.cond(x.sum() > 0, lambda v: v.sin() * 2, lambda v: v.cos() + 3, (x,))
        return y + noise * torch.clamp(x, min=-1.0, max=0.5) + self.seen


class Sized(nn.Module):
    def forward(self, n: Any, x: Any) -> Any:
        size = n.item()
        torch._check(size >= 2)
        torch._check(size <= 9)
        return torch.full((size,), 1.5), x.reshape(x.shape[0] // 2, 2, -1)


@cache
def programs() -> dict[str, Json]:
    torch.manual_seed(0)
    batch, length = Dim("batch", min=2, max=32), Dim("length", min=4, max=64)
    image, text = torch.randn(2, 3, 9, 9), torch.randn(2, 6, 8)
    made = {
        "attention": (
            Attention(),
            (text, torch.zeros(2, 6, 6)),
            {"x": {0: batch, 1: length}, "mask": {0: batch, 1: length, 2: length}},
        ),
        "vision": (Vision(), (image,), {"x": {0: batch}}),
        "drawn": (Drawn(), (torch.randn(4),), None),
        "sized": (Sized(), (torch.tensor(4), torch.randn(6, 4)), ({}, {0: 2 * Dim("half", min=1, max=8)})),
    }
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (module, args, shapes) in made.items():
            program = torch.export.export(module.eval(), args, dynamic_shapes=shapes)
            serialized = torch._export.serde.serialize.serialize(program, serialize_state_dict=False)
            found[name] = json.loads(serialized.exported_program)
            found[name]["contents"] = {target: target for target in targets_of(found[name])}
    return found


def targets_of(program: Json) -> list[str]:
    """Names of the lifted tensors, in the signature's order."""
    specs = program["graph_module"]["signature"]["input_specs"]
    return [one[kind][f"{kind}_name"] for one in specs for kind in one if f"{kind}_name" in one[kind]]


def digest(program: Json) -> tuple[str, list[str]]:
    """The structure, and which content (the name that it had at first) each tensor has, by first use."""
    model = schema.decode(json.dumps(program).encode(), schema.Model, "the program")
    targets = targets_of(program)
    found = canonicalise(Pt2Graph(model, {name: n for n, name in enumerate(targets)}, None).read())
    return found.structure_digest, [program["contents"][targets[number]] for number in found.lifted]


@cache
def original(name: str) -> tuple[str, list[str]]:
    return digest(programs()[name])


def graph_of(program: Json) -> Json:
    return program["graph_module"]["graph"]


def names_in(argument: Any) -> list[str]:
    """Every value that an argument refers to, in order, subgraphs left out."""
    if isinstance(argument, dict):
        if set(argument) == {"as_graph"}:
            return []
        own = [argument[key] for key in ("name", "as_name") if isinstance(argument.get(key), str)]
        return own + [name for value in argument.values() for name in names_in(value)]
    return [name for item in argument for name in names_in(item)] if isinstance(argument, list) else []


def effectful(node: Json) -> bool:
    op = operator(node["target"].removeprefix("torch.ops."))
    return op is not None and (op.random or bool(op.writes) or op.name in ASSERTIONS)


def live_nodes(program: Json) -> list[Json]:
    graph = graph_of(program)
    needed = set(names_in(graph["outputs"]))
    found = []
    for node in reversed(graph["nodes"]):
        if effectful(node) or needed & set(names_in(node["outputs"])):
            needed |= {name for one in node["inputs"] for name in names_in(one["arg"])}
            found.append(node)
    return found[::-1]


def made_by(nodes: list[Json]) -> list[str]:
    """Names of the tensors that ``nodes`` make."""
    return [name for node in nodes for one in node["outputs"] if "as_tensor" in one for name in names_in(one)]


Change = Callable[[Json, random.Random], bool]
"""Changes a program in place; False if there was nothing to change."""


# Changes of meaning


NOT_READ = frozenset({"assert_msg", "momentum", "cudnn_enabled", "cudnn_enable"})
"""Arguments that are text for people, only for training, or for a kernel of torch's own."""


def change_number(program: Json, draw: random.Random) -> bool:
    places = [
        (one["arg"], kind)
        for node in live_nodes(program)
        if node["target"] not in ("torch.ops.aten.dropout.default", "torch.ops.aten.sym_size.int")
        for one in node["inputs"]
        for kind in one["arg"]
        if kind in ("as_int", "as_float", "as_bool") and one["name"] not in NOT_READ
    ]
    if not places:
        return False
    argument, kind = draw.choice(places)
    if kind == "as_bool":
        argument[kind] = not argument[kind]
    else:
        argument[kind] += draw.choice([1, -1, 7])
    return True


def change_list(program: Json, draw: random.Random) -> bool:
    places = [
        one["arg"]["as_ints"] for node in live_nodes(program) for one in node["inputs"] if one["arg"].get("as_ints")
    ]
    if not places:
        return False
    numbers = draw.choice(places)
    numbers[draw.randrange(len(numbers))] += 1
    return True


def change_type_of_number(program: Json, draw: random.Random) -> bool:
    places = []
    for node in live_nodes(program):
        op = operator(node["target"].removeprefix("torch.ops."))
        for one in node["inputs"]:
            kind = op.kinds[op.position[one["name"]]] if op and one["name"] in op.position else ""
            if "as_int" in one["arg"] and op and kind != "f" and op.name not in ASSERTIONS:
                places.append(one)
    if not places:
        return False
    one = draw.choice(places)
    number = one["arg"]["as_int"]
    one["arg"] = draw.choice([{"as_float": float(number)}, {"as_bool": bool(number)}, {"as_none": True}])
    return True


def change_operator(program: Json, draw: random.Random) -> bool:
    node = draw.choice([node for node in live_nodes(program) if is_table_operator(node)])
    others = ["torch.ops.aten.bernoulli.p", "torch.ops.aten.celu.default", "torch.ops.aten.mul.Scalar"]
    node["target"] = draw.choice([name for name in others if name != node["target"]])
    return True


def is_table_operator(node: Json) -> bool:
    """An operator of the table that is no assertion (one that the ranges imply may go)."""
    op = operator(node["target"].removeprefix("torch.ops."))
    return op is not None and op.name not in ASSERTIONS


def swap_operands(program: Json, draw: random.Random) -> bool:
    places = [
        tensors
        for node in live_nodes(program)
        if len(tensors := [one for one in node["inputs"] if "as_tensor" in one["arg"]]) > 1
        and len({one["arg"]["as_tensor"]["name"] for one in tensors}) > 1
    ]
    if not places:
        return False
    tensors = draw.choice(places)
    first, second = draw.sample(tensors, 2)
    if first["arg"] == second["arg"]:
        return False
    first["arg"], second["arg"] = second["arg"], first["arg"]
    return True


def rewire(program: Json, draw: random.Random) -> bool:
    """Let a live node read another value that was made before it."""
    graph, live = graph_of(program), live_nodes(program)
    made = [name for one in graph["inputs"] for name in names_in(one) if "as_tensor" in one]
    places = []
    for node in graph["nodes"]:
        # The same size read from another input that has it is the same value.
        if any(node is one for one in live) and node["target"] != "torch.ops.aten.sym_size.int":
            for one in node["inputs"]:
                if "as_tensor" in one["arg"]:
                    own = one["arg"]["as_tensor"]["name"]
                    places += [(one, other) for other in made if other != own]
        made += [name for one in node["outputs"] if "as_tensor" in one for name in names_in(one)]
    one, other = draw.choice(places)
    one["arg"] = {"as_tensor": {"name": other}}
    return True


def swap_outputs(program: Json, draw: random.Random) -> bool:
    outputs = graph_of(program)["outputs"]
    if len(outputs) < 2:
        return False
    outputs[0], outputs[1] = outputs[1], outputs[0]
    specs = program["graph_module"]["signature"]["output_specs"]
    specs[0], specs[1] = specs[1], specs[0]
    return True


def change_structure(program: Json, draw: random.Random) -> bool:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    before = signature["out_spec"]
    signature["out_spec"] = before.replace("builtins.tuple", "builtins.list").replace("scores", "weights")
    return signature["out_spec"] != before


def _user_input(program: Json, draw: random.Random) -> Json:
    specs = program["graph_module"]["signature"]["input_specs"]
    names = [one["user_input"]["arg"]["as_tensor"]["name"] for one in specs if "user_input" in one]
    return graph_of(program)["tensor_values"][draw.choice(names)]


def change_dtype_of_an_input(program: Json, draw: random.Random) -> bool:
    value = _user_input(program, draw)
    value["dtype"] = 6 if value["dtype"] != 6 else 8
    return True


def change_shape_of_an_input(program: Json, draw: random.Random) -> bool:
    sizes = _user_input(program, draw)["sizes"]
    fixed = [size for size in sizes if "as_int" in size]
    if not fixed:
        sizes.append({"as_int": 1})
    else:
        draw.choice(fixed)["as_int"] += 1
    return True


def change_metadata_of_a_result(program: Json, draw: random.Random) -> bool:
    names = [
        name for node in live_nodes(program) for one in node["outputs"] if "as_tensor" in one for name in names_in(one)
    ]
    if not names:
        return False
    value = graph_of(program)["tensor_values"][draw.choice(names)]
    value["dtype"] = 6 if value["dtype"] != 6 else 8
    return True


def change_range(program: Json, draw: random.Random) -> bool:
    ranges = {name: one for name, one in program["range_constraints"].items() if name.isidentifier()}
    if not ranges:
        return False
    found = draw.choice(list(ranges.values()))
    found[draw.choice(["min_val", "max_val"])] += draw.choice([1, -1]) if found["max_val"] > found["min_val"] + 2 else 0
    return True


def swap_weights(program: Json, draw: random.Random) -> bool:
    """Bind two live tensors of one kind and shape the other way round."""
    specs = program["graph_module"]["signature"]["input_specs"]
    values = graph_of(program)["tensor_values"]
    used = {name for node in live_nodes(program) for one in node["inputs"] for name in names_in(one["arg"])}
    lifted = [(kind, one[kind]) for one in specs for kind in ("parameter", "buffer") if kind in one]
    lifted = [(kind, one) for kind, one in lifted if one["arg"]["name"] in used]
    sizes = [json.dumps([kind, values[one["arg"]["name"]]["sizes"]]) for kind, one in lifted]
    pairs = [(a, b) for a in range(len(lifted)) for b in range(a) if sizes[a] == sizes[b]]
    if not pairs:
        return False
    first, second = draw.choice(pairs)
    key = f"{lifted[first][0]}_name"
    one, other = lifted[first][1], lifted[second][1]
    one[key], other[key] = other[key], one[key]
    return True


def drop_an_effect(program: Json, draw: random.Random) -> bool:
    graph = graph_of(program)
    places = [node for node in graph["nodes"] if effectful(node) and "rand" in node["target"]]
    if not places:
        return False
    draw.choice(places)["target"] = "torch.ops.aten.zeros.default"
    return True


def swap_effects(program: Json, draw: random.Random) -> bool:
    nodes = graph_of(program)["nodes"]
    at = [
        index
        for index, node in enumerate(nodes)
        if node["target"] in ("torch.ops.aten.rand.default", "torch.ops.aten.randn.default")
    ]
    if len(at) < 2:
        return False
    nodes[at[0]], nodes[at[1]] = nodes[at[1]], nodes[at[0]]
    return True


def change_a_branch(program: Json, draw: random.Random) -> bool:
    graphs = [
        one["arg"]["as_graph"]["graph"]
        for node in live_nodes(program)
        for one in node["inputs"]
        if "as_graph" in one["arg"]
    ]
    if not graphs:
        return False
    draw.choice(draw.choice(graphs)["nodes"])["target"] = "torch.ops.aten.exp.default"
    return True


def add_an_output(program: Json, draw: random.Random) -> bool:
    graph = graph_of(program)
    name = draw.choice(
        [
            name
            for node in live_nodes(program)
            for one in node["outputs"]
            if "as_tensor" in one
            for name in names_in(one)
        ]
    )
    graph["outputs"].append({"as_tensor": {"name": name}})
    program["graph_module"]["signature"]["output_specs"].append({"user_output": {"arg": {"as_tensor": {"name": name}}}})
    return True


MEANING = (
    change_number,
    change_list,
    change_type_of_number,
    change_operator,
    swap_operands,
    rewire,
    swap_outputs,
    change_structure,
    change_dtype_of_an_input,
    change_shape_of_an_input,
    change_metadata_of_a_result,
    change_range,
    swap_weights,
    drop_an_effect,
    swap_effects,
    change_a_branch,
    add_an_output,
)


# Changes of anything else


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            names.get(key, key): names.get(one, one)
            if key in ("name", "as_name") and isinstance(one, str)
            else _renamed(one, names)
            for key, one in value.items()
        }
    return [_renamed(one, names) for one in value] if isinstance(value, list) else value


def rename_values(program: Json, draw: random.Random) -> bool:
    graph = graph_of(program)
    made = [*names_in(graph["inputs"]), *(name for node in graph["nodes"] for name in names_in(node["outputs"]))]
    fresh = [f"v{number}" for number in range(len(made))]
    draw.shuffle(fresh)
    names = dict(zip(made, fresh, strict=True))
    # Arguments of operators are named as well, by the schema; those keep their names.
    for node in graph["nodes"]:
        for one in node["inputs"]:
            one["arg"] = _renamed(one["arg"], names) if "as_graph" not in one["arg"] else one["arg"]
        node["outputs"], node["name"] = _renamed(node["outputs"], names), names.get(node["name"], node["name"])
    for table in ("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"):
        graph[table] = {names.get(name, name): one for name, one in graph[table].items()}
    graph["inputs"], graph["outputs"] = _renamed(graph["inputs"], names), _renamed(graph["outputs"], names)
    for spec in program["graph_module"]["signature"]["input_specs"]:
        for one in spec.values():
            one["arg"] = _renamed(one["arg"], names)
    for spec in program["graph_module"]["signature"]["output_specs"]:
        for one in spec.values():
            one["arg"] = _renamed(one["arg"], names)
    return True


def rename_symbols(program: Json, draw: random.Random) -> bool:
    symbols = sorted({name for name in program["range_constraints"] if name.isidentifier()})
    fresh = [f"s{100 + number}" if name[0] == "s" else f"u{100 + number}" for number, name in enumerate(symbols)]
    draw.shuffle(symbols)
    text = json.dumps(program)
    for old, new in zip(symbols, fresh, strict=True):
        new = new if new[0] == old[0] else old[0] + new[1:]
        text = text.replace(f"'{old}'", f"'@{new}'").replace(f'"{old}"', f'"@{new}"').replace(f"*{old}", f"*@{new}")
    program.clear()
    program.update(json.loads(text.replace("@", "")))
    return bool(symbols)


def shuffle_nodes(program: Json, draw: random.Random) -> bool:
    """Any order in which every value is made before it is used, and effects keep theirs."""
    graph = graph_of(program)
    pending, made, order = list(graph["nodes"]), set(names_in(graph["inputs"])), []
    effects = [node for node in pending if effectful(node)]
    writes = any("_." in node["target"] for node in pending)
    while pending:
        first = next((node for node in effects if any(node is one for one in pending)), None)
        ready = [
            node
            for node in pending
            if {name for one in node["inputs"] for name in names_in(one["arg"])} <= made
            and (not effectful(node) or node is first)
        ]
        node = ready[0] if writes else draw.choice(ready)
        pending = [one for one in pending if one is not node]
        made |= set(names_in(node["outputs"]))
        order.append(node)
    graph["nodes"] = order
    return True


def add_dead_code(program: Json, draw: random.Random) -> bool:
    graph = graph_of(program)
    source = draw.choice([name for name in names_in(graph["inputs"]) if name in graph["tensor_values"]])
    at = draw.randint(0, len(graph["nodes"]))
    node = {
        "target": "torch.ops.aten.exp.default",
        "inputs": [{"name": "self", "arg": {"as_tensor": {"name": source}}, "kind": 1}],
        "outputs": [{"as_tensor": {"name": "dead"}}],
        "metadata": {},
        "name": "dead",
    }
    graph["nodes"].insert(at, node)
    graph["tensor_values"]["dead"] = copy.deepcopy(graph["tensor_values"][source])
    return True


def compute_twice(program: Json, draw: random.Random) -> bool:
    """Let one user of a value have a copy of the node that makes it."""
    graph, live = graph_of(program), live_nodes(program)
    users = [
        (node, one, maker)
        for node in live
        for one in node["inputs"]
        if "as_tensor" in one["arg"]
        for maker in live
        if maker["outputs"] == [one["arg"]] and not effectful(maker) and "as_graph" not in json.dumps(maker)
    ]
    if not users or any("_." in node["target"] for node in live):
        return False
    _, one, maker = draw.choice(users)
    again = copy.deepcopy(maker)
    again["outputs"], again["name"] = [{"as_tensor": {"name": "again"}}], "again"
    at = next(index for index, node in enumerate(graph["nodes"]) if node is maker)
    graph["nodes"].insert(at, again)
    graph["tensor_values"]["again"] = copy.deepcopy(graph["tensor_values"][one["arg"]["as_tensor"]["name"]])
    one["arg"] = {"as_tensor": {"name": "again"}}
    return True


def write_out_defaults(program: Json, draw: random.Random) -> bool:
    written = False
    for node in graph_of(program)["nodes"]:
        parts = node["target"].removeprefix("torch.ops.").split(".")
        if parts[0] != "aten" or node["target"].endswith("assert_scalar.default"):
            continue
        given = {one["name"] for one in node["inputs"]}
        for argument in getattr(getattr(torch.ops.aten, parts[1]), parts[2])._schema.arguments:
            value = argument.default_value
            if argument.name not in given and argument.has_default_value() and type(value) in _TAGS:
                if str(argument.real_type).strip("Optional[]") in ("MemoryFormat", "ScalarType", "Layout"):
                    continue
                node["inputs"].append(
                    {
                        "name": argument.name,
                        "arg": {_TAGS[type(value)]: value if value is not None else True},
                        "kind": 2,
                    }
                )
                written = True
    return written


_TAGS = {bool: "as_bool", int: "as_int", float: "as_float", str: "as_string", type(None): "as_none"}


def change_texts_and_hints(program: Json, draw: random.Random) -> bool:
    program["torch_version"], program["guards_code"] = "2.99", ["anything"]
    text = json.dumps(program)
    for number in range(2, 40):
        text = text.replace(f'"hint": {{"as_int": {number}}}', f'"hint": {{"as_int": {number + 100}}}')
    program.clear()
    program.update(json.loads(text))
    for node in graph_of(program)["nodes"]:
        node["metadata"] = {"stack_trace": str(draw.random())}
    return True


def rename_parameters(program: Json, draw: random.Random) -> bool:
    specs = program["graph_module"]["signature"]
    for number, one in enumerate(specs["input_specs"]):
        for kind, key in (("parameter", "parameter_name"), ("buffer", "buffer_name")):
            if kind in one:
                old, new = one[kind][key], f"renamed.{number}"
                one[kind][key] = new
                program["contents"][new] = program["contents"].pop(old)
                for output in specs["output_specs"]:
                    for value in output.values():
                        if value.get(key) == old:
                            value[key] = new
    return True


def move_lifted_inputs(program: Json, draw: random.Random) -> bool:
    """Lifted tensors come first, in the order of declaration: any order is the same program."""
    graph, specs = graph_of(program), program["graph_module"]["signature"]["input_specs"]
    count = sum("user_input" not in one for one in specs)
    order = list(range(count))
    draw.shuffle(order)
    specs[:count], graph["inputs"][:count] = [specs[i] for i in order], [graph["inputs"][i] for i in order]
    return count > 1


ELSE = (
    rename_values,
    rename_symbols,
    shuffle_nodes,
    add_dead_code,
    compute_twice,
    write_out_defaults,
    change_texts_and_hints,
    rename_parameters,
    move_lifted_inputs,
)

_SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_NAMES = ("attention", "vision", "drawn", "sized")


@pytest.mark.parametrize("change", MEANING, ids=lambda change: change.__name__)
@_SETTINGS
@given(name=st.sampled_from(_NAMES), seed=st.integers(0, 1 << 32))
def test_a_change_of_meaning_changes_the_digest(change: Change, name: str, seed: int) -> None:
    program = copy.deepcopy(programs()[name])
    before = copy.deepcopy(program)
    if change(program, random.Random(seed)) and program != before:
        assert digest(program) != original(name)


@pytest.mark.parametrize("change", ELSE, ids=lambda change: change.__name__)
@_SETTINGS
@given(name=st.sampled_from(_NAMES), seed=st.integers(0, 1 << 32))
def test_no_other_change_does(change: Change, name: str, seed: int) -> None:
    program = copy.deepcopy(programs()[name])
    if change(program, random.Random(seed)):
        assert digest(program) == original(name)


@_SETTINGS
@given(name=st.sampled_from(_NAMES), seed=st.integers(0, 1 << 32))
def test_all_of_them_together(name: str, seed: int) -> None:
    draw = random.Random(seed)
    program = copy.deepcopy(programs()[name])
    for change in draw.sample(ELSE, 4):
        if change is not write_out_defaults:
            change(program, draw)
    assert digest(program) == original(name)


@pytest.mark.parametrize("change", [*MEANING, *ELSE], ids=lambda change: change.__name__)
def test_every_change_has_something_to_change(change: Change) -> None:
    assert any(change(copy.deepcopy(programs()[name]), random.Random(seed)) for name in _NAMES for seed in range(5))
