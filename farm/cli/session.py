"""One command's hold on a farm: opened late, closed always, and withdrawn cleanly when interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from farm.cli.output import count_of, note
from farm.errors import FarmError

if TYPE_CHECKING:
    from farm.config import Config
    from farm.service import Farm


@contextmanager
def opened(config: Config | None = None, *, building: bool = False) -> Iterator[Farm]:
    """The configured farm. Ctrl-C withdraws this process from what it waits for before the farm is closed: builds
    that nobody else wants are cancelled, and the state says so. A second Ctrl-C leaves at once. ``building``
    says that there may be something to withdraw from; it also sets up the logs, which costs time."""
    from farm.config import load
    from farm.service import Farm

    if building:
        _quieten()
    with Farm.open(config or load()) as farm:
        farm.notify = lambda text: note(f"farm: {text}")
        try:
            yield farm
        except KeyboardInterrupt:
            if building:
                _leave_on_the_next_signal()
                _withdraw(farm)
            raise
        except Exception:
            # Whatever went wrong here, nobody waits any more for what this process asked for.
            if building:
                with contextlib.suppress(FarmError):
                    farm.abandon()
            raise


def configured(**changes: Any) -> Config:
    """The configuration, with what the command line says instead where that is not ``None``."""
    from farm.config import load

    return replace(load(), **{name: value for name, value in changes.items() if value is not None})


def _withdraw(farm: Farm) -> None:
    note("farm: interrupted; stopping …")
    cancelled = farm.abandon()
    if cancelled:
        note(f"farm: cancelled {count_of(len(cancelled), 'build')} that nobody else waits for")


def _leave_on_the_next_signal() -> None:
    """Somebody who presses Ctrl-C twice means it: children die with this process, and leases recover the rest."""

    def leave(number: int, frame: Any) -> NoReturn:
        os._exit(130)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, leave)
        signal.signal(signal.SIGTERM, leave)


def _quieten() -> None:
    """Logs go to stderr and are quiet: stdout belongs to the answer."""
    from farm.logging import configure

    configure()
