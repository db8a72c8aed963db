"""How large a request may be. Counted as it comes: a length that is not told, or is told wrongly, changes nothing."""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException

from farm.errors import BadInput
from farm.human import human_size
from farm.wire import API, BODY_BYTES

BLOBS = f"{API}/blobs/"


class TooLarge(BadInput):
    """What was sent is larger than the server takes."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"it is larger than the {human_size(most)} that the server takes",
            "a server's FARM_MAX_UPLOAD says how much",
        )


class Limited:
    """ASGI middleware: no body is larger than ``BODY_BYTES``, or ``max_upload`` where it is a blob's (0: any size)."""

    def __init__(self, app: Any, max_upload: int) -> None:
        self._app, self._max_upload = app, max_upload

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        blob = scope["method"] == "PUT" and scope["path"].startswith(BLOBS)
        most = self._max_upload if blob else BODY_BYTES
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if most and told.isdigit() and int(told) > most:
            await _refuse(send, most)
            return
        await self._counted(scope, receive, send, most)

    async def _counted(self, scope: Any, receive: Any, send: Any, most: int) -> None:
        """What the application makes of a body that was cut off is not sent: this says what happened."""
        came, begun = 0, False

        async def counted() -> Any:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if most and came > most:
                raise HTTPException(413, TooLarge(most).message)
            return message

        async def passed(message: Any) -> None:
            nonlocal begun
            if begun or not most or came <= most:
                begun = True
                await send(message)

        await self._app(scope, counted, passed)
        if not begun:
            await _refuse(send, most)


async def _refuse(send: Any, most: int) -> None:
    """Before anything of the body is read; the connection is closed with it."""
    body = json.dumps({"error": TooLarge(most).as_json()}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
