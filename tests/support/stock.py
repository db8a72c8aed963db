"""A farm with something of everything in it, whose blobs are real: put there by farm's own writers, and quickly."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.builds import BuildRequest, Engine, Failure, FailureKind, Lease
from farm.config import Config, load
from farm.index import KeyParts, StoredProgram, Sweep, Trial
from farm.making import StoredForm
from farm.portability import Serves
from farm.store import BlobStore
from farm.upkeep import Upkeep
from farm.wiring.backends import open_store, open_upkeep
from tests.contract.index_things import TTL, digest, made_of, offer, request


def put(store: BlobStore, *words: object) -> str:
    """A blob that says ``words``."""
    return store.put(io.BytesIO(repr(words).encode())).digest


@dataclass(frozen=True)
class Place:
    """A farm's rows and blobs."""

    index: Upkeep
    store: BlobStore


def open_place(home: Path, **urls: str) -> Place:
    """The farm at ``home``, or that of ``urls``."""
    config: Config = replace(load({"FARM_HOME": str(home)}, cwd=home), **urls)
    return Place(open_upkeep(config), open_store(config))


def stock_program(place: Place, name: object) -> str:
    program = put(place.store, "program", name)
    place.index.put_program(StoredProgram(program, f"{name}.pt2", "pt2", 10, digest("g", name), "b3:w"))
    return program


def stock_form(place: Place, program: str) -> StoredForm:
    graph, data, side = (put(place.store, what, program) for what in ("graph", "data", "side"))
    form = StoredForm(program, "exporter 1", graph, data, {"graph": "m.onnx", "data": "m.data", "side": side})
    place.index.put_form(form)
    return form


def stock_request(place: Place, name: object, program: str, **changes: Any) -> BuildRequest:
    """A request whose parts have an outline in the store, recorded as a miss's are."""
    asked = request(name, program=program, **changes)
    parts = {**made_of(asked), "outline": put(place.store, "outline", name)}
    place.index.record_parts([KeyParts(asked.key, asked.recipe, parts, asked.model, asked.target)])
    return asked


def stock_engines(place: Place, requests: Sequence[BuildRequest], note: str = "") -> list[Engine]:
    """Ask for them and build them; ``note`` makes their plans' bytes others."""
    place.index.claim_or_join(requests, "me")
    leases = place.index.lease(offer("w1"), TTL, len(requests))
    assert len(leases) == len(requests)
    ends = [(lease, _engine(place.store, lease, note)) for lease in leases]
    for lease in leases:
        place.index.append_log(lease, f"building {lease.build.request.model}\n")
    assert all(place.index.succeed_all(ends))
    return [engine for _, engine in ends]


def _engine(store: BlobStore, lease: Lease, note: str) -> Engine:
    asked = lease.build.request
    plan = put(store, "plan", asked.recipe, note)
    whole = {"model": asked.model, "build": lease.build.id, "note": note, "engine": plan}
    manifest = store.put(io.BytesIO(json.dumps(whole).encode())).digest
    serves = (Serves("family", asked.target, "0001", True, 1),)
    return Engine(
        recipe=asked.recipe,
        digest=plan,
        size=10,
        manifest={**whole, "manifest": manifest},
        created=0.0,
        build_seconds=1.5,
        namespace=asked.namespace,
        serves=serves,
    )


def stock(place: Place, engines: int) -> None:
    """``engines`` engines of one program and its form, a remembered failure, a running and a queued build, a sweep of
    the queued one, and hits counted."""
    program = stock_program(place, "m")
    stock_form(place, program)
    stock_engines(place, [stock_request(place, n, program) for n in range(engines)])
    place.index.claim_or_join([stock_request(place, "failed", program)], "me")
    (lease,) = place.index.lease(offer("w1"), TTL)
    place.index.fail(lease, Failure(FailureKind.PERMANENT, "cannot", "try otherwise"), None)
    place.index.claim_or_join([stock_request(place, "running", program)], "me")
    place.index.lease(offer("w1"), TTL)
    queued = stock_request(place, "queued", program)
    (claim,) = place.index.claim_or_join([queued], "me")
    assert claim.build is not None
    trial = Trial(0, "m.pt2", "sm_89", {}, queued.key, queued.recipe, "new", claim.build.id)
    place.index.put_sweep(Sweep("sstock", 0.0, {"grid": {}}, (trial, replace(trial, number=1, asked="same"))))
    place.index.count("hit", {"n": 2, "seconds": 1.5})
