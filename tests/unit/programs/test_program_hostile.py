"""Programs made to exhaust whoever reads them: bounded time and memory, and a clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import call, members, model, tensor, tiny, write

from farm.errors import BadProgram
from farm.programs import open_program

MEMORY = 1 << 30
"""Bytes of address space that the reader is given on top of what Python needs to start."""


def read_in_a_child(path: Path, seconds: int = 60) -> str:
    """What opening ``path`` says, in a process whose memory is bounded."""
    program = (
        "import resource, sys\n"
        "from farm.programs import open_program\n"
        "from farm.errors import BadProgram\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY}))\n"
        "try:\n    print('read', open_program(sys.argv[1]).node_count)\n"
        "except BadProgram as error:\n    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=seconds, check=True
    )
    return done.stdout.strip()


def test_a_million_nodes_are_refused_at_once(tmp_path: Path) -> None:
    node = json.dumps(call("torch.ops.aten.sin.default", "y", "x"))
    text = json.dumps(model()).replace('"nodes": [', '"nodes": [' + f"{node}," * 1_000_000)
    path = tiny(tmp_path / "a.pt2", **{"models/model.json": text.encode()})
    assert "farm reads up to 200,000" in read_in_a_child(path)


def test_a_long_chain_is_read(tmp_path: Path) -> None:
    """One chain, as deep as it is long."""
    count = 50_000
    nodes = [call("torch.ops.aten.sin.default", f"v{number + 1}", f"v{number}") for number in range(count)]
    content = model([call("torch.ops.aten.mul.Tensor", "v0", "x", "w"), *nodes], output=f"v{count}")
    assert read_in_a_child(tiny(tmp_path / "a.pt2", content)) == f"read {count + 1}"


@pytest.mark.parametrize("unit", [b"{},", b"[],", b"0,", b'"",'])
def test_json_that_unfolds_into_objects_is_refused(tmp_path: Path, unit: bytes) -> None:
    text = b'{"graph_module": [' + unit * 22_000_000 + b"0]}"
    path = tiny(tmp_path / "a.pt2", **{"models/model.json": text})
    assert "too large to be a program" in read_in_a_child(path)


def test_an_expression_without_end_is_refused(tmp_path: Path) -> None:
    endless = {"as_expr": {"expr_str": "Add(" * 50_000, "hint": None}}
    value = tensor(2, 3)
    value["sizes"][0] = endless
    with pytest.raises(BadProgram, match="symbolic expression"):
        open_program(tiny(tmp_path / "a.pt2", model(values={"x": value})))


def test_many_members_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt2", members() | {f"data/constants/tensor_{number}": b"" for number in range(3000)})
    assert open_program(path).node_count == 1
    from farm.programs import archive

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "MAX_MEMBERS", 1000)
        with pytest.raises(BadProgram, match="3,008 members, more than 1,000"):
            open_program(path)


def test_a_huge_tensor_takes_no_room(tmp_path: Path) -> None:
    """Strides of zero let twelve bytes claim to be a tensor of any size: refused before it is gathered."""
    config = {"config": {"layer.w": {"path_name": "weight_0", "tensor_meta": tensor(1 << 40, strides=[0])}}}
    content = model(values={"w": tensor(1 << 40)})
    path = tiny(tmp_path / "a.pt2", content, **{"data/weights/model_weights_config.json": json.dumps(config).encode()})
    with pytest.raises(BadProgram, match="more elements than"):
        open_program(path).weights.content_digest()


def test_a_wide_graph_of_one_value_is_read(tmp_path: Path) -> None:
    """Two hundred thousand references to one value: no stack of them all."""
    items = {"as_tensors": [{"name": "x"}] * 200_000}
    node = call("torch.ops.aten.cat.default", "y", tensors=items)
    assert read_in_a_child(tiny(tmp_path / "a.pt2", model([node]))) == "read 1"


def test_expressions_without_end_are_refused(tmp_path: Path) -> None:
    """Each is short enough to be one, but there are too many of them."""
    content = model()
    names = {"*".join(f"(s{at % 5}+{at + n})" for at in range(1000)) + f"+{n}": {} for n in range(600)}
    path = tiny(tmp_path / "a.pt2", {**content, "range_constraints": names})
    assert "more than 4,000,000 characters" in read_in_a_child(path)
