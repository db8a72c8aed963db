"""The table of torch's operators, and the rules beside it, against torch itself."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farm.canonical import encode
from farm.programs import operators as rules
from farm.programs.operators import ABSENT, operator

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch


def overload(name: str) -> Any:
    namespace, packet, which = name.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), which)


def test_the_table_is_current() -> None:
    tool = Path(__file__).parents[3] / "tools" / "operators.py"
    assert subprocess.run([sys.executable, str(tool), "--check"], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize(
    "name",
    ["aten.add.Tensor", "aten.contiguous.default", "aten.randint.default", "aten.max_pool2d.default", "aten.to.dtype"],
)
def test_arguments_are_the_schema_s(name: str) -> None:
    op = operator(name)
    assert op is not None
    assert op.names == [argument.name for argument in overload(name)._schema.arguments]
    assert [default == ABSENT for default in op.defaults] == [
        not argument.has_default_value() for argument in overload(name)._schema.arguments
    ] or "v" in op.kinds


def test_defaults_keep_their_types() -> None:
    add, softplus = operator("aten.add.Tensor"), operator("aten.leaky_relu.default")
    layer_norm, contiguous = operator("aten.layer_norm.default"), operator("aten.contiguous.default")
    assert add and softplus and layer_norm and contiguous
    assert add.defaults[2] == encode(1)
    assert softplus.defaults[1] == encode(0.01)
    assert layer_norm.defaults[layer_norm.position["eps"]] == encode(1e-05)
    assert contiguous.defaults[1] == encode(["memory_format", "contiguous_format"])


def test_what_writes_aliases_and_draws() -> None:
    def flags(name: str) -> tuple[list[int], bool, bool]:
        op = operator(name)
        assert op is not None
        return sorted(op.writes), op.aliases, op.random

    assert flags("aten.add_.Tensor") == ([0], True, False)
    assert flags("aten.view.default") == ([], True, False)
    assert flags("aten.add.Tensor") == ([], False, False)
    assert flags("aten.rand.default") == ([], False, True)
    assert flags("aten.detach_.default")[0] == []
    assert flags("aten.type_as.default")[1], "a composite may return its operand, whatever its schema says"


def test_there_are_no_operators_that_reach_outside() -> None:
    for name in ("aten.from_file.default", "aten.add.out", "aten.save.default", "symm_mem.one_shot_all_reduce.default"):
        assert operator(name) is None


RULES = {
    **{name: argument for name, (argument, _) in rules.PURE_WHEN.items()},
    **rules.IDENTITIES_UNLESS_TRAINING,
    **{name: flag for name, (flag, _) in rules.WRITES_WHEN_TRUE.items()},
    **dict.fromkeys(
        [*rules.IDENTITIES, *rules.IDENTITIES_WITHOUT_WRITES, *rules.HARMLESS_WRITES, *rules.READS], "self"
    ),
}


@pytest.mark.parametrize("name", sorted(RULES))
def test_rules_name_arguments_that_exist(name: str) -> None:
    op = operator(name)
    assert op is not None
    assert RULES[name] in op.position
    for written in rules.WRITES_WHEN_TRUE.get(name, ("", ()))[1]:
        assert written in op.position


@pytest.mark.parametrize("name", sorted(rules.PURE_WHEN))
def test_only_operators_that_may_draw_need_a_rule(name: str) -> None:
    op = operator(name)
    assert op is not None and op.random


@pytest.mark.parametrize("name", sorted(rules.NEEDS_STRIDES | rules.ASSERTIONS))
def test_named_operators_exist(name: str) -> None:
    if name.startswith("aten.") and "stride.int" not in name:
        assert operator(name) is not None, name


@pytest.mark.parametrize("name", sorted(rules.IDENTITIES | rules.IDENTITIES_WITHOUT_WRITES))
def test_identities_are_identities(name: str) -> None:
    value = torch.randn(3, 4)
    result = overload(name)(value.clone())
    assert torch.equal(result, value) and result.dtype == value.dtype


@pytest.mark.parametrize("name", sorted(rules.IDENTITIES_UNLESS_TRAINING))
def test_dropout_is_an_identity_at_inference(name: str) -> None:
    value = torch.randn(2, 3, 4)
    assert torch.equal(overload(name)(value, 0.7, False), value)
    assert not torch.equal(overload(name)(value, 0.7, True), value)


def test_batch_norm_writes_when_it_trains() -> None:
    mean, var = torch.zeros(3), torch.ones(3)
    torch.ops.aten.batch_norm.default(torch.randn(4, 3), None, None, mean, var, False, 0.1, 1e-5, False)
    assert torch.equal(mean, torch.zeros(3))
    torch.ops.aten.batch_norm.default(torch.randn(4, 3), None, None, mean, var, True, 0.1, 1e-5, False)
    assert not torch.equal(mean, torch.zeros(3))


def test_pooling_without_a_stride_uses_the_kernel_s_size() -> None:
    value = torch.randn(1, 1, 8, 8)
    pooled = torch.ops.aten.max_pool2d.default(value, [2, 2])
    assert torch.equal(pooled, torch.ops.aten.max_pool2d.default(value, [2, 2], [2, 2]))
    op = operator("aten.max_pool2d.default")
    assert op is not None and op.pool
    other = operator("aten.conv2d.default")
    assert other is not None and not other.pool


def test_scalar_operators_are_what_the_exporter_writes() -> None:
    from torch._export.serde.serialize import _SYM_OPS

    written = {f"{op.__module__}.{op.__name__}" for op in _SYM_OPS}
    assert written - rules.SCALAR_OPERATORS <= {"_operator.pos"} | {name for name in written if "sqrt" in name}


@pytest.mark.filterwarnings("ignore")
def test_fresh_results_share_no_memory_with_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator's list of composites that never return an operand, over torch's own samples of them."""
    monkeypatch.setitem(sys.modules, "expecttest", SimpleNamespace(TestCase=object, assert_expected_inline=None))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "tools"))
    from operators import FRESH
    from torch.testing._internal.common_methods_invocations import op_db

    checked = set()
    for info in op_db:
        names = FRESH & {name.rpartition(".")[2] for name in (info.name, *(alias.name for alias in info.aliases))}
        if names and info.dtypes:
            dtype = torch.float32 if torch.float32 in info.dtypes else min(info.dtypes, key=str)
            for sample in islice(info.sample_inputs("cpu", dtype, requires_grad=False), 12):
                operands = storages([sample.input, sample.args, sample.kwargs])
                result = info(sample.input, *sample.args, **sample.kwargs)
                assert not operands & storages(result), info.name
            checked |= names
    assert len(checked) > 90


def storages(value: Any) -> set[int]:
    """Addresses of the memory that tensors in ``value`` lie in."""
    tensors = [one for one in torch.utils._pytree.tree_leaves(value) if isinstance(one, torch.Tensor) and one.numel()]
    return {one.untyped_storage().data_ptr() for one in tensors}
