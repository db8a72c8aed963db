"""Hashes of one model as ``FarmEngineCache.get_hash`` gives them: the cases of Torch-TensorRT's own
tests of its hash (the same model exported twice, another input shape, another largest batch), and farm's."""

from __future__ import annotations

from typing import Any

import torch
import torch_tensorrt
from torch import nn
from torch_tensorrt.dynamo._settings import CompilationSettings

from farm.integrations.torch_tensorrt import FarmEngineCache


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))).mean((2, 3)))


def exported(model: nn.Module) -> Any:
    batch = torch.export.Dim("batch", min=1, max=200)
    return torch.export.export(model, (torch.randn(100, 3, 32, 32),), dynamic_shapes={"x": {0: batch}})


def hash_of(program: Any, most: int = 200, size: int = 32, cache: Any = FarmEngineCache, **settings: Any) -> str:
    shapes = {f"{one}_shape": (n, 3, size, size) for one, n in (("min", 1), ("opt", 100), ("max", most))}
    given = {"immutable_weights": False, "cache_built_engines": True, "reuse_cached_engines": True, **settings}
    return cache.get_hash(program.module(), (torch_tensorrt.Input(**shapes),), CompilationSettings(**given))


def hashes() -> dict[str, str]:
    model, other = Small().eval(), Small().eval()
    program = exported(model)
    ops = [torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor, torch.ops.aten.sub.Tensor]
    low = {"enable_autocast": True, "autocast_low_precision_type": torch.float16}
    return {
        "one": hash_of(program),
        "exported again": hash_of(exported(model)),
        "an instance": hash_of(program, cache=FarmEngineCache()),
        "larger inputs": hash_of(program, size=30),
        "a larger batch": hash_of(program, most=400),
        "other weights": hash_of(exported(other)),
        "other weights, baked in": hash_of(exported(other), immutable_weights=True),
        "baked in": hash_of(program, immutable_weights=True),
        "level 3": hash_of(program, optimization_level=3),
        "level 4": hash_of(program, optimization_level=4),
        "debugged": hash_of(program, dryrun=True, timing_cache_path="/elsewhere"),
        "some operators": hash_of(program, autocast_excluded_ops=set(ops), **low),
        "the same operators": hash_of(program, autocast_excluded_ops={ops[2], ops[1], ops[0]}, **low),
        "calibrated": hash_of(program, autocast_calibration_dataloader=[torch.zeros(1)], **low),
    }
