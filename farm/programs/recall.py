"""Programs and ``WeightsMemory``: what is kept of a program, and a program from what was kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from farm.graph import Symbol
from farm.programs.identity import FileIdentity
from farm.programs.memory import WeightsMemory
from farm.programs.prepared import prepare
from farm.programs.program import Loaded, Program
from farm.programs.specs import TensorSpec
from farm.programs.weights import Content, FileContent, StoredTensor, Unreadable, Weights


class _Tensor(msgspec.Struct):
    """``content``: the file's number, then ``FileContent``'s fields; empty where a digest must do."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: str
    digest: str | None
    content: tuple[int, int, int, tuple[int, ...], tuple[int, ...], int] | None


class _Kept(msgspec.Struct):
    format: str
    structure_digest: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    symbols: dict[str, Symbol]
    node_count: int
    uses_float64: bool
    mutations: tuple[str, ...]
    operators: list[str]
    tensors: list[_Tensor]
    files: list[tuple[str, FileIdentity]]


prepare(_Kept)


def recall(memory: WeightsMemory, path: Path, custom_ops: Mapping[str, str]) -> Program | None:
    """The program at ``path`` from memory; None if it is not (or no longer) known."""
    found = memory.recall(path, _context(path, custom_ops))
    if found is None:
        return None
    try:
        kept = msgspec.convert(found, _Kept)
    except msgspec.ValidationError:
        return None
    return _program(memory, path, custom_ops, kept)


def remember(
    memory: WeightsMemory, program: Program, custom_ops: Mapping[str, str], files: Mapping[Path, FileIdentity]
) -> None:
    """Keep ``program``, now and again whenever more of its tensors have been hashed."""
    program.weights.on_digest = _keeper(memory, program, custom_ops, files)
    program.weights.on_digest()


def _context(path: Path, custom_ops: Mapping[str, str]) -> list[Any]:
    return [str(path), sorted([name, value] for name, value in custom_ops.items())]


def _keeper(
    memory: WeightsMemory, program: Program, custom_ops: Mapping[str, str], files: Mapping[Path, FileIdentity]
) -> Callable[[], None]:
    def keep() -> None:
        kept = _kept(program, files)
        if kept is not None:
            memory.remember(files, _context(program.path, custom_ops), msgspec.to_builtins(kept))

    return keep


def _kept(program: Program, files: Mapping[Path, FileIdentity]) -> _Kept | None:
    numbers = {path: index for index, path in enumerate(files)}
    tensors = []
    for tensor, digest in zip(program.weights.stored, program.weights.known_digests(), strict=True):
        content = _place(tensor.content, numbers)
        if content is None and digest is None:
            return None
        tensors.append(_Tensor(tensor.name, tensor.dtype, tensor.shape, tensor.kind, digest, content))
    return _Kept(
        format=program.format,
        structure_digest=program.structure_digest,
        inputs=list(program.inputs),
        outputs=list(program.outputs),
        symbols=dict(program.symbols),
        node_count=program.node_count,
        uses_float64=program.uses_float64,
        mutations=program.mutations,
        operators=sorted(program.operators),
        tensors=tensors,
        files=[(str(path), identity) for path, identity in files.items()],
    )


def _place(
    content: Content, numbers: Mapping[Path, int]
) -> tuple[int, int, int, tuple[int, ...], tuple[int, ...], int] | None:
    if not isinstance(content, FileContent):
        return None
    number = numbers[content.path]
    return number, content.start, content.size, content.strides, content.shape, content.item_size


def _program(memory: WeightsMemory, path: Path, custom_ops: Mapping[str, str], kept: _Kept) -> Program:
    files = [(Path(name), identity) for name, identity in kept.files]
    stored = [_stored(tensor, files) for tensor in kept.tensors]
    program = Program(
        path=path,
        format=kept.format,
        structure_digest=kept.structure_digest,
        inputs=tuple(kept.inputs),
        outputs=tuple(kept.outputs),
        symbols=kept.symbols,
        weights=Weights(stored, [tensor.digest for tensor in kept.tensors]),
        node_count=kept.node_count,
        uses_float64=kept.uses_float64,
        mutations=kept.mutations,
        operators=frozenset(kept.operators),
        load=lambda: _load(path, custom_ops, kept.format),
    )
    program.weights.on_digest = _keeper(memory, program, custom_ops, dict(files))
    return program


def _stored(tensor: _Tensor, files: list[tuple[Path, FileIdentity]]) -> StoredTensor:
    content: Content = Unreadable(f"{tensor.name} was remembered without its values")
    if tensor.content is not None:
        number, start, size, strides, shape, item_size = tensor.content
        content = FileContent(*files[number], start, size, strides, shape, item_size)
    return StoredTensor(tensor.name, tensor.dtype, tensor.shape, tensor.kind, content)


def _load(path: Path, custom_ops: Mapping[str, str], kind: str) -> Loaded:
    if kind == "pt2":
        from farm.programs.pt2_archive import load_pt2

        return load_pt2(path, custom_ops)
    from farm.programs.onnx import load_onnx

    return load_onnx(path, custom_ops)
