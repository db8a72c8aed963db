"""How builds reach workers: in this process (embedded), or over a broker (a fleet). Implements ``service.Dispatch``.

The messages carry nothing but wake-ups. Losing them all loses nothing: workers look for themselves every few seconds.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from farm.consumer import Consumer
from farm.crew import Crew
from farm.errors import Unavailable
from farm.logging import get_logger
from farm.tasks import Duties, make_app, send_wakes

if TYPE_CHECKING:
    from celery import Celery

log = get_logger(__name__)

START_TIMEOUT_S = 30.0


def broker_faults(app: Celery) -> tuple[type[Exception], ...]:
    """What is raised where a broker cannot be reached, or refuses: a wrong password, no such virtual host, a queue of
    other properties. Kombu makes an ``OperationalError`` only of what may pass by itself."""
    connection = app.connection_for_write()
    return (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)


def check_broker(app: Celery) -> None:
    """``Unavailable`` when the broker does not answer, or refuses this user."""
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=5.0)
    except broker_faults(app) as error:
        raise Unavailable(
            f"the broker at {app.connection_for_write().as_uri()} does not answer: {str(error).rstrip('.')}",
            "start it, or correct FARM_BROKER_URL",
        ) from error


class Station:
    """A crew and the Celery worker that wakes it: what builds, in an embedded farm and in ``farm worker`` alike."""

    def __init__(
        self,
        broker_url: str,
        crew: Crew,
        repair: Callable[[], object],
        collect: Callable[[], object] = lambda: None,
    ) -> None:
        self.crew = crew
        capabilities = crew.worker.me.capabilities
        self.app: Celery = make_app(broker_url, capabilities)
        self._consumer = Consumer(self.app, capabilities, Duties(crew.wake, repair, collect))

    def start(self, timeout: float = START_TIMEOUT_S) -> bool:
        """Build from now on; whether the broker answered (without it, builds are found by looking)."""
        self.crew.start()
        return self._consumer.start(timeout)

    def broker_trouble(self) -> str:
        """Why the broker has not answered, in words; empty where it does now."""
        try:
            check_broker(self.app)
        except Unavailable as error:
            return error.message
        return ""

    def stop(self, grace: float = 0.0) -> None:
        """Take no more builds, wait ``grace`` seconds for those in hand, hand back the rest; returns when no build
        runs here any more."""
        self.crew.leave()
        self._consumer.stop()
        self.crew.stop(grace)


class EmbeddedDispatch:
    """Builds in this process. Started by the first wait, so that a hit never pays for it.

    ``make_crew`` is called once, on start. Not safe to share between threads.
    """

    def __init__(self, make_crew: Callable[[], Crew], repair: Callable[[], object]) -> None:
        self._make_crew = make_crew
        self._repair = repair
        self._station: Station | None = None

    def wake(self, counts: Mapping[str, int]) -> None:
        """Before ``start`` nobody is there to wake."""
        if self._station is not None:
            send_wakes(self._station.app, counts)

    def start(self) -> None:
        """Start the worker; returns when it takes messages. Repeating is harmless."""
        if self._station is None:
            station = Station(f"memory://{uuid.uuid4().hex}", self._make_crew(), self._repair)
            self._station = station
            if not station.start():
                raise RuntimeError("the in-process Celery worker did not start")

    def stop(self) -> None:
        """Hand back what runs, then take the worker down; returns when no build runs any more."""
        if self._station is not None:
            self._station.stop()
            self._station = None


class BrokerDispatch:
    """Wakes the workers of a fleet. A broker that cannot be reached is said once, and is no error."""

    def __init__(self, broker_url: str) -> None:
        self._app = make_app(broker_url)
        self._silent = False

    def wake(self, counts: Mapping[str, int]) -> None:
        if not counts:
            return
        try:
            send_wakes(self._app, counts)
            self._silent = False
        except broker_faults(self._app) as error:
            if not self._silent:
                log.warning(
                    "the broker cannot be reached or refuses; workers look for builds by themselves", reason=str(error)
                )
            self._silent = True

    def check(self) -> None:
        """``Unavailable`` when the broker does not answer, or refuses this user."""
        check_broker(self._app)

    def start(self) -> None:
        """Others build."""

    def stop(self) -> None:
        self._app.close()
