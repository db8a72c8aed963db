"""What keys need to know of torch's operators, without torch (the generated ``operators.json``).

Rules that a schema does not tell stand here, each with its reason: when an operator that may draw random
numbers does not, when one that only reads may write, and which ones do nothing at inference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from farm.canonical import encode
from farm.programs.torch_overloads import general_of
from farm.programs.torch_spelling import NOT_READ, spelling_of

ABSENT = encode(["absent"])
SKIPPED = NOT_READ
EMPTY = encode(["["])


def _names(text: str) -> list[str]:
    return text.split()


class Operator:
    """One overload. ``defaults``: each argument's encoded default, ``ABSENT`` where there is none.

    An alias is spelt as what it is an alias of, and an overload that is a case of a more general one as that one:
    ``kinds`` and ``defaults`` are then the other's, and ``position`` says where its own arguments stand among them.
    """

    __slots__ = (
        "aliases",
        "defaults",
        "head",
        "kinds",
        "name",
        "names",
        "plain",
        "pool",
        "position",
        "random",
        "spelling",
        "usual",
        "writes",
    )

    def __init__(self, name: str, row: list[Any]) -> None:
        arguments, writes, flags = row
        self.name = name
        self.names = [argument[0] for argument in arguments]
        general, pinned = general_of(name)
        spelt = arguments if general == name else _table()[general][0]
        if pinned:
            arguments = spelt
        self.head = encode(general)
        self.position = {name: index for index, (name, *_) in enumerate(arguments) if name not in pinned}
        self.kinds = [argument[1] for argument in arguments]
        self.defaults = [
            SKIPPED if argument[1] == "v" else encode_default(*argument[1:]) if len(argument) > 2 else ABSENT
            for argument in arguments
        ]
        for pin, value in pinned.items():
            self.defaults[[argument[0] for argument in arguments].index(pin)] = encode(value)
        self.writes = frozenset(writes) if name not in HARMLESS_WRITES else frozenset()
        self.pool = "kernel_size" in self.position and EMPTY in self.defaults
        """Whether an empty ``stride`` means the size of the kernel (pooling)."""
        self.aliases = "a" in flags
        self.random = "r" in flags
        special = name in WRITES_WHEN_TRUE or self.pool or MESSAGES & set(self.names)
        moved = [self.position[own] for own in self.names] != list(range(len(self.names)))
        self.plain = not (special or moved or self.writes or "v" in self.kinds)
        """Whether no argument needs more than to be encoded, and to stand where it is given."""
        self.spelling = spelling_of(general, spelt)
        self.usual = not (special or self.writes or self.random or name in UNUSUAL)
        """Whether a call of it is a node and nothing more, whatever its arguments."""


HARMLESS_WRITES = frozenset({"aten.detach_.default", "aten.requires_grad_.default"})
"""Annotated as writes, but only autograd's bookkeeping changes."""

IDENTITIES = frozenset({"aten.detach.default", "aten.detach_.default", "aten.alias.default", "aten.lift_fresh.default"})
"""The result is the operand itself, whatever the arguments: the node drops out."""

IDENTITIES_WITHOUT_WRITES = frozenset({"aten.lift_fresh_copy.default"})
"""A copy of the operand, so the operand itself where nothing in the program writes in place."""

IDENTITIES_UNLESS_TRAINING = {
    f"aten.{name}.default": "train" for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
}
"""The result is the operand itself when the named argument is False (``Dropout`` in ``eval()``)."""

PURE_WHEN: Mapping[str, tuple[str, Any]] = {
    "aten.scaled_dot_product_attention.default": ("dropout_p", 0.0),
    "aten._scaled_dot_product_flash_attention.default": ("dropout_p", 0.0),
    "aten._scaled_dot_product_flash_attention_for_cpu.default": ("dropout_p", 0.0),
    "aten._scaled_dot_product_efficient_attention.default": ("dropout_p", 0.0),
    "aten._scaled_dot_product_cudnn_attention.default": ("dropout_p", 0.0),
    "aten._scaled_dot_product_attention_math.default": ("dropout_p", 0.0),
    "aten._scaled_dot_product_attention_math_for_mps.default": ("dropout_p", 0.0),
    "aten._scaled_dot_product_fused_attention_overrideable.default": ("dropout_p", 0.0),
    "aten._flash_attention_forward.default": ("dropout_p", 0.0),
    "aten._efficient_attention_forward.default": ("dropout_p", 0.0),
    "aten.native_dropout.default": ("train", False),
    "aten.rrelu.default": ("training", False),
    "aten.rrelu_with_noise.default": ("training", False),
    **{
        f"aten.{kind}.{form}": ("train", False)
        for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
        for form in ("input", "data")
    },
    **dict.fromkeys(IDENTITIES_UNLESS_TRAINING, ("train", False)),
}
"""Operators tagged as drawing random numbers that draw none when this argument has this value."""

