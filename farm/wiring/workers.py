"""What this machine builds, measures and refits with."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from farm.cache import EngineCache
from farm.config import surroundings
from farm.namespaces import queues
from farm.wiring.backends import (
    belong_together,
    installed_toolchains,
    open_identifier,
    open_signer,
    open_timing,
    open_trust,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farm.builders import Exporter, Limits, Merger
    from farm.config import Config
    from farm.crew import Crew
    from farm.fitting import Fitting
    from farm.gauge import Bench
    from farm.making import Making
    from farm.refits import Refits
    from farm.store import BlobStore
    from farm.timings import Timings
    from farm.toolchains import Toolchain
    from farm.worker import BuildWorker

EMBEDDED_POLL_SECONDS = 0.5
SAY_SECONDS = 2.0
"""How often a fleet's worker writes down how far its builds are: a thousand of them share one database."""


def open_crew(config: Config, index: Making, store: BlobStore) -> Crew:
    """Hands for an embedded farm."""
    from farm.crew import Crew

    fitting = fit_machine(config, installed_toolchains())
    return Crew(open_worker(config, index, store, fitting), fitting.slots, poll(config))


def fit_machine(config: Config, toolchains: Sequence[Toolchain], gpu: int | None = None) -> Fitting:
    from farm.fitting import fit

    return fit(config, toolchains, surroundings(), gpu)


def poll(config: Config) -> float:
    """How often hands look for work by themselves, in seconds."""
    return config.poll_seconds if config.fleet else EMBEDDED_POLL_SECONDS


def open_worker(config: Config, index: Making, store: BlobStore, fitting: Fitting) -> BuildWorker:
    """A worker of this machine, serving the queues that its fitting allows."""
    from farm.builders import Limits
    from farm.builders.tensorrt import TensorRTBuilder
    from farm.builders.torch_tensorrt import Builders, TorchTensorRTBuilder
    from farm.engine_shelf import FarmShelf
    from farm.forms import Forms
    from farm.ledger import Ledger
    from farm.worker import BuildWorker, Workshop

    limits = Limits(seconds=config.build_timeout, memory=config.build_memory)
    signer = open_signer(config)
    # Its engines become part of artefacts that this worker signs: they must be vouched for themselves.
    shelf = FarmShelf(config, index, store, config.namespace, open_trust(config), signer)
    tensorrt = TensorRTBuilder(fitting.environment)
    return BuildWorker(
        Workshop(
            index=index,
            cache=EngineCache(index, store, config.realm, Ledger(index), signer=signer),
            forms=Forms(index, store, config.scratch, tensorrt, limits, signer, open_trust(config), config.realm),
            builder=Builders(tensorrt, TorchTensorRTBuilder(fitting.environment, shelf=shelf)),
            identifier=open_identifier(config),
            serves=queues(fitting.serves, config.realm.is_trusted),
            namespaces=config.realm.serves,
            scratch=config.scratch,
            host=config.host,
            limits=limits,
            lease_seconds=config.lease_seconds,
            beat_seconds=config.beat_seconds,
            say_seconds=max(config.beat_seconds, SAY_SECONDS) if config.fleet else config.beat_seconds,
            slots=fitting.slots,
            detail={**fitting.detail, "builds_for": list(config.realm.serves)},
            admission=fitting.admission,
            timings=open_timings(config, store, fitting),
            release=fitting.release,
            bench=open_bench(config, index, store, fitting, tensorrt, limits),
            sound=lambda: belong_together(index, store),
        )
    )


def open_bench(
    config: Config, index: Making, store: BlobStore, fitting: Fitting, exporter: Exporter, limits: Limits
) -> Bench | None:
    """What a worker with that fitting measures with; nothing where it has no torch."""
    if not fitting.measures:
        return None
    from farm.builders.measurer import TorchMeasurer
    from farm.cache import EngineCache
    from farm.forms import Forms
    from farm.gauge import Bench
    from farm.hosts.probe import cpu, environment_for

    trust = open_trust(config)
    return Bench(
        index=index,
        cache=EngineCache(index, store, config.realm, trust=trust),
        forms=Forms(index, store, config.scratch, exporter, limits, None, trust, config.realm),
        measurer=TorchMeasurer(environment_for(fitting.gauged, surroundings())),
        places=fitting.measures,
        scratch=config.scratch,
        node=config.host,
        cpu=cpu(),
        gpu=fitting.gauged,
        claim=fitting.claim,
        limits=limits,
        lease_seconds=config.lease_seconds,
        detail=fitting.detail,
        after_builds=config.measure,
    )


def open_refits(config: Config, index: Making, store: BlobStore) -> Refits:
    """Puts other weights into engines, on this machine's first GPU."""
    from farm.builders import Limits
    from farm.builders.refitting import TensorRTRefitter
    from farm.builders.tensorrt import TensorRTBuilder
    from farm.cache import EngineCache
    from farm.forms import Forms
    from farm.hosts.probe import environment_for, probe
    from farm.refits import Refits

    gpus, trust = probe(surroundings()).gpus, open_trust(config)
    environment = environment_for(gpus[0] if gpus else None, surroundings())
    limits = Limits(seconds=config.build_timeout, memory=config.build_memory)
    builder = TensorRTBuilder(environment)
    return Refits(
        cache=EngineCache(index, store, config.realm, trust=trust),
        forms=Forms(index, store, config.scratch, builder, limits, None, trust, config.realm),
        refitter=TensorRTRefitter(environment),
        scratch=config.scratch,
        limits=limits,
    )


def open_merger(config: Config, environment: Mapping[str, str]) -> Merger:
    """Merges timing caches with this machine's toolchains, on the GPU that ``environment`` shows."""
    from farm.builders.merging import TensorRTMerger

    return TensorRTMerger(environment, config.scratch / "timing")


def open_timings(config: Config, store: BlobStore, fitting: Fitting) -> Timings:
    """What a worker with that fitting does with timings: without a GPU of its own, nothing."""
    from farm.timing_history import Author
    from farm.timings import Timings

    gpu = fitting.detail.get("gpu")
    if gpu is None:
        return Timings(mode=config.timing)
    author = Author(config.host, str(fitting.detail.get("driver", "")))
    merger, trusted = open_merger(config, fitting.environment), config.realm.is_trusted
    return Timings(open_timing(config, store), merger, gpu, author, config.timing, trusted)


def timed_here() -> tuple[list[tuple[Toolchain, dict[str, Any]]], dict[str, str]]:
    """The toolchains that time kernels on this machine's first GPU, each with that GPU's fields; and what a child must
    see to use it."""
    from farm.hosts.probe import environment_for, probe

    gpus = probe(surroundings()).gpus
    if not gpus:
        return [], {}
    timed = [(toolchain, asdict(gpus[0])) for toolchain in installed_toolchains() if toolchain.device_bound]
    return timed, environment_for(gpus[0], surroundings())
