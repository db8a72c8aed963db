"""Sanitising: what is written, and which files are refused as a whole. Hand-made archives, without torch."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hostile.forge import CONSTANTS, MODEL, SAMPLE, WEIGHTS, write
from hostile.handmade import Bench, call, graph_of, members, model, named, payload, tensor

from farm.programs import sanitise_zip
from farm.programs.archive import Archive
from farm.programs.sanitise import sanitise_pt2
from farm.programs.sanitise_zip import StoredZip


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# What comes out


def test_only_what_torch_needs_is_written(bench: Bench) -> None:
    extra = {"extra/notes.txt": b"hello", "data/aotinductor/model/a.so": b"ELF", "models/other.json": b"{}"}
    extra |= {"data/weights/weight_1": b"unused", ".data/serialization_id": b"1", "data/mtia/x": b"?"}
    made = bench.sanitise(members() | extra)
    needed = {".data/version", "archive_format", "archive_version", "byteorder", MODEL, WEIGHTS, CONSTANTS, SAMPLE}
    assert set(made) == needed | {"data/weights/weight_0"}
    assert made[SAMPLE] == b""
    assert made["data/weights/weight_0"] == bytes(range(24))


def test_the_program_itself_is_kept(bench: Bench) -> None:
    made = bench.model(lambda content: None)
    expected = model()
    expected["graph_module"]["graph"]["nodes"][0]["metadata"].pop("torch_fn")
    expected["schema_version"]["minor"] = 0
    assert made == expected


def test_the_result_does_not_depend_on_the_file_names(bench: Bench, tmp_path: Path) -> None:
    bench.sanitise()
    write(tmp_path / "b.pt2", members(), root="b")
    sanitise_pt2(tmp_path / "b.pt2", tmp_path / "elsewhere.pt2")
    assert (tmp_path / "elsewhere.pt2").read_bytes() == bench.safe.read_bytes()


def test_members_are_aligned_as_torch_aligns_them(bench: Bench) -> None:
    bench.sanitise()
    with Archive(bench.safe) as archive:
        assert archive.root == "program"
        assert all(member.start % 64 == 0 for member in archive.members.values())


def test_data_larger_than_the_buffer_passes_unchanged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitise_zip, "_BUFFER", 1000)
    data = os.urandom(24_000)
    table = {"config": {"w": payload(tensor_meta=tensor(2000, 3))}}
    made = bench.sanitise(members(weights=table) | {"data/weights/weight_0": data})
    assert made["data/weights/weight_0"] == data


def test_an_existing_file_is_not_overwritten(bench: Bench) -> None:
    bench.safe.write_text("mine")
    write(bench.source, members())
    with pytest.raises(FileExistsError):
        sanitise_pt2(bench.source, bench.safe)
    assert bench.safe.read_text() == "mine"


def test_unknown_fields_and_code_are_left_behind(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        content["guards_code"] = ["evil()"]
        content["surprise"] = content["graph_module"]["surprise"] = {"evil": True}
        content["graph_module"]["metadata"] = {"custom": "[[[["}
        content["graph_module"]["treespec_namedtuple_fields"] = {"evil": {"field_names": ["evil"]}}
        node = graph_of(content)["nodes"][0]
        node["surprise"] = "evil"
        node["metadata"] |= {"source_fn_stack": "a,torch.evil", "from_node": "evil", "custom": "evil"}
        graph_of(content)["tensor_values"]["x"]["surprise"] = "evil"

    made = bench.model(change)
    assert "evil" not in json.dumps(made)
    assert made["guards_code"] == []


def test_traces_are_kept_and_unreadable_module_stacks_dropped(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        nodes = graph_of(content)["nodes"]
        nodes[0]["metadata"] = {
            "stack_trace": 'File "m.py", line 1',
            "nn_module_stack": "L__self__,,m.A;a,b,f[c,(d,e)]",
        }
        nodes.append(call("torch.ops.aten.relu.default", "relu", self=named("add")))
        nodes[1]["metadata"] = {"stack_trace": 3, "nn_module_stack": "one,two"}

    first, second = graph_of(bench.model(change))["nodes"]
    assert first["metadata"] == {
        "stack_trace": 'File "m.py", line 1',
        "nn_module_stack": "L__self__,,m.A;a,b,f[c,(d,e)]",
    }
    assert second["metadata"] == {}


def test_a_file_that_names_no_verifier_gets_torchs_own(bench: Bench) -> None:
    assert bench.model(lambda content: content.update(verifiers=[]))["verifiers"] == ["TRAINING"]


def test_every_tensor_comes_to_the_cpu(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        graph_of(content)["tensor_values"]["x"]["device"] = {"type": "cuda", "index": 3}
        graph_of(content)["nodes"][0] = call(
            "torch.ops.aten.to.device", "add", self=named("x"), device={"as_device": {"type": "cuda", "index": None}}
        )

    made = graph_of(bench.model(change))
    assert made["tensor_values"]["x"]["device"] == {"type": "cpu", "index": None}
    assert made["nodes"][0]["inputs"][1]["arg"] == {"as_device": {"type": "cpu", "index": None}}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (payload(use_pickle=True), "pickle"),
        (payload(tensor_meta=None), "pickle"),
        (payload(path_name="opaque_obj_0"), "unpickle"),
        (payload(path_name="custom_obj_0"), "unpickle"),
        (payload(path_name="../../models/model.json"), "unpickle"),
        (payload(path_name="weight_0\n"), "unpickle"),
        (payload(path_name="weight_7"), "no member"),
        (payload(tensor_meta=tensor(2, 4)), "beyond"),
        (payload(tensor_meta=tensor(2, 3, dtype=8)), "beyond"),
        (payload(tensor_meta=tensor(2, 3, storage_offset={"as_int": 1})), "beyond"),
        (payload(tensor_meta=tensor(2, 3, storage_offset={"as_int": -1})), "negative"),
        (payload(tensor_meta=tensor(2, 3, strides=[{"as_int": -3}, {"as_int": 1}])), "negative"),
        (payload(tensor_meta=tensor(2, 3, strides=[{"as_int": 1 << 62}, {"as_int": 1}])), "beyond"),
        (payload(tensor_meta=tensor(2, 3, strides=[{"as_int": 1}])), "strides"),
        (payload(tensor_meta=tensor(1 << 40, 1 << 20, strides=[{"as_int": 0}, {"as_int": 0}])), "spread"),
        (payload(tensor_meta=tensor(-2, 3)), "negative"),
        (payload(tensor_meta=tensor(2, 3, dtype=0)), "known kinds"),
    ],
)
def test_tables_of_weights(bench: Bench, entry: dict[str, Any], why: str) -> None:
    assert why in bench.refuses(weights={"config": {"w": entry}})


def test_weights_without_values(bench: Bench) -> None:
    """Torch would take zeros for them."""
    assert "without its values" in bench.refuses(members() | {"data/weights/weight_0": b""})


def test_one_datum_read_as_two_types(bench: Bench) -> None:
    """Torch reads it as the first entry says: the graph's digest and torch would not mean the same program."""
    table = {"config": {"w": payload(), "v": payload(tensor_meta=tensor(2, 3, dtype=4))}}
    assert "another type" in bench.refuses(weights=table)


