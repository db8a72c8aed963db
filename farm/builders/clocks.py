"""Devices that the harness runs on: what their clocks are, what their memory is, how a call is captured. Needs torch.

A GPU is timed by CUDA events, on one stream; a CPU by ``perf_counter``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from farm.builders.harness import Call


class CpuDevice:
    """This machine's processors. Memory is the process's resident peak."""

    name = "cpu"
    stream = 0

    def each(self, call: Call, count: int) -> list[float]:
        """As ``Clock.each``: a call on a CPU is over when it returns."""
        times = []
        for _ in range(count):
            began = time.perf_counter()
            call()
            times.append((time.perf_counter() - began) * 1e3)
        return times

    def together(self, call: Call, count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - began) * 1e3

    def wait(self) -> None:
        """A CPU has nothing outstanding."""

    def place(self, value: Any) -> Any:
        return value

    def memory(self) -> int:
        """Bytes: the largest resident memory so far."""
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def capture(self, call: Call) -> Call:
        raise ValueError("a CPU has no CUDA graphs")

    def describe(self) -> dict[str, Any]:
        return {"threads": torch.get_num_threads()}


class CudaDevice:
    """The first GPU that CUDA shows. Everything runs on one stream, whose handle TensorRT takes too."""

    name = "cuda"

    def __init__(self) -> None:
        self.device = torch.device("cuda", 0)
        torch.cuda.set_device(self.device)
        # The context, and what cuBLAS and cuDNN take for themselves, are no subject's.
        torch.ones(8, 8, device=self.device) @ torch.ones(8, 8, device=self.device)
        self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        torch.cuda.set_stream(self._stream)
        torch.cuda.synchronize()
        self._least_free = self._free()
        self._start = self._least_free

    @property
    def stream(self) -> int:
        return int(self._stream.cuda_stream)

    def each(self, call: Call, count: int) -> list[float]:
        """As ``Clock.each``, by a pair of events around each call."""
        begin, end = self._events(), self._events()
        times = []
        self.wait()
        for _ in range(count):
            begin.record(self._stream)
            call()
            end.record(self._stream)
            end.synchronize()
            times.append(float(begin.elapsed_time(end)))
        self._look()
        return times

    def together(self, call: Call, count: int) -> float:
        begin, end = self._events(), self._events()
        self.wait()
        begin.record(self._stream)
        for _ in range(count):
            call()
        end.record(self._stream)
        end.synchronize()
        return float(begin.elapsed_time(end))

    def wait(self) -> None:
        torch.cuda.synchronize()

    def place(self, value: Any) -> Any:
        """A tensor on the GPU, copied from page-locked memory; it stays there for all inferences."""
        placed = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=self.device)
        placed.copy_(value.pin_memory(), non_blocking=True)
        self.wait()
        return placed

    def memory(self) -> int:
        """Bytes of the GPU's memory taken since this began, at most: TensorRT's own, and what torch's allocator
        keeps. Other processes' comings and goings count too; a GPU that is measured on should have none."""
        self._look()
        return max(0, self._start - self._least_free)

    def capture(self, call: Call) -> Call:
        """``call`` recorded as a CUDA graph; what it returns is where its results lie after each replay."""
        for _ in range(3):
            call()
        self.wait()
        graph = torch.cuda.CUDAGraph()
        held: list[Any] = []
        with torch.cuda.graph(graph, stream=self._stream):
            held.append(call())

        def replay() -> Any:
            graph.replay()
            return held[0]

        return replay

    def describe(self) -> dict[str, Any]:
        properties = torch.cuda.get_device_properties(self.device)
        return {"name": properties.name, "capability": properties.major * 10 + properties.minor}

    def _look(self) -> None:
        self._least_free = min(self._least_free, self._free())

    @staticmethod
    def _free() -> int:
        return int(torch.cuda.mem_get_info()[0])

    @staticmethod
    def _events() -> Any:
        return torch.cuda.Event(enable_timing=True)


Device = CpuDevice | CudaDevice
DEVICES: dict[str, Callable[[], Device]] = {"cpu": CpuDevice, "cuda": CudaDevice}
