"""Write ``farm/programs/operators.json``: what keys need to know of torch's operators.

Run with the pinned torch (``python tools/operators.py``); ``--check`` only says whether the file is current,
which the test-suite asks as well. The table lets a machine without torch fill in default arguments, see
which operators draw random numbers, and which write to or alias their operands.

One row an overload: ``[arguments, mutated, flags]``. An argument is ``[name, kind]`` or ``[name, kind,
default]``; kinds: ``f`` float, ``d`` dtype, ``m`` memory format, ``l`` layout, ``v`` device, empty for the
rest. ``mutated`` holds the positions that the operator writes to. Flags: ``a`` a result may share memory
with an operand, ``r`` draws random numbers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed

TABLE = Path(__file__).parent.parent / "farm" / "programs" / "operators.json"
NAMESPACES = ("aten", "prims", "quantized_decomposed")
KINDS = {"float": "f", "ScalarType": "d", "MemoryFormat": "m", "Layout": "l", "Device": "v"}
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex32", "complex64")
DTYPES += ("complex128", "bool")
MEMORY_FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
FOREIGN = ("Dict", "Stream", "Storage", "__torch__", "Any")

FRESH_NAMES = """
__and__ __or__ __xor__ _batch_norm_impl_index _convolution_mode _fused_rms_norm
_scaled_dot_product_attention_math absolute adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool1d arccos arccosh arcsin arcsinh arctan arctan2 arctanh argsort
argwhere avg_pool1d batch_norm bilinear cdist clip column_stack concat concatenate conv1d conv2d
conv3d conv_transpose1d conv_transpose2d conv_transpose3d cosine_embedding_loss cosine_similarity
cross cross_entropy_loss ctc_loss divide dstack embedding_bag float_power ger greater greater_equal
grid_sampler group_norm gru gru_cell hinge_embedding_loss hstack inner instance_norm isclose
isfinite isreal kl_div l1_loss layer_norm less less_equal linalg_vecdot linear log_sigmoid
log_softmax lstm lstm_cell margin_ranking_loss matmul max max_pool1d max_pool1d_with_indices
max_pool2d max_pool3d min msort multiply nanmean native_batch_norm negative nll_loss nll_loss_nd
not_equal one_hot outer pad pairwise_distance prelu relu6 repeat_interleave rms_norm rnn_relu
rnn_relu_cell rnn_tanh rnn_tanh_cell row_stack rrelu scaled_dot_product_attention selu softmax
special_digamma special_erf special_erfc special_erfinv special_exp2 special_expit special_expm1
special_gammaln special_i0 special_log1p special_log_softmax special_logit special_logsumexp
special_round special_sinc special_softmax special_xlogy square std std_mean subtract take_along_dim
tile true_divide upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean vstack where
"""
FRESH = frozenset(FRESH_NAMES.split())
"""Composites whose results never share memory with an operand. Tested against torch's own samples of them."""


def main() -> int:
    text = json.dumps({"torch": torch.__version__.split("+")[0], "operators": rows()}, separators=(",", ":"))
    text = text.replace('],"', '],\n"') + "\n"
    if "--check" in sys.argv:
        return 0 if TABLE.read_text() == text else 1
    TABLE.write_text(text)
    return 0


def rows() -> dict[str, Any]:
    found = {}
    for qualified in torch._C._dispatch_get_all_op_names():
        namespace, _, name = qualified.partition("::")
        packet, _, overload = name.partition(".")
        if namespace in NAMESPACES:
            operator = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
            if is_model_operator(operator._schema):
                found[f"{namespace}.{packet}.{overload or 'default'}"] = row(operator._schema, operator)
    return dict(sorted(found.items()))


def is_model_operator(schema: Any) -> bool:
    """False for ``out=`` variants, and for what takes foreign objects or reads files."""
    types = [str(argument.real_type) for argument in schema.arguments]
    if any(word in kind for word in FOREIGN for kind in types) or schema.name == "aten::from_file":
        return False
    return not any(argument.is_out for argument in schema.arguments)


def row(schema: Any, operator: Any) -> list[Any]:
    arguments = [argument_row(argument) for argument in schema.arguments]
    mutated = [
        position
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return [arguments, mutated, flags(schema, operator)]


def argument_row(argument: Any) -> list[Any]:
    kind = str(argument.real_type).removeprefix("Optional[").removesuffix("]")
    floats = kind in ("List[float", "List[float]")
    letter = "f" if floats else KINDS.get(kind, "")
    described = [argument.name, letter]
    if argument.has_default_value():
        described.append(default(argument.default_value, letter))
    return described


def default(value: Any, letter: str) -> Any:
    if letter == "d" and value is not None:
        return DTYPES[value]
    if letter == "m" and value is not None:
        return MEMORY_FORMATS[value]
    if letter == "l" and value is not None:
        return "strided"
    if isinstance(value, float) and letter == "f" and value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def flags(schema: Any, operator: Any) -> str:
    """``a`` where the schema says so, and where nothing is said of a composite: some return an operand."""
    annotated = any(returned.alias_info is not None for returned in schema.returns)
    composite = operator.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    unknown = composite or torch.Tag.maybe_aliasing_or_mutating in operator.tags
    aliases = annotated or (unknown and schema.name.removeprefix("aten::") not in FRESH)
    return ("a" if aliases else "") + ("r" if torch.Tag.nondeterministic_seeded in operator.tags else "")


if __name__ == "__main__":
    sys.exit(main())
