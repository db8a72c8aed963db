"""Requests, engines and the like for the index's suites."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy

from farm.builds import Build, BuildRequest, Engine, Failure, FailureKind, Lease
from farm.db.index import SqlIndex
from farm.errors import LeaseLost
from farm.index import Claim, Index, KeyParts, Wanted, Worker
from farm.making import Beat, Offer, Sign

CAPABILITY = "tensorrt_rtx-1.7.1.116-sm_89"
ABLE = [CAPABILITY]
TTL = 3600.0
EXPIRED = -1.0
"""A lease for this long is over as soon as it is given: expiry without waiting."""


def digest(*words: object) -> str:
    return "sha256:" + hashlib.sha256(repr(words).encode()).hexdigest()


def request(name: object = "a", **changes: Any) -> BuildRequest:
    values: dict[str, Any] = {
        "key": digest("key", name),
        "recipe": digest("recipe", name),
        "program": digest("program"),
        "program_format": "pt2",
        "model": f"{name}.pt2",
        "target": "sm_89",
        "toolchain": "tensorrt_rtx==1.7.1.116",
        "told": {"disable_tf32": True, "workspace_size": 0, "scale": 0.1},
        "profiles": ({"0": [[1, 3], [2, 3], [4, 3]]},),
        "settings": {"disable_tf32": True},
        "weights": "b3:w",
        "capability": CAPABILITY,
    }
    return BuildRequest(**(values | changes))


def wanted(one: BuildRequest, **changes: Any) -> Wanted:
    values = {"key": one.key, "recipe": one.recipe, "weights": one.weights}
    return Wanted(**(values | changes))


def made_of(one: BuildRequest) -> dict[str, Any]:
    """What its key is made of, more or less."""
    return {"graph": digest("graph", one.model), "settings": {"disable_tf32": True}}


def parts_of(one: BuildRequest, **changes: Any) -> KeyParts:
    values = {"key": one.key, "recipe": one.recipe, "parts": made_of(one), "model": one.model, "target": one.target}
    return KeyParts(**(values | changes))


def engine_of(lease: Lease, plan: object = "plan", seconds: float = 1.5, size: int = 1000) -> Engine:
    one = lease.build.request
    return Engine(
        recipe=one.recipe,
        digest=digest("plan", plan, one.recipe),
        size=size,
        manifest={"model": one.model, "n": [1, 2.5, None, True], "parts": made_of(one)},
        created=0.0,
        build_seconds=seconds,
        namespace=one.namespace,
    )


def failure(kind: FailureKind = FailureKind.PERMANENT, message: str = "cannot") -> Failure:
    return Failure(kind, message, "try otherwise")


def claim(index: Index, one: BuildRequest | None = None, waiter: str = "me", force: bool = False) -> Claim:
    return index.claim_or_join([one or request()], waiter, force=force)[0]


def queued(index: Index, one: BuildRequest | None = None, waiter: str = "me") -> Build:
    build = claim(index, one, waiter).build
    assert build is not None
    return build


def offer(worker: str = "w1", able: Sequence[str] = ABLE, node: str | None = None, **changes: Any) -> Offer:
    """What a worker offers; its node is named after it unless ``node`` says otherwise."""
    return Offer(worker, f"node-{worker}" if node is None else node, tuple(able), **changes)


def take(index: Index, worker: str = "w1", able: Sequence[str] = ABLE, ttl: float = TTL) -> Lease | None:
    """One lease, if there is one."""
    given = index.lease(offer(worker, able), ttl)
    return given[0] if given else None


def lease(index: Index, worker: str = "w1", ttl: float = TTL) -> Lease:
    given = take(index, worker, ABLE, ttl)
    assert given is not None
    return given


def unwanted(index: Index, lease: Lease, ttl: float = TTL, phase: str = "build", progress: float | None = None) -> bool:
    """Beat once; whether nobody wants the build any more. ``LeaseLost``."""
    (sign,) = index.beat([Beat(lease, phase, progress)], ttl)
    assert index.signs([lease]) == [sign]
    if sign is Sign.LOST:
        raise LeaseLost("lost")
    return sign is Sign.UNWANTED


def there(index: Index, worker: str, able: Sequence[str] = ABLE, **detail: Any) -> None:
    """Show a worker on the node that ``offer`` names."""
    index.register(Worker(worker, f"node-{worker}", 1, 5.0, tuple(able), detail))


def made(index: Index, one: BuildRequest | None = None, plan: object = "plan") -> Engine:
    """Ask for an engine and build it."""
    queued(index, one)
    given = lease(index)
    engine = engine_of(given, plan)
    index.succeed(given, engine)
    return engine


def state(index: Index, build: str) -> str:
    found = index.build(build)
    assert found is not None
    return str(found.state)


def spoil(index: Any, build: str) -> None:
    """Make a build's request one that no farm can read, behind the index's back."""
    change = sqlalchemy.text("UPDATE builds SET request_json = :text WHERE id = :build")
    with index.db.engine.begin() as connection:
        connection.execute(change, {"text": '{"x": 1}', "build": build})


def reopened(index: Any) -> SqlIndex:
    """The same index, as another process sees it."""
    return SqlIndex(index.db.url.render_as_string(hide_password=False))


def kinds(index: Index, build: str) -> list[str]:
    return [event.kind for event in index.events(build)]
