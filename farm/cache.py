"""The engine cache: look-up, hand-out and commit, over an index and a blob store.

A hit needs the blob as well as the row. A row whose blob is gone is a miss of its own kind, which the next ask that
may build makes good; one whose blob is corrupt is set aside at once (DESIGN, Style).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from farm.asks import Identity
from farm.builds import Engine, Lease
from farm.errors import CorruptBlob, Missing
from farm.index import Found, Index, KeyParts, Wanted, WantedPortable
from farm.portability import covers, family, serves, sortable, wanted_places
from farm.store import BlobStore

MANIFEST_SCHEMA = 1
NEVER_BUILT = "no engine of this key has been built"
BLOB_LOST = "its engine's bytes are gone from the store"


@dataclass(frozen=True)
class Miss:
    """No engine to hand out, and why. ``lost`` is the engine whose row is there and whose bytes are not: a look-up
    never forgets one, since it may have looked into the wrong store; whoever builds it again does."""

    why: str
    lost: Engine | None = None


class Ends(Protocol):
    """Where successes are recorded: the index itself, or a ledger that gathers them."""

    def succeed(self, lease: Lease, engine: Engine) -> None: ...


class EngineCache:
    """Safe to share between threads; holds no state of its own."""

    def __init__(
        self, index: Index, store: BlobStore, namespaces: Sequence[str] = ("main",), ends: Ends | None = None
    ) -> None:
        self.index = index
        self.store = store
        self.ends = ends or index
        self.namespaces = tuple(namespaces)

    def lookup(self, identities: Sequence[Identity]) -> list[Found | Miss]:
        """A hit or a miss for each, in a few statements."""
        wanted = [Wanted(item.key, item.recipe, item.weights) for item in identities]
        found = self.index.find(wanted, self.namespaces)
        gone = self.store.missing({hit.engine.digest for hit in found if hit})
        answers: list[Found | Miss] = []
        for hit in found:
            if hit is None:
                answers.append(Miss(NEVER_BUILT))
            elif hit.engine.digest in gone:
                answers.append(Miss(BLOB_LOST, hit.engine))
            else:
                answers.append(hit)
        return answers

    def lookup_portable(self, identity: Identity) -> Engine | None:
        """A portable engine that serves this ask though its own key has none: the best suited one whose blob is
        there (``portability``). What it was built for stands in its manifest."""
        places = wanted_places(identity.parts, identity.capabilities)
        version = sortable(str(identity.parts["toolchain"]["version"]))
        portable = bool(identity.settings.get("version_compatible"))
        wanted = WantedPortable(family(identity.parts), tuple(places), version, portable)
        for engine in self.index.find_portable(wanted, self.namespaces):
            fits = covers(engine.manifest["parts"], identity.capabilities)
            if fits and engine.manifest["weights"] == identity.weights and self.store.size(engine.digest) is not None:
                return engine
        return None

    def fetch(self, engine: Engine, dest: Path) -> None:
        """Place the plan at ``dest``, verified. ``Missing`` when its bytes are gone; ``CorruptBlob`` when they are
        wrong: then the engine has been set aside already, and the next ask builds it again."""
        try:
            there = self.store.fetch(engine.digest, dest)
        except CorruptBlob:
            self.store.quarantine(engine.digest)
            self.index.drop_engine(engine.recipe, engine.digest, "blob corrupt")
            raise
        if not there:
            raise Missing(f"engine {engine.digest} is gone from the store", "ask for it again to have it rebuilt")

    def commit(self, lease: Lease, plan: Path, manifest: Mapping[str, Any], seconds: float) -> Engine:
        """Store the plan, then its manifest, then, in one transaction, the engine's row and the build's success.

        A crash before the transaction leaves blobs that nobody names (collected later); after it, a whole
        engine. ``LeaseLost`` when the lease is no longer held: then nothing was committed.
        """
        blob = self.store.put_file(plan, link=True)
        whole = dict(manifest) | {"schema": MANIFEST_SCHEMA, "engine": {"digest": blob.digest, "size": blob.size}}
        with_digest = whole | {"manifest": self._store_manifest(whole)}
        request = lease.build.request
        engine = Engine(
            recipe=request.recipe,
            digest=blob.digest,
            size=blob.size,
            manifest=with_digest,
            created=0.0,
            build_seconds=seconds,
            namespace=request.namespace,
            serves=tuple(serves(manifest["parts"])),
        )
        self.ends.succeed(lease, engine)
        return engine

    def _store_manifest(self, manifest: Mapping[str, Any]) -> str:
        body = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        digest = self.store.put(io.BytesIO(body)).digest
        assert digest == "sha256:" + hashlib.sha256(body).hexdigest()
        return digest


def key_parts(identity: Identity) -> KeyParts:
    """What the identity was made of, as the index keeps it."""
    return KeyParts(identity.key, identity.recipe, identity.parts, identity.model, identity.target)
