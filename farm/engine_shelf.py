"""The farm's shelf of Torch-TensorRT's subgraph engines: found by key, claimed by recipe, committed under a lease.

A client's process builds such engines as it compiles, and so does a worker's child. What a client built itself stays in
a namespace of its own (``own_namespace``) until a trusted worker builds it again.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from farm.asks import Identity
from farm.builds import BuildRequest, Lease
from farm.cache import EngineCache, Miss, key_parts
from farm.config import Config
from farm.container import Header, header_for, pack
from farm.errors import CorruptBlob, Missing, Untrusted
from farm.heart import Heart, Hearts
from farm.index import Claimed, Found
from farm.making import Making, Offer
from farm.namespaces import CLIENT, client_namespace, is_name
from farm.recorder import Recorder
from farm.requests import request_for
from farm.store import BlobStore
from farm.trust import Policy, Signer
from farm.usage import tally_hit, tally_miss, tally_served
from farm.version import __version__

LOOK_SECONDS = 2.0
KIND = "torch_tensorrt subgraph"
NAMELESS = "somebody"


def own_namespace(config: Config) -> str:
    """Where a client's own engines go. An embedded farm is its user's alone; in a fleet's, they go under the client's
    name, unless the configured namespace is a client's already."""
    if not config.fleet or config.namespace.startswith(CLIENT):
        return config.namespace
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", config.tenant).lstrip("-")
    return client_namespace(name if is_name(CLIENT + name) else NAMELESS)


class Asked(Protocol):
    """One subgraph that is asked for. ``naming`` says what its weights are called."""

    @property
    def identity(self) -> Identity: ...

    @property
    def naming(self) -> str: ...

    def served_by(self, naming: object) -> bool:
        """Whether an engine of its key with weights of such names serves it."""
        ...


@dataclass(frozen=True)
class Fetched:
    """An engine that was found: its container's header and plan, and what building it took, in seconds."""

    header: Header
    plan: memoryview
    seconds: float

    def container(self) -> bytes:
        return pack(self.header, self.plan)


@dataclass(frozen=True)
class Claim:
    """This client waits for a recipe's engine, as ``waiter``; with ``lease`` and ``heart`` it builds it."""

    waiter: str
    request: BuildRequest
    lease: Lease | None = None
    heart: Heart | None = None


