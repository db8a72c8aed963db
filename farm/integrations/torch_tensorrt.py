"""``FarmEngineCache``: the farm as Torch-TensorRT's engine cache.

    torch_tensorrt.compile(model, ..., custom_engine_cache=FarmEngineCache(), immutable_weights=False,
                           cache_built_engines=True, reuse_cached_engines=True)

Torch-TensorRT asks for each subgraph's engine by ``get_hash``, then ``check``; what it had to build it hands over by
``insert``. Over 2.9 to 2.14 (``entries`` says what changed between them). Nothing that the farm does, or fails to do,
ends a compile: trouble is warned of once, and Torch-TensorRT builds.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch_tensorrt.dynamo._engine_cache import BaseEngineCache

from farm.builders import Cancelled
from farm.config import Config, load
from farm.container import Header, pack, unpack
from farm.engine_shelf import Claim, FarmShelf
from farm.errors import BadInput, FarmError, LeaseLost
from farm.integrations.artefacts import load as load_program
from farm.integrations.bypass import Watch
from farm.integrations.entries import container_of, entry_of, fields_of
from farm.integrations.interpreting import interpreted
from farm.integrations.local_shelf import LocalShelf
from farm.integrations.place import place_of, toolchain_here
from farm.integrations.reach import NotReached, Reach, log, told
from farm.integrations.subgraphs import Asked, identify
from farm.wiring import open_shelf

__all__ = ["FarmEngineCache", "Stats", "compile", "load_program", "toolchain_here"]

FIELDS = fields_of(BaseEngineCache.pack)
REMEMBERED = 256
"""Subgraphs between ``get_hash`` and ``insert``, in all threads together."""
UNKEYED = "unkeyed:"
LOOK_SECONDS = 10.0
STORE_SECONDS = 300.0
WAIT_SECONDS = 600.0
POLL_SECONDS = 0.2
LOCAL_BYTES = 10 * 2**30


@dataclass(frozen=True)
class Stats:
    """What a cache was asked, and what came of it. ``waited``: hits that somebody else was building; ``unkeyed``:
    subgraphs that have no sound key (the reason was warned of); ``saved``: seconds of building that hits spared;
    ``failures``: calls that the farm did not answer."""

    asked: int = 0
    local_hits: int = 0
    farm_hits: int = 0
    waited: int = 0
    misses: int = 0
    stored: int = 0
    unkeyed: int = 0
    failures: int = 0
    saved: float = 0.0

    @property
    def hits(self) -> int:
        return self.local_hits + self.farm_hits


class _Asks:
    """What ``get_hash`` was last asked for, by hash: ``check`` and ``insert`` are given nothing else."""

    def __init__(self) -> None:
        self._asks: OrderedDict[str, Asked] = OrderedDict()
        self._lock = threading.Lock()
        self._own = threading.local()

    def put(self, asked: Asked) -> None:
        self._own.last = asked
        with self._lock:
            self._asks[asked.key] = asked
            self._asks.move_to_end(asked.key)
            while len(self._asks) > REMEMBERED:
                self._asks.popitem(last=False)

    def get(self, key: str) -> Asked | None:
        """This thread's own, where several compile one graph at once: each gets its own objects back."""
        last: Asked | None = getattr(self._own, "last", None)
        if last is not None and last.key == key:
            return last
        with self._lock:
            return self._asks.get(key)


_asks = _Asks()
_trouble = Reach()
"""Says each trouble with a key once in this process."""


