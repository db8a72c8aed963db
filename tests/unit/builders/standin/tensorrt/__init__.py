"""A stand-in for NVIDIA's ``tensorrt`` module: the part of its Python API that the builder's child uses.

Plain TensorRT cannot be had where the tests run. This module has the same names, takes the same calls, keeps and
gives back what it is told, and answers as TensorRT does where that is documented: ``None`` for a build that
failed, ``-1`` for a profile it does not take, a line in the log and the old value for a setting it does not take.

A model for it is a file that holds ``STANDIN{…}NIDNATS`` with a description in JSON: ``inputs``, ``outputs`` (name,
dtype, shape), and how to behave.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import re
import time
from typing import Any

__version__ = "10.14.1.48"


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


ERROR, WARNING, INFO, VERBOSE = (ILogger.Severity(number) for number in (1, 2, 3, 4))


class Logger(ILogger):
    """One that prints."""

    Severity = ILogger.Severity
    WARNING = ILogger.Severity.WARNING

    def __init__(self, min_severity: Any = ILogger.Severity.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: Any, msg: str) -> None:
        if severity <= self.min_severity:
            print(msg)


class BuilderFlag(enum.IntEnum):
    FP16 = 0
    INT8 = 1
    DEBUG = 2
    GPU_FALLBACK = 3
    REFIT = 4
    DISABLE_TIMING_CACHE = 5
    TF32 = 6
    SPARSE_WEIGHTS = 7
    VERSION_COMPATIBLE = 13
    EXCLUDE_LEAN_RUNTIME = 14
    FP8 = 15
    BF16 = 17
    STRIP_PLAN = 19
    REFIT_IDENTICAL = 20
    WEIGHT_STREAMING = 21
    EDITABLE_TIMING_CACHE = 27
    ERROR_ON_TIMING_CACHE_MISS = 16
    DISABLE_COMPILATION_CACHE = 18


if os.environ.get("STANDIN_OLD"):  # a version that lacks a flag
    BuilderFlag = enum.IntEnum(  # type: ignore[misc]
        "BuilderFlag", {flag.name: flag.value for flag in BuilderFlag if flag.name != "REFIT_IDENTICAL"}
    )


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class EngineCapability(enum.IntEnum):
    STANDARD = 0
    SAFETY = 1
    DLA_STANDALONE = 2


class HardwareCompatibilityLevel(enum.IntEnum):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class RuntimePlatform(enum.IntEnum):
    SAME_AS_BUILD = 0
    WINDOWS_AMD64 = 1


class TilingOptimizationLevel(enum.IntEnum):
    NONE = 0
    FAST = 1
    MODERATE = 2
    FULL = 3


if os.environ.get("STANDIN_OLD"):
    del TilingOptimizationLevel


class DeviceType(enum.IntEnum):
    GPU = 0
    DLA = 1


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0
    DLA_MANAGED_SRAM = 1
    DLA_LOCAL_DRAM = 2
    DLA_GLOBAL_DRAM = 3


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT64 = 8


class IProgressMonitor:
    def __init__(self) -> None:
        pass


class Memory(bytes):
    """``IHostMemory``: bytes by the buffer protocol."""


class ITimingCache:
    """Tactics by operation. ``device`` is what the cache's header holds of the GPU."""

    HEADER = b"timings of standin " + __version__.encode() + b":"

    def __init__(self, entries: dict[str, str], device: str) -> None:
        self.entries, self.device = entries, device

    @classmethod
    def read(cls, blob: bytes) -> ITimingCache | None:
        if not blob:
            return cls({}, this_device())
        if blob.startswith(cls.HEADER + b"crash"):
            ctypes.string_at(0)
        if not blob.startswith(cls.HEADER):
            return None
        try:
            told = json.loads(blob[len(cls.HEADER) :])
        except ValueError:
            return None
        return cls(told["entries"], told["device"])

    def serialize(self) -> Memory:
        told = {"device": self.device, "entries": self.entries}
        return Memory(self.HEADER + json.dumps(told, sort_keys=True).encode())

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Entries of the other; those that conflict are skipped. With itself it never comes back."""
        if input_cache is self:
            ctypes.PyDLL(None).pause()
        if input_cache.device != self.device and not ignore_mismatch:
            return False
        self.entries = {**input_cache.entries, **self.entries}
        return True

    def queryKeys(self) -> list[str]:
        return list(self.entries)


def this_device() -> str:
    return os.environ.get("STANDIN_DEVICE", "a GPU")


class Tensor:
    def __init__(self, name: str, dtype: str, shape: list[int], shape_tensor: bool = False) -> None:
        self.name, self.dtype, self.shape = name, DataType[dtype], tuple(shape)
        self.is_shape_tensor = shape_tensor


class Network:
    def __init__(self, flags: int) -> None:
        self.name, self.flags = "Unnamed Network 0", flags
        self.model: dict[str, Any] = {}
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    def add_input(self, name: str, dtype: DataType, shape: tuple[int, ...]) -> Tensor:
        self.inputs.append(Tensor(name, dtype.name, list(shape)))
        return self.inputs[-1]

    def add_identity(self, input: Tensor) -> Any:
        class Layer:
            def get_output(self, index: int) -> Tensor:
                return Tensor("identity", input.dtype.name, list(input.shape))

        return Layer()

    def mark_output(self, tensor: Tensor) -> None:
        self.outputs.append(tensor)


class ParserError:
    def __init__(self, told: dict[str, str]) -> None:
        self.told = told

    def desc(self) -> str:
        return self.told["text"]

    def node_name(self) -> str:
        return self.told.get("node_name", "")

    def node_operator(self) -> str:
        return self.told.get("node_operator", "")


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network, self.logger = network, logger
        self.errors: list[ParserError] = []

    num_errors = property(lambda self: len(self.errors))

    def get_error(self, index: int) -> ParserError:
        return self.errors[index]

    def parse_from_file(self, model: str) -> bool:
        with open(model, "rb") as file:
            found = re.search(rb"STANDIN(\{.*\})NIDNATS", file.read(), re.DOTALL)
        told = json.loads(found[1]) if found else {}
        self.network.model = told
        self.network.inputs = [Tensor(*binding) for binding in told.get("inputs", [])]
        self.network.outputs = [Tensor(*binding) for binding in told.get("outputs", [])]
        self.errors = [ParserError(error) for error in told.get("parse_errors", [])]
        for error in self.errors:
            self.logger.log(ERROR, f"ModelImporter: {error.desc()}")
        return not self.errors


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = (min, opt, max)

    def set_shape_input(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = ("values", min, opt, max)


class BuilderConfig:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._flags = {BuilderFlag.TF32}
        self._pools = dict.fromkeys(MemoryPoolType, 24 * 2**30)
        self._cache: ITimingCache | None = None
        self.refused: list[str] = []
        self.profiles: list[Profile] = []
        self.builder_optimization_level = 3
        self.avg_timing_iterations = 1
        self.max_aux_streams = -1
        self.l2_limit_for_tiling = 0
        if not os.environ.get("STANDIN_OLD"):
            self.tiling_optimization_level = TilingOptimizationLevel.NONE
        self.engine_capability = EngineCapability.STANDARD
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.default_device_type = DeviceType.GPU
        self.DLA_core = -1
        self.progress_monitor: Any = None
        self._platform = RuntimePlatform.SAME_AS_BUILD

    @property
    def runtime_platform(self) -> RuntimePlatform:
        return self._platform

    @runtime_platform.setter
    def runtime_platform(self, platform: RuntimePlatform) -> None:
        if os.environ.get("STANDIN_NO_WINDOWS"):
            self._logger.log(ERROR, "IBuilderConfig::setRuntimePlatform: Error Code 3: API Usage Error (no)")
            return
        self._platform = platform

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        return self._pools[pool]

    def add_optimization_profile(self, profile: Profile) -> int:
        for shapes in profile.shapes.values():
            low, best, high = shapes[-3:]
            if not all(a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
                self._logger.log(ERROR, "IOptimizationProfile::isValid: MIN<=OPT<=MAX")
                return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        cache = ITimingCache.read(bytes(serialized_timing_cache))
        if cache is None:
            self._logger.log(ERROR, "ITimingCache::deserialize: the cache is of another version, or damaged")
        return cache

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.device != this_device() and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder:
    def __init__(self, logger: ILogger) -> None:
        if os.environ.get("STANDIN_NO_DRIVER"):
            logger.log(ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.logger = logger
        self.num_DLA_cores = int(os.environ.get("STANDIN_DLA", "0"))

    def create_network(self, flags: int = 0) -> Network:
        return Network(flags)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig(self.logger)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> Memory | None:
        model = network.model
        for line in range(model.get("log_lines", 0)):
            self.logger.log(INFO, f"line {line} of many")
        self.logger.log(VERBOSE, "tactic 17 considered")
        self._progress(config, model)
        behave(model)
        for text in model.get("build_errors", []):
            self.logger.log(ERROR, text)
        if model.get("build_errors"):
            return None
        if not self._time(config, model):
            return None
        told = {"name": network.name, "flags": network.flags, "profiles": [p.shapes for p in config.profiles]}
        told |= {"inputs": bound(network.inputs), "outputs": bound(network.outputs), "run": model.get("run", {})}
        told |= {"host_code": config.get_flag(BuilderFlag.VERSION_COMPATIBLE)}
        return Memory(b"ftrt" + json.dumps(told, sort_keys=True).encode() + b" " * model.get("padding", 0))

    def _time(self, config: BuilderConfig, model: dict[str, Any]) -> bool:
        """Choose a tactic for each of the model's operations: one that the cache has, or the best of those timed."""
        cache = config.get_timing_cache()
        known = cache.entries if cache is not None else {}
        for operation in model.get("operations", ["conv"]):
            if operation in known:
                continue
            if cache is not None and config.get_flag(BuilderFlag.ERROR_ON_TIMING_CACHE_MISS):
                self.logger.log(ERROR, f"{operation} is not present in the timing cache")
                return False
            time.sleep(model.get("timing_seconds", 0.0))
            known[operation] = model.get("tactic", f"tactic of {operation}")
        return True

    def _progress(self, config: BuilderConfig, model: dict[str, Any]) -> None:
        monitor, steps = config.progress_monitor, model.get("steps", 2)
        if monitor is None:
            return
        monitor.phase_start("Building", None, steps)
        for step in range(steps):
            monitor.phase_start("Inner", "Building", 2)
            time.sleep(model.get("step_seconds", 0))
            assert monitor.step_complete("Inner", 0) is True
            monitor.phase_finish("Inner")
            assert monitor.step_complete("Building", step) is True
        monitor.phase_finish("Building")


