"""Configuration: the environment over ``farm.toml`` over defaults. The sole reader of the environment.

``farm.toml`` is looked for in the working directory, then in ``FARM_HOME``; its keys are the variables' names
in lower case without ``FARM_`` (``database_url = "postgresql://…"``).
"""

from __future__ import annotations

import getpass
import os
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from farm.errors import BadConfig
from farm.namespaces import MAIN, Realm, is_name

BROKERS = ("memory:", "redis://", "rediss://", "amqp://", "amqps://")
REDIS_TAKES = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
AMQP_TAKES = ("heartbeat",)
"""What may follow the '?' in a broker's address. Kombu passes on whatever is there, by name, to what then fails."""
CERT_REQS = ("none", "optional", "required", "CERT_NONE", "CERT_OPTIONAL", "CERT_REQUIRED")
TIMINGS = ("share", "off", "editable", "strict")
"""What a worker does with kernel timings: starts from those of its like and shares its own; neither; the same with
timings that can be edited; or replays such timings and builds nothing that they do not cover."""
FOREVER = 10_000 * 86_400.0
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
MEASURES = ("here", "everywhere", "asked")
"""Which engines are measured once they are built: those that a worker can run where it built them; all, each on a node
that has its GPU, now or later; or none but those that somebody asks for."""
WHOLE = ("concurrency", "build_memory", "store_cache", "max_upload", "max_bytes", "max_age", "gc_grace", "history")
"""Numbers that are never negative."""
SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def login() -> str:
    """The name of the user whose share of the fleet builds come from, unless ``tenant`` says otherwise."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


@dataclass(frozen=True)
class Config:
    """How this farm is set up. Sizes are bytes, times seconds. An empty URL means the embedded default.

    ``namespace``: where what is asked for is built; ``trusted_namespaces``, ``read_namespaces`` (others that are read)
    and ``builds_for`` (what this machine's workers build for): ``namespaces.Realm``.
    ``tenant``: whose share of the fleet builds are made from. ``poll_seconds``: how often a worker looks for builds
    that nobody told it of; ``drain_seconds``: how long one that is to stop waits for the builds in hand;
    ``patience_seconds``: how long a client that waits for builds bears with a database that is away; ``store_cache``:
    what a machine keeps of a store that is not on it. ``timing``: what a worker does with kernel timings (``TIMINGS``).
    ``measure``: which of the engines that it built are measured (``MEASURES``).
    ``signing_key``: the file of the private key with which this machine's workers sign their engines; ``trust``: whose
    signatures are asked for before one is handed out. ``max_bytes``, ``max_age`` and ``quotas`` (``NAMESPACE=SIZE``)
    are what collection brings the farm down to, every ``gc_seconds`` (0: no limit); what is younger than ``gc_grace``
    stays. ``reconcile_seconds``: how often rows and blobs are compared, and orphans of both kinds removed (0: only when
    somebody asks for it). ``history``: how old what is told of finished builds and sweeps may become (0: any age).
    ``url`` and ``token``: the server that is asked in place of a database and a store; ``max_upload``: the largest blob
    that one takes (0: any).
    """

    home: Path = field(default_factory=lambda: Path.home() / ".farm")
    database_url: str = ""
    store_url: str = ""
    broker_url: str = "memory://"
    s3_endpoint_url: str = ""
    url: str = ""
    token: str = field(default="", repr=False)
    toolchain: str = ""
    targets: tuple[str, ...] = ()
    namespace: str = MAIN
    trusted_namespaces: tuple[str, ...] = (MAIN,)
    read_namespaces: tuple[str, ...] = ()
    builds_for: tuple[str, ...] = ()
    tenant: str = field(default_factory=login)
    concurrency: int = 0
    build_timeout: float = 3600.0
    build_memory: int = 0
    lease_seconds: float = 15.0
    beat_seconds: float = 0.4
    poll_seconds: float = 2.0
    drain_seconds: float = 30.0
    patience_seconds: float = 120.0
    store_cache: int = 20 * 2**30
    max_upload: int = 64 * 2**30
    timing: str = "share"
    measure: str = "here"
    host: str = field(default_factory=socket.gethostname)
    signing_key: str = ""
    trust: str = ""
    max_bytes: int = 0
    max_age: float = 0.0
    quotas: tuple[str, ...] = ()
    gc_grace: float = 3600.0
    gc_seconds: float = 300.0
    reconcile_seconds: float = 86_400.0
    history: float = 90 * 86_400.0

    @property
    def quotas_by_namespace(self) -> dict[str, int]:
        """The most bytes of the engines of each namespace, or of all together that begin alike (``pr-*``)."""
        return {name: parse_size(size) for name, _, size in (one.rpartition("=") for one in self.quotas)}

    @property
    def embedded(self) -> bool:
        """Whether builds run inside this process, because no broker connects it to others."""
        return self.broker_url.startswith("memory:")

    @property
    def fleet(self) -> bool:
        """Whether other machines may build for the same database."""
        return bool(self.url) or not self.embedded or not self.database.startswith("sqlite")

    @property
    def realm(self) -> Realm:
        """This machine's place among the namespaces."""
        return Realm(self.namespace, self.trusted_namespaces, self.read_namespaces, self.builds_for)

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{quote(str(self.home / 'farm.db'))}"

    @property
    def store(self) -> str:
        return self.store_url or (self.home / "store").as_uri()

    @property
    def scratch(self) -> Path:
        """Where builds work and forms are kept on this machine; may be emptied while nothing runs."""
        return self.home / "cache"

    @property
    def workers(self) -> int:
        """Builds at once on this machine: as many as cores it may use, unless ``concurrency`` says otherwise."""
        return self.concurrency or len(os.sched_getaffinity(0))


def surroundings() -> Mapping[str, str]:
    """The environment itself, for what heeds variables that are not farm's (CUDA's) or hands them to children."""
    return os.environ


def load(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Config:
    """Read the configuration; ``BadConfig`` names the variable or the file's key that is wrong."""
    env = surroundings() if environ is None else environ
    home = Path(env.get("FARM_HOME") or Path.home() / ".farm").expanduser()
    raw: dict[str, tuple[str, Any]] = {}
    for folder in (home, cwd or Path.cwd()):
        raw.update(_read_toml(folder / "farm.toml"))
    for item in fields(Config):
        name = f"FARM_{item.name.upper()}"
        if env.get(name):
            raw[item.name] = (name, env[name])
    raw["home"] = ("FARM_HOME", str(home.absolute()))
    hints = get_type_hints(Config)
    config = Config(**{name: _convert(hints[name], where, value) for name, (where, value) in raw.items()})
    return _checked(config)


def _read_toml(path: Path) -> dict[str, tuple[str, Any]]:
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} cannot be read: {error}") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{path} is not valid TOML: {error}") from error
    known = {item.name for item in fields(Config)}
    for name in values:
        if name not in known or name == "home":
            raise BadConfig(f"{path}: unknown key '{name}'", f"known: {', '.join(sorted(known - {'home'}))}")
    return {name: (f"{path}: {name}", value) for name, value in values.items()}


