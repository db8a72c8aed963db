"""Open a ``.pt2``: its members checked, its tensors located, its graph made canonical."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from farm.errors import BadProgram
from farm.graph import Graph, Node, canonicalise
from farm.programs import schema
from farm.programs.archive import Archive, Member
from farm.programs.describe import describe_node
from farm.programs.identity import FileIdentity
from farm.programs.program import Loaded, Program, build_program
from farm.programs.pt2 import Pt2Graph
from farm.programs.pt2_values import bad, tagged
from farm.programs.strided import extent, is_contiguous
from farm.programs.values_read import weights_of
from farm.programs.weights import (
    ITEM_SIZES,
    BytesContent,
    Content,
    FileContent,
    StoredTensor,
    Unreadable,
    element_count,
    kind_of,
)

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
MAX_EXPANDED = 1 << 31
"""Elements of a tensor that repeats its data (a stride of 0), so that a few bytes cannot claim to be terabytes."""
_HINT = "Save the program with torch.export.save(torch.export.export(model, args), 'name.pt2')."


def open_pt2(path: Path, custom_ops: Mapping[str, str] | None) -> tuple[Program, FileIdentity]:
    """The program at ``path`` and the identity of the file that was read. ``BadProgram`` says what is wrong."""
    with Archive(path) as archive:
        identity = FileIdentity.of(archive.stat())
        loaded, tensors = _load(archive, identity, custom_ops)
        if FileIdentity.of(archive.stat()) != identity:
            raise BadProgram(f"{path} changed while it was read", "Ask again once the file is complete.")
    weights = weights_of(tensors, loaded.graph, loaded.canonical)
    return build_program(path, "pt2", loaded, weights), identity


def load_pt2(path: Path, custom_ops: Mapping[str, str] | None) -> Loaded:
    """The graph of a program that was opened before, for its nodes."""
    with Archive(path) as archive:
        return _load(archive, FileIdentity.of(archive.stat()), custom_ops)[0]


def _load(
    archive: Archive, identity: FileIdentity, custom_ops: Mapping[str, str] | None
) -> tuple[Loaded, list[StoredTensor]]:
    _check_kind(archive)
    model = schema.decode(archive.read(MODEL), schema.Model, f"{archive.path}: {MODEL}")
    if model.schema_version.major != schema.SCHEMA_MAJOR:
        raise BadProgram(
            f"{archive.path}: its schema is version {model.schema_version.major}"
            f" (torch {model.torch_version or 'unknown'}), farm reads {schema.SCHEMA_MAJOR}",
            "Save it again with torch 2.10 to 2.13.",
        )
    with _odd_json():
        reader = _Tensors(archive, identity, _lasting(model))
        numbers, tensors = reader.read()
        graph = Pt2Graph(model, numbers, custom_ops).read()
        graph.storages = reader.storages
        _check_tensors(graph, tensors)
    return Loaded(graph, canonicalise(graph), _describe), tensors


@contextmanager
def _odd_json() -> Iterator[None]:
    """Whatever an odd JSON trips over is the program's fault."""
    try:
        yield
    except (*schema.NOT_JSON, KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise bad(f"{type(error).__name__} at {error}") from None
    except RecursionError:
        raise bad("it is nested too deeply") from None


def _check_kind(archive: Archive) -> None:
    members = archive.members
    if MODEL in members and "archive_format" in members:
        return _check_format(archive)
    if "serialized_exported_program.json" in members:
        why, hint = "it was saved by torch 2.7 or older", "Load it there and save it again with torch 2.10 to 2.13."
    elif "constants.pkl" in members:
        why, hint = "it is a TorchScript archive, not an exported program", _HINT
    elif any(name.rpartition("/")[2] == "data.pkl" for name in members):
        why, hint = "it is a torch.save checkpoint, not an exported program", _HINT
    elif any(name.startswith("data/aotinductor/") for name in members):
        why, hint = "it holds compiled code only (AOTInductor), no program", _HINT
    else:
        why, hint = "it is a zip without models/model.json, so no exported program", _HINT
    raise BadProgram(f"{archive.path}: {why}", hint)


def _check_format(archive: Archive) -> None:
    if archive.read("archive_format") != b"pt2":
        raise BadProgram(f"{archive.path}: its archive_format is not pt2", _HINT)
    order = archive.members.get("byteorder")
    if order is not None and archive.read("byteorder") != b"little":
        raise BadProgram(f"{archive.path}: its numbers are not little-endian", "Save it on a little-endian machine.")
    if "data/weights/model.pt" in archive.members or "data/constants/model.pt" in archive.members:
        raise BadProgram(
            f"{archive.path}: its weights are pickled (torch 2.8 or 2.9), and farm reads no pickle",
            "Load it there and save it again with torch 2.10 to 2.13.",
        )


def _lasting(model: schema.Model) -> frozenset[str]:
    """Names of parameters and of buffers that are saved with a state dict."""
    found = set()
    for spec in model.graph_module.signature.input_specs:
        kind, content = tagged(spec)
        if kind == "parameter":
            found.add(content.get("parameter_name"))
        elif kind == "buffer" and content.get("persistent") is True:
            found.add(content.get("buffer_name"))
    return frozenset(name for name in found if isinstance(name, str))


class _Tensors:
    """Numbers for the names in the archive's two tables; names of one tensor get one number."""

    def __init__(self, archive: Archive, identity: FileIdentity, lasting: frozenset[str]) -> None:
        self.archive, self.identity, self.lasting = archive, identity, lasting
        self.numbers: dict[str, int] = {}
        self.tensors: list[StoredTensor] = []
        self.storages: dict[int, tuple[tuple[str, str], tuple[int, ...]]] = {}
        """Which file a tensor lies in, and at which byte offset and strides, unless it is empty or pickled."""
        self._known: dict[tuple[object, ...], int] = {}

    def read(self) -> tuple[dict[str, int], list[StoredTensor]]:
        for table, folder in ((WEIGHTS, "data/weights/"), (CONSTANTS, "data/constants/")):
            if table in self.archive.members:
                what = f"{self.archive.path}: {table}"
                config = schema.decode(self.archive.read(table), schema.PayloadConfig, what).config
                for name, payload in config.items():
                    self._add(name, payload, folder)
        return self.numbers, self.tensors

    def _add(self, name: str, payload: schema.PayloadMeta, folder: str) -> None:
        if name in self.numbers:
            raise bad(f"{name} is both a weight and a constant")
        meta = payload.tensor_meta
        if meta is None:
            return
        dtype = schema.DTYPES.get(meta.dtype, "")
        if not dtype:
            raise bad(f"the dtype {meta.dtype} of {name} is unknown")
        shape = tuple([size.as_int for size in meta.sizes])
        strides = tuple([size.as_int for size in meta.strides])
        offset = meta.storage_offset.as_int
        if len(strides) != len(shape) or min((offset, *shape, *strides)) < 0:
            raise bad(f"the sizes and strides of {name} do not fit")
        if 0 in strides and element_count(shape) > MAX_EXPANDED:
            raise bad(f"{name} claims more elements than {MAX_EXPANDED:,} by repeating a few")
        kind = kind_of(dtype, shape, name in self.lasting)
        key: tuple[object, ...] = (payload.path_name, folder, dtype, shape, offset, _useful(shape, strides))
        if 0 in shape or payload.use_pickle:
            key = ("name", name) if payload.use_pickle else ("empty", dtype, shape)
        number = self._known.setdefault((*key, kind), len(self.tensors))
        self.numbers[name] = number
        if number == len(self.tensors):
            member = self.archive.members.get(folder + payload.path_name)
            content = self._content(name, payload, member, dtype, shape, strides, offset)
            self.tensors.append(StoredTensor(name, dtype, shape, kind, content))
            if 0 not in shape and not payload.use_pickle:
                self.storages[number] = (folder, payload.path_name), (offset * ITEM_SIZES[dtype], *strides)

    def _content(
        self,
        name: str,
        payload: schema.PayloadMeta,
        member: Member | None,
        dtype: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int,
    ) -> Content:
        where = f"{self.archive.path}: {name}"
        if payload.use_pickle:
            return Unreadable(f"{where} is a tensor subclass, saved as a pickle, and farm reads no pickle")
        if 0 in shape:
            return BytesContent(b"")
        if member is None:
            raise bad(f"the archive holds no data for {name}")
        if member.size == 0:
            return Unreadable(f"{where} was saved without its values (exported from fake tensors)")
        item = ITEM_SIZES[dtype]
        if (offset + extent(shape, strides)) * item > member.size:
            raise bad(f"{name} reaches beyond its data")
        start = member.start + offset * item
        size = extent(shape, strides) * item
        if is_contiguous(shape, strides):
            return FileContent(self.archive.path, self.identity, start, size)
        return FileContent(self.archive.path, self.identity, start, size, strides, shape, item)


def _useful(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(stride for size, stride in zip(shape, strides, strict=True) if size != 1)


def _check_tensors(graph: Graph, tensors: list[StoredTensor]) -> None:
    """What the graph says of a lifted tensor must be what its data is."""
    for node, number in graph.leaves.items():
        (meta,) = graph.nodes[node].metas
        if meta.dtype != tensors[number].dtype or meta.dims != tensors[number].shape:
            raise bad(f"{tensors[number].name} is not what the graph takes it for")


def _describe(node: Node) -> tuple[str, str]:
    return describe_node(node.source) if isinstance(node.source, schema.Node) else ("", "")
