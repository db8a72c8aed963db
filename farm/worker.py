"""A worker: leases the best eligible build, makes it in a child under a heartbeat, commits it.

Whoever delivers the wake-up (Celery, a test, a loop) calls ``run_one``; how the wake-up came does not matter.
A worker that dies leaves nothing but a lease that runs out; its children die with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from farm.admission import Admission
from farm.builders import AttemptFailed, Builder, Cancelled, Job, Limits, Product
from farm.builds import BuildRequest, Failure, FailureKind, Lease, decide_retry
from farm.cache import EngineCache
from farm.errors import BadInput, CorruptBlob, FarmError, LeaseLost, Unavailable
from farm.forms import Forms
from farm.heart import Heart
from farm.hosts.processes import vantage
from farm.identify import Identifier
from farm.index import Index, Worker
from farm.keys import Keyed
from farm.logging import get_logger
from farm.placement import expected_peak
from farm.targets import Target, capability_name, parse_target
from farm.toolchains import exact_toolchain
from farm.version import __version__

log = get_logger(__name__)


@dataclass(frozen=True)
class Workshop:
    """What a worker needs around it. ``serves`` are the queues whose builds this machine can make."""

    index: Index
    cache: EngineCache
    forms: Forms
    builder: Builder
    identifier: Identifier
    serves: tuple[str, ...]
    scratch: Path
    host: str
    limits: Limits = field(default_factory=Limits)
    lease_seconds: float = 15.0
    beat_seconds: float = 0.4


class BuildWorker:
    """One process's worker; ``run_one`` may run in several threads at once."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        process = psutil.Process()
        self.me = Worker(
            id=f"{shop.host}:{process.pid}:{uuid.uuid4().hex[:8]}",
            host=shop.host,
            pid=process.pid,
            born=process.create_time(),
            capabilities=shop.serves,
            detail={
                "vantage": vantage(),
                "cores": len(os.sched_getaffinity(0)),
                "memory": psutil.virtual_memory().total,
            },
        )
        self._stopping = threading.Event()
        self._admission = Admission()

    def open(self) -> None:
        """Show up among the workers."""
        self.shop.scratch.mkdir(parents=True, exist_ok=True)
        sweep_scratch(self.shop.scratch)
        self.shop.index.register(self.me)

    def stop(self) -> None:
        """Make every running build hand itself back within a second; returns at once."""
        self._stopping.set()

    def close(self) -> None:
        """Leave the list of workers; call when no ``run_one`` runs any more."""
        with contextlib.suppress(Unavailable):
            self.shop.index.unregister(self.me.id)

    def run_one(self) -> bool:
        """Lease the best build that this machine can make, and make it. False when there was none.

        Every ending is recorded under the lease: succeeded, failed (queued again where that may help),
        cancelled, or handed back because the worker stops. ``LeaseLost`` ends it silently: another has it.
        """
        if self._stopping.is_set():
            return False
        lease = self.shop.index.lease(self.me.id, self.shop.serves, self.shop.lease_seconds)
        if lease is None:
            return False
        heart = Heart(self.shop.index, lease, self.shop.lease_seconds, self.shop.beat_seconds, self._stopping)
        with heart:
            self._attempt(lease, heart)
        return True

    def _attempt(self, lease: Lease, heart: Heart) -> None:
        index = self.shop.index
        try:
            self._build(lease, heart)
        except LeaseLost:
            log.warning("lease lost", build=lease.build.id)
        except Cancelled:
            with contextlib.suppress(LeaseLost):
                heart.flush()
                index.end_cancelled(lease) if heart.unwanted else index.give_back(lease)
        except FarmError as error:
            with contextlib.suppress(LeaseLost):
                heart.flush()
                failure = failure_of(error)
                index.fail(lease, failure, decide_retry(failure.kind, lease.attempt))
        except OSError as error:
            with contextlib.suppress(LeaseLost):
                heart.flush()
                failure = failure_of_machine(error)
                index.fail(lease, failure, decide_retry(failure.kind, lease.attempt))
        except Exception as error:
            log.exception("defect", build=lease.build.id)
            with contextlib.suppress(LeaseLost):
                index.fail(lease, defect(error), None)

    def _build(self, lease: Lease, heart: Heart) -> None:
        """Program → form → plan → commit: the whole walk of one build."""
        request = lease.build.request
        toolchain = exact_toolchain(request.toolchain)
        watch = heart.watch()
        with self._folder() as folder:
            program = self._program_in(folder, request)
            keyed, inputs = self._checked(program, request)
            started = time.monotonic()
            form = self.shop.forms.get(program, request.program, request.program_format, watch)
            exported = time.monotonic() - started
            job = Job(
                toolchain=toolchain,
                form=form,
                settings=keyed.effective.told,
                capabilities=tuple(capability_name(n) for n in target_of(request.target).capabilities),
                profiles=named_profiles(request.profiles, inputs, form.inputs),
                folder=folder,
                os=target_of(request.target).os,
                limits=self.shop.limits,
            )
            with self._admission.hold(expected_peak(form_bytes(form.data, form.graph)), watch):
                started = time.monotonic()
                product = self.shop.builder.build(job, watch)
                built = time.monotonic() - started
            watch.report("store", None)
            manifest = self._manifest(lease, keyed, product, form.exporter, exported)
            heart.flush()
            heart.check()
            self.shop.cache.commit(lease, product.plan, manifest, built)

    def _program_in(self, folder: Path, request: BuildRequest) -> Callable[[], Path]:
        """Fetches the program's file at its first use: most builds need neither key nor form computed anew."""
        path = folder / f"program.{request.program_format}"

        def fetch() -> Path:
            if not path.exists():
                self.shop.forms.fetch_program(request.program, path)
            return path

        return fetch

    def _checked(self, program: Callable[[], Path], request: BuildRequest) -> tuple[Keyed, tuple[int, ...]]:
        """What the key is made of and the builder is to be told, and the positions of the program's inputs, all
        computed anew: a client's word is never taken for it.

        This closes the gap between a client's look at a file and its upload, and keeps a wrong or hostile
        client from naming one program's engine by another's key (DESIGN, promises 1 and 5).
        """
        keyed, inputs = self.shop.identifier.recompute(program, request)
        if (keyed.key, keyed.recipe) != (request.key, request.recipe):
            # Of this upload, not of the recipe: remembered, it would turn away those who have the right file.
            raise AttemptFailed(
                Failure(
                    FailureKind.NODE,
                    f"{request.model} is not what its key was computed from: it changed while it was submitted",
                    "ask again now that the file is whole",
                )
            )
        if keyed.effective.refused:
            raise BadInput(keyed.effective.refused[0])
        return keyed, inputs

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        self.shop.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"build-{os.getpid()}-", dir=self.shop.scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _manifest(self, lease: Lease, keyed: Keyed, product: Product, exporter: str, exported: float) -> dict[str, Any]:
        """Where an engine comes from: enough to make it again and to know what it is for."""
        request = lease.build.request
        return {
            "key": request.key,
            "recipe": request.recipe,
            "model": request.model,
            "program": request.program,
            "weights": keyed.weights,
            "parts": keyed.parts,
            "given": request.settings,
            "told": keyed.effective.told,
            "read_back": product.read_back,
            "target": request.target,
            "toolchain": request.toolchain,
            "exporter": exporter,
            "bindings": product.bindings,
            "profiles": list(request.profiles),
            "seconds": {**product.seconds, "form": round(exported, 3)},
            "peak_memory": product.peak_memory,
            "warnings": list(product.warnings),
            "build": lease.build.id,
            "attempt": lease.attempt,
            "node": self.shop.host,
            "worker": self.me.id,
            "farm": __version__,
        }


