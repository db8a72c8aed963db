"""The engine cache: look-up, hand-out and commit, over an index and a blob store.

A hit needs the blob as well as the row. A row whose blob is gone is a miss of its own kind, which the next ask that
may build makes good; one whose blob is corrupt is set aside at once (DESIGN, Style).
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from farm.builds import Engine
from farm.errors import CorruptBlob, Missing, NotAllowed, Unavailable, Untrusted
from farm.index import Adoption, Found, KeyParts, Wanted, WantedPortable
from farm.manifests import BESIDE, alteration, body, whole
from farm.namespaces import Realm, admits, client_namespace
from farm.portability import covers, family, serves, sortable, wanted_places
from farm.store import fetch_on, is_name, lost
from farm.version import __version__

if TYPE_CHECKING:
    from farm.asks import Identity
    from farm.builds import Lease
    from farm.index import Index
    from farm.prebuilds.lock import LockEntry
    from farm.store import BlobStore
    from farm.trust import Policy, Signer

NEVER_BUILT = "no engine of this key has been built"
BLOB_LOST = "its engine's bytes are gone from the store"
VOUCHED = "have a worker build it that signs with a key that FARM_TRUST names (FARM_SIGNING_KEY)"
HOLD_SECONDS = 300.0
"""Engines that are being fetched are held for so long, and again after a third of it."""
SIGN = "set FARM_SIGNING_KEY to a key that FARM_TRUST names for that namespace"
ANOTHER = "the engine that stands under its key was made for another"


@dataclass(frozen=True)
class Miss:
    """No engine to hand out, and why. ``lost`` is the engine whose row is there and whose bytes are not: a look-up
    never forgets one, since it may have looked into the wrong store; whoever builds it again does. ``untrusted``: one
    is there, and the trust policy refuses it: others may trust it, so it is never forgotten, only built anew.
    ``reason`` is one of a few words, to be counted by."""

    why: str
    lost: Engine | None = None
    untrusted: bool = False
    reason: str = "never_built"


class Ends(Protocol):
    """Where successes are recorded: the index itself, or a ledger that gathers them."""

    def succeed(self, lease: Lease, engine: Engine) -> None: ...


class EngineCache:
    """Safe to share between threads; holds no state of its own."""

    def __init__(
        self,
        index: Index,
        store: BlobStore,
        realm: Realm | None = None,
        ends: Ends | None = None,
        trust: Policy | None = None,
        signer: Signer | None = None,
    ) -> None:
        self.index = index
        self.store = store
        self.ends = ends or cast("Ends", index)  # whoever commits has a ``Making``
        self.realm = realm or Realm()
        self.namespaces = self.realm.reads
        self.trust = trust
        self.signer = signer
        self.hold_seconds = HOLD_SECONDS

    def lookup(self, identities: Sequence[Identity]) -> list[Found | Miss]:
        """A hit or a miss for each, in a few statements."""
        wanted = [Wanted(item.key, item.recipe, item.weights) for item in identities]
        found = self.index.find(wanted, self.namespaces)
        gone = lost(self.store, {hit.engine.digest for hit in found if hit})
        return [self._judged(item, hit, gone) for item, hit in zip(identities, found, strict=True)]

    def _judged(self, identity: Identity, hit: Found | None, gone: Collection[str]) -> Found | Miss:
        if hit is None:
            return Miss(NEVER_BUILT)
        if hit.engine.digest in gone:
            return Miss(BLOB_LOST, hit.engine, reason="bytes_lost")
        altered = alteration(hit.engine)
        if altered:
            return Miss(altered, hit.engine, reason="altered")
        refused = self._refuses(identity, hit)
        return Miss(refused, untrusted=True, reason="untrusted") if refused else hit

    def _refuses(self, identity: Identity, hit: Found) -> str:
        """Why the trust policy refuses a hit. What the index says of an engine beyond its manifest (that it serves this
        key, with these weights) is nobody's signed word, so the manifest must say it too."""
        if self.trust is None:
            return ""
        told = hit.engine.manifest
        other = told.get("recipe") != identity.recipe and told.get("key") != identity.key
        if other or (hit.same_weights and told.get("weights") != identity.weights):
            return ANOTHER
        return self.trust.refuses(hit.engine)

    def lookup_portable(self, identity: Identity) -> Engine | None:
        """A portable engine that serves this ask though its own key has none: the best suited one whose blob is
        there (``portability``). What it was built for stands in its manifest."""
        places = wanted_places(identity.parts, identity.capabilities)
        version = sortable(str(identity.parts["toolchain"]["version"]))
        portable = bool(identity.settings.get("version_compatible"))
        wanted = WantedPortable(family(identity.parts), tuple(places), version, portable)
        for engine in self.index.find_portable(wanted, self.namespaces):
            if self._fits(engine, identity, wanted.family) and not lost(self.store, [engine.digest]):
                return engine
        return None

    def _fits(self, engine: Engine, identity: Identity, wanted: str) -> bool:
        """By its manifest, whatever the index lists it under."""
        if alteration(engine) or (self.trust is not None and self.trust.refuses(engine)):
            return False
        parts = engine.manifest["parts"]
        same = family(parts) == wanted and engine.manifest["weights"] == identity.weights
        return same and covers(parts, identity.capabilities)

    def fetch(self, engine: Engine, dest: Path) -> None:
        """Place the plan at ``dest``, verified. ``Missing`` when its bytes are gone; ``CorruptBlob`` when they, or its
        row, are wrong: then the engine has been set aside already, and the next ask builds it again; ``Untrusted`` when
        nobody who is trusted vouches for it. However long it takes, collection lets it end."""
        self._check_row(engine)
        try:
            with self.holding([engine]):
                there = fetch_on(self.store, engine.digest, dest)
        except CorruptBlob:
            with contextlib.suppress(Unavailable):  # of a reader who may not write; then 'farm verify' sees to it
                self.store.quarantine(engine.digest)
                self.index.drop_engine(engine.recipe, engine.digest, "blob corrupt")
            raise
        if not there:
            raise Missing(f"engine {engine.digest} is gone from the store", "ask for it again to have it rebuilt")

    @contextlib.contextmanager
    def holding(self, engines: Sequence[Engine]) -> Iterator[None]:
        """Keep what was looked up from collection while this lasts: for whoever fetches many, one after another.

        One that had been collected before, more than a grace period after it was looked up, may be gone all the same.
        """
        named = {blob for engine in engines for blob in (engine.digest, str(engine.manifest.get("manifest")))}
        blobs = {blob for blob in named if is_name(blob)}
        ended = threading.Event()

        def hold() -> None:
            with contextlib.suppress(Unavailable):  # then it stays as long as it was held last, and perhaps longer
                self.index.hold_blobs(blobs, self.hold_seconds)

        def go_on() -> None:
            while not ended.wait(self.hold_seconds / 3):
                hold()

        hold()
        holder = threading.Thread(target=go_on, name="farm-hold", daemon=True)
        holder.start()
        try:
            yield
        finally:
            ended.set()
            holder.join()

    def forget(self, found: Sequence[Found | Miss]) -> None:
        """Forget engines whose bytes are gone, or whose rows are wrong (of those that row alone), now that they are to
        be built again."""
        for miss in found:
            if isinstance(miss, Miss) and miss.lost is not None:
                reason = "blob missing" if miss.why == BLOB_LOST else "row altered"
                place = None if miss.why == BLOB_LOST else miss.lost.namespace
                self.index.drop_engine(miss.lost.recipe, miss.lost.digest, reason, place)

    def distrusts(self, engine: Engine) -> str:
        """Why an engine that was just made is not handed out, in words; empty when it is."""
        return alteration(engine) or (self.trust.refuses(engine) if self.trust is not None else "")

    def refuses_line(self, line: LockEntry) -> str:
        """Why a lock line's engine must not be handed out, in words; empty when somebody who is trusted signed it."""
        found = self.index.engines(prefix=line.engine, namespaces=self.namespaces)
        reasons = [self.distrusts(one) for one in found if one.digest == line.engine]
        return "" if "" in reasons else (reasons or ["the index does not know it"])[0]

    def _check_row(self, engine: Engine) -> None:
        altered = alteration(engine)
        if altered or not is_name(engine.digest):
            self.index.drop_engine(engine.recipe, engine.digest, "row altered", engine.namespace)
            raise CorruptBlob(
                f"engine {engine.digest} is not what was recorded: {altered or 'its digest is none'}",
                "it is set aside; ask for it again to have it rebuilt, and look at who may write to the database",
            )
        refused = self.trust.refuses(engine) if self.trust is not None else ""
        if refused:
            raise Untrusted(f"engine {engine.digest} is not handed out: {refused}", VOUCHED)

    def commit(self, lease: Lease, plan: Path, manifest: Mapping[str, Any], seconds: float) -> Engine:
        """Store the plan, then its manifest, then, in one transaction, the engine's row and the build's success.

        A crash before the transaction leaves blobs that nobody names (collected later); after it, a whole
        engine. ``LeaseLost`` when the lease is no longer held: then nothing was committed. ``NotAllowed`` for a
        namespace that this worker does not build for.
        """
        if not admits(self.realm.serves, lease.build.request.namespace):
            raise NotAllowed(
                f"this worker builds for {', '.join(self.realm.serves)}, not for {lease.build.request.namespace}",
                "FARM_BUILDS_FOR says for which namespaces a worker builds",
            )
        blob = self.store.put_file(plan, link=True)
        kept = self._kept(whole(manifest, blob.digest, blob.size))
        request = lease.build.request
        engine = Engine(
            recipe=request.recipe,
            digest=blob.digest,
            size=blob.size,
            manifest=kept,
            created=0.0,
            build_seconds=seconds,
            namespace=request.namespace,
            serves=tuple(serves(manifest["parts"])),
        )
        self.ends.succeed(lease, engine)
        return engine

    def keep(self, identity: Identity, plan: Path, client: str, seconds: float, made: Mapping[str, Any]) -> Engine:
        """Store a plan that the client called ``client`` built itself, in ``seconds``, where its own look-ups find it
        and nobody else's does: in the namespace ``client/NAME``.

        ``identity`` is what farm computed of the program (``Identifier``), whatever the client may call it. ``made`` is
        told of it beside that: ``program``, the digest of the stored program, lets it be promoted (``promoting``).
        """
        blob = self.store.put_file(plan)
        namespace = client_namespace(client)
        told = {**made, **facts_of(identity), "client": client, "namespace": namespace, "farm": __version__}
        engine = Engine(
            recipe=identity.recipe,
            digest=blob.digest,
            size=blob.size,
            manifest=self._kept(whole(told, blob.digest, blob.size)),
            created=0.0,
            build_seconds=seconds,
            namespace=namespace,
        )
        self.index.adopt(engine, Adoption(key_parts(identity), identity.capability))
        return engine

    def vouch(self, engine: Engine, to: str, by: str, capability: str) -> Engine | None:
        """Put an engine into the namespace ``to`` as well, on the word of ``by``, whom its manifest names from then on.
        ``None`` where that has one of the recipe. ``Untrusted`` where the trust policy would refuse it there;
        ``Missing`` and ``CorruptBlob`` as ``fetch``. Whether its key is the right one the caller has found out."""
        altered = alteration(engine)
        if altered:
            raise CorruptBlob(f"engine {engine.digest} is not what was recorded: {altered}", "'farm verify' says more")
        with self.holding([engine]):
            return self._vouched(engine, to, by, capability)

    def _vouched(self, engine: Engine, to: str, by: str, capability: str) -> Engine | None:
        self._renewed(engine.digest)
        said = {"by": by, "from": engine.namespace, "manifest": engine.manifest["manifest"]}
        plain = {name: value for name, value in engine.manifest.items() if name not in BESIDE}
        kept = self._kept({**plain, "namespace": to, "vouched": said})
        made = replace(engine, namespace=to, manifest=kept, serves=tuple(serves(plain["parts"])))
        refused = self.trust.refuses(made) if self.trust is not None else ""
        if refused:
            raise Untrusted(f"engine {engine.digest} would not be handed out: {refused}", SIGN)
        names = [str(plain[name]) for name in ("key", "recipe", "model", "target")]
        parts = KeyParts(names[0], names[1], plain["parts"], names[2], names[3])
        terms = Adoption(parts, capability, replace=False, event="promoted", detail={"to": to, "by": by})
        return made if self.index.adopt(made, terms) else None

    def _renewed(self, digest: str) -> None:
        """Verify a blob, and make it new: nobody removes it before its next row is there (``reconcile``)."""
        with tempfile.TemporaryDirectory(prefix="farm-vouch-") as folder:
            path = Path(folder) / "plan"
            if not self.store.fetch(digest, path, link=True):
                raise Missing(f"engine {digest} is gone from the store", "promote it by building it again (--rebuild)")
            self.store.put_file(path)

    def _kept(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Store the manifest's blob; what the row holds: the manifest, its blob's name, and its signature."""
        blob = self.store.put(io.BytesIO(body(manifest)))
        kept = {**manifest, "manifest": blob.digest}
        return kept | ({"signature": self.signer.sign(kept)} if self.signer else {})


def facts_of(identity: Identity) -> dict[str, Any]:
    """An identity, as a manifest has it."""
    return {
        "key": identity.key,
        "recipe": identity.recipe,
        "model": identity.model,
        "weights": identity.weights,
        "parts": identity.parts,
        "given": dict(identity.given),
        "effective": identity.settings,
        "told": identity.told,
        "target": identity.target,
        "toolchain": identity.toolchain,
        "profiles": list(identity.profiles),
        "custom_ops": dict(identity.custom_ops),
        "program_format": identity.format,
        "capability": identity.capability,
    }


def key_parts(identity: Identity) -> KeyParts:
    """What the identity was made of, as the index keeps it."""
    return KeyParts(identity.key, identity.recipe, identity.parts, identity.model, identity.target)
