"""``farm refit``: one engine, and the weights of any model with the same graph.

A refittable engine serves every fine-tune; a hit on one whose baked weights are another's says *needs refit*. This puts
the asker's in: on a machine with the engine's GPU, since TensorRT refits an engine that it has loaded.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from farm.builders import Form, Limits, Watch
from farm.builds import Engine
from farm.cache import EngineCache
from farm.errors import BadInput
from farm.forms import Forms
from farm.programs import Program, open_program
from farm.toolchains import TORCH_TENSORRT, Toolchain, exact_toolchain


class Refitter(Protocol):
    """Puts weights into an engine, never in the caller's process."""

    def refit(self, toolchain: Toolchain, plan: Path, form: Form, folder: Path, limits: Limits, watch: Watch) -> Path:
        """The file of the engine ``plan`` with the weights of ``form``, in ``folder``. ``AttemptFailed``."""
        ...


@dataclass(frozen=True)
class Refitted:
    """An engine with other weights: its file, the SHA-256 of its bytes, its size, and the weights' digest."""

    path: Path
    digest: str
    size: int
    weights: str


@dataclass(frozen=True)
class Refits:
    """What refitting needs."""

    cache: EngineCache
    forms: Forms
    refitter: Refitter
    scratch: Path
    limits: Limits

    def refit(self, engine: Engine, model: Path, dest: Path, watch: Watch | None = None) -> Refitted:
        """Write ``engine`` with the weights of ``model`` to ``dest``. ``BadInput`` where they do not belong together;
        ``AttemptFailed`` where TensorRT does not do it, here or at all."""
        program = open_program(model)
        check(engine, program)
        watch = watch or Watch()
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="refit-", dir=self.scratch) as name:
            folder = Path(name)
            plan = folder / "engine.plan"
            self.cache.fetch(engine, plan)
            form = self.forms.get(lambda: model, program.content_digest(), program.format, watch)
            toolchain = exact_toolchain(str(engine.manifest["toolchain"]))
            made = self.refitter.refit(toolchain, plan, form, folder, self.limits, watch)
            with made.open("rb") as file:
                digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            size = made.stat().st_size
            dest.parent.mkdir(parents=True, exist_ok=True)
            draft = dest.with_name(f".{dest.name}.part")
            draft.write_bytes(made.read_bytes())
            draft.replace(dest)
        return Refitted(dest, digest, size, program.weights.content_digest())


def check(engine: Engine, program: Program) -> None:
    """``BadInput`` unless the engine can be refitted, and the program is of its graph, constants and all."""
    told = engine.manifest
    parts, settings = _table(told, "parts"), _table(_table(told, "parts"), "settings")
    if str(told.get("toolchain", "")).startswith(TORCH_TENSORRT):
        raise BadInput(
            "the engine is a part of a Torch-TensorRT program, which Torch-TensorRT refits",
            "load it with load_program(), then refit it with torch_tensorrt.dynamo.refit_module_weights()",
        )
    if settings.get("immutable_weights", True):
        raise BadInput("the engine's weights are baked in for good", "build it with -s immutable_weights=false")
    weights = _table(parts, "weights")
    if weights.get("policy") != "metadata":
        raise BadInput(
            "the engine was built with an eye on its weights' values (sparsity, autocast, quantisation, equal ones)",
            "build one for these weights",
        )
    if parts.get("graph") != program.structure_digest:
        raise BadInput(
            f"{program.path} is another graph than the engine's", f"'farm explain {program.path}' says what differs"
        )
    if weights.get("constants") != program.graph_digest:
        raise BadInput(
            f"{program.path} has other constants than the engine's, and those are baked in", "build one for it"
        )


def _table(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = told.get(name)
    return found if isinstance(found, Mapping) else {}