class FarmEngineCache(BaseEngineCache):  # type: ignore[misc]
    """An engine cache for ``custom_engine_cache``. Safe to share between compiles and threads.

    ``config``: the farm (default: as ``farm`` itself is configured). ``read_only``: takes engines, and gives none.
    ``wait_seconds``: how long to wait for an engine that somebody else builds, before building it here.
    ``local_bytes``: room for engines on this machine (0: none), which serve while the farm is away.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        read_only: bool = False,
        wait_seconds: float = WAIT_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        store_seconds: float = STORE_SECONDS,
        local_bytes: int = LOCAL_BYTES,
    ) -> None:
        self.config = config or load()
        self.read_only = read_only
        self._wait, self._look, self._store = wait_seconds, look_seconds, store_seconds
        self._reach = Reach()
        self._local = LocalShelf(self.config.scratch / "engines", local_bytes) if local_bytes else None
        self._shelf: FarmShelf | None = None
        self._claims: dict[tuple[int, str], Claim] = {}
        self._began: dict[tuple[int, str], float] = {}
        self._stats = Stats()
        self._lock = threading.Lock()
        self._watch = Watch(self)
        atexit.register(_let_go, weakref.ref(self))

    # -- what Torch-TensorRT calls -----------------------------------------------------------------------------

    @staticmethod
    def get_hash(gm: torch.fx.GraphModule, input_specs: Sequence[Any], settings: Any) -> str:
        """The subgraph's key, ``sha256:…``; for what has no sound key, a text that never hits (warned of once)."""
        try:
            asked = identify(gm, input_specs, settings, place_of(settings))
        except FarmError as error:
            _trouble.warn(f"an engine is not cached: {error.message}; {error.hint}")
            return f"{UNKEYED}{uuid.uuid4().hex}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end a compile
            log.exception("an engine is not cached, by a defect of farm's: %s", told(error))
            return f"{UNKEYED}{uuid.uuid4().hex}"
        _asks.put(asked)
        return asked.key

    def check(self, hash: str, *args: Any, **kwargs: Any) -> tuple[Any, ...] | None:
        """The entry for ``hash``, as this release takes it, or ``None``. Waits while somebody else builds it."""
        self._abandon_others(hash)
        asked = self._asked(hash)
        if asked is None or self._mine(hash) in self._began or not asked.reuses:
            return None
        found = self._look_for(asked)
        return None if found is None else entry_of(*found, asked, FIELDS)

    def insert(self, hash: str, entry: Sequence[Any], *args: Any, **kwargs: Any) -> None:
        """Keep what was built: on this machine, and in the farm."""
        self._watch.asked()
        asked = _asks.get(hash)
        if asked is None or self.read_only:
            self._withdraw(self._claims.pop(self._mine(hash), None))
            return
        try:
            self._keep(asked, container_of(asked, entry, FIELDS))
        except BadInput as error:
            self._reach.warn(f"an engine is not cached: {error.message}; {error.hint}")
            self._withdraw(self._claims.pop(self._mine(hash), None))

    def save(self, hash: str, blob: bytes, *args: Any, **kwargs: Any) -> None:
        """Keep a container on this machine. ``BadInput`` for bytes that are none: nothing is ever unpickled."""
        header, _ = unpack(blob)
        if self._local is not None:
            self._local.keep(header.recipe, bytes(blob))

    def load(self, hash: str, *args: Any, **kwargs: Any) -> bytes | None:
        """The container for ``hash`` from this machine, of the subgraph last asked for under it."""
        asked = _asks.get(hash)
        found = self._local.find(asked.key, asked.identity.recipe) if asked and self._local else None
        return None if found is None else pack(*found)

    # -- for people --------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """What this cache was asked so far, and what came of it."""
        with self._lock:
            return replace(self._stats, failures=self._reach.failures)

    def close(self) -> None:
        """Withdraw what was claimed and not built, and let go of the farm. The cache may be used again."""
        for mine in list(self._claims):
            self._withdraw(self._claims.pop(mine))
        self._began.clear()
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            self._try("be let go of", shelf.close, self._look)

    @contextlib.contextmanager
    def baked(self) -> Iterator[None]:
        """While this lasts, this process's compiles take engines with their weights baked in from here, and give them:
        what ``immutable_weights=True`` passes an engine cache by for. See ``compile``."""
        self._watch.asked()
        with interpreted(place_of, self._find_baked, self._keep):
            yield

    def _find_baked(self, asked: Asked) -> tuple[Header, memoryview] | None:
        self._abandon_others(asked.key)
        self._count(asked=1)
        return self._look_for(asked)

    # -- finding -----------------------------------------------------------------------------------------------

    def _asked(self, key: str) -> Asked | None:
        self._watch.asked()
        asked = _asks.get(key)
        if self._mine(key) not in self._began:
            self._count(asked=1, unkeyed=int(asked is None))
        return asked

    def _look_for(self, asked: Asked) -> tuple[Header, memoryview] | None:
        """Here, in the farm, and with whoever builds it; ``None`` when it is for this thread to build."""
        found = self._find_local(asked) or self._find_in_farm(asked) or self._wait_turn(asked)
        if found is None:
            self._began[self._mine(asked.key)] = time.monotonic()
            self._count(misses=1)
        return found

    def _find_local(self, asked: Asked) -> tuple[Header, memoryview] | None:
        found = self._local.find(asked.key, asked.identity.recipe) if self._local else None
        if found is not None:
            self._count(local_hits=1)
        return found

    def _find_in_farm(self, asked: Asked, waited: bool = False) -> tuple[Header, memoryview] | None:
        found = self._try("look for an engine", lambda: self._farm().find(asked), self._look)
        if found is None:
            return None
        self._count(farm_hits=1, waited=int(waited), saved=found.seconds)
        if found.header.recipe == asked.identity.recipe:
            self._keep_local(asked, found.container())
        return found.header, found.plan

    def _wait_turn(self, asked: Asked) -> tuple[Header, memoryview] | None:
        """The engine, once somebody else has built it; ``None`` when it is for this thread to build: it has the lease,
        or has waited for long enough, or the farm is away."""
        if self.read_only or not asked.stores:
            return None
        claim = self._try("be asked for an engine", lambda: self._farm().claim(asked), self._look)
        if claim is None:
            return self._find_in_farm(asked)
        deadline = time.monotonic() + self._wait
        waited = False
        while True:
            turn = self._try("be asked for an engine", lambda: self._farm().turn(claim), self._look)
            if turn is None or turn.lease is not None or time.monotonic() > deadline:
                break
            waited = True
            time.sleep(POLL_SECONDS)
            found = self._find_in_farm(asked, waited=True)
            if found is not None:
                self._withdraw(claim)
                return found
        if turn is None or turn.lease is None:
            if turn is not None:
                self._reach.warn(f"an engine that another builds was not there after {self._wait:g} s; built here")
            self._withdraw(claim)
            return None
        self._claims[self._mine(asked.key)] = turn
        # Whoever had it before may have ended between the last look and the lease.
        found = self._find_in_farm(asked, waited=True) if waited else None
        if found is not None:
            self._withdraw(self._claims.pop(self._mine(asked.key)))
        return found

    # -- keeping -----------------------------------------------------------------------------------------------

    def _keep(self, asked: Asked, container: bytes) -> None:
        """What this thread has built: on this machine, and in the farm."""
        began = self._began.pop(self._mine(asked.key), None)
        claim = self._claims.pop(self._mine(asked.key), None)
        if self.read_only:
            return
        self._keep_local(asked, container)
        seconds = time.monotonic() - began if began is not None else 0.0
        header, plan = unpack(container)
        self._try("store an engine", lambda: self._commit(claim, asked, header, plan, seconds), self._store)

    def _keep_local(self, asked: Asked, container: bytes) -> None:
        if self._local is not None and not self._local.keep(asked.identity.recipe, container):
            self._reach.warn(f"an engine of {len(container):,} bytes could not be kept on this machine")

    def _commit(self, claim: Claim | None, asked: Asked, header: Header, plan: memoryview, seconds: float) -> None:
        shelf = self._farm()
        if claim is None or claim.lease is None:  # it was not looked for, or not waited for any longer
            claim = shelf.claim(asked)
            claim = None if claim is None else shelf.turn(claim)
        if claim is None:
            return
        if claim.lease is None:
            shelf.withdraw(claim)
            return
        try:
            shelf.commit(claim, asked, header, plan, seconds)
            self._count(stored=1)
        except (LeaseLost, Cancelled):
            log.info("an engine was built here, and by another too")

    def _abandon_others(self, key: str) -> None:
        """A thread compiles one subgraph after another: one that it claimed and did not hand over has failed."""
        thread = threading.get_ident()
        for mine in [mine for mine in self._began if mine[0] == thread and mine[1] != key]:
            self._began.pop(mine, None)
            self._withdraw(self._claims.pop(mine, None))

    def _withdraw(self, claim: Claim | None) -> None:
        if claim is not None:
            self._try("be told that an engine is not built here", lambda: self._farm().withdraw(claim), self._look)

    # -- the farm ----------------------------------------------------------------------------------------------

    def _farm(self) -> FarmShelf:
        with self._lock:
            if self._shelf is None:
                self._shelf = open_shelf(self.config)
            return self._shelf

    def _try(self, what: str, work: Callable[[], Any], seconds: float) -> Any:
        """What ``work`` returns; ``None`` when the farm is away, or takes too long, or says that it cannot."""
        try:
            return self._reach.call(what, work, seconds)
        except NotReached:
            return None

    def _mine(self, key: str) -> tuple[int, str]:
        return threading.get_ident(), key

    def _count(self, **more: float) -> None:
        with self._lock:
            now: Mapping[str, Any] = {one.name: getattr(self._stats, one.name) for one in fields(Stats)}
            self._stats = replace(self._stats, **{name: now[name] + value for name, value in more.items()})


def compile(program: Any, *args: Any, cache: FarmEngineCache | None = None, **settings: Any) -> Any:
    """``torch_tensorrt.dynamo.compile(program, …)`` with every engine from the farm that is there, and to it that is
    not, also where weights are baked in (``immutable_weights=True``). Of each engine all weights count by content, so a
    hit is used as it is, and nothing is refitted."""
    import torch_tensorrt

    shared = cache or FarmEngineCache()
    try:
        with shared.baked():
            return torch_tensorrt.dynamo.compile(program, *args, **settings)
    finally:
        if cache is None:
            shared.close()


def _let_go(cache: weakref.ref[FarmEngineCache]) -> None:
    held = cache()
    if held is not None:
        held.close()
