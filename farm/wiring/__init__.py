"""From a configuration to a farm, a worker or an app: the sole chooser of backends.

What commands open stands here, and is put together of the modules beside it. Each part is imported only when it is
made, so that a command that looks at the database never imports Celery, torch or TensorRT.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

from farm.cache import EngineCache
from farm.config import Config, load
from farm.service import Farm
from farm.wiring.backends import (
    bind_store,
    gone_workers,
    installed_toolchains,
    open_identifier,
    open_index,
    open_signer,
    open_store,
    open_trust,
)
from farm.wiring.dispatches import open_dispatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from farm.dispatch import Station
    from farm.engine_shelf import FarmShelf
    from farm.making import Making
    from farm.pulling.pulls import Pulling
    from farm.store import BlobStore


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
        from farm.wiring.upkeep import tidy_when_due

        farm.care = Routine(lambda: tidy_when_due(config), config.gc_seconds).tick
    return farm


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


@contextlib.contextmanager
def open_pulling(config: Config) -> Iterator[Pulling]:
    """What fetches a lock file's engines: the configured store alone; and, where signatures are asked for, the index,
    since they lie there."""
    from farm.pulling.pulls import Pulling

    store, policy = open_store(config), open_trust(config)
    if policy is None:
        yield Pulling(store)
        return
    with contextlib.closing(open_index(config)) as index:
        cache = EngineCache(index, store, config.realm, trust=policy)
        yield Pulling(store, cache.refuses_line)


def open_station(config: Config, index: Making, store: BlobStore, gpu: int | None = None) -> tuple[Station, list[str]]:
    """What ``farm worker`` runs: hands, and the Celery worker that wakes them; and what its user should be told."""
    from farm.builders.discover import probe
    from farm.collecting import Routine
    from farm.crew import Crew
    from farm.dispatch import Station
    from farm.repair import CALM_SECONDS, Repair
    from farm.wiring.upkeep import tidy_when_due
    from farm.wiring.workers import fit_machine, open_worker, poll

    away = bind_store(config, index, store) if config.fleet else ""
    tried = [probe(chain) for chain in installed_toolchains()]
    notes = [f"{one.toolchain} does not work here: {one.failure.message}" for one in tried if one.failure]
    fitting = fit_machine(config, [one.toolchain for one in tried if one.works], gpu)
    worker = open_worker(config, index, store, fitting)
    if away and not worker.standby.look():
        notes.append(f"{away}: no builds are taken until this works")
    broker = f"memory://{uuid.uuid4().hex}" if config.embedded else config.broker_url
    repair = Repair(index, lambda counts: None, lambda: gone_workers(index), calm=CALM_SECONDS if config.fleet else 0.0)
    crew = Crew(worker, fitting.slots, poll(config))
    # In a thread of its own: a task returns at once, or wake-ups wait for it.
    collection = Routine(lambda: tidy_when_due(config), 0.0)
    return Station(broker, crew, repair.now, collection.tick), [*notes, *fitting.notes]
