"""A proxy in front of an HTTP server that now and then does it harm: errors, slowness, answers cut short or changed.

    with FaultyProxy.start("127.0.0.1:8333", Rules(error_503=0.05, truncated=0.05), seed=7) as proxy:
        use(f"http://{proxy.address}")
        proxy.rules = Rules()          # well again, at once
        proxy.counts["truncated"]      # what it did, by kind; "passed" for requests that it left alone

The bytes of requests are passed on as they came, the ``Host`` header too, so that signatures hold. Each request's fate
is drawn from the seed: with one client that asks one thing after another, the same seed does the same harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

PIECE = 2**16
MOST_HEAD = 2**16


@dataclass(frozen=True)
class Rules:
    """Each kind of fault with its probability, from 0 to 1, per request. At most one befalls a request.

    ``error_500``, ``error_503``: an S3 error (InternalError, SlowDown) in place of the answer; nothing was done.
    ``reset``: the connection is reset before anything was done.
    ``lost``: the request is carried out, and the connection reset instead of the answer.
    ``truncated``: the answer's body ends half way.
    ``torn``: one byte of the answer's body is another; its length is right.
    ``slow``: the answer begins ``delay`` seconds late, and comes in small pieces with pauses.
    ``stalled``: the answer never begins; the connection is held for ``stall`` seconds, then reset.
    """

    error_500: float = 0.0
    error_503: float = 0.0
    reset: float = 0.0
    lost: float = 0.0
    truncated: float = 0.0
    torn: float = 0.0
    slow: float = 0.0
    stalled: float = 0.0
    delay: float = 0.05
    stall: float = 60.0
    methods: tuple[str, ...] = ()
    """Only these; all when empty."""
    least_body: int = 1
    """Answers that are shorter are neither cut nor changed."""
    most: int | None = None
    """So many faults, then none: ``most=1`` harms once."""

    def fate(self, method: str, draw: float) -> str:
        if self.methods and method not in self.methods:
            return "passed"
        for kind in KINDS:
            draw -= getattr(self, kind)
            if draw < 0:
                return kind
        return "passed"


KINDS = ("error_500", "error_503", "reset", "lost", "truncated", "torn", "slow", "stalled")
ERRORS = {"error_500": (500, "InternalError"), "error_503": (503, "SlowDown")}


@dataclass(frozen=True)
class Head:
    """The first lines of a request or an answer, as they came."""

    raw: bytes

    @property
    def first(self) -> list[str]:
        return self.raw.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    def value(self, name: str) -> str:
        for line in self.raw.split(b"\r\n")[1:]:
            key, _, value = line.decode("latin-1").partition(":")
            if key.lower() == name:
                return value.strip()
        return ""


class FaultyProxy:
    """Runs in a thread of its own; ``rules`` may be replaced at any time."""

    def __init__(self, upstream: str, rules: Rules, seed: int) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self.rules = rules
        self.counts: Counter[str] = Counter()
        self.requests: deque[str] = deque(maxlen=10_000)
        """The last ones: method, target and range."""
        self._random = random.Random(seed)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._client, "127.0.0.1", 0, limit=MOST_HEAD), self._loop
        ).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    @classmethod
    @contextlib.contextmanager
    def start(cls, upstream: str, rules: Rules | None = None, seed: int = 0) -> Iterator[FaultyProxy]:
        """A proxy to ``host:port``, until the end of the block."""
        proxy = cls(upstream, rules or Rules(), seed)
        try:
            yield proxy
        finally:
            proxy.stop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def faults(self) -> int:
        """How many requests it harmed."""
        return sum(count for kind, count in self.counts.items() if kind != "passed")

    def cut(self) -> None:
        """Reset all connections now."""
        self._loop.call_soon_threadsafe(lambda: [_reset(writer) for writer in list(self._writers)])

    def stop(self) -> None:
        async def end() -> None:
            self._server.close()
            while tasks := asyncio.all_tasks() - {asyncio.current_task()}:  # a last connection may come meanwhile
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # -- one connection ------------------------------------------------------------------------------------------

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        behind: asyncio.StreamWriter | None = None
        try:
            answers, behind = await asyncio.open_connection(*self._upstream, limit=MOST_HEAD)
            while await self._exchange(reader, writer, answers, behind):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _reset(writer)
        except asyncio.CancelledError:
            return  # stopped; asyncio's streams would complain of a cancelled task
        finally:
            self._writers.discard(writer)
            for one in (writer, behind):
                if one is not None:
                    one.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        behind: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; whether the connection goes on."""
        try:
            request = Head(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError:
            return False
        fate = self._fate(request)
        if fate in ERRORS:
            await _error(request, reader, writer, *ERRORS[fate])
            return False
        if fate == "reset":
            _reset(writer)
            return False
        behind.write(request.raw)
        body = asyncio.ensure_future(_relay_body(request, reader, behind))
        try:
            return await self._answer(request, fate, answers, writer) and await body
        finally:
            body.cancel()

    def _fate(self, request: Head) -> str:
        rules = self.rules
        fate = rules.fate(request.first[0], self._random.random())
        if rules.most is not None and self.faults >= rules.most:
            fate = "passed"
        self.counts[fate] += 1
        self.requests.append(" ".join([*request.first[:2], request.value("range")]).strip())
        return fate

    async def _answer(
        self, request: Head, fate: str, answers: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        answer = Head(await answers.readuntil(b"\r\n\r\n"))
        while answer.first[1] == "100":
            writer.write(answer.raw)
            answer = Head(await answers.readuntil(b"\r\n\r\n"))
        if fate == "stalled":
            await asyncio.sleep(self.rules.stall)
        if fate in ("lost", "stalled"):
            _reset(writer)
            return False
        empty = request.first[0] == "HEAD" or answer.first[1] in ("204", "304")
        if fate in ("truncated", "torn") and (empty or _length(answer) < self.rules.least_body):
            self._spared(fate)
            fate = "passed"
        if fate == "slow":
            await asyncio.sleep(self.rules.delay)
        writer.write(answer.raw)
        whole = empty or await _relay_harmed(answer, answers, writer, fate)
        await writer.drain()
        return whole and answer.value("connection").lower() != "close"

    def _spared(self, fate: str) -> None:
        self.counts[fate] -= 1
        self.counts["passed"] += 1


def _length(head: Head) -> int:
    """Of the body, in bytes; one that comes in chunks counts as long."""
    if head.value("transfer-encoding").lower() == "chunked":
        return PIECE
    return int(head.value("content-length") or 0)


async def _relay_body(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    async for piece in _body(head, reader):
        writer.write(piece)
        await writer.drain()
    return True


async def _relay_harmed(head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fate: str) -> bool:
    """Pass an answer's body on, harmed as ``fate`` says; whether it is whole."""
    half, passed = _length(head) // 2, 0
    async for piece in _body(head, reader):
        middle = passed <= half < passed + len(piece)
        if fate == "truncated" and middle:
            writer.write(piece[: half - passed])
            await writer.drain()
            return False
        if fate == "torn" and middle:
            piece = piece[: half - passed] + bytes([piece[half - passed] ^ 1]) + piece[half - passed + 1 :]
        passed += len(piece)
        writer.write(piece)
        await writer.drain()
        if fate == "slow":
            await asyncio.sleep(0.001)
    return True


async def _body(head: Head, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """A body's bytes as they stand on the wire, chunk marks included."""
    if head.value("transfer-encoding").lower() == "chunked":
        while True:
            mark = await reader.readuntil(b"\r\n")
            size = int(mark.split(b";")[0], 16)
            yield mark + await reader.readexactly(size + 2)
            if not size:
                return
    left = _length(head)
    while left:
        piece = await reader.read(min(PIECE, left))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


async def _error(
    request: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, code: str
) -> None:
    """Answer with an S3 error and close. The body is read first, unless its sender waits for leave to send it."""
    if request.value("expect").lower() != "100-continue":
        async for _ in _body(request, reader):
            pass
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
    lines = [f"HTTP/1.1 {status} {code}", f"Content-Length: {len(text)}", "Content-Type: application/xml"]
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
    writer.write(head if request.first[0] == "HEAD" else head + text)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other end sees a reset, and loses what it has not read."""
    end = writer.get_extra_info("socket")
    if end is not None and end.fileno() >= 0:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
