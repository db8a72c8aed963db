"""On the PYTHONPATH: processes see NVIDIA L4s, through the real nvidia-ml-py over a stand-in of the driver."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "unit" / "hosts"))

import pynvml
from nvml_standin import StandIn
from some_gpus import l4

# Tests at once show GPUs of their own: a GPU is held by one worker on the whole machine.
first, count = (int(os.environ.get(f"GPU_SITE_{name}", default)) for name, default in (("NUMBER", "0"), ("COUNT", "1")))
pynvml.nvmlLib = StandIn(*map(l4, range(first, first + count)))
