"""The Celery app and its tasks, three lines each. Celery carries wake-ups and nothing else.

A message names a queue, never a build: the worker that takes it leases the best eligible build from SQL. A
message that is lost, delivered twice or late therefore costs nothing but time, and ``reconcile`` sends it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from celery import Celery
from kombu import Queue

BUILD = "farm.build"
REPAIR = "farm.repair"


@dataclass(frozen=True)
class Duties:
    """What the tasks call; ``wiring`` gives it."""

    build: Callable[[], object]
    repair: Callable[[], object]


def queue_of(capability: str) -> str:
    """The queue's name for one capability."""
    return f"farm.{capability}"


def make_app(broker_url: str, queues: Collection[str] = ()) -> Celery:
    """An app on ``broker_url``; nothing is connected yet. Acknowledged on receipt: leases recover the dead."""
    app = Celery("farm", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue="farm",
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=True,
        broker_connection_retry_on_startup=True,
        task_always_eager=False,
        beat_schedule={"repair": {"task": REPAIR, "schedule": 5.0}},
    )
    if broker_url.startswith("memory:"):
        # The default of a second would be the greater part of a short build (reference/infrastructure.md).
        app.conf.broker_transport_options = {"polling_interval": 0.01}
    if queues:
        app.conf.task_queues = [Queue(queue_of(name), routing_key=queue_of(name)) for name in queues]
    return app


def register(app: Celery, duties: Duties) -> None:
    """Add the tasks to an app that is to work, not only to send."""

    @app.task(name=BUILD, shared=False)  # type: ignore[untyped-decorator]
    def build() -> None:
        duties.build()

    @app.task(name=REPAIR, shared=False)  # type: ignore[untyped-decorator]
    def repair() -> None:
        duties.repair()

    app.finalize()


def wake(app: Celery, capability: str, count: int) -> None:
    """Send ``count`` wake-ups to one capability's queue."""
    for _ in range(count):
        app.send_task(BUILD, queue=queue_of(capability), ignore_result=True)
