"""What ``farm.hosts`` says of this machine, in the environment that the test has set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farm.gpus import Gpu
from farm.hosts import cuda, gpu
from farm.hosts import probe as probing
from farm.hosts.probe import Host


def probe(gpu: int | None = None, scratch: Path = Path(), environ: Mapping[str, str] | None = None) -> Host:
    return probing.probe(os.environ if environ is None else environ, gpu, scratch)


def local_gpu() -> Gpu | None:
    return gpu.local_gpu(os.environ)


def cuda_devices(environ: Mapping[str, str] | None = None, **how: Any) -> tuple[list[dict[str, Any]], str]:
    return cuda.cuda_devices(os.environ if environ is None else environ, **how)
