"""Logs: structlog, to stderr, quiet unless asked. Nothing is imported or set up before the first line is logged."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import Any, TextIO, cast


@dataclass
class _Wish:
    """How logs are to be written, once there is one."""

    level: int = logging.WARNING
    json: bool = False


_wish = _Wish()


class _Stderr:
    """Whatever standard error is when a line is written: it may be replaced while loggers live."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class LazyLogger:
    """A structlog logger that is made on first use, so that commands which log nothing never import structlog."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Any = None

    def __getattr__(self, method: str) -> Any:
        if self._logger is None:
            self._logger = _make_logger(self._name)
        return getattr(self._logger, method)


def get_logger(name: str) -> LazyLogger:
    """The logger of one module."""
    return LazyLogger(name)


def configure(level: int = logging.WARNING, *, json: bool = False) -> None:
    """Send everything at ``level`` and above to stderr: lines for people, or JSON lines for collectors.

    To be called before the first line is logged; later calls change nothing for loggers already in use.
    """
    _wish.level, _wish.json = level, json
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def _make_logger(name: str) -> Any:
    import structlog

    lines = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if _wish.json else "%H:%M:%S"),
            structlog.processors.JSONRenderer() if _wish.json else lines,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_wish.level),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _Stderr())),
    )
    return structlog.get_logger(name)