def _convert(kind: Any, where: str, value: Any) -> Any:
    try:
        if kind is Path:
            return Path(value).expanduser()
        if kind is int:
            return value if isinstance(value, int) else parse_size(value)
        if kind is float:
            return parse_duration(value) if isinstance(value, str) else float(value)
        if kind is str:
            return str(value)
        if isinstance(value, Mapping):
            return tuple(f"{name}={each}" for name, each in value.items())
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadConfig(f"{where} is '{value}', which is no {getattr(kind, '__name__', 'list')}") from error


def parse_size(text: str) -> int:
    """``500M`` → bytes; ``ValueError`` for anything else."""
    text = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = text[-1:] if text[-1:] in SIZES else ""
    return int(float(text.removesuffix(unit)) * SIZES[unit])


def parse_duration(text: str, unit: str = "s") -> float:
    """``30d``, ``12h``, ``90`` (of ``unit``) → seconds; ``ValueError`` for anything else."""
    text = text.strip().lower()
    last = text[-1:] if text[-1:] in SECONDS else ""
    seconds = float(text.removesuffix(last)) * SECONDS[last or unit]
    if not 0 <= seconds < FOREVER:
        raise ValueError(text)
    return seconds


def _check_quotas(config: Config) -> None:
    for one in config.quotas:
        name, equals, size = one.rpartition("=")
        try:
            whole = f"{name[:-1]}x" if name.endswith("*") else name
            good = bool(equals) and is_name(whole) and parse_size(size) >= 0
        except (ValueError, OverflowError):
            good = False
        if not good:
            raise BadConfig(f"FARM_QUOTAS holds '{one}'", "write NAMESPACE=SIZE, as in main=200G,pr-*=20G")


