"""The proxy that does harm does the harm that it was asked for, and none besides."""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.support.faulty_proxy import KINDS, FaultyProxy, Rules

BODY = bytes(range(256)) * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with ``BODY``, and notes what it was sent."""

    protocol_version = "HTTP/1.1"
    got: ClassVar[list[tuple[str, bytes]]] = []

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.got.append((self.command, self.rfile.read(length)))
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(BODY), 100_000):
                piece = BODY[start : start + 100_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(BODY)

    do_PUT = do_HEAD = do_POST = do_GET

    def log_message(self, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None:
        """Connections that the proxy resets are what these tests are about."""


@pytest.fixture
def upstream() -> Iterator[str]:
    Handler.got = []
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def proxy(upstream: str) -> Iterator[FaultyProxy]:
    with FaultyProxy.start(upstream, seed=1) as proxy:
        yield proxy


def ask(proxy: FaultyProxy, method: str = "GET", path: str = "/", body: bytes = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(proxy.address, timeout=10)
    try:
        connection.request(method, path, body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_without_rules_everything_passes_as_it_is(proxy: FaultyProxy) -> None:
    connection = http.client.HTTPConnection(proxy.address, timeout=10)
    for path in ("/", "/chunked", "/"):  # one connection, kept
        connection.request("GET", path)
        assert connection.getresponse().read() == BODY
    connection.close()
    assert ask(proxy, "PUT", body=BODY * 5)[0] == 200 and Handler.got[-1] == ("PUT", BODY * 5)
    assert ask(proxy, "HEAD") == (200, b"")
    assert dict(proxy.counts) == {"passed": 5} and proxy.faults == 0
    assert list(proxy.requests)[:2] == ["GET /", "GET /chunked"]


@pytest.mark.parametrize(("kind", "status"), [("error_500", 500), ("error_503", 503)])
def test_errors_stand_in_for_the_answer(proxy: FaultyProxy, kind: str, status: int) -> None:
    proxy.rules = Rules(**{kind: 1.0})
    for method, body in (("GET", b""), ("PUT", BODY), ("HEAD", b"")):
        got, text = ask(proxy, method, body=body)
        assert got == status and (b"<Code>" in text) is (method != "HEAD")
    assert proxy.counts[kind] == 3 and Handler.got == []


@pytest.mark.parametrize(("kind", "done"), [("reset", 0), ("lost", 1)])
def test_resets_before_and_after_the_deed(proxy: FaultyProxy, kind: str, done: int) -> None:
    proxy.rules = Rules(**{kind: 1.0})
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        ask(proxy, "PUT", body=b"data")
    assert len(Handler.got) == done


@pytest.mark.parametrize("path", ["/", "/chunked"])
def test_truncated(proxy: FaultyProxy, path: str) -> None:
    proxy.rules = Rules(truncated=1.0)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        ask(proxy, path=path)


def test_torn_changes_one_byte(proxy: FaultyProxy) -> None:
    proxy.rules = Rules(torn=1.0)
    _, body = ask(proxy)
    assert len(body) == len(BODY) and sum(a != b for a, b in zip(body, BODY, strict=True)) == 1
    proxy.rules = Rules(torn=1.0, least_body=len(BODY) + 1)
    assert ask(proxy) == (200, BODY) and ask(proxy, "HEAD") == (200, b"")
    assert proxy.counts == {"torn": 1, "passed": 2}


def test_slow_is_late_and_right(proxy: FaultyProxy) -> None:
    proxy.rules = Rules(slow=1.0, delay=0.3)
    started = time.monotonic()
    assert ask(proxy) == (200, BODY) and time.monotonic() - started >= 0.3


def test_stalled_says_nothing(proxy: FaultyProxy) -> None:
    proxy.rules = Rules(stalled=1.0, stall=0.3)
    started = time.monotonic()
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        ask(proxy)
    assert time.monotonic() - started >= 0.3


def test_only_what_the_rules_name(proxy: FaultyProxy) -> None:
    proxy.rules = Rules(error_500=1.0, methods=("PUT",), most=2)
    assert [ask(proxy, method)[0] for method in ("GET", "PUT", "GET", "PUT", "PUT")] == [200, 500, 200, 500, 200]


def test_connections_may_be_cut(proxy: FaultyProxy) -> None:
    connection = http.client.HTTPConnection(proxy.address, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    proxy.cut()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        for _ in range(50):
            connection.request("GET", "/")
            connection.getresponse().read()
            time.sleep(0.01)


def test_an_upstream_that_is_gone_is_a_reset() -> None:
    with (
        FaultyProxy.start("127.0.0.1:1") as proxy,
        pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)),
    ):
        ask(proxy)


def test_the_same_seed_does_the_same_harm(upstream: str) -> None:
    def fates(seed: int) -> list[int]:
        with FaultyProxy.start(upstream, Rules(error_500=0.3, error_503=0.3), seed) as proxy:
            return [ask(proxy)[0] for _ in range(20)]

    assert fates(1) == fates(1) != fates(2)
    assert {200, 500, 503} == set(fates(1))


def test_the_kinds_are_the_rules_own() -> None:
    assert all(getattr(Rules(**{kind: 1.0}), kind) == 1.0 for kind in KINDS)
    assert {Rules(**{kind: 1.0}).fate("GET", 0.5) for kind in KINDS} == set(KINDS)
