"""Tensors of a live program: hashed where they lie in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from blake3 import blake3
from torch._subclasses.fake_tensor import FakeTensor

from farm.programs.live_values import dtype_name
from farm.programs.weights import Content, Files, StoredTensor, Unreadable, kind_of


@dataclass(frozen=True, slots=True)
class LiveContent:
    """A tensor in memory. One that is not contiguous (or on a GPU) is copied while it is hashed."""

    tensor: torch.Tensor

    def feed(self, files: Files, hasher: blake3) -> None:
        tensor = self.tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        size = tensor.numel() * tensor.element_size()
        if size:
            hasher.update(memoryview((ctypes.c_ubyte * size).from_address(tensor.data_ptr())).cast("B"))


class LiveTensors:
    """Numbers for tensors; names of one tensor (same memory, same view of it) get one number."""

    def __init__(self) -> None:
        self.tensors: list[StoredTensor] = []
        self._known: dict[tuple[object, ...], int] = {}
        self._lasting: list[bool] = []

    def add(self, name: str, tensor: torch.Tensor, lasting: bool) -> int:
        """The number of ``tensor``. ``lasting``: a parameter, or a buffer that is saved."""
        dtype, shape = dtype_name(tensor.dtype), tuple(tensor.shape)
        kind = kind_of(dtype, shape, lasting)
        opaque = _is_opaque(tensor)
        place = ("object", id(tensor)) if opaque else _place(tensor, shape)
        number = self._known.setdefault((place, dtype, shape, kind), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(StoredTensor(name, dtype, shape, kind, _content(name, tensor, opaque)))
            self._lasting.append(lasting)
        return number

    def storages(self) -> dict[int, tuple[Hashable, tuple[int, ...]]]:
        """As in ``Graph``. Saved and unsaved ones never share, since an archive keeps them apart."""
        found: dict[int, tuple[Hashable, tuple[int, ...]]] = {}
        for number, (stored, lasting) in enumerate(zip(self.tensors, self._lasting, strict=True)):
            if isinstance(stored.content, LiveContent) and 0 not in stored.shape:
                tensor = stored.content.tensor
                place = (tensor.storage_offset() * tensor.element_size(), *tensor.stride())
                found[number] = (lasting, tensor.untyped_storage().data_ptr()), place
        return found


_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter, torch.nn.Buffer})


def _place(tensor: torch.Tensor, shape: tuple[int, ...]) -> object:
    """Where a tensor starts in memory, and how it is read there. All empty tensors lie in one place."""
    if 0 in shape:
        return "empty"
    if tensor.is_conj() or tensor.is_neg():
        return tensor.data_ptr(), tensor.stride(), tensor.is_conj(), tensor.is_neg()
    if tensor.is_contiguous():
        return tensor.data_ptr()
    strides = tuple(stride for size, stride in zip(shape, tensor.stride(), strict=True) if size != 1)
    return tensor.data_ptr(), strides


def _is_opaque(tensor: torch.Tensor) -> bool:
    """Whether its values are not simply those in its memory: a kind of its own, sparse, quantised, or without any."""
    if type(tensor) not in _PLAIN and (isinstance(tensor, FakeTensor) or type(tensor.data) is not torch.Tensor):
        return True
    return tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested


def _content(name: str, tensor: torch.Tensor, opaque: bool) -> Content:
    if not opaque:
        return LiveContent(tensor)
    kind = "meta tensor" if tensor.is_meta else "quantised tensor" if tensor.is_quantized else type(tensor).__name__
    return Unreadable(f"{name} is a {kind}, whose values farm cannot read")