def test_empty_and_expanded_tensors_are_fine(bench: Bench) -> None:
    expanded = payload(tensor_meta=tensor(100, 6, strides=[{"as_int": 0}, {"as_int": 1}]))
    table = {"config": {"w": payload(), "e": payload(path_name="weight_1", tensor_meta=tensor(0, 5)), "v": expanded}}
    made = bench.sanitise(members(weights=table) | {"data/weights/weight_1": b""})
    assert made["data/weights/weight_1"] == b""


# Files that are no archives of ours


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"data/weights/model.pt": b"pickle"}, "pickle"),
        ({"data/constants/model.pt": b"pickle"}, "pickle"),
        ({"byteorder": b"big"}, "little-endian"),
        ({"archive_format": b"pt3"}, "torch.export.save"),
        ({"archive_version": b"1"}, "torch.export.save"),
        ({MODEL: b'{"graph_module": {"graph": ' + b"[" * 200_000}, "model.json"),
        ({MODEL: b'{"graph_module": 5}'}, "not what torch.export writes"),
        ({MODEL: b"\xff\xfe{}"}, "not what torch.export writes"),
        ({MODEL: b""}, "not what torch.export writes"),
        ({MODEL: b"NaN"}, "not what torch.export writes"),
        ({WEIGHTS: b"{}"}, "not what torch.export writes"),
    ],
)
def test_members_of_another_kind(bench: Bench, changed: dict[str, bytes], why: str) -> None:
    assert why in bench.refuses(members() | changed)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, CONSTANTS, "archive_format", "archive_version"])
