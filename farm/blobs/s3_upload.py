"""A file sent to S3 in parts: hashed first, since its hash is its name, then sent, and published by the last request.

The server is told each part's SHA-256 and refuses others, so a file that changes between the two readings never gets
the name of what it was.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from farm.blobs.names import name_of
from farm.blobs.s3_bucket import DIGEST, Absent, Bucket, Refused
from farm.errors import BadInput, Unavailable
from farm.store import Blob

MIB = 2**20
PART = 8 * MIB
MOST_PARTS = 10_000
SLICE = 1 * MIB
MOST_READ = MIB // 4


def base64_sha256(data: bytes | memoryview) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def part_size(size: int) -> int:
    """Bytes in each part but the last: as many MiB as make at most 10,000 parts."""
    least = -(-size // MOST_PARTS)
    return max(PART, -(-least // MIB) * MIB)


@dataclass(frozen=True)
class Hashed:
    """A file's name and size, and the SHA-256 of each of its parts in base64."""

    blob: Blob
    step: int
    parts: tuple[str, ...]


def hash_file(descriptor: int) -> Hashed:
    """The whole and the parts, on two threads side by side: hashlib lets go of the interpreter."""
    size = os.fstat(descriptor).st_size
    step = part_size(size)
    with ThreadPoolExecutor(1) as beside:
        parts = beside.submit(_parts, descriptor, size, step)
        whole = hashlib.sha256()
        for piece in _pieces(descriptor, 0, size):
            whole.update(piece)
        return Hashed(Blob(name_of(whole), size), step, parts.result())


def _parts(descriptor: int, size: int, step: int) -> tuple[str, ...]:
    return tuple(_hashed_part(descriptor, at, min(at + step, size)) for at in range(0, size, step))


def _hashed_part(descriptor: int, start: int, stop: int) -> str:
    part = hashlib.sha256()
    for piece in _pieces(descriptor, start, stop):
        part.update(piece)
    return base64.b64encode(part.digest()).decode()


def _pieces(descriptor: int, start: int, stop: int) -> Iterator[memoryview]:
    """The views share one buffer: each is good until the next is asked for. ``BadInput`` when the file is shorter."""
    view = memoryview(bytearray(min(SLICE, stop - start)))
    while start < stop:
        count = os.preadv(descriptor, [view[: stop - start]], start)
        if not count:
            raise changed()
        start += count
        yield view[:count]


class Window(io.RawIOBase):
    """Part of an open file, read without moving the file's own position; holds no bytes."""

    def __init__(self, descriptor: int, start: int, stop: int) -> None:
        self._descriptor, self._start, self._stop, self._at = descriptor, start, stop, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at - self._start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._at, io.SEEK_END: self._stop}[whence]
        self._at = base + offset
        return self.tell()

    def read(self, size: int | None = -1) -> bytes:
        """At most ``MOST_READ`` bytes, as a raw file may: ten readers of a MiB each would be heard of."""
        left = self._stop - self._at
        wanted = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._descriptor, min(wanted, MOST_READ), self._at)
        if left and not data and size:
            raise changed()
        self._at += len(data)
        return data


def upload(bucket: Bucket, key: str, descriptor: int, hashed: Hashed, condition: dict[str, str]) -> None:
    """Send and publish. ``Refused`` when ``condition`` does not hold. What was sent goes when it is not published."""
    metadata = {DIGEST: hashed.blob.digest}
    upload_id = bucket.call("create_multipart_upload", Key=key, Metadata=metadata, ChecksumAlgorithm="SHA256")[
        "UploadId"
    ]
    try:
        parts = _send(bucket, key, upload_id, descriptor, hashed)
        arguments = {"Key": key, "UploadId": upload_id, "MultipartUpload": {"Parts": parts}}
        bucket.call("complete_multipart_upload", **arguments, **condition)
    except BaseException:
        with contextlib.suppress(Unavailable, Absent, Refused):
            bucket.call("abort_multipart_upload", Key=key, UploadId=upload_id)
        raise


def _send(bucket: Bucket, key: str, upload_id: str, descriptor: int, hashed: Hashed) -> list[dict[str, Any]]:
    stop = threading.Event()

    def one(index: int) -> dict[str, Any]:
        if stop.is_set():
            raise Absent("the upload was given up")
        start = index * hashed.step
        window = Window(descriptor, start, min(start + hashed.step, hashed.blob.size))
        return _send_part(
            bucket, {"Key": key, "UploadId": upload_id, "PartNumber": index + 1}, window, hashed.parts[index]
        )

    futures = [bucket.pool.submit(one, index) for index in range(len(hashed.parts))]
    return together(futures, stop)


def together(futures: list[Future[Any]], stop: threading.Event) -> list[Any]:
    """All results in order; after an error none still runs when it is raised: they use a file that is to be closed."""
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
        return [future.result() for future in futures]
    except BaseException:
        give_up(futures, stop)
        raise


def give_up(futures: list[Future[Any]], stop: threading.Event) -> None:
    stop.set()
    for future in futures:
        future.cancel()
    wait(futures)


def _send_part(bucket: Bucket, which: dict[str, Any], window: Window, checksum: str) -> dict[str, Any]:
    try:
        answer = bucket.call("upload_part", **which, Body=window, ChecksumSHA256=checksum)
    except Unavailable as error:
        if sha256_of(window) != checksum:
            raise changed() from error
        raise
    if answer.get("ChecksumSHA256") != checksum and sha256_of(window) != checksum:
        raise changed()
    return {"PartNumber": which["PartNumber"], "ETag": answer["ETag"], "ChecksumSHA256": checksum}


def sha256_of(window: Window) -> str:
    hasher = hashlib.sha256()
    window.seek(0)
    while piece := window.read(SLICE):
        hasher.update(piece)
    return base64.b64encode(hasher.digest()).decode()


def changed() -> BadInput:
    return BadInput("the file changed while it was being stored", "store it again once nobody writes to it")
