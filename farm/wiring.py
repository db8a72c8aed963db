"""From a configuration to a farm, a worker or an app: the sole chooser of backends.

Each part is imported only when it is made, so that a command that looks at the database never imports Celery,
torch or TensorRT.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote, urlsplit

from farm.cache import EngineCache
from farm.config import Config, load
from farm.errors import BadConfig, BadInput, NotAllowed, Unavailable
from farm.namespaces import Realm, queues
from farm.repair import CALM_SECONDS, Repair
from farm.service import Farm

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from farm.builders import Builder, Limits, Merger
    from farm.collecting import Collected
    from farm.collection import Rules
    from farm.crew import Crew
    from farm.db.index import SqlIndex
    from farm.dispatch import BrokerDispatch, Station
    from farm.engine_shelf import FarmShelf
    from farm.fitting import Fitting
    from farm.gauge import Bench
    from farm.gpus import Gpu
    from farm.identify import Identifier
    from farm.index import Index, Worker
    from farm.migrating import Moved
    from farm.pulls import Pulling
    from farm.reconcile import Tally
    from farm.refits import Refits
    from farm.service import Dispatch
    from farm.store import BlobStore, VersionedObjects
    from farm.timing import TimingCaches
    from farm.timings import Timings
    from farm.toolchains import Toolchain
    from farm.trust import Policy, Signer
    from farm.upkeep import Upkeep
    from farm.worker import BuildWorker

EMBEDDED_POLL_SECONDS = 0.5
SAY_SECONDS = 2.0
"""How often a fleet's worker writes down how far its builds are: a thousand of them share one database."""


def open_farm(config: Config | None = None) -> Farm:
    """The configured farm. The embedded database is made, and migrated, where it is not yet."""
    config = config or load()
    if config.url:
        from farm.client import RemoteFarm

        return RemoteFarm(config, open_identifier(config), open_trust(config))
    index = open_index(config)
    store = open_store(config)
    farm = Farm(
        config,
        index,
        store,
        open_dispatch(config, index, store),
        open_identifier(config),
        lambda: gone_workers(index),
        open_trust(config),
    )
    if config.embedded and (config.max_bytes or config.max_age or config.quotas):
        from farm.collecting import Routine

        farm.care = Routine(lambda: collect_when_due(config), config.gc_seconds).tick
    return farm


def open_trust(config: Config) -> Policy | None:
    """Whose signatures are asked for before an engine is handed out; nobody's unless that is configured."""
    if not config.trust:
        return None
    from farm.trust import load_policy

    return load_policy(config.trust)


def open_signer(config: Config) -> Signer | None:
    if not config.signing_key:
        return None
    from farm.trust import load_signer

    return load_signer(Path(config.signing_key).expanduser())


def beside_database(config: Config) -> None:
    """``BadConfig`` where a server is configured, for what works on the database itself."""
    if config.url:
        raise BadConfig(
            "this works on the farm's database itself, and FARM_URL names a server",
            "run it where the server runs; or unset FARM_URL, and give FARM_DATABASE_URL and FARM_STORE_URL",
        )


def open_index(config: Config, realm: Realm | None = None) -> Index:
    """The index, for what this machine's place among the namespaces allows, or that of ``realm``."""
    from farm.db.index import SqlIndex

    beside_database(config)
    if not config.database_url:
        make_home(config)
    return SqlIndex(config.database, realm or config.realm)


def make_home(config: Config) -> None:
    """Make ``FARM_HOME`` where it is not yet; ``Unavailable`` where it cannot be."""
    try:
        config.home.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Unavailable(
            f"FARM_HOME cannot be {config.home}: {reason}", "point FARM_HOME at a folder that you may write to"
        ) from error


def open_store(config: Config) -> BlobStore:
    """The store that the URL's scheme names; or the one behind the server that is configured."""
    if config.url:
        from farm.client import open_remote_store

        return open_remote_store(config)
    try:
        parts = urlsplit(config.store)
    except ValueError as error:
        raise BadConfig(f"FARM_STORE_URL is '{config.store}', which is no URL: {error}", "write file:///…") from error
    plain = not (parts.netloc or parts.query or parts.fragment) and parts.path.startswith("/")
    if parts.scheme == "file" and plain and "\0" not in unquote(parts.path):
        from farm.blobs.folder import FolderStore

        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        return _open_s3(config)
    raise BadConfig(
        f"FARM_STORE_URL is '{config.store}', which names no store", "write file:///… or s3://BUCKET/PREFIX"
    )


