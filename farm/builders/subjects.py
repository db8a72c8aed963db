"""What the harness runs: eager PyTorch, ``torch.compile``, and a TensorRT engine. Needs torch.

Each is made ready on one device, and then is a call that runs once on inputs that stay where they are, and gives the
tensors of its outputs in the program's order.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from farm.builders.clocks import Device
from farm.builders.torch_load import load

if TYPE_CHECKING:
    from farm.builders.child import Channel

SEED = 20_26
Outputs = list[Any]
Subject = Callable[[], Outputs]


def make_inputs(told: Sequence[dict[str, Any]], device: Device) -> list[Any]:
    """Inputs of the given dtypes and shapes, the same in every process.

    Whole numbers are 0 and 1, which are indexes into anything; the rest is normally distributed.
    """
    generator = torch.Generator().manual_seed(SEED)
    return [device.place(_made(one, generator)) for one in told]


def _made(one: dict[str, Any], generator: torch.Generator) -> Any:
    dtype, shape = getattr(torch, one["dtype"]), tuple(one["shape"])
    if dtype.is_floating_point or dtype.is_complex:
        wide = torch.complex64 if dtype.is_complex else torch.float32
        return torch.randn(shape, generator=generator, dtype=wide).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


class Program:
    """The program itself, on a device: the module that ``torch.export`` gives, and how it is called."""

    def __init__(self, path: Path, device: Device, channel: Channel) -> None:
        exported = load(path, channel)
        if device.name != "cpu":
            from torch.export.passes import move_to_device_pass

            exported = move_to_device_pass(exported, "cuda:0")
        self.module = exported.module()
        self._fill = arguments_of(exported)
        device.wait()

    def call(self, inputs: Sequence[Any], run: Callable[..., Any] | None = None) -> Subject:
        """One inference by ``run`` (the module, or what was made of it)."""
        args, kwargs = self._fill(inputs)
        work = self.module if run is None else run

        def once() -> Outputs:
            return tensors_of(work(*args, **kwargs))

        return once


def arguments_of(exported: ExportedProgram) -> Callable[[Sequence[Any]], tuple[tuple[Any, ...], dict[str, Any]]]:
    """How an engine's inputs become the program's arguments: what was fixed at export goes in between."""
    specs = [spec for spec in exported.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    tree = exported.call_spec.in_spec

    def fill(inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        left = iter(inputs)
        flat = [spec.arg.value if isinstance(spec.arg, ConstantArgument) else next(left) for spec in specs]
        args, kwargs = pytree.tree_unflatten(flat, tree)
        return args, kwargs

    return fill


def tensors_of(result: Any) -> Outputs:
    return [value for value in pytree.tree_leaves(result) if isinstance(value, torch.Tensor)]


def eager(job: dict[str, Any], inputs: Sequence[Any], device: Device, channel: Channel) -> Subject:
    return Program(Path(job["program"]), device, channel).call(inputs)


def compiled(job: dict[str, Any], inputs: Sequence[Any], device: Device, channel: Channel) -> Subject:
    """``torch.compile`` with its defaults, for the very shapes; it compiles at its first call."""
    program = Program(Path(job["program"]), device, channel)
    return program.call(inputs, torch.compile(program.module, dynamic=False, backend=job.get("backend") or "inductor"))


def engine(job: dict[str, Any], inputs: Sequence[Any], device: Device, channel: Channel) -> Subject:
    """A TensorRT engine, run on the device's stream."""
    trt = _module(job, channel)
    plan = Path(job["plan"]).read_bytes()
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    if runtime is not None:
        # A version-compatible plan brings a runtime of its own, which runs only where its plans are trusted: this one
        # is what its digest says, and a worker of this farm made it.
        runtime.engine_host_code_allowed = bool(job.get("host_code"))
    made = runtime.deserialize_cuda_engine(plan) if runtime is not None else None
    if made is None:
        raise channel.Refused(what="deserialise", text=f"{job['module']} {trt.__version__} does not take the engine")
    context = made.create_execution_context()
    if context is None:
        raise channel.Refused(what="deserialise", text="no execution context could be made: too little GPU memory?")
    held = _bind(trt, made, context, job, inputs, device, channel)
    device.wait()

    def once() -> Outputs:
        if not context.execute_async_v3(device.stream):
            raise RuntimeError("the engine did not run: its log says why")
        return held.outputs

    # What the context writes to, and what it is made of, must live as long as it is called.
    once.held = (held, made, runtime, plan)  # type: ignore[attr-defined]
    return once


