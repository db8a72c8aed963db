"""An object brought from S3 into a file: ranges side by side, hashed in order as they land."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from farm.blobs.resuming import Coming
from farm.blobs.s3_bucket import Bucket, Head
from farm.blobs.s3_upload import MIB, give_up

PART = 8 * MIB
SLICE = 1 * MIB
SYNC_EVERY = 32
"""Parts after which the disk is asked to write what has come, so that it is not all left for the end."""


def download(bucket: Bucket, key: str, head: Head, target: int) -> hashlib._Hash:
    """Write the object to the open file ``target`` and give its hash. ``Refused`` or ``Absent``: it is another now."""
    hasher = hashlib.sha256()
    _bring(bucket, key, head, target, hasher, 0, lambda at: None)
    return hasher


def go_on(bucket: Bucket, key: str, head: Head, coming: Coming, tell: Callable[[int], None]) -> None:
    """Write what is lacking of the object to a partial file. Errors as in ``download``."""

    def reached(at: int) -> None:
        came = at - coming.at
        coming.reached(at)
        tell(came)

    _bring(bucket, key, head, coming.descriptor, coming.hasher, coming.at, reached)


def _bring(
    bucket: Bucket,
    key: str,
    head: Head,
    target: int,
    hasher: hashlib._Hash,
    begin: int,
    reached: Callable[[int], None],
) -> None:
    if head.size - begin > PART:
        _side_by_side(bucket, key, head, target, hasher, begin, reached)
        return
    at = begin
    for chunk in bucket.stream(key, head.etag, begin, head.size):
        hasher.update(chunk)
        write_at(target, chunk, at)
        at += len(chunk)
        reached(at)


def _side_by_side(
    bucket: Bucket,
    key: str,
    head: Head,
    target: int,
    hasher: hashlib._Hash,
    begin: int,
    reached: Callable[[int], None],
) -> None:
    """The threads write; this one follows them, and hashes what has landed while it is in the page cache."""
    stop = threading.Event()

    def one(start: int) -> int:
        at, end = start, min(start + PART, head.size)
        for chunk in bucket.stream(key, head.etag, at, end):
            write_at(target, chunk, at)
            at += len(chunk)
            if stop.is_set():
                break
        return end

    starts = range(begin, head.size, PART)
    with ThreadPoolExecutor(1, "sync") as beside:
        futures = [bucket.pool.submit(one, start) for start in starts]
        syncs = []
        try:
            for number, (start, future) in enumerate(zip(starts, futures, strict=True), 1):
                landed = future.result()
                _hash_range(target, start, landed, hasher)
                reached(landed)
                if number % SYNC_EVERY == 0:
                    syncs.append(beside.submit(os.fdatasync, target))
            for sync in syncs:
                sync.result()
        except BaseException:
            give_up(futures, stop)
            raise


def _hash_range(descriptor: int, start: int, stop: int, hasher: hashlib._Hash) -> None:
    view = memoryview(bytearray(min(SLICE, stop - start)))
    while start < stop:
        count = os.preadv(descriptor, [view[: stop - start]], start)
        if not count:
            raise OSError("a file that was just written is shorter")
        hasher.update(view[:count])
        start += count


def write_at(descriptor: int, data: bytes, at: int) -> None:
    """All of ``data``, at ``at``."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, at)
        view, at = view[count:], at + count
