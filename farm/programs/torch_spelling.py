"""One call of a torch operator, spelt in one way: dims counted from the front, defaults left out, what is not read too.

``softmax(x, -1)`` is ``softmax(x, 1)`` of a matrix; ``zeros(4, dtype=torch.float32)`` is ``zeros(4)``, since what a
result is stands beside it; an embedding's ``padding_idx`` is only for its gradients, a momentum for training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from farm.canonical import encode

NONE, FALSE = encode(None), encode(False)
NOT_READ = encode(["device"])
"""What stands for an argument that is not read."""


class Spelling(NamedTuple):
    """What there is to do for one operator, by positions of its arguments. ``unless``: a flag without which others are
    not read. ``of_result``: whether dims are those of the result, rather than of the first operand."""

    dtype: int | None
    unread: tuple[int, ...]
    unless: tuple[int, tuple[int, ...]] | None
    dims: tuple[int, ...]
    of_result: bool


def _names(text: str) -> list[str]:
    return text.split()


_UNREAD: Mapping[str, Sequence[str]] = {
    "aten.embedding.default": ("padding_idx", "scale_grad_by_freq", "sparse"),
    **dict.fromkeys(
        ("aten.embedding_bag.default", "aten.embedding_bag.padding_idx", "aten._embedding_bag.default"),
        ("scale_grad_by_freq", "sparse"),
    ),
    "aten.batch_norm.default": ("cudnn_enabled",),
    "aten.instance_norm.default": ("cudnn_enabled",),
    "aten.group_norm.default": ("cudnn_enabled",),
    "aten.layer_norm.default": ("cudnn_enable",),
    "aten._native_batch_norm_legit_no_training.default": ("momentum",),
}
"""Arguments for gradients, and for the choice of a kernel of torch's own."""

_UNLESS: Mapping[str, tuple[str, Sequence[str]]] = {
    "aten.batch_norm.default": ("training", ("momentum",)),
    "aten.native_batch_norm.default": ("training", ("momentum",)),
    **{
        f"aten.{kind}.{form}": ("train", ("dropout",))
        for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")
        for form in ("input", "data")
    },
}
"""Arguments that are only read in training, and the flag that says so."""

_DIM_NAMES = frozenset({"dim", "dims", "dim0", "dim1", "start_dim", "end_dim"})
_AS_RESULT = frozenset(
    _names(
        "cat concat concatenate stack unsqueeze unsqueeze_ unsqueeze_copy softmax log_softmax _softmax _log_softmax "
        "_safe_softmax special_softmax special_log_softmax cumsum cumprod cummax cummin logcumsumexp slice slice_copy "
        "slice_scatter select_scatter split split_with_sizes chunk tensor_split flip roll permute permute_copy "
        "transpose transpose_copy swapdims sort argsort topk gather scatter scatter_add scatter_reduce index_select "
        "index_add index_copy index_fill glu narrow"
    )
)
_AS_OPERAND = frozenset(
    _names(
        "select select_copy squeeze squeeze_copy unbind sum mean amax amin argmax argmin max min any all prod var std "
        "var_mean std_mean logsumexp linalg_vector_norm norm median nanmedian mode kthvalue nansum nanmean flatten "
        "unflatten size sym_size count_nonzero"
    )
)
_NO_DTYPE = ("aten.quantized", "aten._sparse", "aten.sparse", "aten._assert", "aten._foreach", "aten._nested")
"""Operators whose ``dtype`` is not (only) that of their result."""


def spelling_of(name: str, arguments: Sequence[Sequence[Any]]) -> Spelling | None:
    """What there is to do for operator ``name``; ``arguments`` as in the table: name, kind, default."""
    position = {one[0]: index for index, one in enumerate(arguments)}
    dtype = next((at for at, one in enumerate(arguments) if one[0] == "dtype" and one[2:] in ([None], (None,))), None)
    base = name.split(".")[1] if name.startswith("aten.") else ""
    dims = _places(position, sorted(_DIM_NAMES)) if base in _AS_RESULT | _AS_OPERAND else ()
    flag, others = _UNLESS.get(name, ("", ()))
    found = Spelling(
        dtype=None if name.startswith(_NO_DTYPE) else dtype,
        unread=_places(position, _UNREAD.get(name, ())),
        unless=(position[flag], _places(position, others)) if flag in position else None,
        dims=dims,
        of_result=base in _AS_RESULT,
    )
    return found if found.dtype is not None or found.unread or found.unless or found.dims else None


def _places(position: Mapping[str, int], names: Iterable[str]) -> tuple[int, ...]:
    return tuple(position[name] for name in names if name in position)


def respell(how: Spelling, parts: list[bytes], operand: Sequence[Any], result: Sequence[Any]) -> None:
    """Spell ``parts``, a call's encoded arguments, in the one way. ``operand`` and ``result`` are what is known of the
    first operand and of the results."""
    if how.dtype is not None and result and parts[how.dtype] == _dtype(result[0].dtype):
        parts[how.dtype] = NONE
    for position in how.unread:
        parts[position] = NOT_READ
    if how.unless is not None and parts[how.unless[0]] == FALSE:
        for position in how.unless[1]:
            parts[position] = NOT_READ
    for position in how.dims:
        if b":-" in parts[position]:
            parts[position] = _counted(parts[position], _rank(result if how.of_result else operand))


@lru_cache(maxsize=64)
def _dtype(name: str) -> bytes:
    return encode(["dtype", name])


def _rank(metas: Sequence[Any]) -> int | None:
    """The number of dims that all of these have."""
    ranks = {None if meta.scalar else len(meta.dims) for meta in metas}
    return next(iter(ranks)) if len(ranks) == 1 else None


_WHOLE = re.compile(rb"i\d+:(-?\d+)")
_LIST = re.compile(rb"l\d+:s1:\[((?:i\d+:-?\d+)*)")


@lru_cache(maxsize=1024)
def _counted(part: bytes, rank: int | None) -> bytes:
    """A dim, or a list of them, counted from the front; as it is where that cannot be told."""
    if rank is None:
        return part
    single, listed = _WHOLE.fullmatch(part), _LIST.fullmatch(part)
    if single is not None:
        return encode(_front(int(single[1]), rank))
    if listed is not None:
        return encode(["[", *(_front(int(one), rank) for one in _WHOLE.findall(listed[1]))])
    return part


def _front(dim: int, rank: int) -> int:
    most = max(rank, 1)
    return dim + most if -most <= dim < 0 else dim
