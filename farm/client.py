"""A farm behind a server: the same use cases as ``service.Farm``, over ``farm.remote`` in place of SQL and a store."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from farm.asks import Identity
from farm.builds import Build
from farm.config import Config
from farm.identify import Identifier
from farm.remote.index import RemoteIndex
from farm.remote.link import Link
from farm.remote.store import RemoteStore
from farm.service import Farm
from farm.store import BlobStore
from farm.tokens import Scope
from farm.trust import Policy
from farm.wire import Session

if TYPE_CHECKING:
    from typing import Any

LOOK_SECONDS = 1.0
BETWEEN_SECONDS = 0.05
TRANSFER_PATIENCE_SECONDS = 30.0


class RemoteFarm(Farm):
    """A farm behind the server that ``FARM_URL`` names, as the token of ``FARM_TOKEN`` may use it. Identities are
    computed here; whatever is stored, the server computes again. Not safe to share between threads.

    Raises ``Unavailable`` when the server is away, ``BadToken`` when it does not take the token, ``NotAllowed`` where
    the token is not enough.
    """

    def __init__(self, config: Config, identifier: Identifier, trust: Policy | None = None) -> None:
        link = Link(config.url, config.token)
        self.session = link.get("session", Session)
        self._remote = RemoteIndex(link, self.session)
        store = RemoteStore(link, self.session, min(config.patience_seconds, TRANSFER_PATIENCE_SECONDS))
        super().__init__(
            _placed(config, self.session),
            self._remote,
            cast(BlobStore, store),
            NoDispatch(),
            identifier,
            lambda: (),
            trust,
        )

    def repair(self) -> None:
        """Nothing: the server sees to it."""

    def _look(self, pending: Collection[str]) -> list[Build]:
        """Answered as soon as something has changed, and often enough for whoever watches."""
        builds = self._remote.watch(pending, LOOK_SECONDS)
        self.lookout.tell(builds, self.notify)
        return builds

    def _pause(self, looked: float) -> None:
        time.sleep(BETWEEN_SECONDS)

    def _recording(self, missed: Sequence[Identity]) -> AbstractContextManager[None]:
        """Nothing with a token that may only read."""
        return super()._recording(missed) if Scope(self.session.scope).covers(Scope.BUILD) else nullcontext()


class NoDispatch:
    """The server wakes workers."""

    def wake(self, counts: Mapping[str, int]) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


def open_remote_store(config: Config) -> BlobStore:
    """The blobs behind the server."""
    link = Link(config.url, config.token)
    patience = min(config.patience_seconds, TRANSFER_PATIENCE_SECONDS)
    return cast(BlobStore, RemoteStore(link, link.get("session", Session), patience))


def _placed(config: Config, session: Session) -> Config:
    """The configuration, its namespaces as the token has them."""
    place: dict[str, Any] = {"namespace": session.namespace, "trusted_namespaces": session.trusted}
    others = tuple(name for name in session.reads if name != session.namespace and name not in session.trusted)
    return replace(config, **place, read_namespaces=others)
