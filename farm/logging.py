"""Logs: structlog over the standard library, to stderr, quiet unless asked; nothing is set up on import."""

from __future__ import annotations

import logging
import sys
from typing import Any


class LazyLogger:
    """A structlog logger that is made on first use, so that commands which log nothing never import structlog."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Any = None

    def __getattr__(self, method: str) -> Any:
        if self._logger is None:
            import structlog

            self._logger = structlog.get_logger(self._name)
        return getattr(self._logger, method)


def get_logger(name: str) -> LazyLogger:
    """The logger of one module."""
    return LazyLogger(name)


def configure(level: int = logging.WARNING, *, json: bool = False) -> None:
    """Send everything at ``level`` and above to stderr: lines for people, or JSON lines for collectors."""
    import structlog

    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if not json else "iso"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
