"""On the PYTHONPATH: processes see an NVIDIA L4, through the real nvidia-ml-py over a stand-in of the driver."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "unit" / "hosts"))

import pynvml
from nvml_standin import StandIn
from some_gpus import l4

# Tests at once show GPUs of their own: a GPU is held by one worker on the whole machine.
pynvml.nvmlLib = StandIn(l4(int(os.environ.get("GPU_SITE_NUMBER", "0"))))
