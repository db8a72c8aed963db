"""``farm.store.BlobStore`` behind a server: streamed both ways, in the memory of one piece, verified as bytes come.

A download that breaks goes on where it broke, as long as the server comes back within ``patience`` seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from farm.blobs.faults import folder_fault
from farm.blobs.files import beside, open_source, source_chunks, write_all
from farm.blobs.names import corrupt, hex_of, name_of
from farm.blobs.resuming import Coming as Partial
from farm.blobs.resuming import bring_on, resumed
from farm.errors import BadConfig, FarmError, Missing
from farm.remote.http import httpx
from farm.remote.index import refused
from farm.remote.link import CONNECT_SECONDS, Link, Passing
from farm.store import Blob, BlobStore
from farm.tokens import Scope
from farm.wire import Digests, Done, Session

PIECE = 2**20
MIB = 2**20
UPLOAD_SECONDS = 900.0
"""A server hashes what it was sent before it answers."""
AGAIN_SECONDS = 0.2
IN_ORDER = "its disk and the way from there are in order"
REDIRECTS = frozenset({302, 303, 307, 308})
READ_BYTES = 1 << 30
"""What is read into memory is no larger."""


class RemoteStore:
    """Safe to share between threads. ``patience``: for how long a server that went away in the middle is waited for."""

    def __init__(self, link: Link, session: Session, patience: float) -> None:
        self._link = link
        self._patience = patience
        self._writes = Scope(session.scope).covers(Scope.BUILD)

    def __getattr__(self, name: str) -> Any:
        return refused(name, BlobStore)

    # -- writing ---------------------------------------------------------------------------------------------

    def put(self, source: BinaryIO) -> Blob:
        """A stream of no known digest is gathered in a temporary file first."""
        with tempfile.TemporaryDirectory(prefix="farm-put-") as folder:
            path = Path(folder) / "blob"
            with path.open("wb") as file:
                for chunk in source_chunks(source):
                    file.write(chunk)
            return self.put_file(path)

    def put_file(self, path: Path, *, link: bool = False) -> Blob:
        """What the server has already is not sent again; it is made new there."""
        with open_source(path) as source:
            hasher, size = hashlib.sha256(), 0
            for chunk in source_chunks(source):
                hasher.update(chunk)
                size += len(chunk)
        blob = Blob(name_of(hasher), size)
        if not self._renewed(blob.digest):
            self._send(path, blob)
        return blob

    def _renewed(self, digest: str) -> bool:
        return self._link.post(f"blobs/{digest}/renew", None, Done, seconds=UPLOAD_SECONDS).done

    def _send(self, path: Path, blob: Blob) -> None:
        headers = {"Content-Length": str(blob.size), "Content-Type": "application/octet-stream"}

        def once() -> None:
            with open_source(path) as source:
                timeout = httpx.Timeout(UPLOAD_SECONDS, connect=CONNECT_SECONDS)
                with self._link.stream(
                    "PUT", f"blobs/{blob.digest}", headers, content=_pieces(source), timeout=timeout
                ):
                    pass

        self._link.patiently(once)

    # -- reading ---------------------------------------------------------------------------------------------

    def size(self, digest: str) -> int | None:
        hex_of(digest)
        try:
            return int(self._link.request("HEAD", f"blobs/{digest}").headers["Content-Length"])
        except BadConfig:  # HEAD has no body that could say whose 404 it is
            return None if digest in self.missing([digest]) else 0

    def missing(self, digests: Iterable[str]) -> set[str]:
        asked = tuple(sorted(set(digests)))
        return set(self._link.post("blobs/missing", Digests(asked), list[str])) if asked else set()

    def read(self, digest: str) -> bytes | None:
        gathered = bytearray()

        def take(chunk: bytes) -> None:
            if len(gathered) + len(chunk) > READ_BYTES:
                raise FarmError(f"blob {digest} is too large to be read into memory", "pull it into a file")
            gathered.extend(chunk)

        return bytes(gathered) if self._bring(Coming(digest, self._link, take)) else None

    def fetch(self, digest: str, dest: Path, *, link: bool = False) -> bool:
        """As the contract says. What breaks in the middle goes on where it broke."""
        try:
            with beside(dest) as temporary:
                target = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
                try:
                    if not self._bring(Coming(digest, self._link, lambda chunk: write_all(target, memoryview(chunk)))):
                        return False
                    os.fsync(target)
                finally:
                    os.close(target)
                temporary.replace(dest)
        except OSError as error:
            raise folder_fault(error, dest.parent) from error
        return True

    def resume(self, digest: str, dest: Path, tell: Callable[[int], None] = lambda count: None) -> bool:
        """As ``farm.store.Resuming`` says: also what an earlier call brought is not brought again."""

        def get() -> bool:
            size = self.size(digest)
            if size is None:
                return False
            if not bring_on(digest, dest, size, lambda partial: self._go_on(digest, size, partial, tell)):
                raise corrupt(digest, self._link.url, IN_ORDER)
            return True

        try:
            return resumed(digest, dest, get, lambda: self.fetch(digest, dest))
        except OSError as error:
            raise folder_fault(error, dest.parent) from error

    def _go_on(self, digest: str, size: int, partial: Partial, tell: Callable[[int], None]) -> None:
        """Write what is lacking of a partial file. Whether it is the blob, whoever asked looks."""
        if partial.at >= size:
            return
        os.lseek(partial.descriptor, partial.at, os.SEEK_SET)

        def take(chunk: bytes) -> None:
            partial.hasher.update(chunk)
            write_all(partial.descriptor, memoryview(chunk))
            partial.reached(partial.at + len(chunk))
            tell(len(chunk))

        self._pour(Coming(digest, self._link, take, partial.at))

    def _bring(self, coming: Coming) -> bool:
        """All of a blob, verified; ``False`` when it is not there."""
        if not self._pour(coming):
            return False
        if name_of(coming.hasher) != coming.digest:
            raise corrupt(coming.digest, self._link.url, IN_ORDER)
        return True

    def _pour(self, coming: Coming) -> bool:
        """What is still lacking of a blob, over however many tries; ``False`` when it is not there."""
        moved = time.monotonic()
        while True:
            before = coming.at
            try:
                return coming.pour()
            except Passing as fault:
                moved = time.monotonic() if coming.at > before else moved
                if time.monotonic() - moved > self._patience:
                    raise _broken(fault.error, coming) from fault
                time.sleep(AGAIN_SECONDS)

    def quarantine(self, digest: str) -> bool:
        """The server reads its own blob, and puts that aside if it is bad. Nothing with a token that may only read."""
        if not self._writes:
            return False
        return self._link.post(f"blobs/{digest}/check", None, Done, seconds=UPLOAD_SECONDS).done

    def presign(self, digest: str, seconds: int) -> str | None:
        hex_of(digest)
        return None

    def label(self) -> str | None:
        return None

    def sweep(self) -> int:
        return 0


class Coming:
    """A blob on its way into ``sink``: how much of it has come, and its hash."""

    def __init__(self, digest: str, link: Link, sink: Callable[[bytes], object], at: int = 0) -> None:
        hex_of(digest)
        self.digest, self.at = digest, at
        self.hasher = hashlib.sha256()
        self._link, self._sink = link, sink
        self._streamed = False

    def pour(self) -> bool:
        """Take what is still lacking; ``False`` when there is no such blob. What has come stays, whatever breaks."""
        try:
            with self._answer() as response:
                self._take(response)
        except Missing:
            return False
        return True

    @contextlib.contextmanager
    def _answer(self) -> Iterator[httpx.Response]:
        """The server's own answer, or that of the store which it names. A store that cannot be reached from here, or
        that does not give what was asked for, is left out from then on."""
        with self._link.stream("GET", self._path(), self._range()) as response:
            place = response.headers.get("Location") if response.status_code in REDIRECTS else None
            if place is None:
                yield response
                return
        with contextlib.ExitStack() as stack:
            found = self._from_store(place, stack)
            if found is None:
                self._streamed = True
                found = stack.enter_context(self._link.stream("GET", self._path(), self._range()))
            yield found

    def _from_store(self, place: str, stack: contextlib.ExitStack) -> httpx.Response | None:
        try:
            found = stack.enter_context(self._link.elsewhere(place, self._range()))
        except Passing:
            return None
        return found if found.status_code in (200, 206) else None

    def _path(self) -> str:
        return f"blobs/{self.digest}" + ("?stream=true" if self._streamed else "")

    def _range(self) -> dict[str, str]:
        """No compression on the way: it would cost time, and plans do not shrink."""
        more = {"Range": f"bytes={self.at}-"} if self.at else {}
        return {"Accept-Encoding": "identity", **more}

    def _take(self, response: httpx.Response) -> None:
        """What an answer without ranges brings once more is read over."""
        skip = 0 if response.status_code == 206 else self.at
        with self._link.faults():
            for piece in response.iter_raw(PIECE):
                chunk, skip = piece[skip:], max(0, skip - len(piece))
                if chunk:
                    self._sink(chunk)
                    self.hasher.update(chunk)
                    self.at += len(chunk)


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    return (bytes(chunk) for chunk in source_chunks(source))


def _broken(fault: FarmError, coming: Coming) -> FarmError:
    """The fault, and how far it got."""
    came = f"; {coming.at / MIB:.1f} MiB of {coming.digest} had come" if coming.at else ""
    return type(fault)(fault.message + came, fault.hint)
