"""``/api/v1/builds``: asked for, watched, cancelled, tried again; their logs."""

from __future__ import annotations

import zlib
from typing import Annotated

import anyio
import msgspec
from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from farm.builds import Build, BuildState
from farm.index import Attempt, Claim, Event
from farm.web.access import Builder, Reader
from farm.web.desk import Caller, Json
from farm.web.engines import Limit, Prefix
from farm.web.vetting import Vetting
from farm.wire import MOST, WATCH_SECONDS, Leaving, Log, Orders, Seen, Watching

router = APIRouter(prefix="/builds", tags=["builds"])
LOOKS_SECONDS = (0.05, 0.1, 0.2, 0.3)
"""Between the looks of one watch; the last goes on."""


@router.post("", response_model=list[Claim])
def claim(caller: Builder, orders: Orders) -> Response:
    """Queue a build for each order, or join the one that makes its recipe; engines that are there are answered.

    Keys are computed again from the stored programs, whose bytes must have been sent before."""
    waiter = caller.waiter(orders.waiter)
    requests = Vetting(caller).requests(orders.orders, waiter)
    claims = caller.index.claim_or_join(requests, waiter, force=orders.force, reads=caller.realm.reads)
    caller.desk.wake(caller.index)
    return Json(claims)


@router.get("", response_model=list[Build])
def builds(
    caller: Reader,
    prefix: Prefix = "",
    state: Annotated[list[BuildState] | None, Query()] = None,
    limit: Limit = 1000,
) -> Response:
    """Builds, newest first."""
    return Json(caller.visible(caller.index.builds(prefix=prefix, states=state or (), limit=limit)))


@router.post("/watch", response_model=list[Seen])
async def watch(caller: Reader, watching: Watching) -> Response:
    """Those of the builds that are in another state than the one seen: at once, or as soon as one is; after ``seconds``
    (at most 20) none. No thread is held meanwhile."""
    until = anyio.current_time() + min(max(0.0, watching.seconds), WATCH_SECONDS)
    pauses = list(LOOKS_SECONDS)
    while True:
        changed = await run_in_threadpool(_changed, caller, watching)
        left = until - anyio.current_time()
        if changed or left <= 0:
            return Json(changed)
        await anyio.sleep(min(left, pauses.pop(0) if len(pauses) > 1 else pauses[0]))


def _changed(caller: Caller, watching: Watching) -> list[Seen]:
    ids = list(watching.seen)[:MOST]
    found = [Seen(_state(build), build) for build in caller.visible(caller.index.builds(ids=ids, limit=len(ids)))]
    return [one for one in found if watching.seen.get(one.build.id) != one.state]


def _state(build: Build) -> str:
    """A name for all of a build that changes."""
    said = msgspec.json.encode([getattr(build, name) for name in _CHANGES])
    return f"{zlib.crc32(said):08x}"


_CHANGES = (
    "state",
    "attempts",
    "started",
    "finished",
    "not_before",
    "failure",
    "engine",
    "worker",
    "node",
    "phase",
    "progress",
    "waiters",
)


@router.post("/leave", response_model=list[str])
def leave(caller: Builder, leaving: Leaving) -> Response:
    """Withdraw a waiter of this token's: what nobody waits for any more is cancelled, and answered."""
    return Json(caller.index.leave(caller.waiter(leaving.waiter), leaving.builds) if leaving.waiter else [])


@router.get("/{id}", response_model=Build)
def build(caller: Reader, id: str) -> Response:
    """One build by its whole id."""
    return Json(caller.build(id))


@router.post("/{id}/cancel", response_model=Build)
def cancel(caller: Builder, id: str) -> Response:
    """Cancel a build for everybody who waits for it."""
    return Json(caller.index.cancel(caller.build(id).id))


@router.post("/{id}/retry", response_model=Build)
def retry(caller: Builder, id: str, leaving: Leaving) -> Response:
    """Build again what failed or was cancelled. ``waiter`` waits for it; without one it stays wanted by itself."""
    made = caller.index.retry(caller.build(id).id, caller.waiter(leaving.waiter))
    caller.desk.wake(caller.index)
    return Json(made)


@router.get("/{id}/log", response_model=Log)
def log(caller: Reader, id: str, after: Annotated[int, Query(ge=0)] = 0) -> Response:
    """The log's text beyond the position ``after``."""
    return Json(Log(*caller.index.log(caller.build(id).id, after)))


@router.get("/{id}/events", response_model=list[Event])
def events(caller: Reader, id: str) -> Response:
    """What happened to a build, in order."""
    return Json(caller.index.events(caller.build(id).id))


@router.get("/{id}/attempts", response_model=list[Attempt])
def attempts(caller: Reader, id: str) -> Response:
    """Each try at a build, and how it ended."""
    return Json(caller.index.attempts(caller.build(id).id))


@router.get("/{id}/tried", response_model=dict[str, str])
def tried(caller: Reader, id: str) -> Response:
    """The nodes on which it failed for reasons that may have been theirs."""
    return Json(caller.index.tried(caller.build(id).id))
