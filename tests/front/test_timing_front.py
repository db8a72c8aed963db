"""Kernel timings through the front door: what one build learned, the next one starts from.

A worker over stand-ins of the driver's library and of plain TensorRT: the real TensorRT-RTX times no kernels.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Farms

onnx = pytest.importorskip("onnx")
pytest.importorskip("pynvml")
pytest.importorskip("tensorrt_rtx")

# Those that show one and the same GPU take turns: it is held by one worker at a time, on the whole machine.
pytestmark = pytest.mark.xdist_group("fleet")

ROOT = Path(__file__).parents[2]
TENSORRT = "10.14.1.48"
TARGET = f"l4@tensorrt=={TENSORRT}"
HEADER = f"timings of standin {TENSORRT}:".encode()


class Node:
    """A machine with a GPU and TensorRT, alone with its farm."""

    def __init__(self, folder: Path) -> None:
        metadata = folder / "site" / f"tensorrt-{TENSORRT}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {TENSORRT}\n")
        support = [ROOT / "tests" / "support" / "gpu_site", ROOT / "tests" / "unit" / "builders" / "standin"]
        path = [*support, metadata.parent, os.environ.get("PYTHONPATH", "")]
        number = str(uuid.uuid4().int % 10**6)
        self.env = {"PYTHONPATH": os.pathsep.join(map(str, path)), "GPU_SITE_NUMBER": number}
        self.folder = folder
        self.farms = Farms(folder / "home")
        self.said = ""
        self.models = 0

    def build(self, name: str, *operations: str, **env: str) -> dict[str, Any]:
        """Build a model that takes these operations' timings; what its engine's manifest says of them."""
        self.models += 1
        path = model(self.folder / f"{name}.onnx", operations, self.models)
        asked = self.farms.run("build", path, "-t", TARGET, "--no-wait", "--json", env=self.env)
        assert asked.code == 0, asked.err
        worked = self.farms.run("worker", "--gpu", "0", "--until-idle", env={**self.env, **env})
        self.said = worked.err
        (build,) = [one for one in self.json("ls", "builds") if one["build"] == asked.json[0]["build"]]
        if build["state"] != "succeeded":
            return dict(build["failure"])
        return dict(self.manifest(build["recipe"])["timing_cache"])

    def manifest(self, recipe: str) -> Any:
        with sqlite3.connect(self.farms.home / "farm.db") as database:
            (text,) = database.execute("select manifest_json from engines where recipe = ?", (recipe,)).fetchone()
        return json.loads(text)

    def json(self, *words: str | Path) -> Any:
        ran = self.farms.run(*words, "--json", env=self.env)
        assert ran.code == 0, ran.err
        return ran.json

    def newest(self) -> bytes:
        (scope,) = self.json("timing", "ls")
        self.json("timing", "pull", scope["scope"][:6], "-o", self.folder / "pulled")
        return (self.folder / "pulled").read_bytes()


def model(path: Path, operations: tuple[str, ...], depth: int) -> Path:
    """A model for the stand-in. Another ``depth`` is another graph: the same one would be a hit."""
    helper = onnx.helper
    kind = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 4]) for name in "xy"]
    nodes = [helper.make_node("Relu", ["x"], ["a0"])]
    nodes += [helper.make_node("Relu", [f"a{n}"], [f"a{n + 1}"]) for n in range(depth)]
    nodes.append(helper.make_node("Relu", [nodes[-1].output[0]], ["y"]))
    told = {"inputs": [["x", "FLOAT", [2, 4]]], "outputs": [["y", "FLOAT", [2, 4]]], "operations": operations}
    graph = helper.make_graph(nodes, "g", kind[:1], kind[1:])
    text = f"STANDIN{json.dumps(told)}NIDNATS"
    onnx.save(helper.make_model(graph, doc_string=text, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def timings(*operations: str) -> bytes:
    told = {"device": "a GPU", "entries": {name: f"tactic of {name}" for name in operations}}
    return HEADER + json.dumps(told, sort_keys=True).encode()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.farms.close()


def test_a_build_starts_from_what_another_learned(node: Node) -> None:
    first = node.build("one", "conv", "gemm")
    assert (first["taken"], first["written"], first["entries"]) == (None, 1, {"before": 0, "after": 2})
    second = node.build("two", "gemm", "relu", "add")
    assert (second["taken"], second["written"], second["entries"]) == (1, 2, {"before": 2, "after": 4})
    (scope,) = node.json("timing", "ls")
    assert (scope["toolchain"], scope["device"]["name"]) == (f"tensorrt=={TENSORRT}", "NVIDIA L4")
    assert (scope["newest"]["number"], scope["newest"]["entries"]) == (2, 4)
    assert (scope["statistics"]["from_cache"], scope["statistics"]["without"]) == (1, 1)
    assert node.newest() == timings("add", "conv", "gemm", "relu")
    shown = node.farms.run("timing", "ls", env=node.env)
    assert scope["scope"] in shown.out and "TensorRT-RTX times no kernels" in shown.err
    one = node.farms.run("timing", "ls", scope["scope"][:5], env=node.env)
    assert "unknown: no build was made both without and from it" in one.out
    assert all(len(line) <= 80 for line in (shown.out + one.out).splitlines())
    # They are named by no row, and stay.
    before = sorted(path.name for path in (node.farms.home / "store").rglob("*") if path.is_file())
    assert node.farms.run("reconcile", "--grace", "0", "--yes", env=node.env).code == 0
    scrubbed = node.farms.run("verify", "--repair", "--grace", "0", env=node.env)
    assert scrubbed.code == 0, scrubbed.out
    assert node.newest() == timings("add", "conv", "gemm", "relu") and before


@pytest.mark.slow
def test_a_bad_cache_is_set_aside_and_builds_go_on(node: Node) -> None:
    node.build("one", "conv")
    (scope,) = node.json("timing", "ls")
    bad = node.folder / "bad"
    bad.write_bytes(HEADER + b"{ruined")
    refused = node.farms.run("timing", "push", "here", bad, env=node.env)
    assert refused.code == 2 and "does not take this timing cache" in refused.err
    # From a machine that cannot try it, it gets through; a build finds it out.
    blind = {**node.env, "CUDA_VISIBLE_DEVICES": ""}
    assert node.farms.run("timing", "push", scope["scope"], bad, env=blind).code == 2
    pushed = node.farms.run("timing", "push", scope["scope"], bad, "--replace", env=blind)
    assert pushed.code == 0 and "not tried" in pushed.err
    told = node.build("two", "gemm")
    assert (told["taken"], told["written"]) == (2, 3) and told["not_used"].startswith("it does not fit")
    assert "set aside" in node.said
    states = {one["number"]: one["state"] for one in node.json("timing", "ls", scope["scope"])["versions"]}
    assert states == {1: "kept", 2: "set aside", 3: "newest"}
    assert node.newest() == timings("conv", "gemm")


@pytest.mark.slow
def test_push_merges_and_rollback_takes_it_back(node: Node) -> None:
    node.build("one", "conv")
    good = node.folder / "good"
    good.write_bytes(timings("relu"))
    assert node.json("timing", "push", "here", good)["number"] == 2
    assert node.newest() == timings("conv", "relu")
    (scope,) = node.json("timing", "ls")
    assert node.json("timing", "rollback", scope["scope"], "1")["number"] == 3
    assert node.newest() == timings("conv")
    assert node.farms.run("timing", "rollback", scope["scope"], "9", env=node.env).code == 2
    assert node.farms.run("timing", "ls", "nonesuch", env=node.env).code == 2


@pytest.mark.slow
def test_replay_builds_what_was_timed_and_nothing_else(node: Node) -> None:
    told = node.build("none", "conv", FARM_TIMING="strict")
    assert "there are none" in told["message"] and "FARM_TIMING=editable" in told["hint"]
    assert node.build("one", "conv", "gemm", FARM_TIMING="editable")["written"] == 1
    replayed = node.build("two", "conv", FARM_TIMING="strict")
    assert (replayed["taken"], replayed["written"], replayed["mode"]) == (1, None, "strict")
    told = node.build("three", "conv", "relu", FARM_TIMING="strict")
    assert "relu is not present in the timing cache" in told["message"]
    assert [one["editable"] for one in node.json("timing", "ls")] == [True]


@pytest.mark.slow
def test_without_the_store_of_timings_a_build_succeeds(node: Node) -> None:
    node.build("one", "conv")
    objects = node.farms.home / "store" / "objects"
    objects.rename(objects.with_name("away"))
    objects.write_text("no folder")
    told = node.build("two", "gemm")
    assert (told["taken"], told["written"]) == (None, None) and told["not_learned"]
    assert "timings were not shared" in node.said
