"""Torch-TensorRT's genuine ``get_hash`` beside farm's digest of the same live graphs.

``python -m tests.bench.peer WHEEL PROGRAM``, in a process of its own: imports torch, and runs the wheel's
``_engine_cache.py`` straight from the wheel. What that file imports of its own package (two types, and the list of
engine-invariant settings) is given to it, since the package wants TensorRT and a GPU; the list is read from the wheel.
"""

from __future__ import annotations

import ast
import json
import sys
import time
import types
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim
from torch.fx import GraphModule

from farm.canonical import digest
from farm.compilation import CompilationSettings, effective
from farm.programs.live import subgraph_digest
from tests.bench.export import Decoder
from tests.bench.measure import alternated

CACHE_MODULE = "torch_tensorrt/dynamo/_engine_cache.py"
SETTINGS_MODULE = "torch_tensorrt/dynamo/_settings.py"
INVARIANT = "_SETTINGS_TO_BE_ENGINE_INVARIANT"


@dataclass(frozen=True)
class Input:
    """An input's spec, with the fields of ``torch_tensorrt.Input`` that either side reads, and its words."""

    shape: Mapping[str, Sequence[int]]
    dtype: Any
    name: str = ""
    shape_mode: str = "dynamic"
    format: str = "contiguous"
    is_shape_tensor: bool = False
    tensor_domain: tuple[float, float] = (0.0, 2.0)

    def __str__(self) -> str:
        """As ``torch_tensorrt.Input`` writes a dynamic one: part of what ``get_hash`` does at every call."""
        return "Input(min_shape={}, opt_shape={}, max_shape={}, dtype={}, format={}, domain=[{}, {}))".format(
            self.shape["min_shape"],
            self.shape["opt_shape"],
            self.shape["max_shape"],
            str(self.dtype),
            str(self.format),
            str(self.tensor_domain[0]),
            str(self.tensor_domain[1]),
        )


def genuine(wheel: Path) -> Any:
    """``BaseEngineCache`` as the wheel has it."""
    with zipfile.ZipFile(wheel) as archive:
        cache, settings = archive.read(CACHE_MODULE).decode(), archive.read(SETTINGS_MODULE).decode()
    for name in ("torch_tensorrt", "torch_tensorrt.dynamo"):
        _module(name, __path__=[])
    _module("torch_tensorrt._Input", Input=Input)
    _module(
        "torch_tensorrt.dynamo._settings",
        CompilationSettings=CompilationSettings,
        **{INVARIANT: invariant_names(settings)},
    )
    found = _module("torch_tensorrt.dynamo._engine_cache")
    exec(compile(cache, str(wheel / CACHE_MODULE), "exec"), found.__dict__)
    return found.BaseEngineCache


def _module(name: str, **content: Any) -> types.ModuleType:
    module = sys.modules[name] = types.ModuleType(name)
    module.__dict__.update(content)
    return module


def invariant_names(source: str) -> set[str]:
    """The set that the wheel's settings module names, not run but read."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == INVARIANT:
            return set(ast.literal_eval(node.value))
    raise ValueError(f"{SETTINGS_MODULE} has no {INVARIANT}")


def lowered(program: torch.export.ExportedProgram) -> GraphModule:
    """The graph as Torch-TensorRT's lowering leaves it: core ATen, parameters as attributes."""
    return plain(program.run_decompositions())


def plain(program: torch.export.ExportedProgram) -> GraphModule:
    """Parameters as attributes, the operators as they were exported."""
    return program.module(check_guards=False)


def graphs(long: Path) -> dict[str, tuple[GraphModule, list[Input]]]:
    """A block of a dozen nodes, one layer of a decoder, and the whole long program (not decomposed: that alone would
    take minutes, and says nothing of hashing)."""
    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(7200, 10))
    exported = torch.export.export(block.eval(), (torch.randn(1, 3, 32, 32),))
    image = [Input(dict.fromkeys(("min_shape", "opt_shape", "max_shape"), (1, 3, 32, 32)), torch.float32, "x")]
    ranges = {"tokens": {0: Dim("batch", min=1, max=8), 1: Dim("length", min=2, max=256)}}
    layer = torch.export.export(Decoder(1).eval(), (torch.randint(0, 512, (2, 16)),), dynamic_shapes=ranges)
    tokens = [Input({"min_shape": (1, 2), "opt_shape": (2, 16), "max_shape": (8, 256)}, torch.int64, "tokens")]
    return {
        "block": (lowered(exported), image),
        "layer": (lowered(layer), tokens),
        "program": (plain(torch.export.load(long)), tokens),
    }


def key_of(keyed: Mapping[str, Any], module: GraphModule, specs: Sequence[Input]) -> str:
    """All that ``get_hash`` does, and the rest of the graph: a digest of subgraph, input specs and effective settings.
    Those settings are the same for all subgraphs of a compilation, and so are made once for it. What nodes are called
    is left out, since that is no part of a key: it tells recipes apart."""
    return digest("subgraph", [subgraph_digest(module, specs, named=False).structure_digest, dict(keyed)])


def main(wheel: Path, long: Path, repeats: int) -> None:
    cache, settings = genuine(wheel), CompilationSettings()
    keyed = effective(settings, flavour="tensorrt", version="10.14.1.48", subgraph=True).key
    found = {}
    for name, (module, specs) in graphs(long).items():
        sides = partial(key_of, keyed, module, specs), partial(cache.get_hash, module, specs, settings)
        ours, theirs = alternated(*sides, repeats, time.thread_time)
        found[name] = {"nodes": len(module.graph.nodes), "ours": ours.all, "theirs": theirs.all}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