class FarmShelf:
    """Any of it may raise ``Unavailable``. Safe to share between threads."""

    def __init__(
        self,
        config: Config,
        index: Making,
        store: BlobStore,
        own: str,
        trust: Policy | None = None,
        signer: Signer | None = None,
    ) -> None:
        """``own`` is the namespace that engines are put into."""
        self._config, self._index, self._own = config, index, own
        # What is built here is put there, whatever else this machine's workers build for.
        realm = replace(config.realm.owning(own), builds=(own,))
        self._cache = EngineCache(index, store, realm, trust=trust, signer=signer)
        self._recorder = Recorder(index)
        self._worker = f"{config.host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._hearts = Hearts(self._index, config.lease_seconds, min(LOOK_SECONDS, config.lease_seconds / 4), 0.0)
        self._beating = threading.Lock()
        self._held: dict[str, ExitStack] = {}
        self._started = False

    # -- looking -----------------------------------------------------------------------------------------------

    def find(self, asked: Asked) -> Fetched | None:
        """The engine that serves ``asked``, verified; ``None`` when there is none that can be handed out. One whose
        bytes are gone is forgotten, so that it is built again."""
        (found,) = self._cache.lookup([asked.identity])
        if isinstance(found, Miss):
            self._cache.forget([found])
            with self._recorder.adding() as more:
                tally_miss(more, asked.identity.key, found.reason)
            return None
        return self._fetch(asked, found) if _serves(asked, found) else None

    def _fetch(self, asked: Asked, found: Found) -> Fetched | None:
        engine = found.engine
        self._config.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="engine-", dir=self._config.scratch) as folder:
            path, began = Path(folder) / "plan", time.monotonic()
            try:
                self._cache.fetch(engine, path)
            except (Missing, CorruptBlob, Untrusted):
                return None
            fetched = time.monotonic() - began
            plan = memoryview(path.read_bytes())
        told = engine.manifest
        header = header_for(
            plan,
            key=asked.identity.key,
            recipe=engine.recipe,
            toolchain=str(told["toolchain"]),
            target=str(told["target"]),
            bindings=told["bindings"],
            detail=told["detail"],
        )
        with self._recorder.adding() as more:
            tally_hit(more, asked.identity.key, engine.build_seconds)
            tally_served(more, engine, fetched)
        return Fetched(header, plan, engine.build_seconds)

    # -- one builds, the others wait -------------------------------------------------------------------------------

    def claim(self, asked: Asked) -> Claim | None:
        """Join those who want the recipe's engine; ``None`` when it is there by now, or can never be."""
        identity = asked.identity
        waiter = f"{self._worker}:{uuid.uuid4().hex[:8]}"
        self._index.record_parts([key_parts(identity)])
        (claim,) = self._index.claim_or_join([self._request(asked)], waiter)
        if claim.outcome in (Claimed.DONE, Claimed.FAILED):
            return None
        return Claim(waiter, self._request(asked))

    def _request(self, asked: Asked) -> BuildRequest:
        """A build that no worker's queue offers: those who ask for this very recipe serve it among themselves."""
        return request_for(
            asked.identity,
            program="",
            capability=f"client/{asked.identity.recipe}",
            namespace=self._own,
            tenant=self._config.tenant,
        )

    def turn(self, claim: Claim) -> Claim:
        """The claim, with the lease if it is this client's turn to build: nobody else does, or whoever did is gone."""
        self._index.reap()
        queue, mine = claim.request.capability, (self._own,)
        offer = Offer(worker=self._worker, node=self._config.host, capabilities=(queue,), namespaces=mine)
        leases = self._index.lease(offer, self._config.lease_seconds)
        return replace(claim, lease=leases[0], heart=self._hold(leases[0])) if leases else claim

    def _hold(self, lease: Lease) -> Heart:
        with self._beating:
            if not self._started:
                self._started = True
                self._hearts.start()
            stack = self._held.setdefault(lease.build.id, ExitStack())
            return stack.enter_context(self._hearts.hold(lease, threading.Event()))

    def _let_go(self, lease: Lease) -> None:
        with self._beating:
            stack = self._held.pop(lease.build.id, None)
        if stack is not None:
            stack.close()

    def commit(self, claim: Claim, asked: Asked, header: Header, plan: memoryview, seconds: float) -> None:
        """Store what this client built under its lease. ``LeaseLost`` when another has it by now."""
        assert claim.lease is not None and claim.heart is not None
        self._config.scratch.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix="engine-", dir=self._config.scratch) as folder:
                path = Path(folder) / "plan"
                path.write_bytes(plan)
                claim.heart.check()
                self._cache.commit(claim.lease, path, self._manifest(claim.lease, asked, header, seconds), seconds)
        finally:
            self._let_go(claim.lease)

    def withdraw(self, claim: Claim) -> None:
        """Wait no longer; what was this client's to build is the next one's who waits, if any."""
        if claim.lease is not None:
            self._let_go(claim.lease)
            self._index.give_back(claim.lease)
        self._index.leave(claim.waiter)

    def _manifest(self, lease: Lease, asked: Asked, header: Header, seconds: float) -> Mapping[str, Any]:
        """As a worker's: where the engine comes from and what it is for."""
        identity = asked.identity
        return {
            "kind": KIND,
            "key": identity.key,
            "recipe": identity.recipe,
            "model": identity.model,
            "program": "",
            "weights": identity.weights,
            "parts": identity.parts,
            "given": identity.given,
            "effective": identity.settings,
            "told": identity.told,
            "read_back": {},
            "target": identity.target,
            "toolchain": identity.toolchain,
            "exporter": "",
            "bindings": header.bindings,
            "detail": header.detail,
            "profiles": list(identity.profiles),
            "seconds": {"build": round(seconds, 3)},
            "peak_memory": 0,
            "warnings": [],
            "build": lease.build.id,
            "attempt": lease.attempt,
            "namespace": self._own,
            "node": self._config.host,
            "machine": {"arch": None, "gpu": None, "driver": None, "cuda": None},
            "timing_cache": None,
            "log": None,
            "worker": self._worker,
            "farm": __version__,
        }

    def close(self) -> None:
        """Let go of the database."""
        self._hearts.stop()
        self._recorder.close()
        self._index.close()


def _serves(asked: Asked, found: Found) -> bool:
    """By its manifest, which anybody who may write to the database could have edited."""
    detail = found.engine.manifest.get("detail")
    return isinstance(detail, Mapping) and asked.served_by(detail.get("naming"))
