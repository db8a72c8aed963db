"""Weights by content: what is the same, what is not, and what is remembered."""

from __future__ import annotations

import itertools
import json
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from tiny import call, model, payload, tensor, tiny

from farm.canonical import SCHEMA, encode
from farm.errors import BadProgram
from farm.programs import memory as memory_module
from farm.programs import open_program
from farm.programs.identity import FileIdentity
from farm.programs.memory import is_remote
from farm.programs.strided import extent, is_contiguous, rows_in_order
from farm.programs.weights import (
    BytesContent,
    FileContent,
    StoredTensor,
    WeightsMemory,
    kind_of,
    open_files,
    tensor_digest,
)


def gathered(data: bytes, shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> bytes:
    """Rows in order, one element at a time: the definition."""
    found = []
    for index in itertools.product(*map(range, shape)):
        at = sum(i * stride for i, stride in zip(index, strides, strict=True)) * size
        found.append(data[at : at + size])
    return b"".join(found)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(st.lists(st.integers(1, 5), min_size=0, max_size=4))
    if draw(st.booleans()):
        order = draw(st.permutations(range(len(shape))))
        strides, step = [0] * len(shape), draw(st.integers(1, 2))
        for axis in order:
            strides[axis] = step
            step *= shape[axis]
    else:
        strides = [draw(st.integers(0, 7)) for _ in shape]
    return tuple(shape), tuple(strides)


@given(layouts(), st.sampled_from([1, 2, 4, 8, 16]))
def test_rows_come_in_order_whatever_the_strides(layout: Any, size: int) -> None:
    shape, strides = layout
    data = random.Random(1).randbytes(max(1, extent(shape, strides)) * size)
    with memoryview(data) as view:
        assert b"".join(rows_in_order(view, shape, strides, size)) == gathered(data, shape, strides, size)


def test_large_tensors_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from farm.programs import strided

    monkeypatch.setattr(strided, "_PIECE", 64)
    for shape, strides in (((40, 30), (1, 40)), ((7, 9, 11), (99, 1, 9)), ((1000,), (2,)), ((3, 500), (0, 1))):
        data = random.Random(2).randbytes(extent(shape, strides) * 4)
        with memoryview(data) as view:
            pieces = list(rows_in_order(view, shape, strides, 4))
        assert len(pieces) > 1
        assert b"".join(pieces) == gathered(data, shape, strides, 4)


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((2, 3), (3, 1), True),
        ((2, 3), (1, 2), False),
        ((1, 3), (99, 1), True),
        ((2, 1), (1, 7), True),
        ((), (), True),
        ((2, 3), (4, 1), False),
        ((2,), (0,), False),
    ],
)
def test_is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], expected: bool) -> None:
    assert is_contiguous(shape, strides) is expected


def stored(content: Any, dtype: str = "float32", shape: tuple[int, ...] = (4,)) -> str:
    with open_files() as files:
        return tensor_digest(StoredTensor("t", dtype, shape, "weight", content), files)


def test_a_tensor_s_digest_is_its_dtype_shape_and_content(tmp_path: Path) -> None:
    data = struct.pack("<4f", 1, 2, 3, 4)
    (tmp_path / "w").write_bytes(b"padding!" + data)
    identity = FileIdentity.of((tmp_path / "w").stat())
    same = {
        stored(BytesContent(data)),
        stored(FileContent(tmp_path / "w", identity, 8, 16)),
        stored(FileContent(tmp_path / "w", identity, 8, 16, (1,), (4,), 4)),
    }
    assert len(same) == 1
    others = {
        stored(BytesContent(data), "int32"),
        stored(BytesContent(data), shape=(2, 2)),
        stored(BytesContent(data[::-1])),
        stored(BytesContent(struct.pack("<4f", 1, 2, 3, -0.0))),
        stored(BytesContent(struct.pack("<4f", 1, 2, 3, 0.0))),
    }
    assert len(others | same) == 6


def test_large_content_is_hashed_as_small_content_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from farm.programs import weights

    data = random.Random(3).randbytes(5 << 20)
    (tmp_path / "w").write_bytes(data)
    content = FileContent(tmp_path / "w", FileIdentity.of((tmp_path / "w").stat()), 0, len(data))
    whole = stored(content, "uint8", (len(data),))
    monkeypatch.setattr(weights, "_CHUNK", 1 << 16)
    assert stored(content, "uint8", (len(data),)) == whole == stored(BytesContent(data), "uint8", (len(data),))


def test_digests_are_blake3_over_the_declared_encoding() -> None:
    """So that another program can compute them."""
    data = struct.pack("<2f", 1, 2)
    header = encode(["farm tensor", SCHEMA, "float32", [2]])
    assert stored(BytesContent(data), shape=(2,)) == "b3:" + blake3(header + data).hexdigest()