WRITES_WHEN_TRUE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "aten.batch_norm.default": ("training", ("running_mean", "running_var")),
    "aten.native_batch_norm.default": ("training", ("running_mean", "running_var")),
    "aten.cudnn_batch_norm.default": ("training", ("running_mean", "running_var")),
    "aten.miopen_batch_norm.default": ("training", ("running_mean", "running_var")),
    "aten._batch_norm_impl_index.default": ("training", ("running_mean", "running_var")),
    "aten.instance_norm.default": ("use_input_stats", ("running_mean", "running_var")),
}
"""Operators that write to these arguments when that one is True, although their schema does not say so."""

ASSERTIONS = frozenset(
    {
        "aten._assert_scalar.default",
        "aten._assert_async.default",
        "aten._assert_async.msg",
        "aten._functional_assert_async.msg",
        "aten._functional_assert_scalar.default",
        "aten._assert_tensor_metadata.default",
        "aten.sym_constrain_range.default",
        "aten.sym_constrain_range_for_size.default",
        "aten._functional_sym_constrain_range.default",
        "aten._functional_sym_constrain_range_for_size.default",
    }
)
MESSAGES = frozenset({"assert_msg"})
"""Arguments that are only text for people: a message carries the names of symbols."""

NEEDS_STRIDES = frozenset(
    {
        f"aten.{name}.default"
        for name in _names(
            "as_strided as_strided_ as_strided_copy as_strided_scatter is_contiguous "
            "sym_is_contiguous storage_offset sym_storage_offset"
        )
    }
    | {"aten.stride.int", "aten.sym_stride.int", "prims.as_strided.default", "prims.as_strided_scatter.default"}
)
"""Operators whose result depends on how an operand lies in memory."""

SCALAR_OPERATORS = frozenset(
    {
        f"_operator.{name}"
        for name in _names("eq ne le ge lt gt neg pos mul add sub floordiv mod pow truediv and_ or_ lshift rshift not_")
    }
    | {f"torch.{name}" for name in _names("sym_not sym_int sym_float sym_ite sym_max sym_min sym_sum")}
    | {"math.trunc", "math.floor", "math.ceil", "builtins.round"}
)
"""Python's own arithmetic on symbolic scalars."""

_UNARY = "sqrt cos cosh sin sinh tan tanh asin acos atan log2 exp log asinh"
SCALAR_OPERATORS |= {f"torch._sym_{name}" for name in _UNARY.split()} | {f"torch.sym_{name}" for name in _UNARY.split()}
SCALAR_OPERATORS |= {f"torch.fx.experimental.sym_node._sym_{name}" for name in _UNARY.split()}

CAPTURES: Mapping[str, int] = {
    "cond": 3,
    "while_loop": 3,
    "while_loop_stack_output": 3,
    "map_impl": 2,
    "scan": 3,
    "associative_scan": 2,
}
"""Which argument of a higher-order operator lists what each of its subgraphs takes as its last parameters, as it is,
each time: a branch's operands, a loop's additional inputs (``torch/_higher_order_ops``). The order of that list is the
exporter's, so such a parameter is its operand, and there is no list."""

SUBGRAPH_OPERATORS = frozenset(
    _names(
        "cond while_loop while_loop_stack_output map map_impl scan associative_scan wrap "
        "wrap_with_autocast wrap_with_set_grad_enabled wrap_activation_checkpoint "
        "tag_activation_checkpoint flex_attention invoke_subgraph out_dtype strict_mode "
        "auto_functionalized auto_functionalized_v2 hints_wrapper"
    )
)
"""torch's higher-order operators that farm knows to be plain data flow."""


READS = frozenset({"aten._local_scalar_dense.default", "aten.item.default"})
"""Operators that read a number from a tensor: the symbol of their result means that number."""

UNUSUAL = ASSERTIONS | IDENTITIES | IDENTITIES_WITHOUT_WRITES | NEEDS_STRIDES | READS | {"aten.sym_size.int"}
"""Operators with a rule of their own."""


def encode_default(letter: str, value: Any) -> bytes:
    """A default from the table, encoded as the same value would be if it had been given."""
    if value is None:
        return encode(None)
    if letter == "d":
        return encode(["dtype", value])
    if letter == "m":
        return encode(["memory_format", value])
    if letter == "l":
        return encode(["layout", value])
    return encode(_plain(value, letter == "f"))


def _plain(value: Any, as_float: bool) -> Any:
    if isinstance(value, list):
        return ["[", *[_plain(item, as_float) for item in value]]
    return float(value) if as_float else value


@cache
def _table() -> Mapping[str, list[Any]]:
    text = files("farm.programs").joinpath("operators.json").read_bytes()
    table: Mapping[str, list[Any]] = json.loads(text)["operators"]
    return table


@cache
def operator(name: str) -> Operator | None:
    """The operator ``aten.add.Tensor``; None if torch (as pinned) has no such one."""
    row = _table().get(name)
    return None if row is None else Operator(name, row)
