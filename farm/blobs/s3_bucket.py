"""One bucket, and how it is asked: by boto3's client, again where that helps, with errors in farm's words."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from farm.blobs.s3_faults import (
    FOREIGN,
    Absent,
    Attempts,
    Patience,
    Refused,
    Torn,
    Unknown,
    code_of,
    said,
    sorted_out,
    status_of,
)
from farm.blobs.s3_urls import Place

WORKERS = 10
CONNECT_S, READ_S = 5.0, 30.0
CHUNK = 256 * 2**10
MOST_COPIED = 2**30
"""Bytes that one request may copy; S3 takes five times as many, and takes its time."""
DIGEST = "farm-digest"
"""The metadata (``x-amz-meta-…``) that says what was stored under a name."""


@dataclass(frozen=True)
class Head:
    """What a server says of an object. ``digest`` is what its writer said, ``""`` where it said nothing; ``age`` is in
    seconds, by the server's own clock."""

    size: int
    etag: str
    digest: str
    modified: float = 0.0
    age: float = 0.0


class Bucket:
    """Safe among threads. No client is made, and nothing asked, before the first call."""

    def __init__(self, place: Place, patience: Patience | None = None) -> None:
        self.place = place
        self.patience = patience or Patience()
        self._lock = threading.Lock()
        self._seen = False
        self._client: Any = None

    # -- asking --------------------------------------------------------------------------------------------------

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request's answer. ``Absent``, ``Refused`` and ``Unknown`` are answers too; ``Unavailable`` is raised for
        all else once patience has ended. A ``Body`` that is no bytes is rewound for each attempt."""
        attempts = Attempts(self.patience, str(self.place))
        while True:
            try:
                return self._once(operation, arguments)
            except (*FOREIGN, Torn) as error:
                attempts.after(self._told(error, arguments))
            except Refused as error:
                error.repeated = attempts.failed > 0
                raise

    def _once(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        body = arguments.get("Body")
        if body is not None and hasattr(body, "seek"):
            body.seek(0)
        try:
            answer: dict[str, Any] = getattr(self._connected(), operation)(Bucket=self.place.bucket, **arguments)
        except FOREIGN as error:
            other = sorted_out(error)
            if isinstance(other, Absent):
                self._bucket_is_there()
            raise other from error
        except ValueError as error:
            # Damaged on the way: what botocore's parsers say of a time or a number comes through as it is.
            raise Torn(str(error)) from error
        self._seen = True
        return answer

    def _told(self, error: Exception, arguments: dict[str, Any]) -> Exception:
        """A HEAD's answer has no body, and so no reason: an error that can be asked for by GET is."""
        if code_of(error) not in ("403", "400", "301") or "Key" not in arguments:
            return error
        try:
            self._connected().get_object(Bucket=self.place.bucket, Key=arguments["Key"], Range="bytes=0-0")[
                "Body"
            ].close()
        except FOREIGN as told:
            return error if isinstance(sorted_out(told), Absent) else told
        return error

    def _bucket_is_there(self) -> None:
        """Where an object is missing, the bucket may be what is missing: asked once. ``Unavailable``."""
        if self._seen:
            return
        try:
            self._connected().list_objects_v2(Bucket=self.place.bucket, Prefix=self.place.prefix, MaxKeys=1)
        except FOREIGN as error:
            if code_of(error) == "NoSuchBucket":
                raise said(error, str(self.place)) from error
            if status_of(error) not in (403, 501):  # who may not list may still read
                raise
        self._seen = True

    def _connected(self) -> Any:
        if self._client is None:
            with self._lock:
                self._client = self._client or connect(self.place)
        return self._client

    @cached_property
    def pool(self) -> Executor:
        """Threads for requests that are made side by side. No task in it waits for another."""
        return ThreadPoolExecutor(WORKERS, "s3")

    # -- what is asked -------------------------------------------------------------------------------------------

    def head(self, key: str) -> Head | None:
        try:
            answer = self.call("head_object", Key=key)
        except Absent:
            return None
        modified = answer["LastModified"].timestamp()
        digest = answer.get("Metadata", {}).get(DIGEST, "")
        return Head(int(answer["ContentLength"]), str(answer["ETag"]), digest, modified, answered_at(answer) - modified)

    def clock(self) -> float:
        """The server's time, to the second."""
        return answered_at(self.call("list_objects_v2", Prefix=self.place.prefix, MaxKeys=1))

    def stream(self, key: str, etag: str, start: int, stop: int) -> Iterator[bytes]:
        """The object's bytes from ``start`` to before ``stop``, every one of them or an error: what breaks off is taken
        up where it broke. ``Refused`` or ``Absent`` when the object is another meanwhile, or gone."""
        attempts = Attempts(self.patience, str(self.place))
        while start < stop:
            try:
                for chunk in self._stream_once(key, etag, start, stop):
                    start += len(chunk)
                    attempts.progressed()
                    yield chunk
            except (*FOREIGN, Torn) as error:
                attempts.after(error)

    def _stream_once(self, key: str, etag: str, start: int, stop: int) -> Iterator[bytes]:
        answer = self._once("get_object", {"Key": key, "IfMatch": etag, "Range": f"bytes={start}-{stop - 1}"})
        with contextlib.closing(answer["Body"]) as body:
            if not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-{stop - 1}/"):
                raise Torn(f"the server answers a request for a range with {answer.get('ContentRange', 'all')}")
            left = stop - start
            while left and (chunk := body.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk
        if left:
            raise Torn(f"{left} bytes of an answer are missing")

    def whole(self, key: str) -> tuple[bytes, str] | None:
        """A small object's bytes and the ETag that goes with them, by one request: it may change at any time."""
        attempts = Attempts(self.patience, str(self.place))
        while True:
            try:
                return self._whole_once(key)
            except Absent:
                return None
            except (*FOREIGN, Torn) as error:
                attempts.after(error)

    def _whole_once(self, key: str) -> tuple[bytes, str]:
        answer = self._once("get_object", {"Key": key})
        with contextlib.closing(answer["Body"]) as body:
            data = body.read()
        if len(data) != int(answer["ContentLength"]):
            raise Torn(f"{int(answer['ContentLength']) - len(data)} bytes of an answer are missing")
        return data, str(answer["ETag"])

    def uploads(self, prefix: str) -> Iterator[tuple[str, str, float]]:
        """The uploads in parts that are under way: id, key, and when each began."""
        page: dict[str, str] = {}
        while True:
            answer = self.call("list_multipart_uploads", Prefix=prefix, **page)
            for item in answer.get("Uploads", ()):
                yield item["UploadId"], item["Key"], item["Initiated"].timestamp()
            if not answer.get("IsTruncated"):
                return
            page = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def copy(self, key: str, to: str, head: Head) -> None:
        """Copy an object inside the bucket, if it is still the one of ``head``; onto itself, to make it new."""
        source, match = {"Bucket": self.place.bucket, "Key": key}, {"CopySourceIfMatch": head.etag}
        metadata = {"Metadata": {DIGEST: head.digest}} if head.digest else {}
        if head.size <= MOST_COPIED:
            self.call("copy_object", Key=to, CopySource=source, MetadataDirective="REPLACE", **metadata, **match)
            return
        upload_id = self.call("create_multipart_upload", Key=to, **metadata)["UploadId"]
        which = {"Key": to, "UploadId": upload_id}
        parts = []
        for number, start in enumerate(range(0, head.size, MOST_COPIED), 1):
            span = f"bytes={start}-{min(start + MOST_COPIED, head.size) - 1}"
            part = {"PartNumber": number, "CopySource": source, "CopySourceRange": span, **match}
            answer = self.call("upload_part_copy", **which, **part)
            parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
        self.call("complete_multipart_upload", **which, MultipartUpload={"Parts": parts})

    def presigned(self, key: str, seconds: int) -> str:
        """A URL to GET an object for so many seconds."""
        named = {"Bucket": self.place.bucket, "Key": key}
        try:
            return str(self._connected().generate_presigned_url("get_object", Params=named, ExpiresIn=seconds))
        except FOREIGN as error:
            raise said(error, str(self.place)) from error


def answered_at(answer: dict[str, Any]) -> float:
    """When the server answered, by its clock; by ours, where it does not say."""
    said_at = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return parsedate_to_datetime(said_at).timestamp() if said_at else time.time()
    except ValueError:
        return time.time()


def connect(place: Place) -> Any:
    """A boto3 client: credentials and region from where boto3 finds them. Retries are ``Bucket``'s."""
    import boto3.session
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        max_pool_connections=4 * WORKERS,
        tcp_keepalive=True,
        request_checksum_calculation="when_required",  # what is sent and received is checked by SHA-256
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if place.endpoint else "auto"},
    )
    try:
        session = boto3.session.Session()
        region = session.region_name or ("us-east-1" if place.endpoint else None)
        return session.client("s3", endpoint_url=place.endpoint or None, region_name=region, config=config)
    except FOREIGN as error:
        raise said(error, str(place)) from error


__all__ = ["Absent", "Bucket", "Head", "Refused", "Torn", "Unknown", "connect"]