@pytest.mark.parametrize(
    ("dtype", "shape", "lasting", "kind"),
    [
        ("float32", (2,), True, "weight"),
        ("bfloat16", (3, 4), True, "weight"),
        ("float8_e4m3fn", (3, 4), True, "weight"),
        ("float32", (2,), False, "constant"),
        ("float32", (), True, "constant"),
        ("float32", (1, 1), True, "constant"),
        ("int64", (8,), True, "constant"),
        ("int8", (8,), True, "constant"),
        ("bool", (8,), True, "constant"),
    ],
)
def test_which_tensors_a_refit_may_replace(dtype: str, shape: tuple[int, ...], lasting: bool, kind: str) -> None:
    assert kind_of(dtype, shape, lasting) == kind


# Programs


def two_weights(path: Path, first: Any, second: Any, **more: bytes) -> Any:
    """x * a + b, where a and b are described by payloads."""
    nodes = [call("torch.ops.aten.mul.Tensor", "m", "x", "a"), call("torch.ops.aten.add.Tensor", "y", "m", "b")]
    graph = {"inputs": [{"as_tensor": {"name": name}} for name in ("a", "b", "x")]}
    specs = [
        *({"parameter": {"arg": {"name": name}, "parameter_name": f"layer.{name}"}} for name in ("a", "b")),
        {"user_input": {"arg": {"as_tensor": {"name": "x"}}}},
    ]
    shape = first["tensor_meta"]["sizes"]
    values = {name: tensor(*[one["as_int"] for one in shape]) for name in ("a", "b")}
    content = model(nodes, graph=graph, signature={"input_specs": specs}, values=values)
    config = {"config": {"layer.a": first, "layer.b": second}}
    return open_program(
        tiny(path, content, **{"data/weights/model_weights_config.json": json.dumps(config).encode(), **more})
    )


def test_tied_weights_are_seen_once(tmp_path: Path) -> None:
    data = {"data/weights/weight_0": struct.pack("<3f", 1, 2, 3), "data/weights/weight_1": struct.pack("<3f", 1, 2, 3)}
    one, two = payload("weight_0", tensor(3)), payload("weight_1", tensor(3))
    tied, untied = (two_weights(tmp_path / "a.pt2", one, other, **data) for other in (one, two))
    assert (len(tied.weights), len(untied.weights)) == (1, 2)
    assert tied.structure_digest != untied.structure_digest


def test_views_of_one_storage_are_two_weights(tmp_path: Path) -> None:
    data = {"data/weights/weight_0": struct.pack("<6f", *range(6))}
    late = tensor(3) | {"storage_offset": {"as_int": 3}}
    program = two_weights(tmp_path / "a.pt2", payload("weight_0", tensor(3)), payload("weight_0", late), **data)
    apart = {"data/weights/weight_0": struct.pack("<3f", 0, 1, 2), "data/weights/weight_1": struct.pack("<3f", 3, 4, 5)}
    other = two_weights(tmp_path / "b.pt2", payload("weight_0", tensor(3)), payload("weight_1", tensor(3)), **apart)
    assert program.weights.content_digest() == other.weights.content_digest()
    assert program.structure_digest == other.structure_digest


def test_the_layout_of_a_weight_is_no_part_of_it(tmp_path: Path) -> None:
    rows, columns = struct.pack("<6f", *range(6)), struct.pack("<6f", 0, 3, 1, 4, 2, 5)
    flat = two_weights(
        tmp_path / "a.pt2",
        payload("weight_0", tensor(2, 3)),
        payload("weight_0", tensor(2, 3)),
        **{"data/weights/weight_0": rows},
    )
    turned = tensor(2, 3, strides=[1, 2])
    other = two_weights(
        tmp_path / "b.pt2",
        payload("weight_0", turned),
        payload("weight_0", turned),
        **{"data/weights/weight_0": columns},
    )
    assert flat.weights.content_digest() == other.weights.content_digest()


# What is remembered


@pytest.fixture
def later() -> Iterator[list[int]]:
    """A clock that says it is ten seconds later than it is, plus whatever is added."""
    yield [10_000_000_000]


def remembering(folder: Path, later: list[int]) -> WeightsMemory:
    import time

    return WeightsMemory(folder, clock_ns=lambda: time.time_ns() + later[0])


def facts(program: Any) -> Any:
    return (
        program.graph_digest,
        program.weights.content_digest(),
        program.weights.metadata_digest(),
        program.inputs,
        program.outputs,
        program.symbols,
        program.operators,
        program.node_count,
        program.weights.tensors(),
        program.match_nodes([".*"]),
        program.nodes(),
    )


