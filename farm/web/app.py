"""The application: routes, faults as JSON, health, and a line in the log for each request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from farm.errors import (
    BadInput,
    BadToken,
    FarmError,
    LeaseLost,
    Missing,
    NoSuchThing,
    NotAllowed,
    Unavailable,
)
from farm.logging import get_logger
from farm.version import __version__
from farm.web import blobs, builds, engines, listing
from farm.web.desk import Desk, desk_of
from farm.web.limits import Limited, TooLarge
from farm.web.metrics import Metrics
from farm.wire import API

log = get_logger(__name__)

STATUS: Mapping[type[FarmError], int] = {
    TooLarge: 413,
    BadToken: 401,
    NotAllowed: 403,
    NoSuchThing: 404,
    Missing: 404,
    Unavailable: 503,
    LeaseLost: 409,
    BadInput: 400,
    FarmError: 500,
}
QUIET = ("/healthz", "/readyz", "/metrics")
FRONT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>farm</title>
<body style="font: 16px/1.5 system-ui; margin: 3rem auto; max-width: 40rem; padding: 0 1rem">
<h1>farm</h1>
<p>A TensorRT engine cache and build farm, version {version}. This server answers clients that have a token:
<code>FARM_URL</code> is this address, <code>FARM_TOKEN</code> what <code>farm token create</code> prints.</p>
<p><a href="docs">What can be asked</a> &middot; <a href="healthz">health</a> &middot; <a href="metrics">metrics</a></p>
"""


def make_app(desk: Desk) -> FastAPI:
    """The application for one farm's parts."""
    app = FastAPI(
        title="farm",
        version=__version__,
        description="A TensorRT engine cache and build farm. Errors are `{error: {type, message, hint, exit_code}}`.",
        lifespan=_lifespan,
        redoc_url=None,
    )
    app.state.desk, app.state.noted = desk, {}
    app.state.metrics = Metrics(desk)
    for module in (engines, builds, blobs, listing):
        app.include_router(module.router, prefix=API)
    _add_faults(app)
    _add_open(app)
    app.add_middleware(Logged)
    app.add_middleware(Limited, max_upload=desk.config.max_upload)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    desk: Desk = app.state.desk
    await run_in_threadpool(desk.open)
    try:
        yield
    finally:
        await run_in_threadpool(desk.close)


# -- faults ----------------------------------------------------------------------------------------------------


def _add_faults(app: FastAPI) -> None:
    app.add_exception_handler(FarmError, _failed)
    app.add_exception_handler(RequestValidationError, _misunderstood)
    app.add_exception_handler(HTTPException, _refused)


def answer(error: FarmError, status: int | None = None) -> Response:
    """An error as the client reads it."""
    found = status or next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    headers = {"WWW-Authenticate": "Bearer"} if found == 401 else {"Retry-After": "1"} if found == 503 else None
    return JSONResponse({"error": error.as_json()}, found, headers)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, FarmError)
    return answer(error)


async def _misunderstood(request: Request, error: Exception) -> Response:
    """Where the request is wrong, and how; never what it held."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return answer(
        BadInput(f"the request cannot be understood: {where}: {first['msg']}"[:500], "/docs says what can be")
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = NoSuchThing if error.status_code == 404 else BadInput
    return answer(kind(f"{request.method} {request.url.path[:200]}: {error.detail}", "see /docs"), error.status_code)


# -- what is open to all ---------------------------------------------------------------------------------------


def _add_open(app: FastAPI) -> None:
    app.add_api_route("/", _front, include_in_schema=False, response_class=HTMLResponse)
    app.add_api_route("/healthz", _healthy, tags=["health"])
    app.add_api_route("/readyz", _ready, tags=["health"])
    app.add_api_route("/metrics", _metrics, tags=["health"], response_class=Response)


def _front() -> Response:
    return HTMLResponse(FRONT.format(version=__version__))


def _healthy() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "farm": __version__}


def _ready(request: Request) -> dict[str, str]:
    """Database and store answer; 503 when one does not."""
    desk_of(request).check()
    return {"status": "ok"}


def _metrics(request: Request) -> Response:
    """For Prometheus. Open to this machine; from elsewhere a token is asked for."""
    from farm.web.access import admit

    if not _local(request):
        admit(request)
    text, kind = request.app.state.metrics.text()
    return Response(text, media_type=kind)


def _local(request: Request) -> bool:
    host = request.client.host if request.client else ""
    return (
        host in ("127.0.0.1", "::1") and "forwarded" not in request.headers and "x-forwarded-for" not in request.headers
    )


# -- the log ---------------------------------------------------------------------------------------------------


class Logged:
    """ASGI middleware: method, path, status, time to the first byte, and the token's id: never a header, a query or a
    body."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self._app(scope, receive, send)
            return
        began, status, took = time.monotonic(), 500, 0.0

        async def seen(message: Any) -> None:
            nonlocal status, took
            if message["type"] == "http.response.start":
                status, took = message["status"], time.monotonic() - began
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            _note(scope, status, took or time.monotonic() - began)


def _note(scope: Any, status: int, took: float) -> None:
    route = getattr(scope.get("route"), "path", "other")
    scope["app"].state.metrics.saw(scope["method"], route, status, took)
    said = {"path": scope["path"], "status": status, "seconds": round(took, 4)}
    log.info("asked", method=scope["method"], token=scope.get("state", {}).get("token"), **said)
