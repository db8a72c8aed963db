"""Blobs in an S3 bucket: ``prefix/sha256/ab/abcd…``, as a folder has them. Boto3 stays behind ``s3_bucket``.

Nothing is published under a name before its bytes are known to be that name's: a file is hashed, then sent with the
checksums that the server holds it to; a stream is spooled to a temporary file first. Nothing is handed out that was not
hashed on its way; an ETag only ever tells that an object is still the one that was asked about.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from farm.blobs.faults import folder_fault
from farm.blobs.files import beside, open_source, source_chunks
from farm.blobs.names import HEX, PREFIX, corrupt, hex_of, name_of
from farm.blobs.resuming import bring_on, resumed
from farm.blobs.s3_bucket import DIGEST, Bucket, Head
from farm.blobs.s3_download import download, go_on
from farm.blobs.s3_faults import Absent, Patience, Refused, Unknown
from farm.blobs.s3_upload import PART, base64_sha256, changed, hash_file, upload
from farm.blobs.s3_urls import place
from farm.errors import BadInput, Unavailable
from farm.store import LABEL, Blob, Stray

TRIES = 4
RENEW_AFTER_S = 900.0
"""A blob that was put so long ago is made new when it is put again: less than any grace period of ``reconcile``."""
LEFT_AFTER_S = 86_400.0
"""An upload in parts that began so long ago has lost its writer."""
LONGEST_URL_S = 7 * 86_400
Condition = dict[str, str]
T = TypeVar("T")


def open_s3(url: str, endpoint: str = "", patience: Patience | None = None) -> S3Store:
    """The store at ``s3://bucket/prefix``; nothing is asked of it yet. ``BadConfig`` for what is no such URL."""
    return S3Store(Bucket(place(url, endpoint), patience))