def test_a_second_look_reads_nothing(tmp_path: Path, later: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny(tmp_path / "a.pt2")
    expected = facts(open_program(path, memory=remembering(tmp_path / "memory", later)))
    from farm.programs import opening

    monkeypatch.setattr(opening, "_opened", lambda *_: pytest.fail("the file was read again"))
    program = open_program(path, memory=remembering(tmp_path / "memory", later))
    with monkeypatch.context() as patch:
        patch.setattr("farm.programs.weights.open_regular", lambda *_: pytest.fail("the weights were read again"))
        assert program.weights.content_digest() == expected[1]
        assert program.graph_digest == expected[0]
    assert facts(program) == expected


def test_weights_not_yet_hashed_are_hashed_later(tmp_path: Path, later: list[int]) -> None:
    path = tiny(tmp_path / "a.pt2")
    memory = remembering(tmp_path / "memory", later)
    open_program(path, memory=memory)
    program = open_program(path, memory=memory)
    assert program.weights.known_digests() == (None,)
    expected = open_program(path).weights.content_digest()
    assert program.weights.content_digest() == expected
    assert open_program(path, memory=memory).weights.known_digests() != (None,)


def test_a_changed_file_is_read_again(tmp_path: Path, later: list[int]) -> None:
    path, memory = tiny(tmp_path / "a.pt2"), remembering(tmp_path / "memory", later)
    before = open_program(path, memory=memory).weights.content_digest()
    tiny(path, **{"data/weights/weight_0": bytes(12)})
    assert open_program(path, memory=memory).weights.content_digest() != before


def test_a_change_that_keeps_size_and_mtime_is_noticed(tmp_path: Path, later: list[int]) -> None:
    """ctime cannot be set back."""
    path, memory = tiny(tmp_path / "a.pt2"), remembering(tmp_path / "memory", later)
    before, status = open_program(path, memory=memory).weights.content_digest(), path.stat()
    tiny(path, **{"data/weights/weight_0": bytes(12)})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert open_program(path, memory=memory).weights.content_digest() != before


@pytest.mark.parametrize("offset", [0, 1_000_000_000, -60_000_000_000])
def test_recent_files_and_files_of_the_future_are_distrusted(tmp_path: Path, offset: int) -> None:
    memory = remembering(tmp_path / "memory", [offset])
    open_program(tiny(tmp_path / "a.pt2"), memory=memory)
    assert not (tmp_path / "memory").exists()


def test_network_file_systems_are_distrusted(tmp_path: Path, later: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "is_remote", lambda device: True)
    open_program(tiny(tmp_path / "a.pt2"), memory=remembering(tmp_path / "memory", later))
    assert not (tmp_path / "memory").exists()


def test_file_systems_are_told_by_the_mount_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = (
        "21 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n"
        "22 21 0:50 / /mnt/nfs rw - nfs4 host:/x rw\n"
        "23 21 0:51 / /mnt/s3 rw shared:2 master:1 - fuse.s3fs s3fs rw\n"
        "24 21 0:52 / /mnt/win rw - cifs //host/x rw\n"
    )
    (tmp_path / "mountinfo").write_text(table)
    monkeypatch.setattr(memory_module, "_MOUNTS", tmp_path / "mountinfo")
    assert not is_remote(os.makedev(8, 1))
    assert all(is_remote(os.makedev(0, minor)) for minor in (50, 51, 52, 99))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"files": [], "content": {}}', b"\xff\xfe"])
def test_a_damaged_memory_is_forgotten(tmp_path: Path, later: list[int], damage: bytes) -> None:
    path, memory = tiny(tmp_path / "a.pt2"), remembering(tmp_path / "memory", later)
    expected = facts(open_program(path, memory=memory))
    for document in (tmp_path / "memory").iterdir():
        document.write_bytes(damage)
    assert facts(open_program(path, memory=memory)) == expected


def test_an_unwritable_memory_is_no_error(tmp_path: Path, later: list[int]) -> None:
    (tmp_path / "memory").write_text("a file, not a folder")
    program = open_program(tiny(tmp_path / "a.pt2"), memory=remembering(tmp_path / "memory", later))
    assert program.weights.content_digest()


def test_declared_operators_are_part_of_what_is_remembered(tmp_path: Path, later: list[int]) -> None:
    node = call("torch.ops.mine.op.default", "y", "x")
    path, memory = tiny(tmp_path / "a.pt2", model([node])), remembering(tmp_path / "memory", later)
    digests = {
        open_program(path, custom_ops={"mine::op": "sha256:" + one * 64}, memory=memory).structure_digest
        for one in "abab"
    }
    assert len(digests) == 2
    with pytest.raises(BadProgram):
        open_program(path, memory=memory)


def test_the_memory_is_bounded(tmp_path: Path, later: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "KEPT", 4)
    for number in range(9):
        open_program(tiny(tmp_path / f"{number}.pt2"), memory=remembering(tmp_path / "memory", later))
    assert len(list((tmp_path / "memory").iterdir())) == 4


def test_other_code_does_not_believe_it(tmp_path: Path, later: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    path, memory = tiny(tmp_path / "a.pt2"), remembering(tmp_path / "memory", later)
    open_program(path, memory=memory)
    monkeypatch.setattr(memory_module, "code_identity", lambda: "another")
    identity = FileIdentity.of(path.stat())
    assert memory.recall(path, [str(path), []]) is None
    assert identity.size == path.stat().st_size
