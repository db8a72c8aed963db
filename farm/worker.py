"""A worker: leases the best eligible builds, makes each in a child under a heartbeat, commits it.

Whoever delivers the wake-up and gives the threads (``crew``) calls ``lease`` and ``make``; how the wake-up came does
not matter. A worker that dies leaves nothing but leases that run out; its children die with it.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from farm.admission import Admission
from farm.builders import AttemptFailed, Builder, Cancelled, Form, Job, Limits, Product, Watch
from farm.builds import BuildRequest, Engine, Failure, FailureKind, Lease, decide_retry
from farm.cache import EngineCache
from farm.errors import BadInput, FarmError, LeaseLost, Unavailable
from farm.forms import Forms, safe_program
from farm.gauge import Bench, Gauge
from farm.heart import Heart, Hearts
from farm.hosts.processes import vantage
from farm.identify import Identifier
from farm.index import FRESH_SECONDS, Worker
from farm.keys import Keyed
from farm.logging import get_logger
from farm.making import NO_LIMIT, Making, Offer
from farm.mishaps import defect, failure_of, failure_of_machine
from farm.placement import expected_peak
from farm.scratch import Scratch
from farm.standby import Standby
from farm.targets import capability_name, place_of
from farm.timings import Timings
from farm.toolchains import TORCH_TENSORRT, Toolchain, exact_toolchain
from farm.version import __version__

log = get_logger(__name__)

SHOW_SECONDS = FRESH_SECONDS / 4
COMMIT_PAUSE_S = 0.5
FULL_PAUSE_S = 5.0
"""A worker whose disk is full after a failure takes nothing for so long: it fails in no time what others could make."""
UNREAD = f"farm {__version__} cannot read what this build asks for"


@dataclass(frozen=True)
class Workshop:
    """What a worker needs around it. ``serves`` are the queues whose builds this machine can make, ``namespaces`` for
    whom (``namespaces.admits``; empty: for everybody), ``slots`` how many at once; ``detail`` is what else the machine
    says of itself. ``say_seconds``: how often progress is written down."""

    index: Making
    cache: EngineCache
    forms: Forms
    builder: Builder
    identifier: Identifier
    serves: tuple[str, ...]
    scratch: Path
    host: str
    namespaces: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    lease_seconds: float = 15.0
    beat_seconds: float = 0.4
    say_seconds: float = 0.4
    slots: int = 1
    detail: Mapping[str, Any] = field(default_factory=dict)
    admission: Admission = field(default_factory=Admission)
    timings: Timings = field(default_factory=Timings)
    release: Callable[[], None] = lambda: None
    """Lets go of what this worker alone may use, such as a GPU."""
    bench: Bench | None = None
    """What it measures with; nothing where it cannot."""
    sound: Callable[[], object] = lambda: None
    """Raises ``Unavailable`` or ``BadInput`` while what every build needs cannot be had (``standby``)."""


class BuildWorker:
    """One process's worker; ``make`` may run in several threads at once."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        process = psutil.Process()
        known = {
            "vantage": vantage(),
            "slots": shop.slots,
            "build_memory": shop.admission.capacity,
            "gpu_memory": shop.admission.gpu_capacity,
            "farm": __version__,
            "measures": list(shop.bench.places) if shop.bench else [],
        }
        self.me = Worker(
            id=f"{shop.host}:{process.pid}:{uuid.uuid4().hex[:8]}",
            host=shop.host,
            pid=process.pid,
            born=process.create_time(),
            capabilities=shop.serves,
            detail={**shop.detail, **known},
        )
        self.gauge = Gauge(shop.bench, self.me.id) if shop.bench else None
        self.standby = Standby(shop.sound, self._show_soon)
        self._hearts = Hearts(shop.index, shop.lease_seconds, shop.beat_seconds, shop.say_seconds, self._show)
        self._hurried = threading.Event()
        self._shown = 0.0
        self._full_until = 0.0
        self._gpu_free = 0
        self._scratch = Scratch(shop.scratch)

    @property
    def hurried(self) -> bool:
        """Whether what is in hand is being handed back."""
        return self._hurried.is_set()

    def open(self) -> None:
        """Show up among the workers."""
        self._scratch.open()
        self._register()
        self._hearts.start()

    def leave(self) -> None:
        """Say that no more builds are taken; those in hand go on. The next look among the workers shows it."""
        self.me = replace(self.me, capabilities=(), detail={**self.me.detail, "state": "draining", "measures": []})
        self._show_soon()

    def hurry(self) -> None:
        """Make every build in hand hand itself back within a second; returns at once."""
        self._hurried.set()

    def close(self) -> None:
        """Leave the list of workers; call when no ``make`` runs any more."""
        self._hearts.stop()
        self.standby.stop()
        with contextlib.suppress(Unavailable):
            self.shop.index.unregister(self.me.id)
        self._scratch.close()
        self.shop.release()

    def _show(self) -> None:
        """Stay on the list of workers; a few times as often as is needed to be counted upon."""
        if time.monotonic() - self._shown >= SHOW_SECONDS:
            self._register()

    def _register(self) -> None:
        now = {"trouble": self.standby.reason, "gpu_free": self._gpu_free}
        self.shop.index.register(replace(self.me, detail={**self.me.detail, **now}))
        self._shown = time.monotonic()

    def _show_soon(self) -> None:
        """Something has changed that others should see at the next beat."""
        self._shown = 0.0

    # -- taking ------------------------------------------------------------------------------------------------

    def lease(self, count: int) -> list[Lease]:
        """At most ``count`` of the best builds that this machine can make and has room for now."""
        if not self.me.capabilities or self.hurried or self.standby.reason or time.monotonic() < self._full_until:
            return []
        room = self.shop.admission
        self._gpu_free = room.gpu_free()
        offer = Offer(
            worker=self.me.id,
            node=self.me.host,
            capabilities=self.me.capabilities,
            memory=room.capacity or NO_LIMIT,
            free=room.free() if room.capacity else NO_LIMIT,
            gpu_memory=room.gpu_capacity or NO_LIMIT,
            gpu_free=self._gpu_free or NO_LIMIT,
            namespaces=self.shop.namespaces,
        )
        return self.shop.index.lease(offer, self.shop.lease_seconds, count)

    # -- making ------------------------------------------------------------------------------------------------

    def make(self, lease: Lease, built: Callable[[], object] = lambda: None) -> None:
        """Make a leased build; ``built`` is called when nothing is left but to store and record it.

        Every ending is recorded under the lease: succeeded, failed (queued again where that may help), cancelled, or
        handed back because the worker stops. A lost lease ends it silently: another has it.
        """
        with self._hearts.hold(lease, self._hurried) as heart:
            try:
                self._attempt(lease, heart, built)
            except LeaseLost:
                log.warning("lease lost", build=lease.build.id)
            except Unavailable as error:
                # The lease runs out, and the build is made again: by this worker, perhaps.
                log.warning("a build's end could not be recorded", build=lease.build.id, reason=error.message)

    def give_back(self, lease: Lease) -> None:
        """Queue a leased build again that was not begun; if it cannot be, its lease runs out."""
        try:
            self.shop.index.give_back(lease)
        except (LeaseLost, Unavailable) as error:
            log.warning("a build could not be given back", build=lease.build.id, reason=error.message)

    def _attempt(self, lease: Lease, heart: Heart, built: Callable[[], object]) -> None:
        index = self.shop.index
        try:
            self._build(lease, heart, built)
        except LeaseLost:
            raise
        except Cancelled:
            heart.flush()
            index.end_cancelled(lease) if heart.unwanted else index.give_back(lease)
        except FarmError as error:
            heart.flush()
            self._fail(lease, failure_of(error))
        except OSError as error:
            heart.flush()
            self._fail(lease, failure_of_machine(error))
        except Exception as error:
            log.exception("defect", build=lease.build.id)
            self._fail(lease, defect(error))

    def _fail(self, lease: Lease, failure: Failure) -> None:
        """Record a failure; but what failed since this machine cannot reach what every build needs is handed back, and
        has not been tried."""
        if failure.kind is FailureKind.TRANSIENT:
            if self._scratch.is_full():
                self._full_until = time.monotonic() + FULL_PAUSE_S
            elif not self.standby.look():
                self.shop.index.give_back(lease)
                return
        self.shop.index.fail(lease, failure, decide_retry(failure.kind, lease.attempt))

    def _build(self, lease: Lease, heart: Heart, done: Callable[[], object]) -> None:
        """Program → form → plan → commit: the whole walk of one build."""
        request = lease.build.request
        if not request.recipe:
            raise AttemptFailed(Failure(FailureKind.NODE, UNREAD, "ask for it again, from a client of this release"))
        toolchain, place = exact_toolchain(request.toolchain), place_of(request.target)
        watch = heart.watch()
        with self._scratch.folder() as folder:
            program = self._program_in(folder, request)
            keyed, inputs = self._checked(program, request)
            started = time.monotonic()
            form = self._form(toolchain, program, request, inputs, folder, watch)
            exported = time.monotonic() - started
            taken = self.shop.timings.take(toolchain, folder)
            job = Job(
                toolchain=toolchain,
                form=form,
                settings=keyed.effective.told,
                capabilities=tuple(capability_name(n) for n in place.capabilities),
                profiles=named_profiles(request.profiles, inputs, form.inputs),
                folder=folder,
                os=place.os,
                limits=self.shop.limits,
                timing_cache=taken.file,
                timing=taken.mode,
                key=request.key,
                recipe=request.recipe,
            )
            with self.shop.admission.hold(self._need(request, form), request.gpu_memory, watch):
                started = time.monotonic()
                product = self.shop.builder.build(job, watch)
                built = time.monotonic() - started
                learned = self.shop.timings.learn(taken, product, keyed.parts, keyed.effective.told, watch)
            done()
            watch.report("store", None)
            manifest = self._manifest(lease, keyed, product, form.exporter, exported)
            manifest |= {"timing_cache": learned, "log": heart.log_digest()}
            heart.flush()
            engine = self._commit(lease, heart, product.plan, manifest, built)
            if self.gauge is not None:
                self.gauge.want(engine, request.program_format)

    def _commit(self, lease: Lease, heart: Heart, plan: Path, manifest: Mapping[str, Any], built: float) -> Engine:
        """Commit; again and again while the store or the database cannot be reached, as long as the lease may hold: a
        build may have taken hours. Where the store lets this machine write nothing, another must build it."""
        told = ""
        while True:
            heart.check()
            try:
                return self.shop.cache.commit(lease, plan, manifest, built)
            except Unavailable as error:
                if heart.lost or self.hurried or error.refused:
                    raise
                if error.message != told:
                    log.warning("a commit waits", build=lease.build.id, reason=error.message)
                told = error.message
                heart.watch().report(f"waiting to store: {told}", None)
                time.sleep(COMMIT_PAUSE_S)

    @staticmethod
    def _need(request: BuildRequest, form: Form) -> int:
        """Bytes of memory: what was expected when it was asked for, and no less than what its form now tells."""
        budget = int(request.settings.get("cpu_memory_budget") or 0)
        return budget or max(request.memory, expected_peak(form_bytes(form.data, form.graph)))

    def _form(
        self,
        toolchain: Toolchain,
        program: Callable[[], Path],
        request: BuildRequest,
        inputs: tuple[int, ...],
        folder: Path,
        watch: Watch,
    ) -> Form:
        """The program as its builder takes it: Torch-TensorRT as it is, made safe to load; TensorRT as ONNX."""
        if toolchain.flavour != TORCH_TENSORRT:
            return self.shop.forms.get(program, request.program, request.program_format, watch)
        return safe_program(program(), folder, inputs)

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
        try:
            keyed, inputs = self.shop.identifier.recompute(program, request)
        except BadInput as error:  # whoever has asked for this recipe in earnest has been able to compute it
            raise AttemptFailed(Failure(FailureKind.NODE, error.message, error.hint)) from error
        if (keyed.key, keyed.recipe, keyed.weights) != (request.key, request.recipe, request.weights):
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
            "effective": keyed.parts["settings"],
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
            "namespace": request.namespace,
            "node": self.shop.host,
            "machine": {name: self.shop.detail.get(name) for name in ("arch", "gpu", "driver", "cuda")},
            "timing_cache": None,
            "worker": self.me.id,
            "farm": __version__,
            **({"detail": product.detail} if product.detail else {}),
        }


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
