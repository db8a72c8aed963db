"""Celery in this process: the same app and tasks as a fleet's, over the memory transport and a thread pool.

The order of the shutdown matters, and each step is there for a fault that was seen (reference/infrastructure.md):
a warm stop that does not drain loses prefetched messages, ``should_stop`` is process-wide, and a shutdown without
a destination kills the next worker of the same name.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery
from celery.worker import WorkController
from celery.worker import state as worker_state

from farm.tasks import Duties, make_app, queue_of, register, wake

if TYPE_CHECKING:
    from farm.worker import BuildWorker

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


class _Controller(WorkController):  # type: ignore[misc]
    """A Celery worker that says when it is ready, and that installs no signal handlers."""

    waiting: ClassVar[dict[str, threading.Event]] = {}

    def on_consumer_ready(self, consumer: Any) -> None:
        self.waiting[self.hostname].set()


class EmbeddedDispatch:
    """Builds in this process. Started by the first wait, so that a hit never pays for it.

    ``make_worker`` is called once, on start. Not safe to share between threads.
    """

    def __init__(self, make_worker: Callable[[], BuildWorker], repair: Callable[[], object], concurrency: int) -> None:
        self._make_worker = make_worker
        self._repair = repair
        self._concurrency = concurrency
        self._worker: BuildWorker | None = None
        self._app: Celery | None = None
        self._controller: _Controller | None = None
        self._thread: threading.Thread | None = None
        self._sent = 0
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        return self._controller is not None

    def wake(self, waiting: dict[str, int]) -> None:
        """Top the queue up to what can be taken soon; before ``start`` nobody is there to wake."""
        if self._app is None or self._worker is None:
            return
        for capability in self._worker.me.capabilities:
            with self._lock:
                room = 2 * self._concurrency - (self._sent - self._taken)
                count = max(0, min(waiting.get(capability, 0), room))
                self._sent += count
            wake(self._app, capability, count)

    def start(self) -> None:
        """Start the worker; returns when it takes messages. Repeating is harmless."""
        if self.running:
            return
        self._worker = self._make_worker()
        self._worker.open()
        queues = self._worker.me.capabilities
        app = make_app(f"memory://{uuid.uuid4().hex}", queues)
        register(app, Duties(self._build, self._repair))
        name = f"farm-{uuid.uuid4().hex[:12]}@localhost"
        ready = _Controller.waiting[name] = threading.Event()
        self._controller = _Controller(
            app=app,
            hostname=name,
            pool_cls="threads",
            concurrency=self._concurrency,
            queues=[queue_of(queue) for queue in queues],
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
            loglevel="ERROR",
        )
        # Celery tells of every start and stop; here those are nobody's business but this process's own.
        logging.getLogger("celery").setLevel(logging.ERROR)
        # Pool threads find their app as Celery's default one, whatever app the message came to.
        app.set_default()
        self._app = app
        self._thread = threading.Thread(target=self._controller.start, name="farm-celery", daemon=True)
        self._thread.start()
        if not ready.wait(START_TIMEOUT_S):
            raise RuntimeError("the in-process Celery worker did not start")

    def _build(self) -> None:
        assert self._worker is not None
        with self._lock:
            self._taken += 1
        while self._worker.run_one():
            # One build a message while messages last; then on, rather than wait for the next repair.
            if self._sent - self._taken > 0:
                break

    def stop(self) -> None:
        """Hand back what runs, then take the worker down; returns when no build runs any more."""
        if self._controller is None or self._worker is None or self._app is None or self._thread is None:
            return
        self._worker.stop()
        for queue in self._worker.me.capabilities:
            self._app.control.cancel_consumer(queue_of(queue), destination=[self._controller.hostname])
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while worker_state.reserved_requests and time.monotonic() < deadline:
            time.sleep(0.005)
        self._app.control.shutdown(destination=[self._controller.hostname])
        self._thread.join(timeout=STOP_TIMEOUT_S)
        _Controller.waiting.pop(self._controller.hostname, None)
        self._app.close()
        self._worker.close()
        self._controller = None
