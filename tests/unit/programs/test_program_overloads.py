"""Overloads that are spelt as another one, and defaults that are given although they may be left out."""

from __future__ import annotations

from typing import Any

import pytest

from farm.programs.operators import Operator, _table, operator
from farm.programs.pt2_arguments import Arguments
from farm.programs.pt2_values import Block
from farm.programs.schema import Graph as StoredGraph
from farm.programs.torch_graph import Call, TorchGraph
from farm.programs.torch_overloads import ALIASES, CASES

torch = pytest.importorskip("torch")
pytest.importorskip("torch.ao.quantization.fx._decomposed", reason="registers operators of the table")

from torch.fx import Graph as FxGraph  # noqa: E402
from torch.fx import GraphModule  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from farm.programs.live_nodes import LiveNodes  # noqa: E402

pytestmark = pytest.mark.torch
KINDS = {int: "as_int", float: "as_float", bool: "as_bool", str: "as_string", type(None): "as_none"}


def overload(name: str) -> Any:
    namespace, packet, which = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), which)


class Calls(TorchDispatchMode):
    """Takes note of the overloads that torch's dispatcher comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


VALUES = {"Tensor": torch.rand(2, 3) + 0.5, "number": 2.5, "int": 1, "bool": False, "str": "floor"}


def kind_of(argument: Any) -> str:
    return str(argument.real_type).removeprefix("Optional[").removesuffix("]")


def called(name: str) -> tuple[list[str], list[Any]]:
    """What torch's dispatcher comes to in a call of ``name``, and what it gives."""
    given = {
        one.name: [1] if "List" in str(one.real_type) else VALUES.get(kind_of(one))
        for one in overload(name)._schema.arguments
        if one.name not in ("tensors", "dtype", "correction")
    }
    if "cat" in name:
        given["tensors"] = [torch.ones(2, 3), torch.zeros(2, 3)]
    if "correction" in name:
        given |= {"dim": [1], "correction": 0}
    with Calls() as calls:
        result = overload(name)(**given)
    return calls.seen, list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("name", sorted(ALIASES))
def test_torch_itself_calls_the_other_name(name: str) -> None:
    """An alias comes down to what the operator under its other name comes down to."""
    (own, results), (other, expected) = called(name), called(ALIASES[name])
    assert own == other
    torch.testing.assert_close(results, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", sorted(ALIASES))
def test_aliases_take_the_same(name: str) -> None:
    own, other = ([str(one.real_type) for one in overload(which)._schema.arguments] for which in (name, ALIASES[name]))
    flags = name.endswith(".dim")
    assert len(own) == len(other) and (flags or own == other)


@pytest.mark.parametrize("name", sorted(CASES))
def test_cases_give_the_same_to_the_last_bit(name: str) -> None:
    general, pinned = CASES[name]
    schema = overload(general)._schema.arguments
    for values in (torch.randn(5, 7) * 100, torch.randn(3, 2).half(), torch.zeros(2, 2).neg()):
        own = {"self": values, "other": 3.5 if "Scalar" in name else values + 1, "start": 1, "end": 4}
        given = {one.name: own[one.name] for one in overload(name)._schema.arguments if one.name in own}
        known = {one.name: {**given, **pinned}[one.name] for one in schema if one.name in {**given, **pinned}}
        first, second = overload(name)(**given), overload(general)(**known)
        assert torch.equal(first.view(torch.uint8), second.view(torch.uint8)) if first.dim() else first == second
        assert first.dtype == second.dtype


def with_defaults() -> list[str]:
    return sorted(name for name in _table() if any(len(one) > 2 for one in _table()[name][0]))


def test_defaults_may_be_given_or_left_out() -> None:
    """Every operator of the table, every argument with a default: given, by position or by name, as left out."""
    live = LiveNodes(GraphModule({}, FxGraph()), {})
    saved = Arguments(Block(StoredGraph([], [], [], {})), lambda value, call: b"")
    names = with_defaults()
    assert len(names) > 700
    for name in names:
        op = operator(name)
        assert op is not None
        given = [(one.name, one.default_value) for one in overload(name)._schema.arguments if one.has_default_value()]
        # A dtype, layout or memory format that a schema names stands there as a number.
        plain = [
            (one, value) for one, value in given if value is None or op.kinds[op.position[one]] not in ("d", "m", "l")
        ]
        expected = TorchGraph.arguments(op, [], Call(), live.encode)
        for some in (plain, plain[::-1], plain[:1]):
            assert TorchGraph.arguments(op, some, Call(), live.encode) == expected, name
            stored = [(one, tagged(value)) for one, value in some]
            assert TorchGraph.arguments(op, stored, Call(), saved.encode) == expected, name


def tagged(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {(KINDS[type(value[0])] if value else "as_int") + "s": value}
    return {KINDS[type(value)]: value}


def test_a_case_says_what_it_leaves_open() -> None:
    total, several = operator("aten.sum.default"), operator("aten.sum.dim_IntList")
    assert isinstance(total, Operator) and isinstance(several, Operator)
    assert total.name == "aten.sum.default" and total.head == several.head
    assert total.names == ["self", "dtype"] and total.position["dtype"] == several.position["dtype"]