class S3Store:
    """``farm.store.BlobStore`` below a bucket's prefix."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._prefix = bucket.place.prefix
        self._conditional = True

    def __str__(self) -> str:
        return str(self._bucket.place)

    # -- writing -----------------------------------------------------------------------------------------------

    def put(self, source: BinaryIO) -> Blob:
        """Store a stream. One that is longer than a part waits in the folder for temporary files meanwhile."""
        with tempfile.SpooledTemporaryFile(max_size=PART) as spool:
            size = 0
            with _folder_faults(Path(tempfile.gettempdir())):
                for chunk in source_chunks(source):
                    size += spool.write(chunk)
                spool.seek(0)
            if size <= PART:
                return self._put_bytes(spool.read())
            return self._put_open(spool.fileno())

    def put_file(self, path: Path, *, link: bool = False) -> Blob:
        """Store a file's bytes. ``BadInput`` when it cannot be read, or changes meanwhile."""
        with open_source(path) as source:
            if os.fstat(source.fileno()).st_size > PART:
                return self._put_open(source.fileno())
            data = b"".join(source_chunks(source))
            if len(data) > PART:
                raise changed()
            return self._put_bytes(data)

    def _put_bytes(self, data: bytes) -> Blob:
        blob = Blob(name_of(hashlib.sha256(data)), len(data))
        checks = {"ChecksumSHA256": base64_sha256(data), "Metadata": {DIGEST: blob.digest}}
        key = self._key(blob.digest)
        return self._publish(blob, lambda when: self._bucket.call("put_object", Key=key, Body=data, **checks, **when))

    def _put_open(self, descriptor: int) -> Blob:
        hashed = hash_file(descriptor)
        key = self._key(hashed.blob.digest)
        return self._publish(hashed.blob, lambda when: upload(self._bucket, key, descriptor, hashed, when))

    def _publish(self, blob: Blob, send: Callable[[Condition], object]) -> Blob:
        """Send, unless the blob is there. What is there and is not it (another size, another writer) is replaced."""
        for _ in range(TRIES):
            key = self._key(blob.digest)
            held = self._bucket.head(key)
            same = held and (held.size, held.digest) == (blob.size, blob.digest)
            if held and same and held.age < RENEW_AFTER_S:
                return blob
            condition = {"IfNoneMatch": "*"} if held is None and self._conditional else {}
            # Refused, Absent: somebody else was first, or our own request was, whose answer was lost. Look again.
            with contextlib.suppress(Refused, Absent):
                try:
                    if held and same:
                        self._bucket.copy(key, key, held)
                        return self._kept(blob)
                    send(condition)
                    return self._kept(blob)
                except Unknown as error:
                    if not condition:
                        raise Unavailable(f"{self}: the server cannot store blobs", "use another server") from error
                    self._conditional = False
        raise Unavailable(f"{self}: {blob.digest} comes and goes while it is being stored", "ask again")

    def _kept(self, blob: Blob) -> Blob:
        """Look at what was just stored. It may be gone: somebody may have deleted it."""
        held = self._bucket.head(self._key(blob.digest))
        if held and held.size != blob.size:
            raise Unavailable(f"{self}: the server does not keep {blob.digest} as it was sent", "check that server")
        return blob

    # -- reading -----------------------------------------------------------------------------------------------

    def size(self, digest: str) -> int | None:
        head = self._bucket.head(self._key(digest))
        return None if head is None else head.size

    def missing(self, digests: Iterable[str]) -> set[str]:
        asked = list({digest: self._key(digest) for digest in digests}.items())
        if len(asked) < 2:
            return {digest for digest, key in asked if self._bucket.head(key) is None}
        heads = self._bucket.pool.map(self._bucket.head, [key for _, key in asked])
        return {digest for (digest, _), head in zip(asked, heads, strict=True) if head is None}

    def read(self, digest: str) -> bytes | None:
        def collect(head: Head) -> bytes | None:
            data = b"".join(self._bucket.stream(self._key(digest), head.etag, 0, head.size))
            return data if name_of(hashlib.sha256(data)) == digest else None

        return self._verified(digest, collect)

    def fetch(self, digest: str, dest: Path, *, link: bool = False) -> bool:
        """As the contract says; ``link`` makes no difference here."""

        def bring(head: Head) -> bool | None:
            with _folder_faults(dest.parent), beside(dest) as temporary:
                target = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
                try:
                    if name_of(download(self._bucket, self._key(digest), head, target)) != digest:
                        return None
                    os.fsync(target)
                finally:
                    os.close(target)
                temporary.replace(dest)
            return True

        return self._verified(digest, bring) or False

    def resume(self, digest: str, dest: Path, tell: Callable[[int], None] = lambda count: None) -> bool:
        def bring(head: Head) -> bool | None:
            key = self._key(digest)
            whole = bring_on(digest, dest, head.size, lambda coming: go_on(self._bucket, key, head, coming, tell))
            return whole or None

        def get() -> bool:
            return self._verified(digest, bring) or False

        with _folder_faults(dest.parent):
            return resumed(digest, dest, get, lambda: self.fetch(digest, dest))

    def _verified(self, digest: str, get: Callable[[Head], T | None]) -> T | None:
        """What ``get`` brings. It gives ``None`` for bytes that are not the blob's: a second look tells what was
        damaged on the way from what is damaged there."""
        damaged = 0
        for _ in range(TRIES):
            head = self._bucket.head(self._key(digest))
            if head is None:
                return None
            with contextlib.suppress(Refused, Absent):  # replaced or removed in the middle
                found = get(head)
                if found is not None:
                    return found
                damaged += 1
                if damaged > 1:
                    raise corrupt(digest, str(self), "bucket")
        raise Unavailable(f"{digest} in {self} changes each time that it is read", "ask again")

    def check(self, digest: str, tell: Callable[[int], None] = lambda count: None) -> int | None:
        def hashed(head: Head) -> int | None:
            hasher = hashlib.sha256()
            for chunk in self._bucket.stream(self._key(digest), head.etag, 0, head.size):
                hasher.update(chunk)
                tell(len(chunk))
            return head.size if name_of(hasher) == digest else None

        return self._verified(digest, hashed)

    def blobs(self, start: str = "") -> Iterator[Blob]:
        for ending, item in self._listed(start):
            if _digits(ending):
                yield Blob(PREFIX + _digits(ending), int(item["Size"]), item["LastModified"].timestamp())

    def strays(self) -> Iterator[Stray]:
        for ending, _ in self._listed():
            if not _digits(ending):
                yield Stray(f"{PREFIX[:-1]}/{ending}", "an object under a key that no blob has")

    def _listed(self, start: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """The objects where blobs lie: what their keys end with, and what the server tells of each."""
        listed = f"{self._prefix}{PREFIX[:-1]}/"
        page: dict[str, str] = {}
        while True:
            answer = self._bucket.call("list_objects_v2", Prefix=listed + start, **page)
            for item in answer.get("Contents", ()):
                yield item["Key"].removeprefix(listed), item
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    def presign(self, digest: str, seconds: int) -> str | None:
        if not 0 < seconds <= LONGEST_URL_S:
            raise BadInput(f"a URL cannot be good for {seconds} seconds", f"ask for 1 to {LONGEST_URL_S}")
        return self._bucket.presigned(self._key(digest), seconds)

    # -- the store itself --------------------------------------------------------------------------------------

    def clock(self) -> float:
        return self._bucket.clock()

    def label(self) -> str | None:
        """As two readings agree: it is no blob, so nothing tells whether it was damaged on the way, and a store that is
        taken for another's is bound to the wrong database."""
        found = self._read_label()
        for _ in range(TRIES):
            again = self._read_label()
            if again == found:
                return found
            found = again
        raise Unavailable(f"{self}: its label is another at each look", "check the way to it, and ask again")

    def _read_label(self) -> str | None:
        key = self._prefix + LABEL
        head = self._bucket.head(key)
        if head is None:
            return None
        return b"".join(self._bucket.stream(key, head.etag, 0, head.size)).decode("utf-8", "replace").strip() or None

    def set_label(self, text: str) -> str:
        for _ in range(TRIES):
            label = self.label()
            if label is not None:
                return label
            condition = {"IfNoneMatch": "*"} if self._conditional else {}
            with contextlib.suppress(Refused):
                try:
                    self._bucket.call("put_object", Key=self._prefix + LABEL, Body=text.encode(), **condition)
                except Unknown:
                    self._conditional = False
        raise Unavailable(f"{self}: its label comes and goes", "ask again")

    # -- removing ----------------------------------------------------------------------------------------------

    def delete(self, digest: str, *, before: float = math.inf) -> bool:
        """As the contract says; but S3 deletes under no condition of age, so who puts the blob in the instant between
        the look and the removal is not seen."""
        key = self._key(digest)
        head = self._bucket.head(key)
        if head is None or head.modified >= before:
            return False
        self._bucket.call("delete_object", Key=key)
        return True

    def quarantine(self, digest: str) -> bool:
        """Move the object to ``quarantine/``, unless its bytes are right; one that is healed meanwhile stays."""
        key = self._key(digest)
        head = self._bucket.head(key)
        if head is None or self._is(digest, key, head):
            return False
        aside = f"{self._prefix}quarantine/{hex_of(digest)}-{uuid.uuid4().hex}"
        try:
            self._bucket.copy(key, aside, head)
            self._bucket.call("delete_object", Key=key, IfMatch=head.etag)
        except Unknown:
            self._bucket.call("delete_object", Key=key)
        except (Refused, Absent):
            return False
        return True

    def set_aside(self, place: str) -> bool:
        if not place.startswith(f"{PREFIX[:-1]}/"):
            raise BadInput(f"{place!r} is no place among blobs", "give what 'strays' named")
        key = self._prefix + place
        head = self._bucket.head(key)
        if head is None:
            return False
        with contextlib.suppress(Refused, Absent):
            self._bucket.copy(key, f"{self._prefix}quarantine/stray-{uuid.uuid4().hex}", head)
        self._bucket.call("delete_object", Key=key)
        return True

    def _is(self, digest: str, key: str, head: Head) -> bool:
        hasher = hashlib.sha256()
        try:
            for chunk in self._bucket.stream(key, head.etag, 0, head.size):
                hasher.update(chunk)
        except (Refused, Absent):
            return True
        return name_of(hasher) == digest

    def sweep(self) -> int:
        """Abort the uploads that were begun a day ago and never ended."""
        before, count = time.time() - LEFT_AFTER_S, 0
        for upload_id, key, begun in self._bucket.uploads(f"{self._prefix}{PREFIX[:-1]}/"):
            if begun < before:
                with contextlib.suppress(Absent):
                    self._bucket.call("abort_multipart_upload", Key=key, UploadId=upload_id)
                    count += 1
        return count

    def _key(self, digest: str) -> str:
        digits = hex_of(digest)
        return f"{self._prefix}{PREFIX[:-1]}/{digits[:2]}/{digits}"


def _digits(place: str) -> str:
    """The digits of the blob that an object below ``sha256/`` is; empty where it is none."""
    folder, _, digits = place.partition("/")
    return digits if HEX.fullmatch(digits) and digits[:2] == folder else ""


@contextlib.contextmanager
def _folder_faults(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise folder_fault(error, folder) from error
