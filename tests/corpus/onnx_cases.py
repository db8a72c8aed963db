"""Pairs of ONNX models. Each is a claim: these two are (or are not) one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

N = helper.make_node
Make = Callable[[], ModelProto]
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


@dataclass(frozen=True)
class Pair:
    name: str
    same: bool
    first: Make
    second: Make
    policy: str = "content"
    differs: bool = True
    """Whether onnx's own evaluator tells two different ones apart on random inputs (it need not: other dtypes of what
    is empty, -0.0, trips of a loop whose condition it does not take)."""
    runs: bool = True


PAIRS: list[Pair] = []


def pair(name: str, same: bool, first: Make, second: Make, **more: Any) -> None:
    PAIRS.append(Pair(name, same, first, second, **more))


def value(name: str, *shape: Any, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, None if shape == (None,) else list(shape))


Y = value("y", None)
X = value("x", 2, 3)
IMAGE = value("x", 1, 2, 8, 8)
W = np.arange(6, dtype=np.float32).reshape(3, 2) / 7
KERNEL = np.linspace(-1, 1, 72, dtype=np.float32).reshape(4, 2, 3, 3)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any] = (X,),
    outputs: Sequence[Any] = (Y,),
    weights: dict[str, Any] | None = None,
    opset: int = 18,
    functions: Sequence[Any] = (),
    tensors: Sequence[Any] = (),
    **more: Any,
) -> ModelProto:
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), [*held, *tensors], **more)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def one(op: str, inputs: Sequence[str] = ("x",), weights: Any = None, opset: int = 18, **more: Any) -> Make:
    given = (IMAGE,) if op in ("Conv", "ConvTranspose", "MaxPool", "AveragePool") else (X,)
    return lambda: model([N(op, list(inputs), ["y"], **more)], given, weights=weights, opset=opset)


# What is so anyway


def conv(op: str = "Conv", **more: Any) -> Make:
    return one(op, ("x", "k"), {"k": KERNEL if op == "Conv" else KERNEL.transpose(1, 0, 2, 3).copy()}, **more)


def pool(op: str = "MaxPool", **more: Any) -> Make:
    return one(op, kernel_shape=[2, 2], **more)


SPELT = {"kernel_shape": [3, 3], "pads": [0] * 4, "strides": [1, 1], "dilations": [1, 1], "group": 1}
pair("a convolution, spelt out", True, conv(), conv(**SPELT, auto_pad="NOTSET"))
for _name, _given in SPELT.items():
    pair(f"{_name} of a convolution", True, conv(), conv(**{_name: _given}))
pair("valid or not padded", True, conv(), conv(auto_pad="VALID"))
pair("a transposed convolution, spelt out", True, conv("ConvTranspose"), conv("ConvTranspose", output_padding=[0, 0]))
pair("pooling, spelt out", True, pool(), pool(strides=[1, 1], pads=[0] * 4, dilations=[1, 1]))
pair("order of strides", False, conv(strides=[1, 2]), conv(strides=[2, 1]))
pair("order of pads", False, conv(pads=[1, 0, 0, 0]), conv(pads=[0, 0, 1, 0]))
pair("side of padding", False, conv(auto_pad="SAME_UPPER", strides=[2, 2]), conv(auto_pad="SAME_LOWER", strides=[2, 2]))
pair("dilation", False, conv(), conv(dilations=[2, 2]))
pair("strides of pooling", False, pool(), pool(strides=[2, 2]))
pair(
    "pads that count", False, pool("AveragePool", pads=[1] * 4), pool("AveragePool", pads=[1] * 4, count_include_pad=1)
)
pair("a permutation that turns around", True, one("Transpose"), one("Transpose", perm=[1, 0]))
pair("a permutation that does not", False, one("Transpose"), one("Transpose", perm=[0, 1]))


def filled(**more: Any) -> Make:
    nodes = [N("ConstantOfShape", ["s"], ["c"], **more), N("Add", ["c", "x"], ["y"])]
    return lambda: model(nodes, weights={"s": np.array([2, 3])})


def fill(number: float) -> Any:
    return numpy_helper.from_array(np.array([number], np.float32))


pair("zeros, spelt out", True, filled(), filled(value=fill(0.0)))
pair("zeros or ones", False, filled(), filled(value=fill(1.0)))
pair("zeros or negative ones", False, filled(), filled(value=fill(-0.0)), differs=False)


def norm(*outputs: str, **more: Any) -> Make:
    node = N("BatchNormalization", ["x", *"abcd"], ["y", *outputs], **more)
    return lambda: model([node], (IMAGE,), weights=dict.fromkeys("abcd", np.array([1, 2], np.float32)))


pair("momentum at inference", True, norm(), norm(momentum=0.1))
pair("momentum in training", False, norm("m", training_mode=1), norm("m", training_mode=1, momentum=0.1), runs=False)
pair("training or not", False, norm(), norm("m", "v", training_mode=1))


def dropped(training: bool) -> Make:
    nodes = [N("Dropout", ["x", "r", "t"], ["i"]), N("Relu", ["i"], ["y"])]
    return lambda: model(nodes, weights={"r": np.float32(0.5), "t": np.array(training)})


pair("dropout that is switched off", True, one("Relu"), dropped(False))
pair("dropout that is switched on", False, one("Relu"), dropped(True))

# Operator sets

for _op, _old, _new, _names, _more in (
    ("Add", 7, 14, "xx", {}),
    ("Relu", 6, 14, "x", {}),
    ("Transpose", 13, 21, "x", {}),
    ("Reshape", 14, 21, "xs", {}),
    ("Conv", 11, 22, "xk", {}),
    ("Concat", 11, 13, "xx", {"axis": 0}),
    ("MatMul", 9, 13, "xw", {}),
    ("Gemm", 11, 13, "xw", {}),
):
    _weights = {"s": np.array([3, 2]), "k": KERNEL, "w": W}
    _held = {name: held for name, held in _weights.items() if name in _names}
    pair(
        f"{_op} of two operator sets",
        True,
        one(_op, tuple(_names), _held, _old, **_more),
        one(_op, tuple(_names), _held, _new, **_more),
    )


def softmax(opset: int) -> Make:
    return lambda: model([N("Softmax", ["x"], ["y"], axis=1)], [value("x", 2, 3, 4)], opset=opset)


pair("another softmax", False, softmax(11), softmax(13), differs=False)

# Bodies


def branch(nodes: Sequence[Any], **more: Any) -> Any:
    return helper.make_graph(list(nodes), "b", [], [value("o", None)], **more)


def chosen(then: Sequence[Any], before: Sequence[Any] = (), held: Any = None, weights: Any = None) -> Make:
    inner = [numpy_helper.from_array(held, "k")] if held is not None else []
    node = N(
        "If", ["c"], ["y"], then_branch=branch(then, initializer=inner), else_branch=branch([N("Cos", ["x"], ["o"])])
    )
    return lambda: model([*before, node], [X, value("c", kind=BOOL)], weights=weights)


ADDED = [N("Add", ["x", "k"], ["o"])]
ONE, TWO = np.float32(1), np.float32(2)
pair(
    "made inside or outside",
    True,
    chosen([N("Sin", ["x"], ["o"])]),
    chosen([N("Identity", ["s"], ["o"])], [N("Sin", ["x"], ["s"])]),
)
pair("held inside or outside", True, chosen(ADDED, held=ONE), chosen(ADDED, weights={"k": ONE}))
pair("what is held inside", False, chosen(ADDED, held=ONE), chosen(ADDED, held=TWO))


def loop(op: str = "Add", trips: int = 3, shape: Any = (2, 3), names: Sequence[str] = ("i", "c", "v")) -> Make:
    i, c, v = names
    inputs = [value(i, kind=INT64), value(c, kind=BOOL), value(v, *shape)]
    nodes = [N("Identity", [c], ["d"]), N(op, [v, v], ["w"])]
    body = helper.make_graph(nodes, "b", inputs, [value("d", kind=BOOL), value("w", None)])
    held = {"n": np.array(trips), "t": np.array(True)}
    return lambda: model([N("Loop", ["n", "t", "x"], ["y"], body=body)], weights=held)


pair("types that a body states", True, loop(), loop(shape=(None,)))
pair("names in a body", True, loop(), loop(names=("p", "q", "x9")))
pair("operator in a body", False, loop(), loop("Mul"))
pair("trips of a loop", False, loop(), loop(trips=4))


def scanned(op: str = "Add", **more: Any) -> Make:
    row = [value(name, 3) for name in ("s", "e", "t", "o")]
    body = helper.make_graph([N(op, ["s", "e"], ["t"]), N("Identity", ["t"], ["o"])], "b", row[:2], row[2:])
    node = N("Scan", ["z", "x"], ["f", "y"], body=body, num_scan_inputs=1, **more)
    return lambda: model([node], weights={"z": np.zeros(3, np.float32)})


pair("direction of a scan, spelt out", True, scanned(), scanned(scan_input_directions=[0], scan_output_axes=[0]))
pair("direction of a scan", False, scanned(), scanned(scan_input_directions=[1]), runs=False)

# Functions


def called(nodes: Sequence[Any], given: Sequence[str] = ("x",), takes: Sequence[str] = ("a",), opset: int = 18) -> Make:
    function = helper.make_function("mine", "F", list(takes), ["b"], list(nodes), [helper.make_opsetid("", opset)])
    return lambda: model([N("F", list(given), ["y"], domain="mine")], functions=[function])


CLIP = [N("Clip", ["a", "low"], ["b"])]
pair("an operand that a call leaves out", True, called(CLIP, takes=("a", "low")), one("Clip"), runs=False)
pair("an operand that a call names empty", True, called(CLIP, ("x", ""), ("a", "low")), one("Clip"), runs=False)
pair(
    "names within a function",
    True,
    called([N("Sin", ["a"], ["x"]), N("Relu", ["x"], ["b"])]),
    lambda: model([N("Sin", ["x"], ["s"]), N("Relu", ["s"], ["y"])]),
)
pair(
    "which operand of a function",
    False,
    called([N("Sub", ["a", "c"], ["b"])], ("x", "x"), ("a", "c")),
    called([N("Sub", ["a", "a"], ["t"]), N("Exp", ["t"], ["b"])]),
)

# Tensors


def low(kind: int, *numbers: float) -> Make:
    held = helper.make_tensor("w", kind, [len(numbers)], numbers)
    nodes = [N("Cast", ["w"], ["f"], to=FLOAT), N("Mul", ["x", "f"], ["y"])]
    return lambda: model(nodes, [value("x", 2, len(numbers))], tensors=[held], opset=23)


for _kind in ("BFLOAT16", "FLOAT8E4M3FN", "INT4", "UINT4", "FLOAT4E2M1"):
    _number = getattr(TensorProto, _kind)
    pair(f"values of {_kind}", False, low(_number, 1, 2, 3, 4), low(_number, 1, 2, 4, 4))
pair("an odd number of nibbles", False, low(TensorProto.INT4, 1, 2, 3), low(TensorProto.INT4, 1, 2, -3))
pair("signed nibbles or not", False, low(TensorProto.INT4, 1, 2), low(TensorProto.UINT4, 1, 2), differs=False)


def quantised(scale: float = 0.1, zero: int = 0, kind: Any = np.uint8) -> Make:
    nodes = [N("QuantizeLinear", ["x", "s", "z"], ["q"]), N("DequantizeLinear", ["q", "s", "z"], ["y"])]
    return lambda: model(nodes, weights={"s": np.float32(scale), "z": np.array(zero, kind)}, opset=21)


pair("scale, refittable", False, quantised(), quantised(0.2), policy="metadata")
pair("zero point", False, quantised(), quantised(zero=3))
pair("signed or not", False, quantised(), quantised(kind=np.int8))


def resized(first: Sequence[float], second: Sequence[float]) -> Make:
    nodes = [N("Mul", ["a", "b"], ["s"]), N("Resize", ["x", "", "s"], ["y"])]
    held = {name: np.array(one, np.float32) for name, one in (("a", first), ("b", second))}
    return lambda: model(nodes, (IMAGE,), weights=held)


pair(
    "weights that make a size, refittable",
    False,
    resized([1, 1, 2, 2], [1] * 4),
    resized([1] * 4, [1, 1, 3, 3]),
    policy="metadata",
)


def product(first: float) -> Make:
    nodes = [N("Add", ["w", "v"], ["s"]), N("MatMul", ["x", "s"], ["y"])]
    return lambda: model(nodes, weights={"w": W + np.float32(first), "v": W})


pair("weights that make a weight, refittable", True, product(0), product(1), policy="metadata", runs=False)

# Sequences, outputs, dims

PARTS = [N("Sin", ["x"], ["a"]), N("Cos", ["x"], ["b"])]
pair(
    "order of outputs",
    False,
    lambda: model(PARTS, outputs=[value("a", None), value("b", None)]),
    lambda: model(PARTS, outputs=[value("b", None), value("a", None)]),
)
pair(
    "shapes told on the way",
    True,
    lambda: model([*PARTS, N("Add", ["a", "b"], ["y"])]),
    lambda: model([*PARTS, N("Add", ["a", "b"], ["y"])], value_info=[value("a", 2, 3)]),
)
pair(
    "joined or stacked",
    False,
    *(
        lambda new=new: model(
            [N("SequenceConstruct", ["x", "x"], ["s"]), N("ConcatFromSequence", ["s"], ["y"], axis=0, new_axis=new)]
        )
        for new in (0, 1)
    ),
)


def rows(first: Any, second: Any) -> Make:
    return lambda: model([N("Concat", ["x", "z"], ["y"], axis=0)], [value("x", first, 3), value("z", second, 3)])


pair("one row less or any", False, rows("n", "n - 1"), rows("n", "m"), runs=False)
pair("one row more, either way round", True, rows("n", "n + 1"), rows("n", "1 + n"), runs=False)
pair("names of dims with dashes", True, rows("seq-len", "seq-len"), rows("n", "n"), runs=False)
pair("no row or any", False, rows(0, 2), rows("n", 2), runs=False)

# Axes from the back

CUBE = value("x", 2, 3, 4)


def cubed(*nodes: Any, opset: int = 18, weights: Any = None) -> Make:
    return lambda: model(list(nodes), [CUBE], opset=opset, weights=weights)


for _op, _inputs, _more in (
    ("Softmax", ["x"], {}),
    ("LogSoftmax", ["x"], {}),
    ("Concat", ["x", "x"], {}),
    ("Gather", ["x", "i"], {}),
    ("ArgMax", ["x"], {}),
    ("Flatten", ["x"], {}),
    ("GatherElements", ["x", "e"], {}),
):
    _held = {"i": np.array([1, 0]), "e": np.zeros((2, 3, 4), np.int64)}
    _used = {name: _held[name] for name in _inputs if name in _held}
    pair(
        f"axis of {_op} from the back",
        True,
        cubed(N(_op, _inputs, ["y"], axis=-2, **_more), weights=_used),
        cubed(N(_op, _inputs, ["y"], axis=1, **_more), weights=_used),
    )
    pair(
        f"axis of {_op}",
        False,
        cubed(N(_op, _inputs, ["y"], axis=-2, **_more), weights=_used),
        cubed(N(_op, _inputs, ["y"], axis=2, **_more), weights=_used),
    )
pair("the last axis or none given", True, cubed(N("Softmax", ["x"], ["y"])), cubed(N("Softmax", ["x"], ["y"], axis=2)))
pair(
    "axes of a sum from the back",
    True,
    *(cubed(N("ReduceMean", ["x"], ["y"], axes=axes), opset=13) for axes in ([-1, 0], [2, 0])),
)
pair("axes of a sum", False, *(cubed(N("ReduceMean", ["x"], ["y"], axes=axes), opset=13) for axes in ([-1], [1])))


def after(*nodes: Any, axis: int, weights: Any = None, **more: Any) -> Make:
    """A softmax after other nodes, which make ``r``."""
    return cubed(*nodes, N("Softmax", ["r"], ["y"], axis=axis), weights=weights, **more)


TABLE = {"s": np.array([6, 4]), "w": np.ones((4, 5), np.float32), "u": np.array([0]), "b": np.ones(4, np.float32)}
for _name, _node, _last in (
    ("an addition", N("Add", ["x", "b"], ["r"]), 2),
    ("a product", N("MatMul", ["x", "w"], ["r"]), 2),
    ("another shape", N("Reshape", ["x", "s"], ["r"]), 1),
    ("one dim more", N("Unsqueeze", ["x", "u"], ["r"]), 3),
    ("rows that are picked", N("Gather", ["x", "u"], ["r"]), 2),
    ("a sum that keeps its dims", N("ReduceSum", ["x", "u"], ["r"]), 2),
    ("what is flat", N("Flatten", ["x"], ["r"]), 1),
):
    _held = {name: TABLE[name] for name in _node.input if name in TABLE}
    pair(
        f"the last axis after {_name}",
        True,
        after(_node, axis=-1, weights=_held),
        after(_node, axis=_last, weights=_held),
    )
    pair(
        f"the first axis after {_name}",
        False,
        after(_node, axis=-1, weights=_held),
        after(_node, axis=0, weights=_held),
        differs=_name != "what is flat",
    )

# Newer versions that say more of what is not asked for


def cast(opset: int, to: int = INT64, **more: Any) -> Make:
    return lambda: model([N("Cast", ["x"], ["y"], to=to, **more)], opset=opset)


pair("cast of two operator sets", True, cast(13), cast(19))
pair("cast of operator sets far apart", True, cast(13), cast(24))
pair("cast, saturating or not, where that is nothing", True, cast(19), cast(19, saturate=0), runs=False)
pair("cast to another type", False, cast(13), cast(19, TensorProto.INT32), differs=False)
pair(
    "cast to float8, saturating or not",
    False,
    *(cast(19, TensorProto.FLOAT8E4M3FN, saturate=some) for some in (0, 1)),
    runs=False,
)
pair(
    "cast to float8 of two operator sets",
    False,
    *(cast(opset, TensorProto.FLOAT8E4M3FN) for opset in (19, 24)),
    runs=False,
)


def pooled(opset: int, op: str = "MaxPool", **more: Any) -> Make:
    return one(op, opset=opset, kernel_shape=[2, 2], **more)


pair("pooling of two operator sets", True, pooled(12), pooled(22))
pair("average pooling of two operator sets", True, *(pooled(opset, "AveragePool", pads=[1] * 4) for opset in (19, 22)))
pair(
    "pooling whose sizes are rounded up",
    False,
    *(pooled(opset, ceil_mode=1, strides=[2, 2], pads=[1] * 4) for opset in (12, 22)),
    runs=False,
)
pair(
    "gather of two operator sets",
    True,
    *(cubed(N("Gather", ["x", "i"], ["y"]), opset=opset, weights={"i": np.array([1])}) for opset in (11, 13)),
)
pair(
    "batch normalisation of two operator sets",
    True,
    *(
        (
            lambda opset=opset: model(
                [N("BatchNormalization", ["x", *"abcd"], ["y"])],
                (IMAGE,),
                weights=dict.fromkeys("abcd", np.array([1, 2], np.float32)),
                opset=opset,
            )
        )
        for opset in (14, 15)
    ),
)
pair(
    "another reduction of two operator sets",
    False,
    *(
        cubed(N("ReduceMean", ["x"], ["y"], axes=[1]), opset=13)
        if opset == 13
        else cubed(N("ReduceMean", ["x"], ["y"]), opset=18)
        for opset in (13, 18)
    ),
)

# Results and operands that are left out

pair(
    "indices that nobody reads",
    True,
    pooled(18),
    lambda: model([N("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])], (IMAGE,)),
)
pair(
    "indices that are returned",
    False,
    pooled(18),
    lambda: model([N("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])], (IMAGE,), [Y, value("i", None, kind=INT64)]),
)


def normed(*outputs: str, read: bool = False) -> Make:
    nodes = [N("LayerNormalization", ["x", "s"], ["a", *outputs]), N("Add", ["a", "m" if read else "a"], ["y"])]
    return lambda: model(nodes, weights={"s": np.ones(3, np.float32)})


pair("statistics that nobody reads", True, normed(), normed("m", "d"))
pair("statistics that somebody reads", False, normed("m", read=True), normed("m"))
pair(
    "statistics that only a branch reads",
    False,
    lambda: model(
        [
            N("LayerNormalization", ["x", "s"], ["n", "m"]),
            N(
                "If",
                ["c"],
                ["y"],
                then_branch=branch([N("Add", ["n", "m"], ["o"])]),
                else_branch=branch([N("Cos", ["n"], ["o"])]),
            ),
        ],
        [X, value("c", kind=BOOL)],
        weights={"s": np.ones(3, np.float32)},
    ),
    lambda: model(
        [
            N("LayerNormalization", ["x", "s"], ["n", "m"]),
            N(
                "If",
                ["c"],
                ["y"],
                then_branch=branch([N("Add", ["n", "n"], ["o"])]),
                else_branch=branch([N("Cos", ["n"], ["o"])]),
            ),
        ],
        [X, value("c", kind=BOOL)],
        weights={"s": np.ones(3, np.float32)},
    ),
)
pair(
    "parts of a split",
    False,
    *(
        (lambda names=names: model([N("Split", ["x"], names, axis=1, num_outputs=len(names)), N("Exp", ["a"], ["y"])]))
        for names in (["a", "b"], ["a", "b", "c"])
    ),
)
pair(
    "a mask that nobody reads",
    True,
    one("Relu"),
    lambda: model([N("Dropout", ["x"], ["i", "m"]), N("Relu", ["i"], ["y"])]),
)
pair(
    "an operand left out at the end",
    True,
    one("Clip", ("x", "low", ""), {"low": np.float32(0)}),
    one("Clip", ("x", "low"), {"low": np.float32(0)}),
)
pair(
    "which operand is left out",
    False,
    one("Clip", ("x", "", "k"), {"k": np.float32(0)}),
    one("Clip", ("x", "k"), {"k": np.float32(0)}),
)


def added(*nodes: Any, weights: Any = None) -> Make:
    return lambda: model([*nodes, N("Add", ["x", "k"], ["y"])], weights=weights)


HALF = numpy_helper.from_array(np.array([0.5, 1, 2], np.float32))
pair(
    "stored or a constant's",
    True,
    added(N("Constant", [], ["k"], value=HALF)),
    added(weights={"k": np.array([0.5, 1, 2], np.float32)}),
)
pair(
    "spelt as numbers or a tensor",
    True,
    added(N("Constant", [], ["k"], value=HALF)),
    added(N("Constant", [], ["k"], value_floats=[0.5, 1.0, 2.0])),
)
pair(
    "passed on",
    True,
    added(N("Identity", ["j"], ["k"]), weights={"j": np.array([0.5, 1, 2], np.float32)}),
    added(weights={"k": np.array([0.5, 1, 2], np.float32)}),
)
pair(
    "another constant",
    False,
    added(N("Constant", [], ["k"], value=HALF)),
    added(weights={"k": np.array([0.5, 1, 3], np.float32)}),
)


def told() -> ModelProto:
    made = one("Relu")()
    made.producer_name, made.producer_version, made.doc_string, made.domain, made.model_version = "p", "9", "d", "m", 7
    made.graph.name, made.graph.doc_string, made.graph.node[0].doc_string, made.graph.node[0].name = "h", "d", "d", "n"
    made.metadata_props.add(key="a", value="b")
    made.graph.value_info.append(value("x9", 1))
    made.graph.input[0].doc_string = "d"
    return made


pair("who made it, and what is said of it", True, one("Relu"), told)
