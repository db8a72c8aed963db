"""One call of a torch operator, spelt in one way: dims counted from the front, defaults left out, what is not read too.

``softmax(x, -1)`` is ``softmax(x, 1)`` of a matrix; ``zeros(4, dtype=torch.float32)`` is ``zeros(4)``, since what a
result is stands beside it; an embedding's ``padding_idx`` is only for its gradients, a momentum for training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from farm.canonical import encode
from farm.programs.torch_shapes import SHAPED, Shaped, listed, whole

NONE, FALSE = encode(None), encode(False)
NOT_READ = encode(["device"])
"""What stands for an argument that is not read."""


class Spelling(NamedTuple):
    """What there is to do for one operator, by positions of its arguments. ``unless``: a flag without which others are
    not read. ``of_result``: whether dims are those of the result, rather than of the first operand. ``plain``: values
    that mean the same as another one. ``shaped``: a rule about sizes, and the arguments that it is about."""

    dtype: int | None
    layout: int | None
    unread: tuple[int, ...]
    unless: tuple[int, tuple[int, ...]] | None
    dims: tuple[int, ...]
    of_result: bool
    plain: tuple[tuple[int, bytes, bytes], ...]
    shaped: tuple[Shaped, tuple[int, ...]] | None


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

_PRESERVES = frozenset(
    _names("clone _to_copy to empty_like full_like ones_like zeros_like rand_like randn_like randint_like")
)
"""Operators for which no memory format means ``preserve_format``, as torch's documentation says of each."""

_PLAIN: Mapping[str, Sequence[tuple[str, Any, Any]]] = {
    # "fill value for 'constant' padding. Default: 0"; other modes take no value but zero.
    "aten.pad.default": [("value", 0.0, None)],
    "aten.constant_pad_nd.default": [("value", 0.0, 0)],
    # "correction defaults to 1"; the older flag says 1 or 0.
    **{
        f"aten.{name}.correction": [("correction", None, 1), ("correction", True, 1), ("correction", False, 0)]
        for name in ("var", "std", "var_mean", "std_mean")
    },
}
"""Values of arguments that mean what another one does."""

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
    rule, about = SHAPED.get(name, (None, ()))
    found = Spelling(
        dtype=None if name.startswith(_NO_DTYPE) else dtype,
        layout=None if name.startswith(_NO_DTYPE) else _optional(arguments, "l"),
        unread=_places(position, _UNREAD.get(name, ())),
        unless=(position[flag], _places(position, others)) if flag in position else None,
        dims=dims,
        of_result=base in _AS_RESULT,
        plain=_plain(name, base, arguments, position),
        shaped=None if rule is None else (rule, _places(position, about)),
    )
    whether = (found.unread, found.unless, found.dims, found.plain, found.shaped)
    return found if found.dtype is not None or found.layout is not None or any(whether) else None


def _optional(arguments: Sequence[Sequence[Any]], kind: str) -> int | None:
    """The argument of this kind that may be left out."""
    return next((at for at, one in enumerate(arguments) if one[1] == kind and one[2:] in ([None], (None,))), None)


def _plain(
    name: str, base: str, arguments: Sequence[Sequence[Any]], position: Mapping[str, int]
) -> tuple[tuple[int, bytes, bytes], ...]:
    found = [(position[one], encode(spelt), encode(plain)) for one, spelt, plain in _PLAIN.get(name, ())]
    memory = _optional(arguments, "m")
    if memory is not None and base in _PRESERVES:
        found.append((memory, encode(["memory_format", "preserve_format"]), NONE))
    if "pin_memory" in position and _optional(arguments, "v") is not None:
        # Not pinned unless that is asked for (``TensorOptions``).
        found.append((position["pin_memory"], FALSE, NONE))
    return tuple(found)


def _places(position: Mapping[str, int], names: Iterable[str]) -> tuple[int, ...]:
    return tuple(position[name] for name in names if name in position)


def respell(how: Spelling, parts: list[bytes], operand: Sequence[Any], result: Sequence[Any]) -> None:
    """Spell ``parts``, a call's encoded arguments, in the one way. ``operand`` and ``result`` are what is known of the
    first operand and of the results."""
    if how.dtype is not None and result and parts[how.dtype] == _dtype(result[0].dtype):
        parts[how.dtype] = NONE
    if how.layout is not None and parts[how.layout] == _STRIDED and result and result[0].layout == "strided":
        parts[how.layout] = NONE
    for position in how.unread:
        parts[position] = NOT_READ
    if how.unless is not None and parts[how.unless[0]] == FALSE:
        for position in how.unless[1]:
            parts[position] = NOT_READ
    for position in how.dims:
        if b":-" in parts[position]:
            parts[position] = _counted(parts[position], _rank(result if how.of_result else operand))
    for position, spelt, plain in how.plain:
        if parts[position] == spelt:
            parts[position] = plain
    if how.shaped is not None:
        how.shaped[0](parts, how.shaped[1], operand)


_STRIDED = encode(["layout", "strided"])


@lru_cache(maxsize=64)
def _dtype(name: str) -> bytes:
    return encode(["dtype", name])


def _rank(metas: Sequence[Any]) -> int | None:
    """The number of dims that all of these have."""
    ranks = {None if meta.scalar else len(meta.dims) for meta in metas}
    return next(iter(ranks)) if len(ranks) == 1 else None


@lru_cache(maxsize=1024)
def _counted(part: bytes, rank: int | None) -> bytes:
    """A dim, or a list of them, counted from the front; as it is where that cannot be told."""
    if rank is None:
        return part
    single, several = whole(part), listed(part)
    if single is not None:
        return encode(_front(single, rank))
    if several is not None:
        return encode(["[", *(_front(one, rank) for one in several)])
    return part


def _front(dim: int, rank: int) -> int:
    most = max(rank, 1)
    return dim + most if -most <= dim < 0 else dim
