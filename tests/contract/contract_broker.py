"""What every broker promises: wake-ups reach a worker that serves their queue, soon; losing them is no error."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farm.consumer import Consumer
from farm.dispatch import BrokerDispatch
from farm.tasks import CARE_QUEUE, COLLECT, EXPIRES_SECONDS, REPAIR, Duties, make_app, send_wakes
from tests.conftest import eventually

SOON = 10.0
ROOT = Path(__file__).parent.parent.parent


class Listener:
    """A worker's Celery side, which counts what it is told."""

    def __init__(self, url: str, capabilities: tuple[str, ...]) -> None:
        self.heard: Counter[str] = Counter()
        names = ("build", "repair", "collect")
        duties = Duties(*(functools.partial(self.heard.update, [name]) for name in names))
        self.consumer = Consumer(make_app(url, capabilities), capabilities, duties)
        assert self.consumer.start(SOON)


@contextmanager
def listening(url: str, *capabilities: str) -> Iterator[Listener]:
    listener = Listener(url, capabilities)
    try:
        yield listener
    finally:
        listener.consumer.stop()


class BrokerContract:
    """Inherit, and give the fixtures ``url`` (a broker whose queues nobody else uses) and ``forget`` (drops all that
    it holds)."""

    @pytest.fixture
    def queues(self) -> tuple[str, str]:
        return (f"a-{uuid.uuid4().hex}", f"b-{uuid.uuid4().hex}")

    def test_a_wake_up_reaches_the_worker_of_its_queue(self, url: str, queues: tuple[str, str]) -> None:
        with listening(url, *queues) as listener:
            send_wakes(make_app(url), {queues[0]: 2, queues[1]: 1, "nobody's": 0})
            eventually(lambda: listener.heard["build"] == 3, SOON, "three wake-ups")

    def test_what_was_sent_before_anybody_listened_is_heard(self, url: str, queues: tuple[str, str]) -> None:
        app = make_app(url, queues)
        send_wakes(app, {queues[0]: 2})
        with listening(url, queues[0]) as listener:
            eventually(lambda: listener.heard["build"] == 2, SOON)

    def test_a_broker_that_forgot_everything_goes_on(
        self, url: str, queues: tuple[str, str], forget: Callable[[], None]
    ) -> None:
        with listening(url, queues[0]) as listener:
            send_wakes(make_app(url), {queues[0]: 1})
            eventually(lambda: listener.heard["build"] == 1, SOON)
            forget()
            send_wakes(make_app(url), {queues[0]: 1})
            eventually(lambda: listener.heard["build"] >= 2, SOON, "the wake-up after the loss")

    def test_repair_and_collection_are_asked_for_as_beat_asks(self, url: str, queues: tuple[str, str]) -> None:
        with listening(url, queues[0]) as listener:
            app = make_app(url)
            for name, task in (("repair", REPAIR), ("collect", COLLECT)):
                entry = app.conf.beat_schedule[name]
                assert entry["task"] == task and entry["options"]["expires"] <= EXPIRES_SECONDS
                app.send_task(entry["task"], queue=app.conf.task_default_queue, **entry["options"])
            assert app.conf.task_default_queue == CARE_QUEUE
            eventually(lambda: listener.heard["repair"] == listener.heard["collect"] == 1, SOON)

    def test_a_wake_up_that_came_too_late_is_dropped(self, url: str, queues: tuple[str, str]) -> None:
        app = make_app(url, queues)
        app.send_task("farm.build", queue=f"farm.{queues[0]}", expires=0.2)
        time.sleep(0.5)
        send_wakes(app, {queues[1]: 1})
        with listening(url, *queues) as listener:
            eventually(lambda: listener.heard["build"] >= 1, SOON)
            time.sleep(0.3)
            assert listener.heard["build"] == 1

    def test_stopping_is_quick_and_leaves_no_thread(self, url: str, queues: tuple[str, str]) -> None:
        before = {thread.name for thread in threading.enumerate()}
        for _ in range(3):
            listener = Listener(url, queues)
            began = time.monotonic()
            listener.consumer.stop()
            assert time.monotonic() - began < 15
        left = {thread.name for thread in threading.enumerate()} - before
        assert not [name for name in left if "celery" in name]


class Other:
    """Another worker, in a process of its own, as Celery wants it."""

    def __init__(self, url: str, capability: str) -> None:
        words = [sys.executable, "-m", "tests.support.listener", url, capability]
        self.heard = 0
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout and self._process.stdout.readline().strip() == "ready"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.heard += line == "build\n"

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait(20) == 0


class RemoteBrokerContract(BrokerContract):
    """Of those that are servers."""

    def test_nobody_hears_of_the_queues_of_others(self, url: str, queues: tuple[str, str]) -> None:
        with listening(url, queues[0]) as one, Other(url, queues[1]) as other:
            send_wakes(make_app(url), {queues[0]: 4})
            eventually(lambda: one.heard["build"] == 4, SOON)
            send_wakes(make_app(url), {queues[1]: 1})
            eventually(lambda: other.heard == 1, SOON)
            assert one.heard["build"] == 4

    def test_two_workers_share_a_queue(self, url: str, queues: tuple[str, str]) -> None:
        with listening(url, queues[0]) as one, Other(url, queues[0]) as other:
            app, sent = make_app(url), 0

            def both_heard() -> bool:
                nonlocal sent
                sent += 4
                send_wakes(app, {queues[0]: 4})
                return bool(one.heard["build"] and other.heard)

            eventually(both_heard, 6 * SOON, "both being woken")
            assert one.heard["build"] + other.heard <= sent

    def test_a_client_wakes_workers_over_it(self, url: str, queues: tuple[str, str]) -> None:
        dispatch = BrokerDispatch(url)
        dispatch.check()
        with listening(url, queues[0]) as listener:
            for n in range(1, 4):
                dispatch.wake({queues[0]: 1})
                eventually(lambda n=n: listener.heard["build"] == n, SOON)  # type: ignore[misc]
        dispatch.stop()
