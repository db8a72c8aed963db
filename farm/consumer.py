"""Celery's worker in a thread of this process: it takes wake-ups from a broker and hands them to a crew.

The same for the memory transport and for a real broker. The order of the shutdown matters, and each step is there
for a fault that was seen (reference/infrastructure.md): a warm stop that does not drain loses prefetched messages,
``should_stop`` is process-wide, and a shutdown without a destination kills the next worker of the same name.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any, ClassVar

from celery import Celery
from celery.worker import WorkController
from celery.worker import state as worker_state

from farm.logging import get_logger
from farm.tasks import CARE_QUEUE, Duties, queue_of, register

log = get_logger(__name__)

STOP_TIMEOUT_S = 10.0
RESTART_S = 5.0
SILENT = logging.CRITICAL + 1


class _Controller(WorkController):  # type: ignore[misc]
    """A Celery worker that says when it is ready, and that installs no signal handlers."""

    waiting: ClassVar[dict[str, threading.Event]] = {}

    def on_consumer_ready(self, consumer: Any) -> None:
        self.waiting[self.hostname].set()


class Consumer:
    """Takes what is sent to the queues of ``capabilities``. Never in the way of a build: a task only wakes the crew,
    and returns at once."""

    def __init__(self, app: Celery, capabilities: tuple[str, ...], duties: Duties) -> None:
        register(app, duties)
        self._app = app
        self._queues = [*map(queue_of, capabilities), CARE_QUEUE]
        self._name = f"farm-{uuid.uuid4().hex[:12]}@localhost"
        self._ready = _Controller.waiting[self._name] = threading.Event()
        self._stopping = threading.Event()
        self._controller = self._make()
        # Celery tells of every start, stop and lost connection (an acknowledgement that a broker's restart cut off even
        # as critical, with its traceback); here those are this process's own business.
        for name in ("celery", "kombu"):
            logging.getLogger(name).setLevel(SILENT)
        # Pool threads find their app as Celery's default one, whatever app the message came to.
        app.set_default()
        self._thread = threading.Thread(target=self._run, name="farm-celery", daemon=True)

    def _make(self) -> _Controller:
        return _Controller(
            app=self._app,
            hostname=self._name,
            pool_cls="threads",
            concurrency=2,
            queues=self._queues,
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
            loglevel="ERROR",
        )

    def start(self, timeout: float) -> bool:
        """Begin to take messages; whether the broker answered within ``timeout`` seconds. It is tried again for as
        long as it does not."""
        self._thread.start()
        return self._ready.wait(timeout)

    @property
    def connected(self) -> bool:
        """Whether the broker has ever answered."""
        return self._ready.is_set()

    def _run(self) -> None:
        """Celery gives up for good where kombu cannot read a message, say, or a queue is not as it was declared; builds
        go on meanwhile without a broker, and one bad message must not make that last."""
        while not self._stopping.is_set():
            reason = ""
            try:
                self._controller.start()
            except Exception as error:  # noqa: BLE001 - said, and no more
                reason = str(error)
            if not self._stopping.is_set():
                log.warning("Celery has stopped, and is started again", reason=reason, seconds=RESTART_S)
                self._stopping.wait(RESTART_S)
                self._controller = self._make()

    def stop(self) -> None:
        """Take no more messages and end the thread."""
        self._stopping.set()
        if self._ready.is_set() and self._thread.is_alive():
            self._drain()
        else:
            # Still trying to connect: nothing was taken. ``should_stop`` would end every worker of this process.
            self._controller.stop()
        self._thread.join(timeout=STOP_TIMEOUT_S)
        _Controller.waiting.pop(self._name, None)
        self._app.close()

    def _drain(self) -> None:
        try:
            for queue in self._queues:
                self._app.control.cancel_consumer(queue, destination=[self._name])
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while worker_state.reserved_requests and time.monotonic() < deadline:
                time.sleep(0.005)
            self._app.control.shutdown(destination=[self._name])
        except (OSError, self._app.connection_for_write().connection_errors):
            self._controller.stop()