def bound(tensors: list[Tensor]) -> list[list[Any]]:
    return [[tensor.name, tensor.dtype.name, list(tensor.shape)] for tensor in tensors]


class Runtime:
    """Runs plans of this module's builder, on a CPU: where real TensorRT has addresses on its GPU."""

    def __init__(self, logger: ILogger) -> None:
        self.logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
        plan = bytes(serialized_engine)
        if not plan.startswith(b"ftrt"):
            self.logger.log(ERROR, "IRuntime::deserializeCudaEngine: magic tag does not match")
            return None
        told = json.loads(plan[4:])
        if told["host_code"] and not self.engine_host_code_allowed:
            self.logger.log(ERROR, "IRuntime::deserializeCudaEngine: the plan holds host code, which is not allowed")
            return None
        return CudaEngine(told, self.logger)


class CudaEngine:
    def __init__(self, told: dict[str, Any], logger: ILogger) -> None:
        self.told, self.logger = told, logger

    def create_serialization_config(self) -> SerializationConfig:
        return SerializationConfig()

    def serialize_with_config(self, arg0: SerializationConfig) -> Memory:
        told = {**self.told, "refittable": int(SerializationFlag.INCLUDE_REFIT) in arg0.flags}
        return Memory(b"ftrt" + json.dumps(told, sort_keys=True).encode())

    def create_execution_context(self) -> ExecutionContext | None:
        return None if self.told["run"].get("no_context") else ExecutionContext(self)

    def get_tensor_dtype(self, name: str) -> DataType:
        known = {n: DataType[dtype] for n, dtype, _ in [*self.told["inputs"], *self.told["outputs"]]}
        return known.get(name, DataType.FLOAT)


