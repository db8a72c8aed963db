"""``farm doctor``: what this machine can build and why not the rest, and whether what is configured works.

Looks, and changes nothing that lasts: the one file that it writes in the store's place is removed again.
"""

from __future__ import annotations

import io
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from farm.collecting import ALL, Standing
from farm.config import Config
from farm.errors import FarmError
from farm.human import human_size
from farm.index import Index
from farm.leaving import Leaving
from farm.store import BlobStore
from farm.toolchains import PINNED, Toolchain, exact_toolchain
from farm.version import __version__

OK, WARN, FAIL = "ok", "warn", "fail"

LOW_DISK = 5_000_000_000
LOW_MEMORY = 2_000_000_000
EXPORTERS = ("torch", "onnx", "onnxscript")


@dataclass(frozen=True)
class Finding:
    """One check: what was found, and what to do about it. ``state``: ``ok``, ``warn`` or ``fail``.

    ``fail`` means that something which is configured is broken; a thing that is merely absent is a ``warn``.
    """

    name: str
    state: str
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        document = asdict(self)
        return document | {"advice": self.advice or None}


def examine(
    config: Config, open_index: Callable[[Config], Leaving], open_store: Callable[[Config], BlobStore]
) -> list[Finding]:
    """Every check, in the order in which a build needs them."""
    checks: list[Callable[[], Finding | list[Finding]]] = [
        lambda: _python(),
        lambda: _machine(),
        lambda: _gpu(),
        lambda: _toolchains(config),
        lambda: _exporters(),
        lambda: _home(config),
    ]
    if config.url:
        checks.append(lambda: _server(config))
    else:
        checks += [lambda: _database(config, open_index), lambda: _store(config, open_store)]
        checks += [lambda: _broker(config), lambda: _budgets(config, open_index)]
    found: list[Finding] = []
    for check in checks:
        made = check()
        found += made if isinstance(made, list) else [made]
    return found


def _python() -> Finding:
    return Finding("python", OK, f"{platform.python_version()} at {sys.executable}")


def _machine() -> list[Finding]:
    from farm.hosts.probe import cores, machine, memory
    from farm.hosts.readings import free_memory

    free = free_memory()
    text = f"{cores()} cores, {_size(memory())} of memory, {_size(free)} free, {machine()}"
    if free < LOW_MEMORY:
        return [Finding("machine", WARN, text, "builds take 0.4 GB and three times the weights: close something")]
    return [Finding("machine", OK, text)]


def _gpu() -> Finding:
    from farm.config import surroundings
    from farm.hosts.gpu import gpu_of
    from farm.hosts.probe import probe

    host = probe(surroundings())
    if not host.gpus:
        return Finding(
            "gpu",
            WARN,
            f"none: {host.why_no_gpu}",
            "not needed for TensorRT-RTX; TensorRT engines, refitting and -t local need one",
        )
    names = [f"{gpu_of(device).name}, sm_{device.capability}, {_size(device.memory)}" for device in host.gpus]
    return Finding("gpu", OK, f"{'; '.join(names)}; driver {host.driver}, CUDA {host.cuda}")


def _toolchains(config: Config) -> list[Finding]:
    """What is installed, and whether it truly starts: each is tried in a child process."""
    from farm.hosts.packages import installed_toolchains

    installed = installed_toolchains()
    findings = [_probed(toolchain) for toolchain in installed]
    if not installed:
        advice = "pip install 'farm[build]' (this machine can still ask, pull and queue)"
        findings.append(Finding("toolchain", WARN, "no TensorRT is installed: nothing can be built here", advice))
    if config.toolchain and exact_toolchain(config.toolchain) not in installed:
        text = f"FARM_TOOLCHAIN is {config.toolchain}, which is not installed here"
        findings.append(Finding("toolchain", WARN, text, "builds of it wait for a machine that has it"))
    elif installed and not config.toolchain and exact_toolchain(PINNED) not in installed:
        text = f"this release pins {PINNED}, which is not what is installed"
        findings.append(Finding("toolchain", WARN, text, "machines without TensorRT compute keys for the pinned one"))
    return findings


def _probed(toolchain: Toolchain) -> Finding:
    from farm.builders.discover import probe

    try:
        probed = probe(toolchain)
    except OSError as error:
        return Finding("toolchain", FAIL, f"{toolchain} could not be tried: {error.strerror}", "free some memory")
    if probed.failure is not None:
        advice = probed.failure.hint or "install it anew: pip install 'farm[build]'"
        return Finding("toolchain", FAIL, f"{toolchain} does not work: {probed.failure.message}", advice)
    places = f" for {', '.join(probed.capabilities)}" if probed.capabilities else ""
    return Finding("toolchain", OK, f"{toolchain} builds{places}")