def test_missing_members(bench: Bench, name: str) -> None:
    assert name in bench.refuses({other: content for other, content in members().items() if other != name})


def test_another_major_version_of_the_schema(bench: Bench) -> None:
    for major in (0, 7, 9):
        message = bench.refuses_model(lambda content, major=major: content.update(schema_version={"major": major}))
        assert f"version {major}" in message


def test_deep_nesting_inside_a_string_argument(bench: Bench) -> None:
    argument: dict[str, Any] = {"as_int": 1}
    for _ in range(300):
        argument = {"as_string_to_argument": {"a": argument}}

    def change(content: dict[str, Any]) -> None:
        graph_of(content)["nodes"][0]["inputs"][0]["arg"] = argument

    bench.refuses_model(change)


def test_deeply_nested_graphs(bench: Bench) -> None:
    def change(content: dict[str, Any]) -> None:
        for _ in range(40):
            inner = copy.deepcopy(graph_of(content))
            node = call("torch.ops.higher_order.wrap", "add")
            node["inputs"] = [{"name": "", "arg": {"as_graph": {"name": "inner", "graph": inner}}, "kind": 1}]
            graph_of(content)["nodes"] = [node]

    assert "nested" in bench.refuses_model(change)


def test_compressed_members(bench: Bench) -> None:
    with zipfile.ZipFile(bench.source, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members().items():
            archive.writestr(f"a/{name}", content + b"\0" * 1_000_000)
    assert "compressed" in bench.refuses_file()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(bench: Bench) -> None:
    with zipfile.ZipFile(bench.source, "w") as archive:
        for name, content in [*members().items(), (MODEL, b"{}")]:
            archive.writestr(f"a/{name}", content)
    assert "two members" in bench.refuses_file()


def test_names_that_lead_out_of_the_archive(bench: Bench) -> None:
    assert "leads out" in bench.refuses(members() | {"../../etc/passwd": b"x"})


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + b"\0" * 18, b"\x80\x02}q\0."])
def test_files_that_are_no_zip(bench: Bench, content: bytes) -> None:
    bench.source.write_bytes(content)
    bench.refuses_file()


def test_truncated_archives(bench: Bench) -> None:
    write(bench.source, members())
    whole = bench.source.read_bytes()
    for size in range(0, len(whole), 97):
        bench.source.write_bytes(whole[:size])
        bench.refuses_file()


def test_what_is_no_file(bench: Bench) -> None:
    bench.refuses_file()
    bench.source.mkdir()
    assert "folder" in bench.refuses_file()
    bench.source.rmdir()
    os.mkfifo(bench.source)
    assert "not a regular file" in bench.refuses_file()


def test_a_full_disk_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write(bench.source, members())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StoredZip, "add", fail)
    with pytest.raises(OSError, match="No space left"):
        sanitise_pt2(bench.source, bench.safe)
    assert not bench.safe.exists()


_BOUNDED = """
import resource, sys
from pathlib import Path
from farm.errors import BadProgram
from farm.programs.sanitise import sanitise_pt2
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    sanitise_pt2(Path(sys.argv[1]), Path(sys.argv[1] + ".safe"))
except BadProgram as error:
    print(error.message)
"""


HUGE = {
    "many values": (b'{"graph_module": {"graph": {"inputs": [' + b"{}," * 5_000_000 + b"{}]}}}", "too large"),
    "some values": (b'{"graph_module": {"graph": {"inputs": [' + b"{}," * 2_000_000 + b"{}]}}}", "torch.export"),
    "many nodes": (
        b'{"graph_module": {"graph": {"nodes": [' + b'{"target":""},' * 300_000 + b"{}]}}}",
        "300,000 nodes",
    ),
    "deep": (b'{"graph_module": {"graph":' + b'{"a":' * 3_000_000, "model.json"),
}


@pytest.mark.parametrize(("content", "why"), HUGE.values(), ids=HUGE)
def test_huge_json_ends_within_bounded_memory(bench: Bench, content: bytes, why: str) -> None:
    write(bench.source, members() | {MODEL: content})
    command = [sys.executable, "-c", _BOUNDED, bench.source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert why in done.stdout