def failure_of(error: FarmError) -> Failure:
    """What an error met during an attempt means for the build."""
    if isinstance(error, AttemptFailed):
        return error.failure
    if isinstance(error, BadInput):
        return Failure(FailureKind.PERMANENT, error.message, error.hint)
    if isinstance(error, Unavailable | CorruptBlob):
        return Failure(FailureKind.TRANSIENT, error.message, error.hint)
    return Failure(FailureKind.NODE, error.message, error.hint)


def failure_of_machine(error: OSError) -> Failure:
    """What the operating system refused: no room passes once there is room; the rest is this machine's."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room ('farm doctor' shows where) and ask again"
        return Failure(FailureKind.TRANSIENT, f"the disk is full{where}", hint)
    return Failure(FailureKind.NODE, f"{error.strerror or error}{where}", "'farm doctor' looks over this machine")


def defect(error: Exception) -> Failure:
    """A failure for an error that farm did not foresee."""
    return Failure(
        FailureKind.NODE,
        f"a defect of farm's own: {type(error).__name__}: {error}",
        "please report it, with the log of the worker",
    )


def sweep_scratch(scratch: Path) -> None:
    """Remove what workers of this machine left behind when they were killed: folders named after their pid."""
    for folder in (*scratch.glob("build-*-*"), *scratch.glob("forms/form-*-*")):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def target_of(text: str) -> Target:
    return parse_target(text).target


def form_bytes(data: Path | None, graph: Path) -> int:
    """The size of a form's weights on disk, which bounds what a build of it takes."""
    return (data or graph).stat().st_size


def named_profiles(
    profiles: tuple[Mapping[str, Any], ...], positions: tuple[int, ...], names: tuple[str, ...]
) -> tuple[dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]], ...]:
    """Profiles by input position, as keys hold them, under this form's binding names.

    A form has the program's inputs in the program's order, whatever it calls them; one that has not is no form
    of this program (``AttemptFailed``).
    """
    if len(positions) != len(names):
        text = f"the program has {len(positions)} inputs and its ONNX form {len(names)}"
        raise AttemptFailed(Failure(FailureKind.NODE, text, "please report it"))
    named = dict(zip(map(str, positions), names, strict=True))
    return tuple(
        {
            named[position]: (tuple(shapes["min"]), tuple(shapes["opt"]), tuple(shapes["max"]))
            for position, shapes in profile.items()
        }
        for profile in profiles
    )
