"""Each Celery message of this process is published twice, the same id and the same bytes."""

from __future__ import annotations

from typing import Any


def send_twice() -> None:
    """From now on, in all apps of this process."""
    from celery.app.amqp import AMQP

    make = AMQP._create_task_sender

    def make_twice(self: Any) -> Any:
        send = make(self)

        def both(*args: Any, **kwargs: Any) -> Any:
            send(*args, **dict(kwargs))
            return send(*args, **kwargs)

        return both

    AMQP._create_task_sender = make_twice
