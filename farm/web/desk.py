"""What the server's handlers share: the farm's parts, and a look at them through one caller's eyes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fastapi import Request, Response

from farm.builds import Build, Engine
from farm.config import Config
from farm.errors import NoSuchThing, NotAllowed, Unavailable
from farm.identify import Identifier
from farm.index import Index
from farm.logging import get_logger
from farm.namespaces import CLIENT, Realm, client_namespace
from farm.remote.link import plain
from farm.repair import CALM_SECONDS, Repair
from farm.service import Dispatch
from farm.store import BlobStore
from farm.tokens import Scope, Token, Tokens
from farm.upkeep import Upkeep

log = get_logger(__name__)

REPAIR_SECONDS = 1.0
NOBODY = "sha256:" + "0" * 64
"""A blob's name that no blob has: whether a store answers is told by asking for it."""


class Book(Upkeep, Tokens, Protocol):
    """The index as a server needs it."""

    def under(self, realm: Realm) -> Index:
        """The same index, for somebody of ``realm``."""
        ...


@dataclass
class Desk:
    """The parts of one farm, shared by all requests. ``build``: an embedded farm's builds are made in this process."""

    config: Config
    book: Book
    store: BlobStore
    dispatch: Dispatch
    identifier: Identifier
    scratch: Path
    gone: Callable[[], Collection[str]] = lambda: ()
    build: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to look after the farm."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._look_after, name="farm-serve-repair", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop building here, if this process did, and let go of the database."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self.dispatch.stop()
        self.book.close()

    def _look_after(self) -> None:
        """Queue again what vanished workers held, and wake workers for whatever waits."""
        repair = Repair(self.book, self._wake, self.gone, calm=CALM_SECONDS if self.config.fleet else 0.0)
        while not self._stop.wait(REPAIR_SECONDS):
            try:
                repair.tick()
            except Unavailable as error:
                log.warning("the database cannot be reached", reason=error.message)

    def _wake(self, counts: Mapping[str, int]) -> None:
        with self._lock:
            self.dispatch.wake(counts)

    def check(self) -> None:
        """``Unavailable`` when database or store do not answer."""
        self.book.note("farm")
        self.store.missing([NOBODY])

    def wake(self, index: Index) -> None:
        """Wake workers for what waits, and be one where that is how the farm is set up."""
        with self._lock:
            if self.build:
                self.dispatch.start()
            self.dispatch.wake(index.wakes(0.0))

    def caller(self, token: Token) -> Caller:
        realm = Realm(token.namespace, self.config.trusted_namespaces)
        return Caller(self, token, realm, self.book.under(realm))


@dataclass(frozen=True)
class Caller:
    """Who asks: a token, its realm, and the index as that realm has it."""

    desk: Desk
    token: Token
    realm: Realm
    index: Index

    @property
    def reads(self) -> tuple[str, ...]:
        """The namespaces that it reads: its own, the trusted ones, and what clients with this token built."""
        return tuple(dict.fromkeys((*self.realm.reads, client_namespace(self.token.name))))

    @property
    def all_seeing(self) -> bool:
        return self.token.scope.covers(Scope.ADMIN)

    def within(self, namespaces: Sequence[str]) -> tuple[str, ...]:
        """Those of ``namespaces`` that it may look into; without any, all that it reads."""
        if self.all_seeing:
            return tuple(namespaces)
        return tuple(name for name in namespaces if self.sees(name)) if namespaces else self.reads

    def sees(self, namespace: str) -> bool:
        own = client_namespace(self.token.name)
        return self.all_seeing or namespace in self.reads or namespace.startswith(f"{own}/")

    def visible(self, builds: Sequence[Build]) -> list[Build]:
        return [build for build in builds if self.sees(build.request.namespace)]

    def build(self, id: str) -> Build:
        """A build by its whole id. ``NoSuchThing`` also for one that it must not see."""
        build = self.index.build(id)
        if build is None or not self.sees(build.request.namespace):
            raise NoSuchThing(f"no build is called '{id[:80]}'", "'farm ls builds' lists them")
        return build

    def waiter(self, name: str) -> str:
        """A waiter's name among all clients': nobody withdraws another's."""
        return f"{self.token.id}/{name}" if name else ""

    def check_adoption(self, engine: Engine) -> None:
        """``NotAllowed`` unless the engine goes where this token's clients put what they built themselves."""
        own = client_namespace(self.token.name)
        if engine.namespace != own and not engine.namespace.startswith(f"{own}/"):
            raise NotAllowed(
                f"what a client with this token built goes into '{own}', not into '{engine.namespace[:80]}'",
                f"call the client '{own.removeprefix(CLIENT)}'",
            )


class Json(Response):
    """A document of farm's own records, encoded at once: what FastAPI would do with them takes ten times as long."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        import msgspec

        return msgspec.json.encode(content, enc_hook=plain)


def desk_of(request: Request) -> Desk:
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk
