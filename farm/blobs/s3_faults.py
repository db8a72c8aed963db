"""What an S3 server or the way to it reports, sorted: an answer, a reason to try again, or words for people."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from farm.errors import Unavailable

FOREIGN = (boto.BotoCoreError, boto.ClientError, boto.HTTPClientError, ResponseParserError)
"""All that boto3 raises of its own."""


class Absent(Exception):
    """There is no such object, or upload."""


class Refused(Exception):
    """The condition of a conditional request does not hold. ``repeated``: it was made before, and its answer lost, so
    that what does not hold may be its own doing."""

    repeated = False


class Torn(Exception):
    """An answer that ended before it should have, or that is another than was asked for."""


class Unknown(Exception):
    """The server does not know this kind of request."""


UNREACHABLE = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError, boto.SSLError)
BROKEN = (
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    boto.ReadTimeoutError,
    ResponseParserError,
    Torn,
)
TRANSIENT_CODES = {
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "OperationAborted",
    "ConditionalRequestConflict",
}
DAMAGED = {"BadDigest", "XAmzContentSHA256Mismatch"}
"""What came is not what was sent: damage on the way is rare, so a few tries tell it from a file that changes."""
TRIES_IF_DAMAGED = 3
ABSENT = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}
NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.ProfileNotFound,
)
UNREADABLE = (boto.ConfigParseError, boto.ConfigNotFound, boto.InvalidRegionError)
KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile, that this process has"
WORDS = {
    "InvalidAccessKeyId": ("the server does not know this access key", KEYS),
    "SignatureDoesNotMatch": ("the secret key is wrong for this access key", KEYS),
    "InvalidToken": ("the session token is not valid", "fetch new credentials, and ask again"),
    "ExpiredToken": ("the credentials have expired", "fetch new credentials, and ask again"),
    "NoSuchBucket": ("there is no such bucket", "make the bucket, or correct FARM_STORE_URL"),
    "AccessDenied": (
        "these credentials may not do that",
        "give them s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload and, so that what is missing "
        "can be told from what is forbidden, s3:ListBucket",
    ),
    "RequestTimeTooSkewed": ("this machine's clock is too far from the server's", "set the clock (NTP), and ask again"),
    "RequestExpired": ("this machine's clock is too far from the server's", "set the clock (NTP), and ask again"),
    "SlowDown": ("the server asks for fewer requests", "run fewer workers at once, or wait a while"),
    "503": ("the server is down, or asks for fewer requests", "check that it is well, or wait a while"),
    "InvalidBucketName": ("the bucket's name is not one that the server takes", "correct FARM_STORE_URL"),
    "PermanentRedirect": ("the bucket is in another region", "set AWS_DEFAULT_REGION to the bucket's region"),
    "AuthorizationHeaderMalformed": (
        "the bucket is in another region",
        "set AWS_DEFAULT_REGION to the bucket's region",
    ),
    "QuotaExceeded": ("the server's quota is used up", "free some space there, or have the quota raised"),
    "InsufficientStorage": ("the server is out of room", "free some space there, and ask again"),
}
AGAIN = "check that the server is well, and ask again"


def code_of(error: Exception) -> str:
    """The server's word for it; for an answer without a body the status."""
    if not isinstance(error, boto.ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: Exception) -> int:
    if not isinstance(error, boto.ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def sorted_out(error: Exception) -> Exception:
    """The errors that are answers, by their own names; others as they are."""
    code, status = code_of(error), status_of(error)
    if code in ABSENT:
        return Absent(code)
    if code == "PreconditionFailed" or status == 412:
        return Refused(code)
    if code == "NotImplemented" or status == 501:
        return Unknown(code)
    return error


def transient(error: Exception) -> bool:
    """Whether the same request may well succeed when it is made again."""
    known = code_of(error) in TRANSIENT_CODES | DAMAGED or isinstance(error, (*BROKEN, *UNREACHABLE))
    return known or status_of(error) in (429, *range(500, 600))


def said(error: Exception, where: str) -> Unavailable:
    """The error that people see."""
    what, hint = _words(error)
    told = Unavailable(f"{where}: {what}", hint)
    told.refused = code_of(error) == "AccessDenied"
    return told


def _words(error: Exception) -> tuple[str, str]:
    code = code_of(error)
    if code in WORDS:
        return WORDS[code]
    if isinstance(error, NO_CREDENTIALS):
        return f"no credentials: {_line(error)}", f"{KEYS.replace('check', 'set', 1)}"
    if isinstance(error, UNREADABLE):
        return f"boto3's own configuration cannot be used: {_line(error)}", "correct it, or AWS_CONFIG_FILE"
    if isinstance(error, boto.NoRegionError):
        return "no region is set", "set AWS_DEFAULT_REGION to the bucket's region"
    if isinstance(error, UNREACHABLE):
        return f"cannot be reached: {_line(error)}", "check FARM_S3_ENDPOINT_URL and the network, and that it runs"
    if code:
        return f"the server answers {code}: {_message(error)}", AGAIN
    return f"the answer is broken: {_line(error)}", AGAIN


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _message(error: Any) -> str:
    return str(error.response["Error"].get("Message", ""))[:300]


@dataclass(frozen=True)
class Patience:
    """For how long one request is made again. Pauses are drawn evenly from nothing to a bound that doubles ("full
    jitter"), so that clients that were turned away together do not come back together. Seconds."""

    total: float = 60.0
    unreachable: float = 10.0
    first_pause: float = 0.1
    most_pause: float = 8.0


class Attempts:
    """One piece of work: what failed so far, and whether it is worth another try."""

    def __init__(self, patience: Patience, where: str) -> None:
        self._patience, self._where = patience, where
        self.progressed()

    def progressed(self) -> None:
        """Something was achieved: the time for trying runs anew."""
        self._began = time.monotonic()
        self.failed = 0

    def after(self, error: Exception) -> None:
        """Return, after a pause, when it should be tried again; else raise what is to be said."""
        if not transient(error):
            raise said(error, self._where) from error
        limits = self._patience
        pause = random.uniform(0, min(limits.most_pause, limits.first_pause * 2**self.failed))
        self.failed += 1
        patience = limits.unreachable if isinstance(error, UNREACHABLE) else limits.total
        damaged = code_of(error) in DAMAGED and self.failed >= TRIES_IF_DAMAGED
        if damaged or time.monotonic() + pause - self._began > patience:
            raise said(error, self._where) from error
        time.sleep(pause)
