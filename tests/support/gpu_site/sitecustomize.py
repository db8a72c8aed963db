"""On the PYTHONPATH: processes see an NVIDIA L4, through the real nvidia-ml-py over a stand-in of the driver."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "unit" / "hosts"))

import pynvml
from nvml_standin import StandIn
from some_gpus import l4

pynvml.nvmlLib = StandIn(l4())
