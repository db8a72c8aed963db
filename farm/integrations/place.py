"""This process's Torch-TensorRT, and the GPU that its settings name."""

from __future__ import annotations

from typing import Any

import torch
import torch_tensorrt

from farm.hosts.probe import machine
from farm.integrations.subgraphs import Place, gpu_named
from farm.toolchains import DEFAULT_CUDA, TORCH_TENSORRT, Toolchain


def place_of(settings: Any) -> Place:
    """Where engines of ``settings`` are built and run."""
    device = getattr(settings.device, "gpu_id", None)
    number = int(device) if device is not None and int(device) >= 0 else torch.cuda.current_device()
    about = torch.cuda.get_device_properties(number)
    gpu = gpu_named(str(about.name), int(about.major) * 10 + int(about.minor), machine())
    return Place(toolchain_here(), gpu, int(getattr(about, "multi_processor_count", 0)))


def toolchain_here() -> Toolchain:
    """Torch-TensorRT as this process has it, over the TensorRT that it has loaded."""
    import tensorrt

    rtx = getattr(torch_tensorrt.ENABLED_FEATURES, "tensorrt_rtx", False)
    version = str(torch_tensorrt.__version__).partition("+")[0]
    cuda = int(torch.version.cuda.partition(".")[0]) if torch.version.cuda else DEFAULT_CUDA
    return Toolchain(TORCH_TENSORRT, version, cuda, f"{'rtx' if rtx else 'trt'}{tensorrt.__version__}")
