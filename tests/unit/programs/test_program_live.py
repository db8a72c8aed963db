"""Live subgraphs, as Torch-TensorRT hands them to an engine cache. (Whole live programs: see the corpus.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from farm.errors import BadProgram
from farm.graph import Graph

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from farm.programs.live import program_of, subgraph_digest  # noqa: E402
from farm.programs.live_values import LiveMetadata  # noqa: E402
from farm.programs.weights import Weights  # noqa: E402

pytestmark = pytest.mark.torch


@dataclass
class Spec:
    """The fields of ``torch_tensorrt.Input`` that an engine is built from, and its name."""

    shape: Any = (2, 4)
    dtype: Any = torch.float32
    format: Any = "linear"
    shape_mode: Any = "static"
    is_shape_tensor: bool = False
    name: str = "x"


def lowered(function: Any, *args: Any) -> Any:
    """A graph as lowering leaves it: tensors fetched from the module, no signature."""
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(function, tracing_mode="fake")(*args)


W = torch.linspace(-1, 1, 16).reshape(4, 4)
X = torch.ones(2, 4)


def matmul(weight: Any) -> Any:
    module = nn.Module()
    module.register_parameter("w", nn.Parameter(weight, requires_grad=False))
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    w = graph.get_attr("w")
    y = graph.call_function(torch.ops.aten.mm.default, (x, w))
    graph.output((y,))
    for node, value in ((x, X), (w, weight), (y, X @ weight)):
        node.meta["val"] = value
    return torch.fx.GraphModule(module, graph)


def both(module: Any, *specs: Spec) -> tuple[str, str]:
    found = subgraph_digest(module, specs or (Spec(),))
    return found.structure_digest, found.weights.content_digest()


def test_names_and_dead_code_drop_out() -> None:
    def first(x: Any) -> Any:
        return torch.sin(x) + 1

    def second(anything: Any) -> Any:
        torch.cos(anything)
        return torch.sin(anything) + 1

    assert both(lowered(first, X)) == both(lowered(second, X))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda x: x.softmax(0), lambda x: x.softmax(1)),
        (lambda x: x - x.sin(), lambda x: x.sin() - x),
        (lambda x: x + 1, lambda x: x + 1.0),
        (lambda x: x.split(2, 1)[0] * 1, lambda x: x.split(2, 1)[1] * 1),
        (lambda x: (x.sin(), x.cos()), lambda x: (x.cos(), x.sin())),
        (lambda x: x.sin(), lambda x: (x.sin(),)),
    ],
)
def test_what_torch_tensorrt_s_own_hash_leaves_out_counts(first: Any, second: Any) -> None:
    assert both(lowered(first, X)) != both(lowered(second, X))


def test_weights_by_content_or_by_metadata() -> None:
    one, other = subgraph_digest(matmul(W), [Spec()]), subgraph_digest(matmul(W + 1), [Spec()])
    assert one.weights.content_digest() != other.weights.content_digest()
    assert one.weights.metadata_digest() == other.weights.metadata_digest()
    assert one.graph_digest == other.graph_digest
    integers = [subgraph_digest(matmul_index(index), [Spec()]) for index in (0, 1)]
    assert integers[0].structure_digest == integers[1].structure_digest
    assert integers[0].graph_digest != integers[1].graph_digest


def matmul_index(index: int) -> Any:
    module = nn.Module()
    module.register_buffer("i", torch.tensor([index, index]))
    graph = torch.fx.Graph()
    x, i = graph.placeholder("x"), graph.get_attr("i")
    y = graph.call_function(torch.ops.aten.index_select.default, (x, 1, i))
    graph.output(y)
    for node, value in ((x, X), (i, module.i), (y, X[:, :2])):
        node.meta["val"] = value
    return torch.fx.GraphModule(module, graph)


@pytest.mark.parametrize(
    "other",
    [
        Spec(shape=(3, 4)),
        Spec(dtype=torch.float16),
        Spec(format="channels_last"),
        Spec(is_shape_tensor=True),
        Spec(shape={"min_shape": (1, 4), "opt_shape": (2, 4), "max_shape": (8, 4)}, shape_mode="dynamic"),
        Spec(shape={"min_shape": (1, 4), "opt_shape": (2, 4), "max_shape": (9, 4)}, shape_mode="dynamic"),
    ],
)
def test_input_specs_count(other: Spec) -> None:
    module = lowered(lambda x: x.sin(), X)
    assert both(module, Spec()) != both(module, other)


def test_names_in_input_specs_do_not() -> None:
    module = lowered(lambda x: x.sin(), X)
    assert both(module, Spec(name="x")) == both(module, Spec(name="arg0_1"))


def test_shapes_are_told_apart_kind_by_kind() -> None:
    module = lowered(lambda x: x.sin(), X)
    turned = [
        Spec(shape={"min_shape": (1, 4), "opt_shape": (2, 4), "max_shape": (8, 4)}),
        Spec(shape={"max_shape": (8, 4), "min_shape": (1, 4), "opt_shape": (2, 4)}),
        Spec(shape={"min_shape": (2, 4), "opt_shape": (1, 4), "max_shape": (8, 4)}),
    ]
    found = [both(module, spec) for spec in turned]
    assert found[0] == found[1] != found[2]


def test_graphs_that_call_modules_are_refused() -> None:
    module = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(BadProgram, match="call_module"):
        subgraph_digest(module, [Spec()])


def test_functions_that_are_no_operators_are_refused() -> None:
    graph = torch.fx.Graph()
    graph.output(graph.call_function(print, (graph.placeholder("x"),)))
    with pytest.raises(BadProgram, match="not an operator"):
        subgraph_digest(torch.fx.GraphModule(nn.Module(), graph), [Spec()])


def test_operators_of_the_toolchain_need_no_digest() -> None:
    library = torch.library.Library("farmlive", "DEF")
    library.define("scale(Tensor x, float by) -> Tensor")
    graph = torch.fx.Graph()
    graph.output(graph.call_function(torch.ops.farmlive.scale.default, (graph.placeholder("x"), 2.0)))
    module = torch.fx.GraphModule(nn.Module(), graph)
    with pytest.raises(BadProgram, match="farmlive::scale"):
        subgraph_digest(module, [Spec()])
    assert subgraph_digest(module, [Spec()], known_namespaces=("farmlive",)).structure_digest
    declared = {
        subgraph_digest(module, [Spec()], custom_ops={"farmlive::scale": "sha256:" + digit * 64}).structure_digest
        for digit in "ab"
    }
    assert len(declared) == 2


def test_values_are_only_hashed_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from farm.programs.live_tensors import LiveContent

    monkeypatch.setattr(LiveContent, "feed", lambda *_: pytest.fail("a tensor was read"))
    assert subgraph_digest(matmul(W), [Spec()]).structure_digest


@pytest.mark.parametrize(
    "make", [lambda w: w.T, lambda w: w[::2], lambda w: w.expand(2, 4, 4), lambda w: w.to(torch.bfloat16)]
)
def test_live_weights_are_hashed_as_saved_ones_are(make: Any, tmp_path: Any) -> None:
    from farm.programs import open_program

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(make(W.clone()))

        def forward(self, x: Any) -> Any:
            return x.sum() * self.w

    program = torch.export.export(Net(), (X,))
    torch.export.save(program, tmp_path / "a.pt2")
    saved, live = open_program(tmp_path / "a.pt2"), program_of(program)
    assert saved.weights.content_digest() == live.weights.content_digest()
    assert saved.weights.tensors() == live.weights.tensors()


Z = torch.complex(W[0], W[1])


@pytest.mark.parametrize(
    ("first", "second", "tied"),
    [
        (Z, Z, True),
        (Z, Z.conj(), False),
        (Z.conj(), Z.conj(), True),
        (Z.conj().imag, Z.imag, False),
        (W, W.T, False),
        (W[0], W[1], False),
        (torch.empty(2, device="meta"), torch.empty(2, device="meta"), False),
    ],
)
def test_tensors_are_one_when_they_are_read_alike_from_the_same_memory(first: Any, second: Any, tied: bool) -> None:
    from farm.programs.live_tensors import LiveTensors

    tensors = LiveTensors()
    assert (tensors.add("a", first, True) == tensors.add("b", second, True)) is tied


@pytest.mark.parametrize("lazy", [Z.conj(), Z.conj().imag])
def test_a_conjugate_is_hashed_by_what_it_is_and_not_by_what_lies_in_memory(lazy: Any) -> None:
    from farm.programs.live_tensors import LiveTensors

    digests = []
    for tensor in (lazy, lazy.resolve_conj().resolve_neg()):
        tensors = LiveTensors()
        tensors.add("a", tensor, True)
        digests.append(Weights(tensors.tensors).content_digest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("tensor", [torch.empty(2, device="meta"), W.to_sparse()])
def test_a_tensor_whose_values_are_not_its_memory_is_refused(tensor: Any) -> None:
    from farm.programs.live_tensors import LiveTensors

    tensors = LiveTensors()
    tensors.add("a", tensor, True)
    with pytest.raises(BadProgram, match="whose values farm cannot read"):
        Weights(tensors.tensors).content_digest()


def test_out_variants_are_refused_in_words() -> None:
    graph = torch.fx.Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    sum_of = graph.call_function(torch.ops.aten.add.out, (x, x), {"out": y})
    graph.output(sum_of)
    for node in (x, y, sum_of):
        node.meta["val"] = X
    with pytest.raises(BadProgram, match=r"writes its result into a tensor that it is given"):
        subgraph_digest(torch.fx.GraphModule(nn.Module(), graph), [Spec(), Spec()])


def test_naming_is_left_out_where_only_a_key_is_wanted() -> None:
    module = lowered(lambda x: (x.sin() @ x.t()).cos(), X)
    named, plain = subgraph_digest(module, (Spec(),)), subgraph_digest(module, (Spec(),), named=False)
    assert plain.naming == "" and named.naming.startswith("sha256:")
    assert plain.structure_digest == named.structure_digest
    assert plain.graph_digest == named.graph_digest
    assert plain.operators == named.operators
    assert plain.weights.content_digest() == named.weights.content_digest()
    assert plain.canonical.digest_of == named.canonical.digest_of


def recorded(dynamic: bool) -> list[Any]:
    """The nodes of an exported graph: fake tensors with sizes that are numbers or symbols, tuples, sizes."""

    class Module(nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            parts = x.split(2, 1)
            greatest, places = (parts[0] * x.shape[0]).max(0)
            kept = torch.zeros(x.shape[0] * 2, 3, dtype=torch.bool)
            return greatest.half(), places, kept, y.sum() + x.mean(), torch.cat([x, x])

    rows = torch.export.Dim("rows", min=2, max=16)
    program = torch.export.export(
        Module(), (torch.ones(4, 6), torch.ones(3)), dynamic_shapes=({0: rows} if dynamic else None, None)
    )
    return list(program.graph.nodes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamic", [False, True])
def test_fakes_read_together_are_what_they_are_one_by_one(dynamic: bool) -> None:
    nodes = recorded(dynamic)
    together, alone = LiveMetadata(Graph()), LiveMetadata(Graph())
    found = together.of_fakes(nodes)
    calls = [node for node in nodes if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor)]
    assert set(found) == set(calls) and len(calls) > 5
    for node, (meta,) in found.items():
        one = alone.of(node.meta["val"])
        assert [getattr(meta, part) for part in _PARTS] == [getattr(one, part) for part in _PARTS], node
    # What looks alike is one object, however it was asked for.
    assert all(together.of(node.meta["val"]) is meta for node, (meta,) in found.items())


def test_fakes_read_again_are_the_same_objects() -> None:
    nodes, metadata = recorded(True), LiveMetadata(Graph())
    first, again = metadata.of_fakes(nodes), metadata.of_fakes(nodes[::-1])
    assert {node: id(meta) for node, (meta,) in first.items()} == {node: id(meta) for node, (meta,) in again.items()}


_PARTS = ("dtype", "dims", "device", "layout", "scalar")
