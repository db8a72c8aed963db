"""On a machine with a GPU, Torch-TensorRT and TensorRT: does ``FarmEngineCache`` do there what it does in CI?

Compiles a small model in processes of their own: without a farm; with an empty one; again; with other weights; and by
another name of the same weights. Prints what each took, what the cache said, and how far its results are from eager's.

    python tools/torch_tensorrt_check.py

``--not-run``: engines are built and refitted on paper only, where the TensorRT that is there does not run on the GPU
that is there (TensorRT-RTX on an H100). Then nothing is compared with eager.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = (
    ("no farm", {"cached": False}),
    ("an empty farm", {}),
    ("again", {}),
    ("other weights", {"seed": 1}),
    ("other names", {"renamed": True}),
    ("baked in", {"baked": True}),
    ("baked in, again", {"baked": True}),
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--not-run", action="store_true")
    parser.add_argument("--step")
    args = parser.parse_args()
    if args.step:
        print(json.dumps(step(json.loads(args.step), args.not_run)))
        return 0
    wrong = 0
    with tempfile.TemporaryDirectory() as home:
        for name, how in STEPS:
            command = [sys.executable, __file__, "--step", json.dumps(how), *(["--not-run"] if args.not_run else [])]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "FARM_HOME": home})
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            said = lines[-1] if lines else f"ended with {done.returncode}: {done.stderr[-2000:]}"
            print(f"{name:16}", said, flush=True)
            wrong += not lines
    return 1 if wrong else 0


def model_of(renamed: bool, seed: int) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(seed)
    names = ("stem", "norm", "head") if renamed else ("conv", "bn", "fc")
    parts = (nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.Linear(64, 1000))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, part in zip(names, parts, strict=True):
                self.add_module(name, part)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            conv, norm, head = (getattr(self, name) for name in names)
            return head(torch.relu(norm(conv(x))).mean((2, 3)))

    return Model().eval().cuda()


def step(how: dict[str, Any], not_run: bool) -> dict[str, Any]:
    import torch
    import torch_tensorrt

    if not_run:
        on_paper()
    from farm.integrations.torch_tensorrt import FarmEngineCache, compile, toolchain_here

    model = model_of(bool(how.get("renamed")), int(how.get("seed", 0)))
    inputs = [torch.randn(4, 3, 64, 64, device="cuda")]
    program = torch.export.export(model, tuple(inputs))
    cache = FarmEngineCache()
    began = time.monotonic()
    if how.get("baked"):
        compiled = compile(program, arg_inputs=inputs, min_block_size=1, cache=cache)
    else:
        cached = {"cache_built_engines": True, "reuse_cached_engines": True, "custom_engine_cache": cache}
        compiled = torch_tensorrt.dynamo.compile(
            program,
            arg_inputs=inputs,
            min_block_size=1,
            immutable_weights=False,
            **(cached if how.get("cached", True) else {}),
        )
    took = time.monotonic() - began
    stats = {name: value for name, value in vars(cache.stats()).items() if value}
    cache.close()
    found: dict[str, Any] = {"seconds": round(took, 2), **stats, "toolchain": str(toolchain_here())}
    if not not_run:
        with torch.no_grad():
            found["furthest from eager"] = float((compiled(*inputs) - model(*inputs)).abs().max())
    return found


def on_paper() -> None:
    """The tests' stand-ins of the runtime alone: TensorRT builds, and what it built is not loaded."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
    import torch_tensorrt_stand_ins

    torch_tensorrt_stand_ins.no_runtime()


if __name__ == "__main__":
    sys.exit(main())
