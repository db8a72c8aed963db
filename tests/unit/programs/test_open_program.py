"""Opening programs: what is read of a good file, and one clear line for a bad one."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import WEIGHT, call, members, model, named, payload, tensor, tiny, write

from farm.errors import BadProgram
from farm.programs import TensorSpec, open_program


def refused(path: Path, **more: Any) -> str:
    with pytest.raises(BadProgram) as caught:
        program = open_program(path, **more)
        program.weights.content_digest()
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 600
    return caught.value.message


def test_a_program_is_described(tmp_path: Path) -> None:
    program = open_program(tiny(tmp_path / "a.pt2"))
    assert program.format == "pt2"
    assert program.inputs == (TensorSpec("x", "float32", (2, 3), 0),)
    assert program.outputs == (TensorSpec("y", "float32", (2, 3), 0),)
    assert (program.symbols, program.mutations, program.mutates, program.uses_float64) == ({}, (), False, False)
    assert (program.node_count, program.operators) == (1, frozenset({"aten.mul.Tensor"}))
    (weight,) = program.weights.tensors()
    assert (weight.name, weight.dtype, weight.shape, weight.kind) == ("layer.w", "float32", (3,), "weight")
    for digest in (program.graph_digest, program.structure_digest, program.weights.metadata_digest()):
        assert digest.startswith("sha256:") and len(digest) == 71
    assert program.weights.content_digest().startswith("b3:")
    assert program.content_digest().startswith("sha256:")


def test_the_file_s_name_and_root_folder_are_no_part_of_it(tmp_path: Path) -> None:
    one = open_program(write(tmp_path / "one.pt2", members(), root="one/"))
    other = open_program(write(tmp_path / "other.zip", members(), root="other/"))
    assert (one.graph_digest, one.weights.content_digest()) == (other.graph_digest, other.weights.content_digest())
    assert one.content_digest() != other.content_digest()


def test_symbols_and_ranges(tmp_path: Path) -> None:
    values = {"x": tensor("s77", 3), "y": tensor("s77", 3)}
    content = model(values=values, range_constraints={"s77": {"min_val": 2, "max_val": 8}})
    program = open_program(tiny(tmp_path / "a.pt2", content))
    assert program.inputs[0].shape == ("s0", 3)
    found = program.symbols["s0"]
    assert (found.minimum, found.maximum, found.name) == (2, 8, "s77")


def test_infinite_ranges_are_no_bounds(tmp_path: Path) -> None:
    values = {"x": tensor("s77", 3), "y": tensor("s77", 3)}
    digests = set()
    for high in (None, (1 << 63) - 1, (1 << 63) - 2):
        content = model(values=values, range_constraints={"s77": {"min_val": 2, "max_val": high}})
        digests.add(open_program(tiny(tmp_path / "a.pt2", content)).structure_digest)
    assert len(digests) == 1


def test_nodes_are_explained_with_the_model_s_own_line(tmp_path: Path) -> None:
    node = call("torch.ops.aten.mul.Tensor", "y", "x", "w")
    trace = (
        'File "/home/me/net.py", line 12, in forward\n  x\nFile "/x/site-packages/torch/nn/l.py", line 3, in forward'
    )
    node["metadata"] = {"stack_trace": trace}
    (found,) = open_program(tiny(tmp_path / "a.pt2", model([node]))).nodes()
    assert (found.op, found.name, found.source) == ("aten.mul.Tensor", "y", "/home/me/net.py:12")
    assert found.description == "self=x, other=w"


def test_metadata_of_nodes_is_no_part_of_the_digest(tmp_path: Path) -> None:
    node = call("torch.ops.aten.mul.Tensor", "y", "x", "w")
    plain = open_program(tiny(tmp_path / "a.pt2", model([dict(node)])))
    node["metadata"] = {"stack_trace": "elsewhere", "nn_module_stack": "L__self__,,other.Module"}
    assert open_program(tiny(tmp_path / "b.pt2", model([node]))).structure_digest == plain.structure_digest


def test_nodes_are_matched_by_name_and_known_by_content(tmp_path: Path) -> None:
    def program(first: str, second: str) -> Any:
        nodes = [call("torch.ops.aten.sin.default", first, "x"), call("torch.ops.aten.cos.default", second, first)]
        return open_program(tiny(tmp_path / "a.pt2", model(nodes, output=second)))

    one, other = program("norm_1", "y"), program("zzz", "y")
    assert one.match_nodes(["norm.*"]) == other.match_nodes(["zzz"])
    assert one.match_nodes(["norm.*"]) != one.match_nodes(["y"])
    assert one.match_nodes([".*"]) == tuple(sorted(one.match_nodes(["norm_1"]) + one.match_nodes(["y"])))
    assert one.match_nodes(["orm"]) == () == one.match_nodes([])
    assert one.match_nodes({"y", "norm.*"}) == one.match_nodes([".*"])


def test_equal_nodes_are_matched_one_by_one(tmp_path: Path) -> None:
    nodes = [call("torch.ops.aten.sin.default", "a", "x"), call("torch.ops.aten.sin.default", "b", "x")]
    nodes.append(call("torch.ops.aten.mul.Tensor", "y", "a", "b"))
    program = open_program(tiny(tmp_path / "a.pt2", model(nodes)))
    assert len({program.match_nodes(["a"]), program.match_nodes(["b"]), program.match_nodes(["a|b"])}) == 3


def test_dropped_calls_are_still_told_apart_by_name(tmp_path: Path) -> None:
    nodes = [call("torch.ops.aten.detach.default", "a", "x"), call("torch.ops.aten.sin.default", "y", "a")]
    program = open_program(tiny(tmp_path / "a.pt2", model(nodes)))
    assert program.match_nodes(["a"]) not in ((), program.match_nodes(["y"]))


def test_a_pattern_that_is_none_is_refused(tmp_path: Path) -> None:
    from farm.errors import BadInput

    with pytest.raises(BadInput, match="not a regular expression"):
        open_program(tiny(tmp_path / "a.pt2")).match_nodes(["("])


# Files that are no programs


def _text(path: Path) -> None:
    path.write_text("hello, I am a model\n")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": 1}, protocol=2))


def _checkpoint(path: Path) -> None:
    write(path, {"data.pkl": b"\x80\x02.", "version": b"3"}, root="archive/")


def _torchscript(path: Path) -> None:
    write(path, {"data.pkl": b"\x80\x02.", "constants.pkl": b"", "code/__torch__.py": b""}, root="m/")


def _old(path: Path) -> None:
    write(path, {"serialized_exported_program.json": b"{}", "version": b"5.1"}, root="")


def _other_zip(path: Path) -> None:
    write(path, {"README": b"hi"}, root="")


def _truncated(path: Path) -> None:
    data = tiny(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _compiled(path: Path) -> None:
    write(path, {"data/aotinductor/model/x.so": b"\x7fELF", "archive_format": b"pt2"})


def _engine(path: Path) -> None:
    path.write_bytes(b"vtrt" + bytes(60))


def _lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_text, "not a .pt2 archive"),
        (_empty, "empty"),
        (_pickle, "checkpoint"),
        (_checkpoint, "torch.save checkpoint, not an exported program"),
        (_torchscript, "TorchScript"),
        (_old, "torch 2.7 or older"),
        (_other_zip, "no exported program"),
        (_truncated, "truncated"),
        (_compiled, "compiled code"),
        (_engine, "engine already"),
        (_lfs, "Git LFS"),
    ],
)
def test_files_that_are_no_programs(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    make(tmp_path / "bad.pt2")
    assert says in refused(tmp_path / "bad.pt2")


def test_what_is_not_even_a_file(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.pt2")
    assert "a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt2")
    assert "not a regular file" in refused(tmp_path / "pipe.pt2")
    assert "not a regular file" in refused(Path("/dev/zero"))


def test_other_schema_versions_are_named(tmp_path: Path) -> None:
    content = model(schema_version={"major": 9, "minor": 1}, torch_version="3.0")
    assert "schema is version 9 (torch 3.0)" in refused(tiny(tmp_path / "a.pt2", content))


def test_pickled_weights_of_older_torch_are_refused(tmp_path: Path) -> None:
    path = tiny(tmp_path / "a.pt2", **{"data/weights/model.pt": b"\x80\x02."})
    assert "pickled" in refused(path)


def test_big_endian_archives_are_refused(tmp_path: Path) -> None:
    assert "little-endian" in refused(tiny(tmp_path / "a.pt2", byteorder=b"big"))


# Archives that lie


def _patched(path: Path, change: Callable[[bytearray], None]) -> Path:
    data = bytearray(tiny(path).read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.pt2", members(bomb=bytes(1 << 20)), method=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(path)


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members().items():
            archive.writestr("tiny/" + name, data)
        with pytest.warns(UserWarning):
            archive.writestr("tiny/models/model.json", b"{}")
    assert "two members" in refused(path)


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/../../b", "back\\slash", "nul\0"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("tiny/x")
        info.filename = name
        archive.writestr(info, b"x")
        for other, data in members().items():
            archive.writestr("tiny/" + other, data)
    (tmp_path / "a.pt2").write_bytes(buffer.getvalue())
    refused(tmp_path / "a.pt2")


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    """The quoted-overlap zip bomb: two directory entries, one body."""

    def overlap(data: bytearray) -> None:
        first = data.find(b"PK\x01\x02")
        second = data.find(b"PK\x01\x02", first + 4)
        data[second + 42 : second + 46] = data[first + 42 : first + 46]

    message = refused(_patched(tmp_path / "a.pt2", overlap))
    assert "not what the directory says" in message or "overlaps" in message


def test_sizes_beyond_the_file_are_refused(tmp_path: Path) -> None:
    def enlarge(data: bytearray) -> None:
        entry = data.find(b"PK\x01\x02")
        data[entry + 20 : entry + 28] = struct.pack("<II", 1 << 30, 1 << 30)

    refused(_patched(tmp_path / "a.pt2", enlarge))


def test_a_local_header_of_another_name_is_refused(tmp_path: Path) -> None:
    def rename(data: bytearray) -> None:
        data[30:40] = b"tiny/data/"[::-1]

    assert "not what the directory says" in refused(_patched(tmp_path / "a.pt2", rename))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = tiny(tmp_path / "a.pt2").read_bytes()
    for size in range(0, len(data), 97):
        (tmp_path / "cut.pt2").write_bytes(data[:size])
        refused(tmp_path / "cut.pt2")


def test_random_damage_never_ends_in_anything_else(tmp_path: Path) -> None:
    import random

    data, path = tiny(tmp_path / "a.pt2").read_bytes(), tmp_path / "b.pt2"
    draw = random.Random(7)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(draw.randint(1, 6)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            program = open_program(path)
            program.weights.content_digest(), program.graph_digest, program.nodes()
        except BadProgram:
            pass


# Programs that contradict themselves


def _json(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    content = model()
    change(content)
    return tiny(path, content)


def _graph(content: dict[str, Any]) -> dict[str, Any]:
    return content["graph_module"]["graph"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: _graph(m)["nodes"][0]["inputs"][0].update(arg=named("ghost")), "used before it is made"),
        (lambda m: _graph(m)["nodes"].append(_graph(m)["nodes"][0]), "two values are named y"),
        (lambda m: _graph(m)["tensor_values"].pop("y"), "nothing is recorded of tensor y"),
        (lambda m: _graph(m)["inputs"].pop(), "do not have the same inputs"),
        (lambda m: _graph(m)["outputs"].append(named("x")), "do not have the same outputs"),
        (lambda m: _graph(m)["nodes"][0].update(target="torch.os.system"), "is not an operator"),
        (lambda m: _graph(m)["nodes"][0].update(target="os.system"), "is not an operator"),
        (lambda m: _graph(m)["nodes"][0].update(target="_operator.attrgetter"), "is not an operator"),
        (lambda m: _graph(m)["nodes"][0].update(target="#ns:op"), "is not an operator"),
        (lambda m: _graph(m)["nodes"][0].update(target="torch.ops.mine.op.default"), "is a custom operator"),
        (lambda m: _graph(m)["nodes"][0].update(target="torch.ops.aten.from_file.default"), "does not know"),
        (lambda m: _graph(m)["nodes"][0].update(target="torch.ops.higher_order.aoti_call_delegate"), "data flow"),
        (lambda m: _graph(m)["nodes"][0].update(target="torch.ops.higher_order.call_torchbind"), "data flow"),
        (lambda m: _graph(m)["nodes"][0]["inputs"][0].update(arg={"as_custom_obj": {"name": "o"}}), "TorchBind"),
        (lambda m: _graph(m)["nodes"][0]["inputs"][0].update(arg={}), "0 kinds"),
        (lambda m: _graph(m)["nodes"][0]["inputs"][0].update(arg={"as_int": 1, "as_bool": True}), "2 kinds"),
        (lambda m: _graph(m)["nodes"][0]["inputs"][0].update(arg={"as_int": True}), "cannot be read"),
        (lambda m: _graph(m)["nodes"][0]["inputs"][0].update(arg={"as_float": "x"}), "cannot be read"),
        (lambda m: _graph(m)["nodes"][0]["inputs"][0].update(arg={"as_magic": 1}), "cannot be read"),
        (lambda m: _graph(m)["nodes"][0]["inputs"].append(_graph(m)["nodes"][0]["inputs"][0]), "given self twice"),
        (lambda m: _graph(m)["tensor_values"]["x"].update(dtype=99), "dtype 99"),
        (lambda m: _graph(m)["tensor_values"]["x"].update(sizes=[{"as_int": "2"}]), "size is recorded"),
        (lambda m: _graph(m)["tensor_values"]["w"].update(sizes=[{"as_int": 4}]), "not what the graph takes it for"),
        (lambda m: _graph(m)["tensor_values"]["w"].update(dtype=8), "not what the graph takes it for"),
        (lambda m: m.update(range_constraints={"s0": {"min_val": 9, "max_val": 2}}), "range of s0 is empty"),
        (lambda m: m.update(range_constraints={"__import__('os')": {}}), "cannot be read"),
        (
            lambda m: m["graph_module"]["module_call_graph"][0]["signature"].update(out_spec="[1"),
            "structure of its outputs",
        ),
        (lambda m: m["graph_module"].pop("graph"), "missing required field `graph`"),
        (lambda m: m.update(graph_module=[]), "Expected `object`"),
    ],
)
def test_programs_that_contradict_themselves(tmp_path: Path, change: Any, says: str) -> None:
    assert says in refused(_json(tmp_path / "a.pt2", change))


@pytest.mark.parametrize("text", ["__import__('os').system('touch /tmp/x')", "Integer(1).__class__", "eval('1')"])
def test_hostile_expressions_are_refused(tmp_path: Path, text: str) -> None:
    expression = {"as_expr": {"expr_str": text, "hint": None}}

    def put(content: dict[str, Any]) -> None:
        _graph(content)["tensor_values"]["x"]["sizes"][0] = expression

    assert "symbolic expression" in refused(_json(tmp_path / "a.pt2", put))


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    path = tiny(tmp_path / "a.pt2", **{"models/model.json": b'{"graph_module":' + b"[" * 200_000})
    assert "nested too deeply" in refused(path) or "not what torch.export writes" in refused(path)


def test_deeply_nested_subgraphs_are_refused(tmp_path: Path) -> None:
    inner = {"as_none": True}
    for depth in range(60):
        graph = {"inputs": [], "outputs": [], "nodes": [], "tensor_values": {}}
        if depth:
            node = call("torch.ops.higher_order.cond", f"v{depth}")
            node["outputs"] = [{"as_none": True}]
            node["inputs"] = [{"name": "", "arg": inner, "kind": 1}]
            graph["nodes"] = [node]
        inner = {"as_graph": {"name": "g", "graph": graph}}
    node = call("torch.ops.higher_order.cond", "y")
    node["inputs"] = [{"name": "", "arg": inner, "kind": 1}]
    assert "nested more than" in refused(tiny(tmp_path / "a.pt2", model([node])))


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    """A weight in a pickle is refused when its values are asked for; the sample inputs are not looked at."""
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(marker),))

    config = {"config": {"layer.w": payload("weight_0", tensor(3), use_pickle=True)}}
    path = tiny(
        tmp_path / "a.pt2",
        **{
            "data/weights/weight_0": pickle.dumps(Payload()),
            "data/weights/model_weights_config.json": json.dumps(config).encode(),
            "data/sample_inputs/model.pt": pickle.dumps(Payload()),
        },
    )
    program = open_program(path)
    assert program.weights.metadata_digest()
    assert "reads no pickle" in refused(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sizes": [{"as_int": 4}]}, "reaches beyond its data"),
        ({"strides": [{"as_int": 1 << 60}]}, "reaches beyond its data"),
        ({"storage_offset": {"as_int": 1}}, "reaches beyond its data"),
        ({"storage_offset": {"as_int": -1}}, "do not fit"),
        ({"strides": []}, "do not fit"),
        ({"sizes": [{"as_int": -3}]}, "do not fit"),
        ({"dtype": 77}, "dtype 77"),
    ],
)
def test_weights_that_reach_beyond_their_data(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    config = {"config": {"layer.w": payload("weight_0", tensor(3) | change)}}
    path = tiny(tmp_path / "a.pt2", **{"data/weights/model_weights_config.json": json.dumps(config).encode()})
    assert says in refused(path)


def test_weights_saved_without_values_are_refused_when_they_are_needed(tmp_path: Path) -> None:
    path = tiny(tmp_path / "a.pt2", **{"data/weights/weight_0": b""})
    assert open_program(path).structure_digest
    assert "without its values" in refused(path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = tiny(tmp_path / "a.pt2", **{"data/weights/model_weights_config.json": b'{"config": {}}'})
    assert "no data for layer.w" in refused(path)


def test_a_declared_digest_must_be_one(tmp_path: Path) -> None:
    for digest in ("", "sha256:12", "md5:" + "0" * 32, "sha256:" + "G" * 64):
        assert "declared digest" in refused(tiny(tmp_path / "a.pt2"), custom_ops={"mine::op": digest})


@pytest.mark.parametrize("name", ["mine::op.default", "mine::op", "mine.op.default", "mine.op"])
def test_custom_operators_by_any_spelling(tmp_path: Path, name: str) -> None:
    path = _json(tmp_path / "a.pt2", lambda m: _graph(m)["nodes"][0].update(target="torch.ops.mine.op.default"))
    digests = {open_program(path, custom_ops={name: "sha256:" + one * 64}).structure_digest for one in "ab"}
    assert len(digests) == 2
    assert "mine::op.default" in refused(path)


def test_arguments_are_known_by_name_whatever_their_order(tmp_path: Path) -> None:
    node = call("torch.ops.aten.add.Tensor", "y", "x", "w", alpha={"as_int": 2})
    turned = {**node, "inputs": node["inputs"][::-1]}
    one, other = (open_program(tiny(tmp_path / "a.pt2", model([one]))) for one in (node, turned))
    assert one.structure_digest == other.structure_digest


def test_a_weight_s_bytes_are_what_is_hashed(tmp_path: Path) -> None:
    one = open_program(tiny(tmp_path / "a.pt2"))
    other = open_program(tiny(tmp_path / "b.pt2", **{"data/weights/weight_0": WEIGHT[:-1] + b"\x40"}))
    assert one.structure_digest == other.structure_digest
    assert one.weights.metadata_digest() == other.weights.metadata_digest()
    assert one.weights.content_digest() != other.weights.content_digest()


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    program = open_program(tiny(tmp_path / "a.pt2"))
    tiny(tmp_path / "a.pt2", **{"data/weights/weight_0": WEIGHT[:-1] + b"\x40"})
    os.utime(tmp_path / "a.pt2", ns=(1, 1))
    with pytest.raises(BadProgram, match="changed"):
        program.weights.content_digest()
