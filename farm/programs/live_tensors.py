"""Tensors of a live program: hashed where they lie in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from blake3 import blake3
from torch._subclasses.fake_tensor import FakeTensor

from farm.programs.live_values import dtype_name
from farm.programs.weights import Content, Files, StoredTensor, Unreadable, Weights, kind_of


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

    def add(self, name: str, tensor: torch.Tensor, lasting: bool) -> int:
        """The number of ``tensor``. ``lasting``: a parameter, or a buffer that is saved."""
        dtype, shape = dtype_name(tensor.dtype), tuple(tensor.shape)
        kind = kind_of(dtype, shape, lasting)
        number = self._known.setdefault((*_place(tensor, dtype, shape), kind), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(StoredTensor(name, dtype, shape, kind, _content(name, tensor)))
        return number

    def weights(self, lifted: Sequence[int]) -> Weights:
        """The tensors that a graph uses, in its canonical order."""
        return Weights([self.tensors[number] for number in lifted])


def _place(tensor: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> tuple[object, ...]:
    if not tensor.numel():
        return "empty", dtype, shape
    if _is_opaque(tensor):
        return ("object", id(tensor))
    strides = tuple(stride for size, stride in zip(shape, tensor.stride(), strict=True) if size != 1)
    return tensor.untyped_storage().data_ptr(), dtype, shape, tensor.storage_offset(), strides


def _is_opaque(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, FakeTensor) or type(tensor.data) is not torch.Tensor


def _content(name: str, tensor: torch.Tensor) -> Content:
    if _is_opaque(tensor):
        return Unreadable(f"{name} is a {type(tensor).__name__}, whose values farm cannot read")
    return LiveContent(tensor)