@dataclass(frozen=True)
class Held:
    """The tensors whose addresses a context has."""

    inputs: Outputs
    outputs: Outputs


def _module(job: dict[str, Any], channel: Channel) -> Any:
    try:
        trt = importlib.import_module(job["module"])
    except ImportError as error:
        raise channel.Refused(what="import", text=str(error)) from None
    if trt.__version__ != job["version"]:
        raise channel.Refused(what="version", text=trt.__version__)
    return trt


def _bind(
    trt: Any, made: Any, context: Any, job: dict[str, Any], inputs: Sequence[Any], device: Device, channel: Channel
) -> Held:
    """Give the context its inputs' shapes and addresses, then its outputs'."""
    placed = []
    for name, value in zip(job["input_names"], inputs, strict=True):
        wanted = value.to(_dtype(trt, made.get_tensor_dtype(name))).contiguous()
        if not context.set_input_shape(name, tuple(wanted.shape)):
            raise channel.Refused(what="shapes", text=f"the engine takes no {name} of shape {tuple(wanted.shape)}")
        _address(context, name, wanted, channel)
        placed.append(wanted)
    outputs = []
    for name in job["output_names"]:
        shape = tuple(int(size) for size in context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise channel.Refused(what="shapes", text=f"the size of {name} is not known before the engine runs")
        wanted = torch.empty(shape, dtype=_dtype(trt, made.get_tensor_dtype(name)), device=device.name)
        _address(context, name, wanted, channel)
        outputs.append(wanted)
    return Held(placed, outputs)


def _address(context: Any, name: str, value: Any, channel: Channel) -> None:
    if not context.set_tensor_address(name, value.data_ptr()):
        raise channel.Refused(what="shapes", text=f"the engine has no binding {name}")


def _dtype(trt: Any, dtype: Any) -> torch.dtype:
    names = {
        "FLOAT": torch.float32,
        "HALF": torch.float16,
        "BF16": torch.bfloat16,
        "INT8": torch.int8,
        "INT32": torch.int32,
        "INT64": torch.int64,
        "BOOL": torch.bool,
        "UINT8": torch.uint8,
        "FP8": torch.float8_e4m3fn,
    }
    return names[dtype.name]


SUBJECTS: dict[str, Callable[[dict[str, Any], Sequence[Any], Device, Any], Subject]] = {
    "eager": eager,
    "compile": compiled,
    "engine": engine,
}


def differences(mine: Sequence[Any], reference: Sequence[Any]) -> dict[str, Any]:
    """How far two lists of tensors are apart: as ``measurements.Accuracy`` says. Tensors are compared in order."""
    worst = {"max_abs": 0.0, "max_rel": 0.0, "cosine": 1.0, "finite": True}
    for one, other in zip(mine, reference, strict=True):
        got, wanted = (value.detach().to("cpu", torch.float64).flatten() for value in (one, other))
        if got.shape != wanted.shape:
            raise ValueError(f"an output has {got.numel()} elements, and eager's has {wanted.numel()}")
        sound = torch.isfinite(wanted)
        if not bool(torch.isfinite(got[sound]).all()):
            return {"max_abs": None, "max_rel": None, "cosine": None, "finite": False}
        got, wanted = got[sound], wanted[sound]
        if wanted.numel() == 0:
            continue
        largest = float((got - wanted).abs().max())
        size = float(wanted.abs().max())
        worst["max_abs"] = max(worst["max_abs"], largest)
        worst["max_rel"] = max(worst["max_rel"], largest / size if size > 0 else float(largest > 0))
        worst["cosine"] = min(worst["cosine"], _cosine(got, wanted))
    return worst


def _cosine(one: Any, other: Any) -> float:
    sizes = float(one.norm() * other.norm())
    if sizes == 0.0:
        return 1.0 if float(one.norm()) == float(other.norm()) else 0.0
    return min(1.0, float(one @ other) / sizes)
