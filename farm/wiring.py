"""From a configuration to a farm, a worker or an app: the sole chooser of backends.

Each part is imported only when it is made, so that a command that looks at the database never imports Celery,
torch or TensorRT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from farm.config import Config, load
from farm.errors import BadConfig, Unavailable
from farm.hosts.gpu import local_gpu, machine
from farm.hosts.processes import alive, vantage
from farm.identify import Identifier
from farm.index import Index
from farm.service import Dispatch, Farm
from farm.store import BlobStore

if TYPE_CHECKING:
    from collections.abc import Collection

    from farm.toolchains import Toolchain
    from farm.worker import BuildWorker


def open_farm(config: Config | None = None) -> Farm:
    """The configured farm. The embedded database is made, and migrated, where it is not yet."""
    config = config or load()
    index = open_index(config)
    store = open_store(config)
    return Farm(
        config,
        index,
        store,
        open_dispatch(config, index, store),
        open_identifier(config),
        lambda: gone_workers(index),
    )


def open_index(config: Config) -> Index:
    from farm.db.index import SqlIndex

    if not config.database_url:
        make_home(config)
    return SqlIndex(config.database)


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
    """The store that the URL's scheme names."""
    try:
        parts = urlsplit(config.store)
    except ValueError as error:
        raise BadConfig(f"FARM_STORE_URL is '{config.store}', which is no URL: {error}", "write file:///…") from error
    plain = not (parts.netloc or parts.query or parts.fragment) and parts.path.startswith("/")
    if parts.scheme == "file" and plain and "\0" not in unquote(parts.path):
        from pathlib import Path

        from farm.blobs.folder import FolderStore

        return FolderStore(Path(unquote(parts.path)))
    raise BadConfig(f"FARM_STORE_URL is '{config.store}'; this version keeps blobs in a folder", "write file:///…")


def open_dispatch(config: Config, index: Index, store: BlobStore) -> Dispatch:
    if not config.embedded:
        raise BadConfig(f"FARM_BROKER_URL is '{config.broker_url}'; this version builds in process", "write memory://")
    return LazyDispatch(config, index, store)


class LazyDispatch:
    """The in-process Celery, imported by the first ``start``: a hit must not pay for it."""

    def __init__(self, config: Config, index: Index, store: BlobStore) -> None:
        self._config, self._index, self._store = config, index, store
        self._real: Dispatch | None = None

    def wake(self, waiting: dict[str, int]) -> None:
        if self._real is not None:
            self._real.wake(waiting)

    def start(self) -> None:
        if self._real is None:
            from farm.embedded import EmbeddedDispatch

            self._real = EmbeddedDispatch(
                lambda: open_worker(self._config, self._index, self._store),
                lambda: self._index.reap(gone_workers(self._index)),
                self._config.workers,
            )
        self._real.start()
        self._real.wake(self._index.waiting())

    def stop(self) -> None:
        if self._real is not None:
            self._real.stop()


def open_identifier(config: Config) -> Identifier:
    from farm.programs.memory import WeightsMemory

    return Identifier(
        default_targets=config.targets,
        default_toolchain=config.toolchain,
        installed=installed_toolchains,
        local_gpu=local_gpu,
        memory=WeightsMemory(config.scratch / "weights"),
    )


def installed_toolchains() -> tuple[Toolchain, ...]:
    from farm.builders.discover import installed_toolchains

    return installed_toolchains()


def open_worker(config: Config, index: Index, store: BlobStore) -> BuildWorker:
    """A worker of this machine, serving every queue that its toolchains and GPU allow."""
    from farm.builders import Limits
    from farm.builders.tensorrt import TensorRTBuilder
    from farm.cache import EngineCache
    from farm.forms import Forms
    from farm.placement import served
    from farm.worker import BuildWorker, Workshop

    gpu = local_gpu()
    name, number = (gpu.name, gpu.capability) if gpu else (None, 0)
    serves = [queue for chain in installed_toolchains() for queue in served(chain, machine(), name, number)]
    builder = TensorRTBuilder()
    limits = Limits(seconds=config.build_timeout, memory=config.build_memory)
    return BuildWorker(
        Workshop(
            index=index,
            cache=EngineCache(index, store, (config.namespace,)),
            forms=Forms(index, store, config.scratch, builder, limits),
            builder=builder,
            identifier=open_identifier(config),
            serves=tuple(serves),
            scratch=config.scratch,
            host=config.host,
            limits=limits,
            lease_seconds=config.lease_seconds,
            beat_seconds=config.beat_seconds,
        )
    )


def gone_workers(index: Index) -> Collection[str]:
    """Workers that this process can see to be dead; their leases need not run out first."""
    here = vantage()
    return [
        worker.id
        for worker in index.workers()
        if here and worker.detail.get("vantage") == here and not alive(worker.pid, worker.born)
    ]