def _check_url(text: str) -> None:
    """``BadConfig`` unless it is empty or can be a server's address. It is said without what might be a secret."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if text and (not known or parts.username or parts.password or parts.query or parts.fragment):
        raise BadConfig(
            f"FARM_URL is '{text.rpartition('@')[2]}', which is no server's address",
            "write https://HOST or http://HOST:8080; the token goes into FARM_TOKEN",
        )


def _check_broker(text: str) -> None:
    """``BadConfig`` unless each of the addresses in it (``;`` between them) can be a broker's."""
    for one in text.split(";"):
        if not _is_broker(one):
            raise BadConfig(
                f"FARM_BROKER_URL is '{text.rpartition('@')[2]}', which names no broker that farm knows",
                "write redis://HOST:6379/0 or amqp://USER:PASSWORD@HOST/VHOST, or leave it out to build in this "
                "process",
            )
        if option := _wrong_option(urlsplit(one)):
            raise BadConfig(
                f"FARM_BROKER_URL asks for '{option}', which nothing here understands",
                f"after the '?' Redis takes {', '.join(REDIS_TAKES)}; RabbitMQ takes heartbeat=SECONDS",
            )


def _is_broker(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    number = parts.path.strip("/") if text.startswith(("redis:", "rediss:")) else ""
    known = text.startswith(BROKERS) and not parts.fragment
    return known and port != 0 and (not number or number.isdecimal())


def _wrong_option(parts: SplitResult) -> str:
    """The first of a broker's options that it does not take; empty where it takes all."""
    takes = REDIS_TAKES if parts.scheme.startswith("redis") else AMQP_TAKES
    for name, value in parse_qsl(parts.query):
        amiss = name not in takes or (name == "ssl_cert_reqs" and value not in CERT_REQS)
        if amiss or (name == "heartbeat" and not value.isdecimal()):
            return f"{name}={value}"
    return ""


def _checked(config: Config) -> Config:
    _check_quotas(config)
    _check_url(config.url)
    for name in WHOLE:
        if getattr(config, name) < 0:
            raise BadConfig(f"FARM_{name.upper()} is negative", "leave it out for the default")
    _check_broker(config.broker_url)
    wrong, hint = config.realm.contradiction()
    if wrong:
        raise BadConfig(f"FARM_NAMESPACE, FARM_TRUSTED_NAMESPACES and the like: {wrong}", hint)
    if config.timing not in TIMINGS:
        raise BadConfig(f"FARM_TIMING is '{config.timing}'", f"write one of {', '.join(TIMINGS)}")
    if config.measure not in MEASURES:
        raise BadConfig(f"FARM_MEASURE is '{config.measure}'", f"write one of {', '.join(MEASURES)}")
    for name in ("build_timeout", "lease_seconds", "beat_seconds", "poll_seconds", "patience_seconds", "gc_seconds"):
        if not getattr(config, name) > 0:
            raise BadConfig(f"FARM_{name.upper()} must be more than 0 seconds")
    if config.beat_seconds * 3 > config.lease_seconds:
        raise BadConfig("FARM_LEASE_SECONDS must be at least three times FARM_BEAT_SECONDS")
    return config


@dataclass(frozen=True)
class Pipeline:
    """What a CI system says of itself. ``annotates``: it reads GitHub's workflow commands; ``summary``: the file to
    which a step's Markdown is added."""

    annotates: bool = False
    summary: Path | None = None


def pipeline(environ: Mapping[str, str] | None = None) -> Pipeline:
    """The CI system that this process runs in, if it is one that is known."""
    env = surroundings() if environ is None else environ
    summary = env.get("GITHUB_STEP_SUMMARY")
    return Pipeline(env.get("GITHUB_ACTIONS") == "true", Path(summary) if summary else None)
