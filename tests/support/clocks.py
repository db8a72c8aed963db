"""A clock that a test turns on by hand."""

from __future__ import annotations

import time

import pytest


def hand_turned(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """``time.monotonic`` of this process; the list holds what it shows."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now