def _open_s3(config: Config) -> BlobStore:
    """A bucket; with a folder of this machine in front, unless that is to keep nothing."""
    try:
        from farm.blobs.s3 import open_s3
    except ModuleNotFoundError as error:
        raise BadConfig(f"a store in S3 needs {error.name}, which is missing", "pip install 'farm[fleet]'") from error
    back = open_s3(config.store, config.s3_endpoint_url)
    if not config.store_cache:
        return back
    from farm.blobs.tiered import TieredStore

    make_home(config)
    return TieredStore(config.scratch / "blobs", back, config.store_cache)


@contextlib.contextmanager
def open_pulling(config: Config) -> Iterator[Pulling]:
    """What fetches a lock file's engines: the configured store alone; and, where signatures are asked for, the index,
    since they lie there."""
    from farm.pulls import Pulling

    store, policy = open_store(config), open_trust(config)
    if policy is None:
        yield Pulling(store)
        return
    with contextlib.closing(open_index(config)) as index:
        cache = EngineCache(index, store, config.realm, trust=policy)
        yield Pulling(store, cache.refuses_line)


def open_objects(config: Config) -> VersionedObjects:
    """The small changing objects beside the store's blobs."""
    beside_database(config)
    if urlsplit(config.store).scheme == "s3":
        from farm.blobs.s3_objects import open_s3_objects

        return open_s3_objects(config.store, config.s3_endpoint_url)
    from farm.blobs.folder_objects import FolderObjects

    return FolderObjects(Path(unquote(urlsplit(config.store).path)))


def open_timing(config: Config, store: BlobStore | None = None) -> TimingCaches:
    """The timing caches that the configured store holds."""
    from farm.timing import TimingCaches

    trusted = config.realm.is_trusted
    return TimingCaches(objects=open_objects(config), store=store or open_store(config), trusted=trusted)


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

    gpus = probe().gpus
    if not gpus:
        return [], {}
    timed = [(toolchain, asdict(gpus[0])) for toolchain in installed_toolchains() if toolchain.device_bound]
    return timed, environment_for(gpus[0])


def open_shelf(config: Config) -> FarmShelf:
    """Where a client of Torch-TensorRT finds engines, and puts those that it builds."""
    from farm.engine_shelf import FarmShelf, own_namespace

    if config.url:
        from farm.client import RemoteFarm
        from farm.remote_shelf import RemoteShelf

        return RemoteShelf(RemoteFarm(config, open_identifier(config)), open_trust(config))
    own, store = own_namespace(config), open_store(config)
    index = open_index(config, config.realm.owning(own))
    return FarmShelf(config, index, store, own, open_trust(config), open_signer(config))


def open_dispatch(config: Config, index: Index, store: BlobStore) -> Dispatch:
    """How this process's builds reach workers: by itself, or over the broker."""
    if config.embedded:
        return LazyDispatch(lambda: _embedded(config, index, store))
    return LazyBroker(config.broker_url)


def _embedded(config: Config, index: Index, store: BlobStore) -> Dispatch:
    from farm.dispatch import EmbeddedDispatch

    return EmbeddedDispatch(lambda: open_crew(config, index, store), lambda: index.reap(gone_workers(index)))


class LazyDispatch:
    """The in-process Celery, imported by the first ``start``: a hit must not pay for it."""

    def __init__(self, make: Callable[[], Dispatch]) -> None:
        self._make = make
        self._real: Dispatch | None = None

    def wake(self, counts: Mapping[str, int]) -> None:
        if self._real is not None:
            self._real.wake(counts)

    def start(self) -> None:
        if self._real is None:
            self._real = self._make()
        self._real.start()

    def stop(self) -> None:
        if self._real is not None:
            self._real.stop()


