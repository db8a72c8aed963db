"""Who is let into a machine's memory, and when."""

from __future__ import annotations

import threading
import time

import pytest

from farm import admission
from farm.admission import Admission
from farm.builders import Cancelled, Watch


def held(room: Admission, need: int, until: threading.Event, let_in: threading.Event) -> threading.Thread:
    """A thread that holds ``need`` bytes from when it is let in until it is told to let go."""

    def hold() -> None:
        with room.hold(need, 0, Watch()):
            let_in.set()
            until.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    return thread


def test_one_that_waits_is_let_in_as_soon_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not sleep until its next look."""
    monkeypatch.setattr(admission, "POLL_SECONDS", 5.0)
    room = Admission(100, lambda: 100)
    first, second = threading.Event(), threading.Event()
    there, late = threading.Event(), threading.Event()
    threads = [held(room, 80, first, there)]
    assert there.wait(5)
    threads.append(held(room, 50, second, late))
    assert not late.wait(0.1)
    started = time.monotonic()
    first.set()
    assert late.wait(5) and time.monotonic() - started < 2
    second.set()
    for thread in threads:
        thread.join(5)


def test_all_that_fit_are_let_in_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "POLL_SECONDS", 5.0)
    room = Admission(100, lambda: 100)
    done = threading.Event()
    signs = [threading.Event() for _ in range(10)]
    threads = [held(room, 10, done, sign) for sign in signs]
    assert all(sign.wait(2) for sign in signs)
    done.set()
    for thread in threads:
        thread.join(5)


def test_the_machine_is_not_read_at_every_look() -> None:
    readings: list[int] = []

    def read() -> int:
        readings.append(1)
        return 100

    room = Admission(100, read)
    with room.hold(10, 0, Watch()):
        for _ in range(50):
            room.free()
    assert len(readings) <= 2


def test_who_waits_can_be_cancelled() -> None:
    room = Admission(100, lambda: 100)
    with room.hold(80, 0, Watch()), pytest.raises(Cancelled), room.hold(50, 0, Watch(cancelled=lambda: True)):
        pass
    assert room.free() == 100