def _exporters() -> Finding:
    found = {name: _version(name) for name in EXPORTERS}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        text = f"{', '.join(missing)} missing: .pt2 programs cannot be turned into engines here"
        return Finding("exporter", WARN, text, "pip install 'farm[build]'; .onnx programs need none of it")
    return Finding("exporter", OK, ", ".join(f"{name} {version}" for name, version in found.items()))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _home(config: Config) -> Finding:
    place = _existing(config.home)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding("home", FAIL, f"{config.home}: {error.strerror}", "set FARM_HOME to a folder you may write to")
    text = f"{config.home}, {_size(free)} free"
    if free < LOW_DISK:
        return Finding("home", WARN, text, "engines, programs and caches need room: free some, or move FARM_HOME")
    return Finding("home", OK, text)


def _existing(path: Path) -> Path:
    """``path``, or its nearest ancestor that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _server(config: Config) -> Finding:
    """In place of database, store and broker: a server has them."""
    from farm.remote.link import Link
    from farm.wire import Session

    try:
        link = Link(config.url, config.token)
        session = link.get("session", Session)
        link.close()
    except FarmError as error:
        return Finding("server", FAIL, error.message, error.hint)
    text = f"{config.url}, farm {session.farm}; '{session.name}' may {session.scope} in '{session.namespace}'"
    if session.farm != __version__:
        return Finding("server", WARN, f"{text}; this is farm {__version__}", "keys may differ: use the same release")
    return Finding("server", OK, text)


def _database(config: Config, open_index: Callable[[Config], Index]) -> Finding:
    place = config.database.rpartition("@")[2]
    try:
        index = open_index(config)
        try:
            stats = index.stats()
        finally:
            index.close()
    except FarmError as error:
        return Finding("database", FAIL, error.message, error.hint)
    except OSError as error:
        return Finding("database", FAIL, f"{place}: {error.strerror}", "set FARM_HOME to a folder you may write to")
    return Finding("database", OK, f"{place}, up to date, {stats.get('engines', 0)} engines")


def _store(config: Config, open_store: Callable[[Config], BlobStore]) -> Finding:
    """A store works when it gives back what it was given."""
    try:
        store = open_store(config)
        if config.store.startswith("file:"):
            with tempfile.TemporaryFile(dir=_folder(config)) as probe:
                probe.write(b"farm doctor")
            store.missing(["sha256:" + "0" * 64])
        else:
            said = f"farm doctor {uuid.uuid4().hex}".encode()
            blob = store.put(io.BytesIO(said))
            read = store.read(blob.digest)
            store.delete(blob.digest)
            if read != said:
                return Finding("store", FAIL, f"{config.store} did not give back what it was given", "look at its log")
    except FarmError as error:
        return Finding("store", FAIL, error.message, error.hint)
    except OSError as error:
        advice = "let this user write there, or set FARM_STORE_URL"
        return Finding("store", FAIL, f"{config.store} cannot be written: {error.strerror}", advice)
    return Finding("store", OK, f"{config.store}, writable")


def _folder(config: Config) -> Path | None:
    parts = urlsplit(config.store)
    return _existing(Path(unquote(parts.path))) if parts.scheme == "file" else None


def _broker(config: Config) -> Finding:
    if config.embedded:
        return Finding("broker", OK, f"none: builds run in the asking process, {config.workers} at once")
    from farm.dispatch import BrokerDispatch

    broker = BrokerDispatch(config.broker_url)
    try:
        broker.check()
    except FarmError as error:
        return Finding("broker", FAIL, error.message, error.hint)
    finally:
        broker.stop()
    return Finding("broker", OK, f"{config.broker_url.rpartition('@')[2]} answers")


def _budgets(config: Config, open_index: Callable[[Config], Leaving]) -> list[Finding]:
    """How full the farm is, where it has a budget or its namespaces have quotas."""
    from farm.collecting import standings

    try:
        index = open_index(config)
        try:
            return [_budget(one) for one in standings(index, config)]
        finally:
            index.close()
    except FarmError:
        return []  # the database has a finding of its own


def _budget(one: Standing) -> Finding:
    name = "budget" if one.name == ALL else f"quota {one.name}"
    text = f"{human_size(one.used)} of {human_size(one.limit)}"
    if one.used <= one.limit:
        return Finding(name, OK, text)
    if one.safe > one.limit:
        text += f"; {human_size(one.safe)} may not go (pinned, in use or young)"
        return Finding(name, WARN, text, "unpin what is not needed ('farm ls pins'), or raise the limit")
    return Finding(name, WARN, text, "'farm gc' collects now; workers and beat do so every FARM_GC_SECONDS")


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
