"""The builder over ``torch_tensorrt``: program → partitions → engines, put together in one container.

This side never imports torch. The child (``integrations/program_child``, which reads graphs and so stands above this
folder) runs ``torch_tensorrt.dynamo.compile`` on the sanitised program and leaves each subgraph's plan in the job's
folder; here they are looked at and put into the program artefact: a ``container`` whose bytes are the plans, one after
another, and whose header says which ops run where. Nothing in it is code: whoever has the program puts both together
(``farm.integrations.torch_tensorrt.load_program``). Torch-TensorRT's own saved program, whose loading runs code, is
never made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from farm.builders import AttemptFailed, Builder, Job, Product, Watch
from farm.builders.counter import Counter, Shelf
from farm.builders.failures import explain, not_started
from farm.builders.outcome import Outcome
from farm.builders.plan import HEADER_SIZE, mismatch, read_header
from farm.builders.sandbox import STALL_SECONDS, NotStarted, Task, run_child
from farm.builds import Failure, FailureKind
from farm.container import Header, pack_to
from farm.errors import FarmError
from farm.toolchains import TORCH_TENSORRT

CHILD = Path(__file__).parents[1] / "integrations" / "program_child.py"
ARTEFACT = "program.farm"
PROGRAM_KIND = "torch_tensorrt program"
SHOWN_WARNINGS = 10
RTX = "rtx"


@dataclass(frozen=True)
class TorchTensorRTBuilder:
    """Implements ``Builder``, and no ``Exporter``: Torch-TensorRT takes the program itself. ``environment`` as for the
    ``tensorrt`` builder; ``shelf`` has the engines of subgraphs that programs have in common."""

    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    stall_seconds: float = STALL_SECONDS
    shelf: Shelf | None = None

    def build(self, job: Job, watch: Watch) -> Product:
        """Build ``job``, whose form is the sanitised program; raises ``AttemptFailed`` or ``Cancelled``."""
        artefact = job.folder / ARTEFACT
        try:
            outcome = self._run(job, watch)
            failure = explain(outcome, job.limits, {}, "build")
            if failure is not None:
                raise AttemptFailed(failure)
            done = outcome.last("done")
            assert done is not None
            return _product(job, artefact, done, outcome)
        except BaseException:
            artefact.unlink(missing_ok=True)
            raise

    def _run(self, job: Job, watch: Watch) -> Outcome:
        gpu = job.toolchain.device_bound
        task = Task(CHILD, child_job(job), job.folder.absolute(), self.environment, self.stall_seconds, gpu)
        counter = Counter(job.folder, self.shelf, lambda plan: _fault(job, plan[:HEADER_SIZE], len(plan)))
        try:
            with counter.open():
                return run_child(task, job.limits, watch)
        except NotStarted as error:
            raise AttemptFailed(not_started(error)) from error


def child_job(job: Job) -> dict[str, Any]:
    """What the child is told: plain JSON."""
    if job.form.graph.suffix != ".pt2":
        raise AttemptFailed(
            Failure(
                FailureKind.PERMANENT,
                "Torch-TensorRT compiles PyTorch programs, and this one is ONNX",
                "give the .pt2, or build with @tensorrt or @tensorrt_rtx",
            )
        )
    return {
        "program": str(job.form.graph.absolute()),
        "folder": str(job.folder.absolute()),
        "toolchain": str(job.toolchain),
        "version": job.toolchain.version,
        "over": job.toolchain.over,
        "capabilities": [name.replace("sm_", "SM") for name in job.capabilities],
        "os": job.os,
        "settings": dict(job.settings),
        "profiles": [{name: [list(s) for s in shapes] for name, shapes in one.items()} for one in job.profiles],
    }


def _product(job: Job, artefact: Path, done: Mapping[str, Any], outcome: Outcome) -> Product:
    """The program's artefact, of what the child's last message tells of. The child is not trusted to have told it
    well: plans are files in the job's folder, of the toolchain and target that were asked for."""
    try:
        engines = [_engine(job, dict(told)) for told in done["engines"]]
        detail = {
            "kind": PROGRAM_KIND,
            "graph": list(done["graph"]),
            "engines": engines,
            "report": dict(done["report"]),
            "settings": dict(job.settings),
            "profiles": child_job(job)["profiles"],
            "lowered_by": str(done["lowered_by"]),
        }
        bindings = {"inputs": list(done["inputs"]), "outputs": list(done["outputs"])}
        size = _write(job, artefact, engines, bindings, detail)
        return Product(
            plan=artefact,
            size=size,
            seconds={str(name): round(float(took), 6) for name, took in done["seconds"].items()},
            peak_memory=outcome.peak_memory,
            read_back=dict(done["read_back"]),
            bindings=bindings,
            warnings=tuple(dict.fromkeys(map(str, done["warnings"])))[:SHOWN_WARNINGS],
            detail={name: detail[name] for name in ("kind", "engines", "report", "lowered_by")},
        )
    except (KeyError, TypeError, ValueError, AttributeError, FarmError) as error:
        if isinstance(error, AttemptFailed):
            raise
        raise AttemptFailed(
            Failure(
                FailureKind.TRANSIENT, f"the build's process gave an answer that makes no sense: {error}", "tried again"
            )
        ) from error


