"""``/api/v1/session``, ``/programs``, ``/nodes``, ``/sweeps`` and ``/measurements``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response

from farm.errors import BadInput
from farm.index import NodeHealth, StoredProgram, Sweep, Trial, Worker
from farm.measurements import Awaiting, Measurement, MeasuringAsk
from farm.placement import Seat
from farm.version import __version__
from farm.web.access import Admin, Builder, Reader
from farm.web.desk import Json
from farm.web.engines import Limit, Names, Prefix
from farm.wire import Done, Ending, Session

router = APIRouter()


@router.get("/session", response_model=Session, tags=["session"])
def session(caller: Reader) -> Response:
    """Who this token is, and what it may."""
    token = caller.token
    return Json(
        Session(__version__, token.name, token.scope.value, token.namespace, caller.realm.trusted, caller.reads)
    )


@router.get("/programs", response_model=list[StoredProgram], tags=["programs"])
def programs(caller: Reader, prefix: Prefix = "", limit: Limit = 1000) -> Response:
    """Programs that are stored, newest first."""
    return Json(caller.index.programs(prefix, limit))


@router.get("/nodes", response_model=list[Worker], tags=["nodes"])
def workers(caller: Reader) -> Response:
    """Every process that builds."""
    return Json(caller.index.workers())


@router.get("/nodes/seats", response_model=list[Seat], tags=["nodes"])
def seats(caller: Reader) -> Response:
    """Every process that builds, what it serves, and how busy it is."""
    return Json(caller.index.seats())


@router.get("/nodes/health", response_model=list[NodeHealth], tags=["nodes"])
def health(caller: Reader) -> Response:
    """The nodes that have failures to their name."""
    return Json(caller.index.health())


@router.get("/nodes/waiting", response_model=dict[str, int], tags=["nodes"])
def waiting(caller: Reader, namespace: Names = None) -> Response:
    """How many builds wait, by queue."""
    return Json(caller.index.waiting(caller.within(namespace or ())))


@router.post("/nodes/{name}/trust", response_model=Done, tags=["nodes"])
def trust(caller: Admin, name: str) -> Response:
    """Forget a node's failures, so that it is offered builds again."""
    return Json(Done(caller.index.trust_node(name)))


@router.get("/sweeps", response_model=list[Sweep], tags=["sweeps"])
def sweeps(caller: Reader, prefix: Prefix = "", limit: Limit = 100) -> Response:
    """Sweeps, newest first; with their trials where ``prefix`` narrows them down to one."""
    return Json(caller.index.sweeps(prefix, limit))


@router.put("/sweeps/{id}", response_model=Done, tags=["sweeps"])
def put_sweep(caller: Builder, id: str, sweep: Sweep) -> Response:
    """Record a sweep and its trials."""
    if sweep.id != id:
        raise BadInput(f"sweep '{sweep.id[:80]}' is sent as '{id[:80]}'", "send it under its own name")
    caller.index.put_sweep(sweep)
    return Json(Done(True))


@router.post("/sweeps/{id}/cancel", response_model=Done, tags=["sweeps"])
def cancel_sweep(caller: Builder, id: str) -> Response:
    """Mark a sweep as cancelled; its builds are cancelled one by one."""
    caller.index.cancel_sweep(id)
    return Json(Done(True))


@router.post("/sweeps/{id}/trials", response_model=Done, tags=["sweeps"])
def add_trials(caller: Builder, id: str, trials: list[Trial]) -> Response:
    """Append trials; not done when another process appended some of these numbers, or the sweep was cancelled."""
    return Json(Done(caller.index.add_trials(id, trials)))


@router.put("/sweeps/{id}/trials", response_model=Done, tags=["sweeps"])
def change_trials(caller: Builder, id: str, trials: list[Trial]) -> Response:
    """Write what became of trials that are there."""
    caller.index.change_trials(id, trials)
    return Json(Done(True))


@router.post("/sweeps/{id}/end", response_model=Done, tags=["sweeps"])
def end_sweep(caller: Builder, id: str, ending: Ending) -> Response:
    """Say why no more of a sweep's configurations are tried."""
    caller.index.end_sweep(id, ending.why)
    return Json(Done(True))


@router.post("/measurements/find", response_model=list[Measurement], tags=["measurements"])
def measurements(caller: Reader, digests: list[str]) -> Response:
    """What engines and baselines were measured to do, by the digests of plans and programs."""
    return Json(caller.index.measurements_of(digests))


@router.post("/measurements/await", response_model=Done, tags=["measurements"])
def await_measuring(caller: Builder, asks: list[MeasuringAsk]) -> Response:
    """Have engines measured by whichever worker has the device."""
    caller.index.await_measuring(asks)
    return Json(Done(True))


@router.post("/measurements/awaiting", response_model=list[Awaiting], tags=["measurements"])
def awaiting(caller: Reader, ids: Annotated[list[str] | None, Body()] = None) -> Response:
    """What awaits measuring, oldest first; of these asks, where some are named."""
    return Json(caller.index.awaiting(ids))
