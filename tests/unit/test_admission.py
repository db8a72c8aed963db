"""Who may build at once, by memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from farm.admission import Admission
from farm.builders import Cancelled, Watch

IDLE = Watch()


def in_a_thread(
    admission: Admission, need: int, gpu_need: int = 0
) -> tuple[threading.Event, threading.Event, list[str]]:
    """Ask for room in a thread: set when let in; to be set to leave; what it was told while it waited."""
    entered, leave, told = threading.Event(), threading.Event(), list[str]()

    def hold() -> None:
        with admission.hold(need, gpu_need, Watch(report=lambda phase, progress: told.append(phase))):
            entered.set()
            leave.wait(20)

    threading.Thread(target=hold, daemon=True).start()
    return entered, leave, told


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_builds_share_what_there_is() -> None:
    admission = Admission(100, available=lambda: 100)
    with admission.hold(60, 0, IDLE):
        assert admission.free() == 40
        with admission.hold(40, 0, IDLE):
            assert admission.free() == 0
    assert admission.free() == 100


def test_one_that_does_not_fit_waits_until_it_does_and_is_told_for_what() -> None:
    admission = Admission(100, available=lambda: 100)
    with ExitStack() as first:
        first.enter_context(admission.hold(60, 0, IDLE))
        entered, leave, told = in_a_thread(admission, 50)
        eventually(lambda: told)
        assert not entered.is_set() and set(told) == {"waiting for memory"}
    assert entered.wait(5)
    leave.set()


def test_small_ones_do_not_overtake_a_large_one_for_ever() -> None:
    admission = Admission(100, available=lambda: 100)
    with ExitStack() as first:
        first.enter_context(admission.hold(60, 0, IDLE))
        large, leave_large, told = in_a_thread(admission, 90)
        eventually(lambda: told)
        small, leave_small, waits = in_a_thread(admission, 10)
        eventually(lambda: waits)
        assert not small.is_set()
    assert large.wait(5)
    leave_large.set()
    assert small.wait(5)
    leave_small.set()


def test_what_others_use_of_the_machine_counts() -> None:
    admission = Admission(100, available=lambda: 5)
    with admission.hold(10, 0, IDLE):
        assert admission.free() == 5
        entered, leave, told = in_a_thread(admission, 10)
        eventually(lambda: told)
        assert not entered.is_set()
    assert entered.wait(5)
    leave.set()


def test_one_is_always_let_in() -> None:
    with Admission(100, available=lambda: 0).hold(10_000, 0, IDLE):
        pass


def test_a_gpu_that_others_use_is_waited_for() -> None:
    free = [10]
    admission = Admission(100, available=lambda: 100, gpu_capacity=80, gpu_available=lambda: free[0])
    entered, leave, told = in_a_thread(admission, 1, 50)
    eventually(lambda: told)
    assert not entered.is_set() and set(told) == {"waiting for GPU memory"}
    free[0] = 60
    assert entered.wait(5)
    leave.set()


def test_a_gpu_that_does_not_tell_holds_nobody_up() -> None:
    with Admission(100, gpu_capacity=80, gpu_available=lambda: 0).hold(1, 50, IDLE):
        pass


def test_waiting_ends_when_the_build_is_no_longer_wanted() -> None:
    admission = Admission(100, available=lambda: 100)
    with admission.hold(60, 0, IDLE):
        with pytest.raises(Cancelled), admission.hold(60, 0, Watch(cancelled=lambda: True)):
            pass
        with admission.hold(40, 0, IDLE):
            pass


def test_a_machine_gives_its_own_memory_by_default() -> None:
    assert 10**8 < Admission().capacity < 10**14
