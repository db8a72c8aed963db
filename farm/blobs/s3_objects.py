"""Small objects that change, in S3: ``prefix/objects/name``, replaced under ``If-Match`` and ``If-None-Match``."""

from __future__ import annotations

import threading
import uuid

from farm.blobs.objects import checked
from farm.blobs.s3_bucket import Bucket
from farm.blobs.s3_faults import Absent, Patience, Refused, Unknown
from farm.blobs.s3_upload import base64_sha256
from farm.blobs.s3_urls import place
from farm.errors import Unavailable
from farm.store import Versioned

TRIES = 5


def open_s3_objects(url: str, endpoint: str = "", patience: Patience | None = None) -> S3Objects:
    """The objects at ``s3://bucket/prefix``, beside the blobs of the store of that URL."""
    return S3Objects(Bucket(place(url, endpoint), patience))


class S3Objects:
    """``farm.store.VersionedObjects`` below a bucket's prefix. A version is an ETag."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._folder = f"{bucket.place.prefix}objects/"
        self._lock = threading.Lock()
        self._promised = False

    def read_versioned(self, name: str) -> Versioned | None:
        found = self._bucket.whole(self._folder + checked(name))
        return Versioned(*found) if found else None

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        key = self._folder + checked(name)
        self._be_promised()
        try:
            return self._write(key, data, version)
        except Absent:
            return None
        except Refused as refused:
            return self._own_doing(name, data, version) if refused.repeated else None

    def _write(self, key: str, data: bytes, version: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        checksum = base64_sha256(data)
        return str(self._bucket.call("put_object", Key=key, Body=data, ChecksumSHA256=checksum, **condition)["ETag"])

    def _own_doing(self, name: str, data: bytes, version: str | None) -> str | None:
        """A request made twice may have been refused because of itself: then what is there is what it wrote."""
        now = self.read_versioned(name)
        return now.version if now and now.data == data and now.version != version else None

    def _be_promised(self) -> None:
        """Try, once, whether the server holds conditions: one that ignores them would lose writes without a word."""
        with self._lock:
            if not self._promised:
                self._promised = any(self._held() for _ in range(TRIES))
            if not self._promised:
                raise Unavailable(
                    f"{self._bucket.place}: the server does not hold the conditions of conditional writes",
                    "use an S3 server that knows If-Match and If-None-Match",
                )

    def _held(self) -> bool:
        """One trial, which ends in ``False`` too when an answer was lost in it."""
        key = f"{self._folder}.probe-{uuid.uuid4().hex}"
        try:
            version = self._write(key, b"1", None)
            held = self._is_refused(key, None) and self._is_refused(key, '"0123456789abcdef0123456789abcdef"')
            self._write(key, b"2", version)
        except (Refused, Absent, Unknown):
            held = False
        self._bucket.call("delete_object", Key=key)
        return held

    def _is_refused(self, key: str, version: str | None) -> bool:
        try:
            self._write(key, b"3", version)
        except Refused:
            return True
        return False
