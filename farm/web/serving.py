"""``farm serve``: the application on a port, until told to stop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from farm.config import Config
from farm.errors import BadInput, Unavailable
from farm.web.app import make_app
from farm.web.desk import Desk
from farm.wiring.backends import gone_workers, open_identifier, open_store, open_upkeep
from farm.wiring.dispatches import open_dispatch

STOP_SECONDS = 10


def open_desk(config: Config, build: bool) -> Desk:
    """The farm's parts for a server. ``build``: whether it builds by itself, where the farm is embedded."""
    book, store = open_upkeep(config), open_store(config)
    return Desk(
        config=config,
        book=book,
        store=store,
        dispatch=open_dispatch(config, book, store),
        identifier=open_identifier(config),
        scratch=config.scratch / "serve",
        gone=lambda: gone_workers(book),
        build=build,
    )


def serve(config: Config, host: str, port: int, build: bool, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. ``tell`` hears the address once it answers. ``Unavailable`` for a port that cannot
    be had."""
    listening = _listen(host, port)
    with contextlib.closing(listening):
        desk = open_desk(config, build)
        settings = uvicorn.Config(
            make_app(desk),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=64 * 1024,
        )
        # uvicorn raises the signal that ended it once more, after all has been closed.
        with contextlib.suppress(KeyboardInterrupt):
            _Telling(settings, lambda: tell(_address(listening))).run(sockets=[listening])


class _Telling(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._started()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise BadInput(
            f"'{host}' is no address of this machine: {error}", "give --host 127.0.0.1, or 0.0.0.0 for all"
        ) from error
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(512)
        return found
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise Unavailable(f"{host}:{port} cannot be listened on: {reason}", "give another --port") from error


def _address(listening: socket.socket) -> str:
    found: Any = listening.getsockname()
    host = f"[{found[0]}]" if ":" in found[0] else found[0]
    return f"http://{host}:{found[1]}"
