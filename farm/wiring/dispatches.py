"""How builds reach workers: in this process, or over the broker; neither is made before it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farm.wiring.backends import gone_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from farm.config import Config
    from farm.dispatch import BrokerDispatch
    from farm.making import Making
    from farm.service import Dispatch
    from farm.store import BlobStore


def open_dispatch(config: Config, index: Making, store: BlobStore) -> Dispatch:
    """How this process's builds reach workers: by itself, or over the broker."""
    if config.embedded:
        return LazyDispatch(lambda: _embedded(config, index, store))
    return LazyBroker(config.broker_url)


def _embedded(config: Config, index: Making, store: BlobStore) -> Dispatch:
    from farm.dispatch import EmbeddedDispatch
    from farm.wiring.workers import open_crew

    return EmbeddedDispatch(lambda: open_crew(config, index, store), lambda: index.reap(gone_workers(index)))


class LazyDispatch:
    """The in-process Celery, imported by the first ``start``: a hit must not pay for it."""

    def __init__(self, make: Callable[[], Dispatch]) -> None:
        self._make = make
        self._real: Dispatch | None = None

    def wake(self, counts: Mapping[str, int]) -> None:
        if self._real is not None:
            self._real.wake(counts)

    def start(self) -> None:
        if self._real is None:
            self._real = self._make()
        self._real.start()

    def stop(self) -> None:
        if self._real is not None:
            self._real.stop()


class LazyBroker:
    """A fleet's Celery, imported by the first wake-up that is to be sent: a hit must not pay for it either."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._real: BrokerDispatch | None = None

    def wake(self, counts: Mapping[str, int]) -> None:
        if counts:
            self.real().wake(counts)

    def real(self) -> BrokerDispatch:
        if self._real is None:
            from farm.dispatch import BrokerDispatch

            self._real = BrokerDispatch(self._url)
        return self._real

    def start(self) -> None:
        """Others build."""

    def stop(self) -> None:
        if self._real is not None:
            self._real.stop()