class ExecutionContext:
    """Gives every output its first input's elements, each ``factor`` times as large, as often as they fit."""

    def __init__(self, engine: CudaEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: Any) -> bool:
        known = {n: list(allowed) for n, _, allowed in self.engine.told["inputs"]}
        fits = name in known and len(known[name]) == len(shape)
        fits = fits and all(want in (-1, got) for want, got in zip(known[name], shape, strict=True))
        for profile in self.engine.told["profiles"] if fits else []:
            low, _, high = profile.get(name, ([0], [0], [2**31]))[-3:]
            fits = all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))
        if not fits:
            self.engine.logger.log(ERROR, f"IExecutionContext::setInputShape: {name} cannot be {tuple(shape)}")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return any(name == n for n, _, _ in [*self.engine.told["inputs"], *self.engine.told["outputs"]])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Free sizes are the first input's."""
        if name in self.shapes:
            return self.shapes[name]
        shape = next((shape for n, _, shape in self.engine.told["outputs"] if n == name), [])
        free = self.shapes[self.engine.told["inputs"][0][0]][0]
        return tuple(free if size == -1 and not self.engine.told["run"].get("unknown") else size for size in shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        run = self.engine.told["run"]
        if run.get("fails"):
            self.engine.logger.log(ERROR, "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (no)")
            return False
        time.sleep(run.get("seconds", 0.0))
        first = self.engine.told["inputs"][0][0]
        given = floats(self.addresses[first], self.shapes[first])
        for name, _, _ in self.engine.told["outputs"]:
            out = floats(self.addresses[name], self.get_tensor_shape(name))
            for place in range(len(out)):
                out[place] = given[place % len(given)] * run.get("factor", 1.0)
        return True


def floats(address: int, shape: tuple[int, ...]) -> Any:
    count = 1
    for size in shape:
        count *= size
    return (ctypes.c_float * count).from_address(address)


def behave(model: dict[str, Any]) -> None:
    """Do what a model asks for: what native code does on a bad day."""
    if "sleep" in model:
        time.sleep(model["sleep"])
    if "hang" in model:  # a native call that waits for ever and holds Python's lock
        ctypes.PyDLL(None).pause()
    if "signal" in model:
        os.kill(os.getpid(), model["signal"])
    if "allocate" in model:
        held = [bytearray(b"x" * 2**20) for _ in range(model["allocate"])]
        time.sleep(model.get("hold", 0))
        del held
    if "touch" in model:
        with open(model["touch"], "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)


class SerializationFlag(enum.IntEnum):
    EXCLUDE_WEIGHTS = 0
    INCLUDE_REFIT = 2


class SerializationConfig:
    def __init__(self) -> None:
        self.flags: set[int] = set()

    def set_flag(self, flag: SerializationFlag) -> bool:
        self.flags.add(int(flag))
        return True


class Refitter:
    def __init__(self, engine: CudaEngine, logger: ILogger) -> None:
        self.engine, self.given = engine, {}

    def get_all_weights(self) -> list[str]:
        return ["conv KERNEL", "conv BIAS"]

    def get_missing_weights(self) -> list[str]:
        return [name for name in self.get_all_weights() if name not in self.given]

    def refit_cuda_engine(self) -> bool:
        self.engine.told["weights"] = self.given
        return True


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self.refitter, self.errors = refitter, []

    num_errors = property(lambda self: len(self.errors))

    def get_error(self, index: int) -> ParserError:
        return self.errors[index]

    def refit_from_file(self, model: str) -> bool:
        with open(model, "rb") as file:
            found = re.search(rb"STANDIN(\{.*\})NIDNATS", file.read(), re.DOTALL)
        told = json.loads(found[1]) if found else {}
        self.errors = [ParserError(error) for error in told.get("refit_errors", [])]
        self.refitter.given = told.get("weights", {})
        return not self.errors
