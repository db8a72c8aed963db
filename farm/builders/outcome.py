"""How a child process ended, and what it said. Pure."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Ending(StrEnum):
    """How a child ended."""

    EXIT = "exit"
    SIGNAL = "signal"
    TIME = "time"
    MEMORY = "memory"
    STALL = "stall"


@dataclass(frozen=True)
class Outcome:
    """What is left of a child. ``status`` is the exit status or the signal's number; ``messages`` are what it
    sent, beats and progress left out; ``log`` is bounded; ``peak_memory`` in bytes, ``seconds`` of wall-clock."""

    ending: Ending
    status: int
    messages: tuple[Mapping[str, Any], ...]
    log: str
    peak_memory: int
    seconds: float

    def last(self, kind: str) -> Mapping[str, Any] | None:
        """The last message of ``kind``, if there was one."""
        return next((message for message in reversed(self.messages) if message.get("kind") == kind), None)

    def errors(self) -> list[str]:
        """The texts of the errors sent since they were last ``forgiven``, in order."""
        kinds = [message.get("kind") for message in reversed(self.messages)]
        since = len(kinds) - kinds.index("forgiven") if "forgiven" in kinds else 0
        return [str(message.get("text", "")) for message in self.messages[since:] if message.get("kind") == "error"]

    def every(self, kind: str) -> tuple[Mapping[str, Any], ...]:
        return tuple(message for message in self.messages if message.get("kind") == kind)


def signal_name(number: int) -> str:
    """``11`` → ``SIGSEGV``."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
