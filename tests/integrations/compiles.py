"""Processes that compile small models with Torch-TensorRT through ``FarmEngineCache``, and print what came of it.

Importing torch and Torch-TensorRT takes many times as long as such a compile, so one process imports them, and forks
for each line of JSON that it reads: ``jobs``, ``env``, ``cwd`` and ``out`` (the file of the fork's output). It answers
with the fork's pid. ``jobs`` is ``hashes`` (see there) or a list of compiles, each an object: ``model`` (one of
``MODELS``), ``weights`` (a seed), ``settings``, ``batch`` (the largest, as the program was exported for), ``cache``
(keywords of the cache), ``fresh`` (a new cache), ``fail`` (the engine cannot be built), ``held`` (a file: until it is
there, the build takes), ``baked`` (by farm's own ``compile``), ``export`` or ``load`` (a program's file, an
artefact's). Prints one JSON document a line: the cache's statistics, the keys asked for, what was refitted, what the
log said, and the seconds.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import traceback
from typing import Any

import hashes
import torch
import torch_tensorrt
import torch_tensorrt_stand_ins as stand_ins
from torch import nn

from farm.integrations.torch_tensorrt import FarmEngineCache, compile, load_program


class Head(nn.Module):
    def __init__(self, names: tuple[str, str] = ("first", "second"), eps: float = 1e-5) -> None:
        super().__init__()
        self.names = names
        self.add_module(names[0], nn.Conv2d(3, 8, 3))
        self.add_module(names[1], nn.BatchNorm2d(8, eps=eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = (getattr(self, name) for name in self.names)
        return torch.relu(second(first(x)))


class Two(nn.Module):
    """A backbone that two programs have in common, what TensorRT is not to take, and a tail."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone, self.tail = Head(), nn.Linear(8 * 6 * 6, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(torch.special.erfcx(self.backbone(x)).flatten(1))


MODELS = {
    "head": Head,
    "renamed": lambda: Head(("stem", "norm")),
    "eps": lambda: Head(eps=1e-3),
    "two": lambda: Two(10),
    "wide": lambda: Two(12),
}


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Asked(FarmEngineCache):
    keys: list[str] = []  # noqa: RUF012 - one process, one list

    @staticmethod
    def get_hash(gm: Any, input_specs: Any, settings: Any) -> str:
        Asked.keys.append(FarmEngineCache.get_hash(gm, input_specs, settings))
        return Asked.keys[-1]


def compile_once(job: dict[str, Any], cache: FarmEngineCache) -> None:
    torch.manual_seed(job.get("weights", 0))
    model = MODELS[job["model"]]().eval()
    most = job.get("batch", 8)
    program = torch.export.export(
        model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=most)},)
    )
    shapes = {"min_shape": (1, 3, 8, 8), "opt_shape": (2, 3, 8, 8), "max_shape": (most, 3, 8, 8)}
    settings = {
        "min_block_size": 1,
        "immutable_weights": False,
        "cache_built_engines": True,
        "reuse_cached_engines": True,
        **job.get("settings", {}),
    }
    inputs = [torch_tensorrt.Input(**shapes)]
    if "export" in job:
        torch.export.save(program, job["export"])
    elif "load" in job:
        compiled = load_program(job["load"], program)
        print(json.dumps({"loaded": [name for name, _ in compiled.named_children()]}))
    elif job.get("baked"):
        compile(program, arg_inputs=inputs, cache=cache, **{**settings, "immutable_weights": True})
    else:
        torch_tensorrt.dynamo.compile(program, arg_inputs=inputs, custom_engine_cache=cache, **settings)


def compiles(jobs: list[dict[str, Any]]) -> None:
    heard = Heard()
    logging.getLogger("farm").addHandler(heard)
    cache: FarmEngineCache | None = None
    for job in jobs:
        if cache is None or job.get("fresh") or "cache" in job:
            cache = Asked(**job.get("cache", {}))
        before, Asked.keys[:] = cache.stats(), []
        heard.lines.clear()
        stand_ins.refitted.clear()
        stand_ins.broken, stand_ins.held = bool(job.get("fail")), job.get("held", "")
        error, began = "", time.monotonic()
        try:
            compile_once(job, cache)
        except Exception as found:  # noqa: BLE001 - whatever ends a compile is what the test looks at
            error = f"{type(found).__name__}: {found}"
        after = cache.stats()
        told = {name: getattr(after, name) - getattr(before, name) for name in vars(after)}
        seen = {"keys": Asked.keys, "refitted": stand_ins.refitted, "said": heard.lines, "error": error}
        print(json.dumps({**told, **seen, "took": time.monotonic() - began}), flush=True)
    if cache is not None:
        cache.close()


def one(order: dict[str, Any]) -> None:
    """A fork's life."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (0, 1, 2):
        os.dup2(out if stream else os.open(os.devnull, os.O_RDONLY), stream)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    if order["jobs"] == "hashes":
        print(json.dumps(hashes.hashes()), flush=True)
    else:
        compiles(order["jobs"])
    print(json.dumps({"end": True}), flush=True)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks leave nothing behind
    torch.set_num_threads(1)  # no threads here, for none of them would be in a fork
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                one(json.loads(line))
            except BaseException:  # noqa: BLE001 - the fork must end here
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
