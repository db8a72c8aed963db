"""The Celery app and its tasks, three lines each. Celery carries wake-ups and nothing else.

A message names a queue, never a build: the worker that takes it acknowledges it and leases the best eligible builds
from SQL. A message that is lost, delivered twice or late therefore costs nothing but time, and is sent again while
builds wait and hands are free (``Index.wakes``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu import Queue

BUILD = "farm.build"
REPAIR = "farm.repair"
COLLECT = "farm.collect"
CARE_QUEUE = "farm"
"""Where the periodic repair and collection are asked for."""
REPAIR_SECONDS = 5.0
COLLECT_SECONDS = 60.0
"""How often it is asked whether it is time to collect (``FARM_GC_SECONDS``)."""
EXPIRES_SECONDS = 60.0
"""A wake-up that nobody took by then is dropped; another has been sent since, if anything still waits."""
SEND_ATTEMPTS = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}


@dataclass(frozen=True)
class Duties:
    """What the tasks call; ``wiring`` gives it."""

    build: Callable[[], object]
    repair: Callable[[], object]
    collect: Callable[[], object] = lambda: None


def queue_of(capability: str) -> str:
    """The queue's name for one capability."""
    return f"farm.{capability}"


def make_app(broker_url: str, capabilities: Collection[str] = ()) -> Celery:
    """An app on ``broker_url``; nothing is connected yet. Acknowledged on receipt: leases recover the dead."""
    app = Celery("farm", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=CARE_QUEUE,
        task_create_missing_queues=True,
        # A wake-up is worth nothing after a restart of the broker, and need not be written to its disk.
        task_default_delivery_mode="transient",
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=4.0,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_always_eager=False,
        beat_schedule={"repair": _every(REPAIR, REPAIR_SECONDS), "collect": _every(COLLECT, COLLECT_SECONDS)},
        broker_transport_options=_transport_options(broker_url),
    )
    if capabilities:
        queues = [queue_of(name) for name in capabilities]
        app.conf.task_queues = [Queue(name, routing_key=name, durable=True) for name in (*queues, CARE_QUEUE)]
    return app


def _every(task: str, seconds: float) -> dict[str, Any]:
    """Nobody's turn is kept for him: one that was not taken in time is dropped."""
    return {"task": task, "schedule": seconds, "options": expiring(seconds)}


def expiring(seconds: float) -> dict[str, float]:
    """Until when a message is worth anything: ``expires`` says so to the worker that takes it, ``expiration`` to a
    broker that can (RabbitMQ), lest messages pile up in it while no worker is there to take them."""
    return {"expires": seconds, "expiration": seconds}


def _transport_options(broker_url: str) -> dict[str, Any]:
    if broker_url.startswith("memory:"):
        # The default of a second would be the greater part of a short build (reference/infrastructure.md).
        return {"polling_interval": 0.01}
    if broker_url.startswith(("redis:", "rediss:")):
        # A client must not wait for a server that is gone: the builds are in the database already.
        return {"socket_timeout": 10.0, "socket_connect_timeout": 4.0, "socket_keepalive": True}
    return {"confirm_publish": False}


def register(app: Celery, duties: Duties) -> None:
    """Add the tasks to an app that is to work, not only to send."""

    @app.task(name=BUILD, shared=False)  # type: ignore[untyped-decorator]
    def build() -> None:
        duties.build()

    @app.task(name=REPAIR, shared=False)  # type: ignore[untyped-decorator]
    def repair() -> None:
        duties.repair()

    @app.task(name=COLLECT, shared=False)  # type: ignore[untyped-decorator]
    def collect() -> None:
        duties.collect()

    app.finalize()


def send_wakes(app: Celery, counts: Mapping[str, int]) -> None:
    """Send so many wake-ups to each capability's queue, over one connection. Raises kombu's ``OperationalError`` when
    the broker cannot be reached."""
    with app.producer_or_acquire() as producer:
        for capability, count in sorted(counts.items()):
            for _ in range(count):
                app.send_task(
                    BUILD,
                    queue=queue_of(capability),
                    producer=producer,
                    ignore_result=True,
                    **expiring(EXPIRES_SECONDS),
                    retry=True,
                    retry_policy=SEND_ATTEMPTS,
                )
