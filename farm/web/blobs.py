"""``/api/v1/blobs``: immutable bytes by digest, streamed both ways, or from where the store says.

Whoever has a token may read a blob whose digest he knows: a digest is not to be guessed, and only the listings that the
token sees tell it. What comes in is hashed before anybody can see it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Protocol, runtime_checkable

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from farm.errors import BadInput, CorruptBlob, Missing, Unavailable
from farm.store import Blob, BlobStore, is_name
from farm.web.access import Builder, Reader
from farm.web.desk import Desk, Json
from farm.web.limits import TooLarge
from farm.web.ranges import span
from farm.wire import MOST, Digests, Done, Holding

router = APIRouter(prefix="/blobs", tags=["blobs"])

PIECE = 2**20
PRESIGNED_SECONDS = 900
FOR_EVER = "private, max-age=31536000, immutable"
HELD_SECONDS = 900.0


@runtime_checkable
class Opening(Protocol):
    """A store whose blobs are files here."""

    def open(self, digest: str) -> BinaryIO | None:
        """The blob's bytes as they lie there: whoever reads them verifies them. ``None`` when it is not there."""
        ...


@router.post("/missing", response_model=list[str])
def missing(caller: Reader, asked: Digests) -> Response:
    """Those of the blobs that are not there."""
    names = set(asked.digests[:MOST])
    named = {digest for digest in names if is_name(digest)}
    return Json(sorted((names - named) | caller.desk.store.missing(named)))


@router.post("/hold", response_model=list[str])
def hold(caller: Reader, holding: Holding) -> Response:
    """Have blobs stay though they are to be collected, for 15 minutes at most; those for which it is too late."""
    named = [blob for blob in holding.blobs[:MOST] if is_name(blob)]
    return Json(sorted(caller.index.hold_blobs(named, min(max(0.0, holding.seconds), HELD_SECONDS))))


@router.get("/{digest}", response_class=Response)
def get(
    caller: Reader,
    request: Request,
    digest: str,
    stream: Annotated[bool, Query(description="Never answer with another place to get it from.")] = False,
) -> Response:
    """A blob's bytes, or some of them (``Range``). Never changes: its digest is its ETag."""
    _check(digest)
    if request.headers.get("if-none-match") == etag(digest):
        return Response(status_code=304, headers=lasting(digest))
    place = None if stream else caller.desk.store.presign(digest, PRESIGNED_SECONDS)
    if place is not None:
        if caller.desk.store.size(digest) is None:
            raise _gone(digest)
        return RedirectResponse(place, 307, headers={"Cache-Control": "no-store"})
    return _streamed(caller.desk, request, digest)


@router.head("/{digest}", response_class=Response)
def head(caller: Reader, digest: str) -> Response:
    """A blob's size."""
    _check(digest)
    size = caller.desk.store.size(digest)
    if size is None:
        return Response(status_code=404)
    return Response(headers={**lasting(digest), "Content-Length": str(size)})


@router.put("/{digest}", response_model=Blob, status_code=201)
async def put(caller: Builder, request: Request, digest: str) -> Response:
    """Store a blob. Its bytes must be what its name says."""
    _check(digest)
    with await run_in_threadpool(_folder, caller.desk) as folder:
        path = Path(folder) / "blob"
        await _receive(request, digest, path, caller.desk.config.max_upload)
        return Json(await run_in_threadpool(caller.desk.store.put_file, path, link=True), status_code=201)


@router.post("/{digest}/renew", response_model=Done)
def renew(caller: Builder, digest: str) -> Response:
    """Make a blob new, if it is there: nobody removes it before the row that is to name it."""
    _check(digest)
    store = caller.desk.store
    if store.size(digest) is None:
        return Json(Done(False))
    with _folder(caller.desk) as folder:
        path = Path(folder) / "blob"
        try:
            there = store.fetch(digest, path, link=True)
        except CorruptBlob:
            return Json(Done(False))
        if there:
            store.put_file(path, link=True)
    return Json(Done(there))


