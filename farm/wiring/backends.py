"""Which backend each URL means, and what else the configuration chooses: index, store, trust, what computes keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from farm.errors import BadConfig, BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection

    from farm.config import Config
    from farm.db.index import SqlIndex
    from farm.gpus import Gpu
    from farm.identify import Identifier
    from farm.index import Index
    from farm.making import Making
    from farm.namespaces import Realm
    from farm.store import BlobStore, VersionedObjects
    from farm.timing import TimingCaches
    from farm.toolchains import Toolchain
    from farm.trust import Policy, Signer
    from farm.upkeep import Upkeep


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


def open_index(config: Config, realm: Realm | None = None) -> Making:
    """The index, for what this machine's place among the namespaces allows, or that of ``realm``."""
    from farm.db.index import SqlIndex

    beside_database(config)
    if not config.database_url:
        make_home(config)
    return SqlIndex(config.database, realm or config.realm)


def open_upkeep(config: Config) -> SqlIndex:
    """The index, with all that upkeep asks of it."""
    from farm.db.index import SqlIndex

    beside_database(config)
    if not config.database_url:
        make_home(config)
    return SqlIndex(config.database, config.realm)


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


def open_identifier(config: Config) -> Identifier:
    from farm.identify import Identifier
    from farm.programs.memory import WeightsMemory

    return Identifier(
        default_targets=config.targets,
        default_toolchain=config.toolchain,
        installed=installed_toolchains,
        local_gpu=gpu_here,
        memory=WeightsMemory(config.scratch / "weights"),
    )


def gpu_here() -> Gpu | None:
    """The first GPU that this process may use, or ``None``."""
    from farm.config import surroundings
    from farm.hosts.gpu import local_gpu

    return local_gpu(surroundings())


def installed_toolchains() -> tuple[Toolchain, ...]:
    from farm.hosts.packages import installed_toolchains

    return installed_toolchains()


def gone_workers(index: Index) -> Collection[str]:
    """Workers that this process can see to be dead; their leases need not run out first."""
    from farm.hosts.processes import alive, vantage

    here = vantage()
    return [
        worker.id
        for worker in index.workers()
        if here and worker.detail.get("vantage") == here and not alive(worker.pid, worker.born)
    ]
