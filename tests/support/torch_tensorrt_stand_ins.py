"""On a machine without a GPU: the few things of CUDA's driver that Torch-TensorRT asks for while it compiles.

The tests' copy of ``torch_tensorrt`` calls ``before`` and ``after`` as it is imported. The partitioner, the converters
and the builder are the real ones, and the plans are real. Stand-ins are: what torch says of the GPU; the flags that
need a driver (``REFIT_INDIVIDUAL`` is set for them); and the runtime, whose engine gives its plan back, knows its
weights' names (from ``STAND_IN_PLANS``, a folder in which each plan's are written as it is built) and cannot run.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import types
from pathlib import Path

import torch

# Read when they are asked for: a process that was forked may have others.
NAMES = {(8, 6): "NVIDIA GeForce RTX 3090", (8, 9): "NVIDIA GeForce RTX 4090", (12, 0): "NVIDIA GeForce RTX 5090"}
refitted: list[str] = []
"""What was refitted in this process: the plans' digests."""
broken = False
"""Whether building engines fails."""
held = ""
"""A file: while it is not there, builds take."""


def capability() -> tuple[int, int]:
    major, minor = os.environ.get("STAND_IN_CAPABILITY", "8.9").split(".")
    return int(major), int(minor)


def gpu() -> types.SimpleNamespace:
    major, minor = capability()
    return types.SimpleNamespace(
        name=NAMES[major, minor],
        major=major,
        minor=minor,
        total_memory=24 * 2**30,
        is_integrated=False,
        multi_processor_count=128,
    )


def names_of(plan: str) -> Path | None:
    """Where the names of a plan's weights are written."""
    folder = os.environ.get("STAND_IN_PLANS", "")
    return Path(folder) / f"{plan}.json" if folder else None


def show_gpu() -> None:
    if not hasattr(torch._C, "_CudaDeviceProperties"):
        torch._C._CudaDeviceProperties = type("_CudaDeviceProperties", (), {})
    answers = {
        "get_device_capability": capability,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "get_device_properties": gpu,
        "get_device_name": lambda: gpu().name,
        "mem_get_info": lambda: (20 * 2**30, 24 * 2**30),
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "set_device": lambda: None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda device=None, answer=answer: answer())


def before() -> None:
    """Before anything of ``torch_tensorrt`` is imported."""
    show_gpu()
    torch.cuda.is_available = lambda: True


class Flags:
    """``BuilderFlag``, with what works without a driver for what does not."""

    def __init__(self, real: object) -> None:
        self.real = real

    def __getattr__(self, name: str) -> object:
        stands_in = name in ("REFIT", "REFIT_IDENTICAL", "STRIP_PLAN")
        return getattr(self.real, "REFIT_INDIVIDUAL" if stands_in else name)


class Config:
    def set_flag(self, flag: object) -> None: ...

    def clear_flag(self, flag: object) -> None: ...


class Engine:
    def __init__(self, plan: bytes) -> None:
        self.plan = bytes(plan)
        self.digest = hashlib.sha256(self.plan).hexdigest()

    def serialize(self) -> bytes:
        return self.plan

    def create_serialization_config(self) -> Config:
        return Config()

    def serialize_with_config(self, config: Config) -> bytes:
        return self.plan


class Runtime:
    def __init__(self, logger: object) -> None: ...

    def deserialize_cuda_engine(self, plan: bytes) -> Engine:
        engine = Engine(plan)
        names = names_of(engine.digest)
        if names and interpreting:
            names.write_text(json.dumps(sorted(interpreting[-1].ctx.weight_refit_map)))
        return engine


class Refitter:
    """Refits nothing, and insists on every name that the plan has, as the real one's user does."""

    def __init__(self, engine: Engine, logger: object) -> None:
        self.engine = engine

    def get_all_weights(self) -> list[str]:
        names = names_of(self.engine.digest)
        return json.loads(names.read_text()) if names else []

    def set_named_weights(self, name: str, weights: object, location: object) -> None: ...

    def refit_cuda_engine(self) -> bool:
        refitted.append(self.engine.digest)
        return True


interpreting: list[object] = []


def after() -> None:
    """Once ``torch_tensorrt`` has been imported."""
    import tensorrt as trt
    import torch_tensorrt
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter

    torch.cuda.is_available = lambda: False
    interpreter = _TRTInterpreter.TRTInterpreter
    real_run, real_to = interpreter.run, torch.nn.Module.to

    def run(self: object, *args: object, **kwargs: object) -> object:
        deadline = time.monotonic() + 120
        while held and not Path(held).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        if broken:
            raise RuntimeError("no engine could be built")
        interpreting.append(self)
        try:
            return real_run(self, *args, **kwargs)
        finally:
            interpreting.pop()

    def stay(module: torch.nn.Module, *args: object, **kwargs: object) -> torch.nn.Module:
        """``Module.to``: what is left to PyTorch stays where it is."""
        on_gpu = any(str(one).startswith("cuda") for one in (*args, *kwargs.values()))
        return module if on_gpu else real_to(module, *args, **kwargs)

    interpreter.run, torch.nn.Module.to = run, stay
    torch_tensorrt.Device.to = lambda self, kind: torch.device("cuda", 0)
    trt.BuilderFlag = Flags(trt.BuilderFlag)
    no_runtime()


def no_runtime() -> None:
    """What compiles is looked at, and never loaded or run."""
    import tensorrt as trt
    from torch_tensorrt.dynamo import runtime

    trt.Runtime, trt.Refitter = Runtime, Refitter
    for name in ("TorchTensorRTModule", "PythonTorchTensorRTModule"):
        module = getattr(runtime, name, None)
        if module is not None:
            module.setup_engine = lambda self: None
            module.set_output_tensors_as_unowned = lambda self, enabled: None