class LazyBroker:
    """A fleet's Celery, imported by the first wake-up that is to be sent: a hit must not pay for it either."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._real: BrokerDispatch | None = None

    def wake(self, counts: Mapping[str, int]) -> None:
        if counts:
            self.real().wake(counts)

    def real(self) -> BrokerDispatch:
        if self._real is None:
            from farm.dispatch import BrokerDispatch

            self._real = BrokerDispatch(self._url)
        return self._real

    def start(self) -> None:
        """Others build."""

    def stop(self) -> None:
        if self._real is not None:
            self._real.stop()


def open_station(config: Config, index: Index, store: BlobStore, gpu: int | None = None) -> tuple[Station, list[str]]:
    """What ``farm worker`` runs: hands, and the Celery worker that wakes them; and what its user should be told."""
    from farm.builders.discover import probe
    from farm.collecting import Routine
    from farm.crew import Crew
    from farm.dispatch import Station

    away = bind_store(config, index, store) if config.fleet else ""
    tried = [probe(chain) for chain in installed_toolchains()]
    notes = [f"{one.toolchain} does not work here: {one.failure.message}" for one in tried if one.failure]
    fitting = fit_machine(config, [one.toolchain for one in tried if one.works], gpu)
    worker = open_worker(config, index, store, fitting)
    if away and not worker.standby.look():
        notes.append(f"{away}: no builds are taken until this works")
    broker = f"memory://{uuid.uuid4().hex}" if config.embedded else config.broker_url
    repair = Repair(index, lambda counts: None, lambda: gone_workers(index), calm=CALM_SECONDS if config.fleet else 0.0)
    crew = Crew(worker, fitting.slots, _poll(config))
    # In a thread of its own: a task returns at once, or wake-ups wait for it.
    collection = Routine(lambda: collect_when_due(config), 0.0)
    return Station(broker, crew, repair.now, collection.tick), [*notes, *fitting.notes]


def belong_together(index: Index, store: BlobStore) -> None:
    """``BadInput`` where database and store are labelled, and not for each other."""
    from farm.reconcile import belong_together

    belong_together(cast("Upkeep", index), store)


def bind_store(config: Config, index: Index, store: BlobStore) -> str:
    """Label database and store as belonging together, lest a worker with a mistyped ``FARM_STORE_URL`` fails what
    others could make. ``BadInput`` where they do not; why that cannot be told now, if it cannot."""
    from farm.reconcile import bind

    try:
        belong_together(index, store)
        bind(cast("Upkeep", index), store)
    except Unavailable as error:
        return error.message
    except BadInput as error:
        raise BadInput(
            f"{config.store}: {error.message}",
            "correct FARM_STORE_URL or FARM_DATABASE_URL; 'farm reconcile --yes' labels what does belong together",
        ) from error
    return ""


def open_crew(config: Config, index: Index, store: BlobStore) -> Crew:
    """Hands for an embedded farm."""
    from farm.crew import Crew

    fitting = fit_machine(config, installed_toolchains())
    return Crew(open_worker(config, index, store, fitting), fitting.slots, _poll(config))


def fit_machine(config: Config, toolchains: Sequence[Toolchain], gpu: int | None = None) -> Fitting:
    from farm.fitting import fit

    return fit(config, toolchains, gpu)


def _poll(config: Config) -> float:
    return config.poll_seconds if config.fleet else EMBEDDED_POLL_SECONDS


def open_identifier(config: Config) -> Identifier:
    from farm.identify import Identifier
    from farm.programs.memory import WeightsMemory

    return Identifier(
        default_targets=config.targets,
        default_toolchain=config.toolchain,
        installed=installed_toolchains,
        local_gpu=_local_gpu,
        memory=WeightsMemory(config.scratch / "weights"),
    )


def _local_gpu() -> Gpu | None:
    from farm.hosts.gpu import local_gpu

    return local_gpu()


def installed_toolchains() -> tuple[Toolchain, ...]:
    from farm.hosts.packages import installed_toolchains

    return installed_toolchains()


def open_worker(config: Config, index: Index, store: BlobStore, fitting: Fitting) -> BuildWorker:
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
    torch_tensorrt = TorchTensorRTBuilder(fitting.environment, shelf=shelf)
    builder = Builders(TensorRTBuilder(fitting.environment), torch_tensorrt)
    return BuildWorker(
        Workshop(
            index=index,
            cache=EngineCache(index, store, config.realm, Ledger(index), signer=signer),
            forms=Forms(index, store, config.scratch, builder, limits, signer, open_trust(config), config.realm),
            builder=builder,
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
            bench=open_bench(config, index, store, fitting, builder, limits),
            sound=lambda: belong_together(index, store),
        )
    )


def open_refits(config: Config, index: Index, store: BlobStore) -> Refits:
    """Puts other weights into engines, on this machine's first GPU."""
    from farm.builders import Limits
    from farm.builders.refitting import TensorRTRefitter
    from farm.builders.tensorrt import TensorRTBuilder
    from farm.cache import EngineCache
    from farm.forms import Forms
    from farm.hosts.probe import environment_for, probe
    from farm.refits import Refits

    gpus, trust = probe().gpus, open_trust(config)
    environment = environment_for(gpus[0] if gpus else None)
    limits = Limits(seconds=config.build_timeout, memory=config.build_memory)
    builder = TensorRTBuilder(environment)
    return Refits(
        cache=EngineCache(index, store, config.realm, trust=trust),
        forms=Forms(index, store, config.scratch, builder, limits, None, trust, config.realm),
        refitter=TensorRTRefitter(environment),
        scratch=config.scratch,
        limits=limits,
    )