def _engine(job: Job, told: dict[str, Any]) -> dict[str, Any]:
    """One subgraph's engine, as the artefact lists it."""
    name = str(told["file"])
    path = job.folder / name
    if Path(name).name != name or path.is_symlink() or not path.is_file():
        raise ValueError(f"{name!r} is no plan's file")
    with path.open("rb") as file:
        start = file.read(HEADER_SIZE)
        file.seek(0)
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    wrong = _fault(job, start, size)
    if wrong is not None:
        raise ValueError(f"the engine of {told['name']} is not the one asked for: {wrong}")
    return {**told, "digest": digest, "size": size}


def _fault(job: Job, start: bytes | memoryview, size: int) -> str | None:
    """Why a plan that begins so is not of the job's toolchain and target; the header of plain TensorRT's plans is not
    documented."""
    if not job.toolchain.over.startswith(RTX):
        return None
    try:
        return mismatch(read_header(bytes(start)), size, job.toolchain.over.removeprefix(RTX), job.capabilities)
    except ValueError as error:
        return str(error)


class _Joined:
    """The plans, as one stream of bytes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._file = None if not paths else self._paths.pop(0).open("rb")

    def read(self, size: int = -1) -> bytes:
        while self._file is not None:
            piece = self._file.read(size)
            if piece:
                return piece
            self._file.close()
            self._file = self._paths.pop(0).open("rb") if self._paths else None
        return b""


def _write(
    job: Job, artefact: Path, engines: Sequence[dict[str, Any]], bindings: Mapping[str, Any], detail: Mapping[str, Any]
) -> int:
    """Write the artefact; its size in bytes. Each engine's place in the bytes goes into its entry."""
    hasher, place = hashlib.sha256(), 0
    paths = [job.folder / str(engine.pop("file")) for engine in engines]
    for engine, path in zip(engines, paths, strict=True):
        engine["offset"] = place
        place += int(engine["size"])
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                hasher.update(piece)
    nothing = "sha256:" + "0" * 64
    header = Header(
        key=str(job.key or nothing),
        recipe=str(job.recipe or nothing),
        engine="sha256:" + hasher.hexdigest(),
        size=place,
        toolchain=str(job.toolchain),
        target="+".join(job.capabilities),
        bindings=bindings,
        detail=detail,
    )
    with artefact.open("wb") as dest:
        pack_to(dest, header, _Joined(paths))  # type: ignore[arg-type]
    return artefact.stat().st_size


@dataclass(frozen=True)
class Builders:
    """Each toolchain's builder, as one ``Builder``."""

    tensorrt: Builder
    torch_tensorrt: Builder

    def build(self, job: Job, watch: Watch) -> Product:
        chosen = self.torch_tensorrt if job.toolchain.flavour == TORCH_TENSORRT else self.tensorrt
        return chosen.build(job, watch)
