"""The corpus. Each pair is small enough to be read as a claim: these two are (or are not) one program."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from tests.corpus.cases import Case, Fn, Pair

X = torch.linspace(-1, 1, 12).reshape(3, 4)
Y = torch.linspace(2, 5, 12).reshape(3, 4)
I = torch.arange(12).reshape(3, 4)  # noqa: E741
IMAGE = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
W = torch.linspace(-2, 2, 16).reshape(4, 4)
V = torch.linspace(0, 1, 4)
Body = Callable[..., Any]
Point = namedtuple("Point", "a b")  # noqa: PYI024
torch.utils._pytree._register_namedtuple(Point, serialized_type_name="tests.corpus.Point")

PAIRS: list[Pair] = []


def pair(name: str, same: bool, first: Callable[[], Case], second: Callable[[], Case], **more: Any) -> None:
    PAIRS.append(Pair(name, same, first, second, **more))


def differ(name: str, first: Body, second: Body, *args: Any, **tensors: torch.Tensor) -> None:
    """Two functions of the same inputs that are two programs."""
    given = args or (X,)
    pair(name, False, lambda: Case(Fn(first, **tensors), given), lambda: Case(Fn(second, **tensors), given))


def agree(name: str, first: Body, second: Body, *args: Any, **tensors: torch.Tensor) -> None:
    """Two functions of the same inputs that are one program."""
    given = args or (X,)
    pair(name, True, lambda: Case(Fn(first, **tensors), given), lambda: Case(Fn(second, **tensors), given))


def shaped(dynamic: Any, *args: torch.Tensor, body: Body | None = None) -> Callable[[], Case]:
    return lambda: Case(Fn(body or (lambda m, *xs: sum(xs, start=xs[0]) * 2)), args, dynamic={"args": tuple(dynamic)})


# Operators, overloads and arguments

differ("overload", lambda m, x: x + 1, lambda m, x: x - 1)
differ("softmax dim", lambda m, x: x.softmax(0), lambda m, x: x.softmax(1))
differ("order of operands", lambda m, x, y: x - y, lambda m, x, y: y - x, X, Y)
differ("reflected subtraction", lambda m, x: x - 2, lambda m, x: 2 - x)
differ("order of matmul", lambda m, x, y: x @ y, lambda m, x, y: y @ x, W, W + 1)
differ("int or float scalar", lambda m, x: x * 2, lambda m, x: x * 2.0)
differ("int scalar on integers", lambda m, x: x * 2, lambda m, x: x * 2.0, I)
differ("bool or int scalar", lambda m, x: x + 1, lambda m, x: torch.add(x, True))
differ("last bit of a float", lambda m, x: x * 0.1, lambda m, x: x * math.nextafter(0.1, 1))
differ("signed zero", lambda m, x: torch.clamp(x, min=0.0), lambda m, x: torch.clamp(x, min=-0.0))
differ("NaN or zero", lambda m, x: x.masked_fill(x > 0, math.nan), lambda m, x: x.masked_fill(x > 0, 0.0))
differ("infinities", lambda m, x: torch.clamp(x, max=math.inf), lambda m, x: torch.clamp(x, max=-math.inf))
agree("NaN is NaN", lambda m, x: x.nan_to_num(math.nan), lambda m, x: x.nan_to_num(-math.nan))
differ("None or a value", lambda m, x: torch.clamp(x, 0.0), lambda m, x: torch.clamp(x, 0.0, 1.0))
differ("min or max", lambda m, x: torch.clamp(x, min=0.5), lambda m, x: torch.clamp(x, max=0.5))
differ("alpha", lambda m, x, y: torch.add(x, y), lambda m, x, y: torch.add(x, y, alpha=2), X, Y)
agree("default alpha", lambda m, x, y: torch.add(x, y), lambda m, x, y: torch.add(x, y, alpha=1), X, Y)
agree("default approximate", lambda m, x: F.gelu(x), lambda m, x: F.gelu(x, approximate="none"))
differ("string argument", lambda m, x: F.gelu(x), lambda m, x: F.gelu(x, approximate="tanh"))
agree("default keepdim", lambda m, x: torch.ops.aten.sum.dim_IntList(x, [1]), lambda m, x: x.sum(1, keepdim=False))
differ("keepdim", lambda m, x: x.sum(1).sum(), lambda m, x: x.sum(1, keepdim=True).sum())
differ("negative dim", lambda m, x: x.cumsum(0), lambda m, x: x.cumsum(1))
differ("correction", lambda m, x: x.var(1), lambda m, x: x.var(1, unbiased=False))
differ("stride", lambda m, x: F.avg_pool2d(x, 2, 2), lambda m, x: F.avg_pool2d(x, 2, 1), IMAGE)
agree("pool stride left out", lambda m, x: F.max_pool2d(x, 2), lambda m, x: F.max_pool2d(x, 2, 2), IMAGE)
differ("padding mode", lambda m, x: F.pad(x, (1, 1)), lambda m, x: F.pad(x, (1, 1), value=1.0))
differ("equation", lambda m, x: torch.einsum("ij->ji", x), lambda m, x: torch.einsum("ij->ij", x), W)
differ("dtype argument", lambda m, x: x.to(torch.float16), lambda m, x: x.to(torch.bfloat16))
differ("rounding mode", lambda m, x, y: torch.div(x, y), lambda m, x, y: torch.div(x, y, rounding_mode="floor"), X, Y)
differ("eps", lambda m, x: F.layer_norm(x, (4,)), lambda m, x: F.layer_norm(x, (4,), eps=1e-6))
agree("eps written out", lambda m, x: F.layer_norm(x, (4,)), lambda m, x: F.layer_norm(x, (4,), eps=1e-05))
differ("order in cat", lambda m, x, y: torch.cat([x, y]), lambda m, x, y: torch.cat([y, x]), X, Y)
differ("list length", lambda m, x, y: torch.cat([x, y]), lambda m, x, y: torch.cat([x, y, y]), X, Y)
differ("optional operand", lambda m, x, w: F.layer_norm(x, (4,), w), lambda m, x, w: F.layer_norm(x, (4,), None, w), X, V)
differ("index", lambda m, x: x[0], lambda m, x: x[1])
differ("index tensors", lambda m, x, i: x[i], lambda m, x, i: x[:, i], W, torch.tensor([0, 1]))

# Wiring

differ("which half", lambda m, x: x.split(2, 1)[0].relu(), lambda m, x: x.split(2, 1)[1].relu())
differ("which result", lambda m, x: x.max(1).values, lambda m, x: x.min(1).values)
differ("values or indices", lambda m, x: x.topk(2).values, lambda m, x: x.topk(2).indices)
differ("depth", lambda m, x: x.sin().sin(), lambda m, x: x.sin())
differ("shared or not", lambda m, x: (x.sin() + x.cos()).exp(), lambda m, x: x.sin() + x.cos().exp())
agree("computed twice", lambda m, x: x.sin() + x.sin(), lambda m, x: (lambda s: s + s)(x.sin()))
agree("dead code", lambda m, x: (x.exp(), x.sin())[1], lambda m, x: x.sin())
agree("dead branch", lambda m, x: (x.sin().cos().tan(), x * 2)[1], lambda m, x: x * 2)
differ("inputs swapped", lambda m, x, y: x.sin() + y, lambda m, x, y: y.sin() + x, X, Y)
differ("unused input", lambda m, x: x * 2, lambda m, x: x * 3)


def _left_first(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    a = x.sin()
    b = x.cos()
    return a * b


def _right_first(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    b = x.cos()
    a = x.sin()
    return a * b


agree("independent order", _left_first, _right_first)
pair(
    "an input that is not used counts",
    False,
    lambda: Case(Fn(lambda m, x, y: x * 2), (X, Y)),
    lambda: Case(Fn(lambda m, x: x * 2), (X,)),
)
pair(
    "the place of an unused input",
    False,
    lambda: Case(Fn(lambda m, x, y: x * 2), (X, Y)),
    lambda: Case(Fn(lambda m, x, y: y * 2), (X, Y)),
)
pair(
    "shape of an unused input",
    False,
    lambda: Case(Fn(lambda m, x, y: x * 2), (X, Y)),
    lambda: Case(Fn(lambda m, x, y: x * 2), (X, Y[:2])),
)

# Outputs

differ("order of outputs", lambda m, x: (x.sin(), x.cos()), lambda m, x: (x.cos(), x.sin()))
differ("an output more", lambda m, x: (x.sin(),), lambda m, x: (x.sin(), x.sin()))
differ("tuple or list", lambda m, x: (x.sin(), x.cos()), lambda m, x: [x.sin(), x.cos()])
differ("tensor or tuple", lambda m, x: x.sin(), lambda m, x: (x.sin(),))
differ("nesting", lambda m, x: ((x.sin(), x.cos()), x.tan()), lambda m, x: (x.sin(), (x.cos(), x.tan())))
differ("dict keys", lambda m, x: {"a": x.sin(), "b": x.cos()}, lambda m, x: {"a": x.sin(), "c": x.cos()})
differ("named tuple", lambda m, x: Point(x.sin(), x.cos()), lambda m, x: (x.sin(), x.cos()))
differ("None output", lambda m, x: (x.sin(), None), lambda m, x: (x.sin(),))
differ("constant output", lambda m, x: (x.sin(), 1), lambda m, x: (x.sin(), 2))
differ("an input returned", lambda m, x: (x.sin(), x), lambda m, x: (x.sin(), x.sin()))

# Inputs: dtypes, shapes, symbolic dims

B, C = Dim("b", min=2, max=16), Dim("c", min=2, max=16)
pair("dtype", False, lambda: Case(Fn(lambda m, x: x * 2), (X,)), lambda: Case(Fn(lambda m, x: x * 2), (X.half(),)))
pair("shape", False, lambda: Case(Fn(lambda m, x: x * 2), (X,)), lambda: Case(Fn(lambda m, x: x * 2), (X[:2],)))
pair("values of the example", True, lambda: Case(Fn(lambda m, x: x * 2), (X,)), lambda: Case(Fn(lambda m, x: x * 2), (Y,)))
pair("static or dynamic", False, shaped([None], X), shaped([{0: B}], X))
pair("example batch size", True, shaped([{0: B}], X), shaped([{0: B}], torch.ones(7, 4)), runs=False)
pair("name of a dim", True, shaped([{0: B}], X), shaped([{0: Dim("batch", min=2, max=16)}], X))
pair("upper bound", False, shaped([{0: B}], X), shaped([{0: Dim("b", min=2, max=17)}], X))
pair("lower bound", False, shaped([{0: B}], X), shaped([{0: Dim("b", min=3, max=16)}], X))
pair("no upper bound", False, shaped([{0: B}], X), shaped([{0: Dim("b", min=2)}], X))
pair("which dim", False, shaped([{0: B}], W), shaped([{1: B}], W))


def _two(m: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.sin(), y.cos()


pair("one dim or two", False, shaped([{0: B}, {0: B}], X, Y, body=_two), shaped([{0: B}, {0: C}], X, Y, body=_two))
pair("dims named the other way", True, shaped([{0: B}, {0: C}], X, Y, body=_two), shaped([{0: C}, {0: B}], X, Y, body=_two))
pair(
    "derived dim",
    False,
    shaped([{0: B}, {0: B}], X, Y, body=_two),
    shaped([{0: B}, {0: 2 * B}], X, torch.ones(6, 4), body=_two),
)
pair(
    "coefficient of a derived dim",
    False,
    shaped([{0: B}, {0: 2 * B}], X, torch.ones(6, 4), body=_two),
    shaped([{0: B}, {0: 3 * B}], X, torch.ones(9, 4), body=_two),
)
pair(
    "offset of a derived dim",
    False,
    shaped([{0: B}, {0: B + 1}], X, torch.ones(4, 4), body=_two),
    shaped([{0: B}, {0: B + 2}], X, torch.ones(5, 4), body=_two),
)
pair(
    "derived dim, other names",
    True,
    shaped([{0: B}, {0: 2 * B}], X, torch.ones(6, 4), body=_two),
    shaped([{0: C}, {0: 2 * C}], torch.ones(5, 4), torch.ones(10, 4), body=_two),
    runs=False,
)
pair(
    "sizes as values",
    False,
    shaped([{0: B}], X, body=lambda m, x: x * x.shape[0]),
    shaped([{0: B}], X, body=lambda m, x: x * (x.shape[0] + 1)),
)
pair(
    "order of a size's product",
    True,
    shaped([{0: B}], X, body=lambda m, x: x.reshape(x.shape[0] * 4)),
    shaped([{0: B}], X, body=lambda m, x: x.reshape(4 * x.shape[0])),
)
pair(
    "flattened or not by -1",
    False,
    shaped([{0: B}], X, body=lambda m, x: x.reshape(x.shape[0] * 2, 2)),
    shaped([{0: B}], X, body=lambda m, x: x.reshape(x.shape[0], 2, 2)),
)
pair(
    "int argument",
    False,
    lambda: Case(Fn(lambda m, x, n: x * n), (X, 2)),
    lambda: Case(Fn(lambda m, x, n: x * n), (X, 3)),
)


class _Scaled(nn.Module):
    def forward(self, x: torch.Tensor, *, scale: float = 2.0, flip: bool = False) -> torch.Tensor:
        return x * scale if not flip else -x * scale


pair("keyword constant", False, lambda: Case(_Scaled(), (X,), {"scale": 2.0}), lambda: Case(_Scaled(), (X,), {"scale": 3.0}))


class _Named(nn.Module):
    def forward(self, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        return alpha - beta


class _NamedOtherwise(nn.Module):
    def forward(self, zeta: torch.Tensor, eta: torch.Tensor) -> torch.Tensor:
        return zeta - eta


class _NamedBackwards(nn.Module):
    def forward(self, beta: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        return alpha - beta


pair("names of inputs", True, lambda: Case(_Named(), (X, Y)), lambda: Case(_NamedOtherwise(), (X, Y)))
pair("names that hide a swap", False, lambda: Case(_Named(), (X, Y)), lambda: Case(_NamedBackwards(), (X, Y)))
pair(
    "names of dynamic inputs",
    True,
    lambda: Case(_Named(), (X, Y), dynamic=({0: B}, {0: B})),
    lambda: Case(_NamedOtherwise(), (X, Y), dynamic=({0: C}, {0: C})),
)
pair(
    "positional or keyword",
    True,
    lambda: Case(_Named(), (X, Y)),
    lambda: Case(_Named(), (), {"alpha": X, "beta": Y}),
    runs=False,
)

# Weights, buffers, constants


class _Net(nn.Module):
    def __init__(self, first: str = "fc1", second: str = "fc2", seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.names = first, second
        setattr(self, first, nn.Linear(4, 5))
        setattr(self, second, nn.Linear(5, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.names[1])(torch.relu(getattr(self, self.names[0])(x)))


class _Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


class _Declared(nn.Module):
    """Layers declared in the other order than they are used."""

    def __init__(self) -> None:
        super().__init__()
        net = _Net()
        self.b, self.a = net.fc2, net.fc1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))


pair("names of parameters", True, lambda: Case(_Net(), (X,)), lambda: Case(_Net("zz", "aa"), (X,)))
pair("structure of modules", True, lambda: Case(_Net(), (X,)), lambda: Case(_Wrapped(_Net()), (X,)))
pair("order of declaration", True, lambda: Case(_Net(), (X,)), lambda: Case(_Declared(), (X,)))
pair("weights", False, lambda: Case(_Net(), (X,)), lambda: Case(_Net(seed=1), (X,)))
pair("weights, refittable", True, lambda: Case(_Net(), (X,)), lambda: Case(_Net(seed=1), (X,)), policy="metadata", runs=False)
pair(
    "width, refittable",
    False,
    lambda: Case(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), (X,)),
    lambda: Case(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), (X,)),
    policy="metadata",
)
differ("weights swapped", lambda m, x: x @ m.a @ m.b, lambda m, x: x @ m.b @ m.a, X, a=W, b=W.flip(0))
differ("tied or swapped", lambda m, x: x @ m.a @ m.a, lambda m, x: x @ m.a @ m.b, X, a=W, b=W.flip(0))
agree("weights named the other way", lambda m, x: x @ m.a @ m.b, lambda m, x: x @ m.d @ m.c, X, a=W, b=W.T, c=W.T, d=W)
agree("dead weights", lambda m, x: x @ m.a, lambda m, x: (x @ m.b, x @ m.a)[1], X, a=W, b=W + 1)
differ("bias or none", lambda m, x: F.linear(x, m.a), lambda m, x: F.linear(x, m.a, m.b), X, a=W, b=torch.zeros(4))


def _held(kind: str, value: torch.Tensor = W) -> Callable[[], Case]:
    def build() -> Case:
        module = Fn(lambda m, x: x @ m.held)
        if kind == "parameter":
            module.held = nn.Parameter(value)
        elif kind == "constant":
            module.held = value
        else:
            module.register_buffer("held", value, persistent=kind == "buffer")
        return Case(module, (X,))

    return build


pair("parameter or buffer", True, _held("parameter"), _held("buffer"))
pair("buffer or constant", True, _held("buffer"), _held("constant"))
pair("saved buffer or not", True, _held("buffer"), _held("unsaved"))
pair("values of a constant", False, _held("constant"), _held("constant", W + 1))
pair("values of a constant, refittable", False, _held("constant"), _held("constant", W + 1), policy="metadata")
pair("values of an unsaved buffer, refittable", False, _held("unsaved"), _held("unsaved", W + 1), policy="metadata")
pair("layout of a weight", True, _held("parameter", W.T.contiguous()), _held("parameter", W.T))
pair("offset of a weight", True, _held("parameter", torch.cat([W, W + 1])[4:]), _held("parameter", W + 1))
pair("dtype of a weight", False, _held("parameter"), lambda: Case(Fn(lambda m, x: x @ m.held.float(), held=W.double()), (X,)))
pair("layout of a weight, refittable", True, _held("parameter", W.T.contiguous()), _held("parameter", W.T), policy="metadata")
differ("integer buffer", lambda m, x: x[m.i], lambda m, x: x[m.j], W, i=torch.tensor([0, 1]), j=torch.tensor([1, 0]))
agree("inline constant", lambda m, x: x + torch.tensor([1.0, 2, 3, 4]), lambda m, x: x + torch.tensor([1.0, 2, 3, 4]))
differ("inline constants", lambda m, x: x + torch.tensor([1.0, 2, 3, 4]), lambda m, x: x + torch.tensor([1.0, 2, 3, 5]))
pair(
    "single number, refittable",
    False,
    lambda: Case(Fn(lambda m, x: x * m.s, s=torch.tensor([2.0])), (X,)),
    lambda: Case(Fn(lambda m, x: x * m.s, s=torch.tensor([3.0])), (X,)),
    policy="metadata",
)


class _Tied(nn.Module):
    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enc, self.dec = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        if tied:
            self.dec.weight = self.enc.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dec(self.enc(x))


class _Once(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enc = nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.enc(self.enc(x))


pair("tied or not", False, lambda: Case(_Tied(True), (X,)), lambda: Case(_Tied(False), (X,)))
pair("tied or not, refittable", False, lambda: Case(_Tied(True), (X,)), lambda: Case(_Tied(False), (X,)), policy="metadata")
pair("tied or used twice", True, lambda: Case(_Tied(True), (X,)), lambda: Case(_Once(), (X,)))

# Inference: what does nothing

agree("dropout at inference", lambda m, x: F.dropout(x, 0.1, training=False) * 2, lambda m, x: x * 2)
agree("rate of dropout at inference", lambda m, x: F.dropout(x, 0.1, training=False) * 2, lambda m, x: F.dropout(x, 0.5, training=False) * 2)
agree("detach", lambda m, x: x.detach() * 2, lambda m, x: x * 2)


def _no_grad(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x.sin()
    return y * 2


agree("no_grad", _no_grad, lambda m, x: x.sin() * 2)


def _autocast(enabled: bool, dtype: torch.dtype = torch.bfloat16) -> Body:
    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            y = x @ m.w
        return y.float() * 2

    return body


agree("autocast switched off", _autocast(False), lambda m, x: (x @ m.w).float() * 2, X, w=W)
differ("autocast on or off", _autocast(False), _autocast(True), X, w=W)
differ("autocast dtype", _autocast(True), _autocast(True, torch.float16), X, w=W)

# Effects

differ("two draws or one", lambda m, x: torch.rand(4) + torch.rand(4) + x, lambda m, x: (lambda r: r + r + x)(torch.rand(4)))
differ("draws in the other order", lambda m, x: (torch.rand(4) + x, torch.randn(4) + x), lambda m, x: (lambda n, u: (u + x, n + x))(torch.randn(4), torch.rand(4)))
differ("dropout in training", lambda m, x: F.dropout(x, 0.5, training=True), lambda m, x: F.dropout(x, 0.5, training=False))
differ("two masks or one", lambda m, x: F.dropout(x, 0.5, True) + F.dropout(x, 0.5, True), lambda m, x: (lambda d: d + d)(F.dropout(x, 0.5, True)))


def _write_after(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    z = y * 2
    y.add_(1)
    return z, y


def _write_before(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    y.add_(1)
    z = y * 2
    return z, y


def _write_through_view(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    y[0].add_(1)
    return y * 2


def _write_elsewhere(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    y[1].add_(1)
    return y * 2


def _write_to_copy(m: nn.Module, x: torch.Tensor) -> Any:
    y = x.clone()
    y[0].clone().add_(1)
    return y * 2


differ("read before or after a write", _write_after, _write_before)
differ("write through a view", _write_through_view, _write_elsewhere)
differ("write to a view or a copy", _write_through_view, _write_to_copy)
differ("written input or not", lambda m, x: x.add_(1), lambda m, x: x + 1, X.clone())
differ("two writes in order", lambda m, x: x.clone().add_(1).mul_(2), lambda m, x: x.clone().mul_(2).add_(1))


class _Counter(nn.Module):
    def __init__(self, step: int = 1, writes: bool = True) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(4))
        self.step, self.writes = step, writes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.writes:
            self.count.add_(self.step)
        return x + self.count


pair("mutated buffer", False, lambda: Case(_Counter(), (X,)), lambda: Case(_Counter(writes=False), (X,)))
pair("how a buffer is mutated", False, lambda: Case(_Counter(), (X,)), lambda: Case(_Counter(2), (X,)))
pair("mutated buffer, functional", False, lambda: Case(_Counter(), (X,), decompose=True), lambda: Case(_Counter(2), (X,), decompose=True))
pair(
    "batch norm in training",
    False,
    lambda: Case(nn.BatchNorm2d(3), (IMAGE,), train=True),
    lambda: Case(nn.BatchNorm2d(3), (IMAGE,)),
)

# Control flow


def _cond(when_true: Body, when_false: Body) -> Body:
    return lambda m, x: torch.cond(x.sum() > 0, lambda v: when_true(v), lambda v: when_false(v), (x,))


differ("branches swapped", _cond(torch.sin, torch.cos), _cond(torch.cos, torch.sin))
differ("another branch", _cond(torch.sin, torch.cos), _cond(torch.sin, torch.tan))
agree("names in branches", _cond(lambda v: v.sin() + 1, torch.cos), _cond(lambda value: value.sin() + 1, lambda other: other.cos()))
agree("dead code in a branch", _cond(lambda v: (v.exp(), v.sin() + 1)[1], torch.cos), _cond(lambda v: v.sin() + 1, torch.cos))
differ("condition", _cond(torch.sin, torch.cos), lambda m, x: torch.cond(x.sum() < 0, torch.sin, torch.cos, (x,)))


def _loop(limit: int) -> Body:
    from torch._higher_order_ops.while_loop import while_loop

    def body(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        start = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda i, v: i < limit, lambda i, v: (i + 1, v * 2), (start, x))[1]

    return body


differ("times a loop runs", _loop(3), _loop(4))

# Data-dependent sizes


def _items(least: int, most: int, add: int = 0) -> Body:
    def body(m: nn.Module, n: torch.Tensor) -> torch.Tensor:
        size = n.item()
        torch._check(size >= least)
        torch._check(size <= most)
        return torch.zeros(size + add)

    return body


differ("asserted range", _items(0, 8), _items(0, 9), torch.tensor(4))
agree("asserted twice", _items(0, 8), lambda m, n: (torch._check(n.item() <= 8), _items(0, 8)(m, n))[1], torch.tensor(4))
differ("size from a value", _items(0, 8), _items(0, 8, add=1), torch.tensor(4))
differ("which value is a size", lambda m, a, b: torch.zeros(_sized(a)), lambda m, a, b: torch.zeros(_sized(b)), torch.tensor(3), torch.tensor(5))


def _sized(value: torch.Tensor) -> Any:
    size = value.item()
    torch._check(size >= 0)
    torch._check(size <= 8)
    return size


# Custom operators


@torch.library.custom_op("farmtests::twice", mutates_args=())
def _twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@_twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def _custom(digit: str, body: Body = lambda m, x: torch.ops.farmtests.twice(x) + 1) -> Callable[[], Case]:
    return lambda: Case(Fn(body), (X,), custom_ops={"farmtests::twice": "sha256:" + digit * 64})


pair("declared custom operator", True, _custom("a"), _custom("a"))
pair("another implementation of it", False, _custom("a"), _custom("b"))
pair(
    "custom operator, computed twice",
    False,
    _custom("a", lambda m, x: torch.ops.farmtests.twice(x) + torch.ops.farmtests.twice(x)),
    _custom("a", lambda m, x: (lambda t: t + t)(torch.ops.farmtests.twice(x))),
)

# Exact dialects

pair(
    "decomposed or not",
    False,
    lambda: Case(nn.LayerNorm(4), (X,)),
    lambda: Case(nn.LayerNorm(4), (X,), decompose=True),
)
differ("strided view", lambda m, x: x.as_strided((2, 2), (1, 2)), lambda m, x: x.as_strided((2, 2), (2, 1)))
pair(
    "strides that an operator reads",
    False,
    lambda: Case(Fn(lambda m, x: x.as_strided((2, 2), (1, 2))), (W,)),
    lambda: Case(Fn(lambda m, x: x.as_strided((2, 2), (1, 2))), (W.T,)),
)
pair(
    "strides that no operator reads",
    True,
    lambda: Case(Fn(lambda m, x: x * 2), (W,)),
    lambda: Case(Fn(lambda m, x: x * 2), (W.T,)),
)
