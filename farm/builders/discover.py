"""Whether an installed toolchain works. It is tried in a child process, as importing a broken TensorRT can end one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from farm.builders import Limits, Watch
from farm.builders.failures import explain
from farm.builders.sandbox import NotStarted, Task, run_child
from farm.builds import Failure, FailureKind
from farm.toolchains import TORCH_TENSORRT, Toolchain

BUILD_CHILD = Path(__file__).with_name("trt_child.py")
TORCH_CHILD = Path(__file__).parents[1] / "integrations" / "program_child.py"
PROBE_SECONDS = 60.0


@dataclass(frozen=True)
class Probe:
    """Whether ``toolchain`` builds on this machine; if not, why. ``capabilities`` are those that it can be told to
    build for (``sm_86`` …); none for plain TensorRT, which builds for the GPU that it finds."""

    toolchain: Toolchain
    capabilities: tuple[str, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0
    log: str = field(default="", repr=False)

    @property
    def works(self) -> bool:
        return self.failure is None


def probe(toolchain: Toolchain, environment: Mapping[str, str] | None = None) -> Probe:
    """Build an engine of one layer with ``toolchain`` in a child."""
    limits = Limits(seconds=PROBE_SECONDS)
    job = {"module": toolchain.flavour, "version": toolchain.version, "verbose": False, "probe": True}
    child = BUILD_CHILD
    if toolchain.flavour == TORCH_TENSORRT:
        job, child = {**job, "over": toolchain.over}, TORCH_CHILD
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="farm-probe-") as folder:
        task = Task(child, job, Path(folder), environment or {}, gpu=toolchain.device_bound)
        try:
            outcome = run_child(task, limits, Watch())
        except NotStarted as error:
            return Probe(toolchain, failure=Failure(FailureKind.NODE, f"no process could be started: {error}", ""))
    failure = explain(outcome, limits, {}, "probe")
    done = outcome.last("done") or {}
    names = tuple(str(name).replace("SM", "sm_") for name in done.get("capabilities", ()))
    return Probe(toolchain, names, failure, time.monotonic() - started, outcome.log)