@router.post("/{digest}/check", response_model=Done)
def check(caller: Builder, digest: str) -> Response:
    """Read a blob that somebody got bad bytes of, and put it aside if it is bad; whether it was."""
    _check(digest)
    try:
        caller.desk.store.check(digest)
    except CorruptBlob:
        caller.desk.store.quarantine(digest)
        for engine in caller.desk.book.engines(prefix=digest):
            caller.desk.book.drop_engine(engine.recipe, engine.digest, "blob corrupt")
        return Json(Done(True))
    return Json(Done(False))


# -- sending -------------------------------------------------------------------------------------------------


def etag(digest: str) -> str:
    return f'"{digest}"'


def lasting(digest: str) -> dict[str, str]:
    return {"ETag": etag(digest), "Cache-Control": FOR_EVER, "Accept-Ranges": "bytes"}


def _streamed(desk: Desk, request: Request, digest: str) -> Response:
    source = opened(desk, digest)
    if source is None:
        raise _gone(digest)
    size = os.fstat(source.fileno()).st_size
    same = request.headers.get("if-range") in (None, etag(digest))
    wanted = span(request.headers.get("range") if same else None, size)
    if wanted is None:
        source.close()
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    first, end = wanted
    partial = end - first < size
    headers = {**lasting(digest), "Content-Length": str(end - first)}
    if partial:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    pieces = _pieces(source, first, end)
    return StreamingResponse(pieces, 206 if partial else 200, headers, media_type="application/octet-stream")


def _pieces(source: BinaryIO, first: int, end: int) -> Iterator[bytes]:
    with source:
        source.seek(first)
        while first < end:
            piece = source.read(min(PIECE, end - first))
            if not piece:
                return  # shorter than it was: the client sees that bytes are lacking
            first += len(piece)
            yield piece


def opened(desk: Desk, digest: str) -> BinaryIO | None:
    """The blob's file; or a verified copy of its own, from a store whose blobs are no files here."""
    if isinstance(desk.store, Opening):
        return desk.store.open(digest)
    return _copied(desk.store, digest, desk.scratch)


def _copied(store: BlobStore, digest: str, scratch: Path) -> BinaryIO | None:
    with tempfile.TemporaryDirectory(prefix="blob-", dir=scratch) as folder:
        path = Path(folder) / "blob"
        return path.open("rb") if store.fetch(digest, path, link=True) else None


# -- receiving -----------------------------------------------------------------------------------------------


async def _receive(request: Request, digest: str, path: Path, most: int) -> None:
    """The request's body, in ``path``. ``TooLarge`` beyond ``most`` bytes, ``BadInput`` for another blob's."""
    hasher, size, pieces, held = hashlib.sha256(), 0, [], 0
    try:
        with path.open("wb", buffering=0) as file:
            async for piece in request.stream():
                size, held = size + len(piece), held + len(piece)
                if most and size > most:
                    raise TooLarge(most)
                pieces.append(piece)
                if held >= PIECE:
                    await run_in_threadpool(_take, file, hasher, pieces)
                    pieces, held = [], 0
            await run_in_threadpool(_take, file, hasher, pieces)
    except OSError as error:
        raise Unavailable(f"the server cannot take it: {error.strerror}", "free some space there") from error
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise BadInput(f"what was sent is not {digest}", "send it again: the bytes changed on their way")


def _take(file: BinaryIO, hasher: hashlib._Hash, pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    hasher.update(data)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _folder(desk: Desk) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="blob-", dir=desk.scratch)


def _check(digest: str) -> None:
    """Before a name comes near a store."""
    if not is_name(digest):
        raise BadInput(f"'{digest[:80]}' is no blob's name", "a name is 'sha256:' and 64 lower-case hexadecimal digits")


def _gone(digest: str) -> Missing:
    return Missing(f"there is no blob {digest}", "ask for its engine again to have it built")
