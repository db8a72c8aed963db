"""Where an S3 store is: ``s3://bucket/any/prefix``, on AWS or at an endpoint of one's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from farm.errors import BadConfig

BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
EXAMPLE = "write s3://bucket/prefix"


@dataclass(frozen=True)
class Place:
    """``prefix`` is empty or ends in ``/``; ``endpoint`` is empty for AWS, or where boto3's own settings name one."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""

    def __str__(self) -> str:
        where = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        return f"{where} at {self.endpoint}" if self.endpoint else where


def place(url: str, endpoint: str = "") -> Place:
    """``BadConfig`` for what is no such URL. A prefix is taken as it stands: nothing in it is percent-decoded."""
    scheme, _, rest = url.partition("://")
    bucket, _, path = rest.partition("/")
    if scheme != "s3" or not BUCKET.fullmatch(bucket):
        raise BadConfig(f"{shown(url)!r} names no S3 bucket", EXAMPLE)
    segments = [segment for segment in path.split("/") if segment]
    if any(segment in (".", "..") for segment in segments) or not path.isprintable() or set(path) & set("?#\\"):
        raise BadConfig(f"{url!r} has a prefix that cannot be", f"{EXAMPLE}, without '.', '..', '?', '#' and '\\'")
    return Place(bucket, "".join(f"{segment}/" for segment in segments), _endpoint(endpoint))


def shown(text: str) -> str:
    """An address without what might be a secret."""
    scheme, colon, rest = text.rpartition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}"


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        known = not text or (parts.scheme in ("http", "https") and parts.hostname and (parts.port or True))
    except ValueError:
        known = False
    if not known or parts.query or parts.fragment or parts.username:
        raise BadConfig(
            f"{shown(text)!r} is no S3 endpoint", "write http://host:port or https://host, nothing else in it"
        )
    return text.rstrip("/")
