"""The link to a server: JSON to and fro, faults in farm's own words, and patience with what may pass."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from farm.errors import BadConfig, BadToken, FarmError, NotAllowed, Unavailable, error_from
from farm.remote.http import httpx
from farm.version import __version__
from farm.wire import API

T = TypeVar("T")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
PATIENCE_SECONDS = 4.0
"""How long a request is tried again while the server does not answer, or says that it cannot now."""
SHOW_TOKEN = "set FARM_TOKEN to a token that the server knows ('farm token create NAME' there prints one)"
PASSING = frozenset({502, 503, 504})


class Passing(Exception):
    """A fault that may be over when it is tried again; ``error`` is to be raised when it is not. It never leaves this
    package."""

    def __init__(self, error: FarmError) -> None:
        super().__init__(str(error))
        self.error = error


class Link:
    """A connection to the server at ``url``. Safe between threads.

    ``Unavailable`` (exit code 4) when the server cannot be reached; ``BadToken`` when it does not take the token;
    ``NotAllowed`` where the token is not enough; else whatever error the server says, as the same class.
    """

    def __init__(self, url: str, token: str, patience: float = PATIENCE_SECONDS) -> None:
        self.url = url.rstrip("/")
        self._patience = patience
        self._token = token
        headers = {"User-Agent": f"farm/{__version__}"}
        try:
            self._client = httpx.Client(
                headers=headers,
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=4.0),
            )
        except (OSError, ValueError) as error:
            raise BadConfig(
                f"no connection to a server can be set up: {error}", "look at SSL_CERT_FILE and HTTPS_PROXY"
            ) from error

    def close(self) -> None:
        self._client.close()

    # -- JSON ------------------------------------------------------------------------------------------------

    def get(self, path: str, kind: type[T], **params: Any) -> T:
        """``GET`` a document of ``kind``."""
        return self._decoded(self.request("GET", path, params=given(params)), kind)

    def post(self, path: str, body: Any, kind: type[T], *, method: str = "POST", seconds: float = ANSWER_SECONDS) -> T:
        """Send ``body`` as JSON; the answer, which comes within ``seconds``."""
        data = msgspec.json.encode(body, enc_hook=plain)
        headers = {"Content-Type": "application/json"}
        return self._decoded(self.request(method, path, content=data, headers=headers, seconds=seconds), kind)

    def _decoded(self, response: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise BadConfig(
                f"the server at {self.url} answers what this farm does not understand: {error}",
                "check FARM_URL, and that client and server are of releases that go together",
            ) from error

    # -- requests --------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, *, seconds: float = ANSWER_SECONDS, **more: Any) -> httpx.Response:
        """One request and its whole answer, tried again while it may pass. Every request bears being done twice."""
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        return self.patiently(lambda: self._once(method, path, timeout, more))

    def patiently(self, act: Callable[[], T]) -> T:
        """``act``, tried again for a while when what went wrong may pass."""
        retrying = Retrying(
            retry=retry_if_exception_type(Passing),
            stop=stop_after_delay(self._patience),
            wait=wait_random_exponential(0.1, max=1.0),
            reraise=True,
        )
        try:
            return retrying(act)
        except Passing as passing:
            raise passing.error from passing.__cause__

    def _once(self, method: str, path: str, timeout: httpx.Timeout, more: Mapping[str, Any]) -> httpx.Response:
        headers = {**(more.get("headers") or {}), **self.credentials}
        rest = {name: value for name, value in more.items() if name != "headers"}
        if self._client.is_closed:  # a thread that writes statistics may outlive the farm that it is of
            raise self.away("this client has let go of it")
        with self.faults():
            response = self._client.request(method, self._at(path), headers=headers, timeout=timeout, **rest)
        self.check(response)
        return response

    @contextmanager
    def stream(self, method: str, path: str, headers: Mapping[str, str], **more: Any) -> Iterator[httpx.Response]:
        """A request whose answer is read piece by piece; tried once. What breaks later is for ``faults``."""
        headers = {**headers, **self.credentials}
        with self.faults(), self._client.stream(method, self._at(path), headers=headers, **more) as found:
            if found.status_code >= 400:
                found.read()
            self.check(found)
            yield found

    @contextmanager
    def elsewhere(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """As ``stream``, from a place that the server named; it does not get to see the token."""
        with self.faults(), self._client.stream("GET", url, headers=dict(headers)) as found:
            yield found

    @property
    def credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _at(self, path: str) -> str:
        return f"{self.url}{API}/{path}"

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Faults of the network, in farm's words."""
        try:
            yield
        except httpx.TransportError as error:
            raise Passing(self.away(_why(error))) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BadConfig(f"the server at {self.url} cannot be asked: {error}", "check FARM_URL") from error

    def away(self, why: str) -> Unavailable:
        return Unavailable(
            f"the farm's server at {self.url} cannot be reached: {why}", "start it ('farm serve'), or correct FARM_URL"
        )

    def check(self, response: httpx.Response) -> None:
        """Raise what the answer says went wrong, if it does."""
        if response.status_code < 400:
            return
        error = self._error(response)
        if response.status_code in PASSING:
            raise Passing(error)
        raise error

    def _error(self, response: httpx.Response) -> FarmError:
        told = _told(response)
        if response.status_code == 401:
            said = told.message if told else "it asks for a token"
            return BadToken(f"the server at {self.url} does not let this client in: {said}", SHOW_TOKEN)
        if told is not None:
            return told
        said = f"the server at {self.url} answers {response.status_code} {response.reason_phrase}"
        if response.status_code in PASSING:
            return Unavailable(said, "its proxy cannot reach it: look whether 'farm serve' runs")
        if response.status_code == 403:
            return NotAllowed(said, "look at what stands between this machine and the server")
        return BadConfig(f"{said}, which no farm does", "check FARM_URL: it is where 'farm serve' answers")


def _why(error: Exception) -> str:
    """Without the number that a system's error begins with."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def _told(response: httpx.Response) -> FarmError | None:
    """The error that farm's own server says."""
    try:
        document = json.loads(response.content)["error"]
        return error_from(document) if isinstance(document, dict) else None
    except (ValueError, KeyError, TypeError):
        return None


def given(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without those that are empty."""
    return {name: value for name, value in params.items() if value not in (None, "", (), [])}


def plain(value: Any) -> Any:
    """Mappings that are no dict, for ``msgspec``; ``TypeError`` for what JSON has no word for."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")
