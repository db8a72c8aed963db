"""Other weights put into an engine by the toolchain that made it, in a child, on the engine's GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from farm.builders import AttemptFailed, Form, Limits, Watch
from farm.builders.failures import explain, not_started
from farm.builders.sandbox import NotStarted, Task, run_child
from farm.builds import Failure, FailureKind
from farm.toolchains import Toolchain

REFIT_CHILD = Path(__file__).with_name("refit_child.py")
OUT = "refitted.plan"


@dataclass(frozen=True)
class TensorRTRefitter:
    """Implements ``refits.Refitter``. ``environment`` as ``TensorRTBuilder`` has it: it shows the GPU."""

    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def refit(self, toolchain: Toolchain, plan: Path, form: Form, folder: Path, limits: Limits, watch: Watch) -> Path:
        """The engine ``plan`` with the weights of ``form``, in ``folder``. ``AttemptFailed``, ``Cancelled``."""
        out = folder / OUT
        job = {
            "module": toolchain.flavour,
            "version": toolchain.version,
            "plan": str(plan.absolute()),
            "graph": str(form.graph.absolute()),
            "out": str(out.absolute()),
        }
        try:
            outcome = run_child(Task(REFIT_CHILD, job, folder.absolute(), self.environment, gpu=True), limits, watch)
        except NotStarted as error:
            raise AttemptFailed(not_started(error, "try again")) from error
        failed = explain(outcome, limits, {}, "refit")
        if failed is not None:
            raise AttemptFailed(failed)
        if out.is_symlink() or not out.is_file():
            raise AttemptFailed(Failure(FailureKind.TRANSIENT, "the refit left no engine", "try again"))
        return out
