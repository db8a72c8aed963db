"""A farm without programs or builders: keys from the settings alone, and builds that end as the test says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from farm.asks import Ask, Identity
from farm.blobs.memory import MemoryStore
from farm.builds import Engine, Failure, FailureKind, Lease
from farm.cache import key_parts
from farm.canonical import digest
from farm.compilation import effective
from farm.config import Config
from farm.db.index import SqlIndex
from farm.errors import BadTarget
from farm.identify import Common
from farm.index import KeyParts, Worker
from farm.making import Offer
from farm.manifests import blob_of
from farm.measurements import Latency, Measurement, Runner
from farm.service import Farm
from farm.stock import Stock
from farm.store import Blob, BlobStore
from farm.targets import parse_target
from farm.toolchains import PINNED, exact_toolchain

CAPABILITY = "stub"


class StubIdentifier:
    """Identities for models that need not exist."""

    def identify(self, asks: Sequence[Ask], common: Common | None = None) -> list[Identity]:
        return [self._identity(ask) for ask in asks]

    def pack(self, path: Path, store: BlobStore) -> Blob:
        return Blob("sha256:" + "a" * 64, 1)

    def _identity(self, ask: Ask) -> Identity:
        asked = parse_target(ask.target)
        target = asked.target
        if 100 in target.capabilities:
            raise BadTarget("sm_100 is out of bounds in this test", "take another")
        toolchain = (asked.toolchain.exact() if asked.toolchain else None) or exact_toolchain(PINNED)
        told = effective(ask.settings, flavour=toolchain.flavour, version=toolchain.version)
        shared = [
            Path(ask.model).name,
            str(target),
            [[sorted(p.max), *map(list, p.max.values())] for p in ask.profiles],
        ]
        return Identity(
            model=ask.model,
            path=Path(ask.model),
            target=str(target),
            toolchain=str(toolchain),
            key=digest("key", [*shared, dict(told.key)]),
            recipe=digest("recipe", [*shared, dict(told.recipe)]),
            graph="sha256:" + "b" * 64,
            weights="b3:" + "c" * 64,
            settings=told.key,
            told=told.told,
            profiles=(),
            parts={"settings": dict(told.key), "target": str(target)},
            capability=CAPABILITY,
            format="pt2",
            given=ask.settings.given(),
            warnings=told.warnings,
            inert=told.inert,
            refused=told.refused,
            priority=ask.priority,
        )


class StubStock(Stock):
    """Its programs have no outlines: there are no programs."""

    def parts(self, identity: Identity) -> KeyParts:
        return key_parts(identity)


class StubFarm(Farm):
    """With the stub's stock."""

    @cached_property
    def stock(self) -> Stock:
        return StubStock(self.identifier, self.index, self.store, self.config.gc_grace)


class StubDispatch:
    """Builds everything that waits when it is started; ``verdict`` gives a failure's message, or nothing."""

    def __init__(self, index: SqlIndex, store: MemoryStore, verdict: Callable[[Lease], str]) -> None:
        self.index, self.store, self.verdict = index, store, verdict
        self.built = 0
        self.idle = False

    def wake(self, waiting: dict[str, int]) -> None:
        pass

    def start(self) -> None:
        if not self.idle:
            self._work()

    def stop(self) -> None:
        pass

    def _work(self) -> None:
        self.index.register(Worker("stub", "here", 1, 0.0, (CAPABILITY,)))
        while leases := self.index.lease(Offer("stub", "here", (CAPABILITY,)), 60.0):
            self._finish(leases[0])

    def _finish(self, lease: Lease) -> None:
        message = self.verdict(lease)
        if message:
            self.index.fail(lease, Failure(FailureKind.PERMANENT, message, "do otherwise"), None)
            return
        self.built += 1
        request = lease.build.request
        path = Path(self.store_folder) / "plan"
        path.write_bytes(request.recipe.encode())
        blob = self.store.put_file(path)
        manifest = {
            "key": request.key,
            "model": request.model,
            "target": request.target,
            "toolchain": request.toolchain,
        }
        plan = {"digest": blob.digest, "size": blob.size}
        manifest |= {"weights": request.weights, "recipe": request.recipe, "engine": plan}
        manifest |= {"manifest": blob_of(manifest)}
        self.index.succeed(lease, Engine(request.recipe, blob.digest, blob.size, manifest, 0.0, 2.0))
        if self.latency is not None:
            self.index.record_measurement(measured(blob.digest, self.latency(request.settings)))

    store_folder = Path()
    latency: Callable[[Mapping[str, Any]], float] | None = None
    """What a build's settings come to, in milliseconds, on a GPU that there is not."""


def measured(engine: str, milliseconds: float, **changes: Any) -> Measurement:
    """What a harness would have found of an engine of that latency."""
    latency = Latency(*(milliseconds * factor for factor in (1.0, 1.05, 1.1, 1.0, 0.95, 1.2)))
    one = Measurement(
        runner=Runner.ENGINE,
        engine=engine,
        program="",
        shapes={},
        device="synthetic",
        place="synthetic",
        latency=latency,
        throughput=1000.0 / milliseconds,
        memory=10**9,
        load_seconds=0.1,
        first_seconds=0.1,
        spread=0.0,
        runs=3,
        iterations=100,
    )
    return replace(one, **changes)


class MeasuredIndex(SqlIndex):
    """Keeps measurements in memory: a synthetic fleet's live no longer than the test."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.known: list[Measurement] = []

    def record_measurement(self, measurement: Measurement) -> None:
        self.known.append(measurement)

    def measurements_of(self, digests: Collection[str]) -> list[Measurement]:
        return [one for one in self.known if one.subject in digests]


def stub_farm(folder: Path, verdict: Callable[[Lease], str] = lambda lease: "") -> tuple[Farm, StubDispatch]:
    """A farm in ``folder``, and the dispatch that says what it built."""
    folder.mkdir(parents=True, exist_ok=True)
    index, store = MeasuredIndex(f"sqlite:///{folder / 'farm.db'}"), MemoryStore()
    dispatch = StubDispatch(index, store, verdict)
    dispatch.store_folder = folder
    config = Config(home=folder, targets=("sm_89",))
    return StubFarm(config, index, store, dispatch, StubIdentifier(), lambda: ()), dispatch  # type: ignore[arg-type]