def open_bench(
    config: Config, index: Index, store: BlobStore, fitting: Fitting, builder: Builder, limits: Limits
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
        forms=Forms(index, store, config.scratch, builder, limits, None, trust, config.realm),
        measurer=TorchMeasurer(environment_for(fitting.gauged)),
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


def gone_workers(index: Index) -> Collection[str]:
    """Workers that this process can see to be dead; their leases need not run out first."""
    from farm.hosts.processes import alive, vantage

    here = vantage()
    return [
        worker.id
        for worker in index.workers()
        if here and worker.detail.get("vantage") == here and not alive(worker.pid, worker.born)
    ]


def open_upkeep(config: Config) -> SqlIndex:
    """The index, with all that upkeep asks of it."""
    from farm.db.index import SqlIndex

    beside_database(config)
    if not config.database_url:
        make_home(config)
    return SqlIndex(config.database, config.realm)


def reconcile(
    config: Config, grace: float, dry_run: bool = False, sure: bool = False, tell: Callable[[str], None] = print
) -> Tally:
    """``farm reconcile`` on the configured farm."""
    from farm.reconcile import Reconcile

    index, store = open_upkeep(config), open_store(replace(config, store_cache=0))
    dispatch = open_dispatch(config, index, store)
    try:
        repair = Repair(index, dispatch.wake, lambda: gone_workers(index))
        named = open_timing(config, store).named
        return Reconcile(index, store, repair, grace=grace, dry_run=dry_run, sure=sure, tell=tell, named=named).run()
    finally:
        dispatch.stop()
        index.close()


def collect(
    config: Config,
    rules: Rules,
    history: float | None = None,
    dry_run: bool = False,
    sure: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Collected:
    """``farm gc`` on the configured farm. ``NotAllowed`` where its namespace is not trusted: programs and history are
    everybody's."""
    from farm.collecting import Collect

    if not config.realm.is_trusted and not dry_run:
        raise NotAllowed(
            f"'{config.namespace}' is not trusted, and collects nothing",
            "have it done from a trusted namespace ('farm gc --namespace' looks at one alone)",
        )

    index, store = open_upkeep(config), open_store(replace(config, store_cache=0))
    try:
        named = open_timing(config, store).named
        run = Collect(index, store, rules, history=history, dry_run=dry_run, sure=sure, named=named, tell=tell)
        return run.run()
    finally:
        index.close()


def collect_when_due(config: Config) -> bool:
    """Collect what the configuration wants collected, unless somebody of this farm did so lately; whether it was
    done."""
    from farm.collecting import TURN, configured_rules

    if not config.realm.is_trusted:
        return False
    index = open_upkeep(config)
    try:
        mine = index.take_turn(TURN, config.gc_seconds)
    finally:
        index.close()
    if mine:
        collect(config, configured_rules(config), config.history or None)
    return mine


def migrate(config: Config, home: Path, dry_run: bool = False, tell: Callable[[str], None] = print) -> Moved:
    """``farm migrate``: the embedded farm at ``home``, into the configured one."""
    import tempfile

    from farm.db.snapshot import snapshot
    from farm.migrating import Migration, Site, database_of

    theirs = load({"FARM_HOME": str(home)}, cwd=home)
    database = database_of(theirs, config)
    with tempfile.TemporaryDirectory(prefix="farm-migrate-") as folder, contextlib.ExitStack() as stack:
        name = snapshot(database, Path(folder) / "farm.db") or f"{config.host}:{database.resolve()}"
        source = open_upkeep(replace(theirs, database_url=f"sqlite:///{quote(folder)}/farm.db"))
        stack.callback(source.close)
        dest = open_upkeep(config)
        stack.callback(dest.close)
        store = open_store(replace(config, store_cache=0))  # what passes through is not asked for here again
        sites = Site(source, open_store(theirs), name), Site(dest, store)
        moved = Migration(*sites, Path(folder), lives, dry_run=dry_run, tell=tell).run()
        if not dry_run:
            dispatch = open_dispatch(config, dest, store)
            stack.callback(dispatch.stop)
            dispatch.wake(dest.wakes(0.0))
        return moved


def lives(worker: Worker) -> bool:
    """Whether a listed worker is at work, as far as can be told from here."""
    from farm.hosts.processes import alive, vantage

    here = vantage()
    if here and worker.detail.get("vantage") == here:
        return alive(worker.pid, worker.born)
    return worker.fresh
