"""The brokers: in memory, Redis and RabbitMQ; and one that is not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contract_broker import SOON, BrokerContract, RemoteBrokerContract, listening
from servers import needed

from farm.dispatch import BrokerDispatch
from farm.errors import Unavailable
from farm.tasks import make_app, send_wakes
from tests.conftest import clean_environment, eventually

REDIS = "redis://127.0.0.1:6379"
REDIS_DATABASES = range(10, 16)
RABBITMQ = "amqp://guest:guest@127.0.0.1:5672"


class TestMemory(BrokerContract):
    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid.uuid4().hex}"

    @pytest.fixture
    def forget(self) -> Callable[[], None]:
        """The memory transport lives as long as its process: it has nothing to lose."""
        return lambda: None


class TestRedis(RemoteBrokerContract):
    @pytest.fixture
    def url(self, worker_id: str) -> Iterator[str]:
        redis = pytest.importorskip("redis")
        number = (
            REDIS_DATABASES[int(worker_id.removeprefix("gw") or 0) % len(REDIS_DATABASES)] if "gw" in worker_id else 15
        )
        client = redis.Redis.from_url(f"{REDIS}/{number}")
        needed("Redis", client.ping, redis.exceptions.ConnectionError)
        client.flushdb()
        yield f"{REDIS}/{number}"
        client.flushdb()

    @pytest.fixture
    def forget(self, url: str) -> Callable[[], None]:
        import redis

        return lambda: redis.Redis.from_url(url).flushdb()

    def test_a_message_that_nobody_can_read_ends_no_wake_ups(
        self, url: str, queues: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import redis

        monkeypatch.setattr("farm.consumer.RESTART_S", 0.1)
        with listening(url, *queues) as listener:
            redis.Redis.from_url(url).lpush(f"farm.{queues[0]}", b"no message")
            eventually(lambda: not redis.Redis.from_url(url).llen(f"farm.{queues[0]}"), what="its being taken")
            send_wakes(make_app(url), {queues[0]: 2})
            eventually(lambda: listener.heard["build"] == 2, SOON, "the wake-ups after it")


@pytest.fixture(scope="module")
def vhost() -> Iterator[str]:
    """A virtual host of its own where rabbitmqctl is at hand; else the default one (queues have names of their
    own)."""
    pytest.importorskip("amqp")
    needed("RabbitMQ", lambda: BrokerDispatch(f"{RABBITMQ}//").check(), Unavailable)
    name = f"farm_test_{uuid.uuid4().hex[:12]}"
    if not rabbitmqctl("add_vhost", name):
        yield "/"
        return
    rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    yield name
    rabbitmqctl("delete_vhost", name)


class TestRabbitMQ(RemoteBrokerContract):
    @pytest.fixture
    def url(self, vhost: str) -> str:
        return f"{RABBITMQ}/{vhost}"

    @pytest.fixture
    def forget(self, url: str, queues: tuple[str, str]) -> Callable[[], None]:
        from kombu import Connection

        def purge() -> None:
            with Connection(url) as connection:
                connection.default_channel.queue_purge(f"farm.{queues[0]}")

        return purge

    def test_what_nobody_takes_does_not_pile_up(
        self, url: str, queues: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from kombu import Connection

        monkeypatch.setattr("farm.tasks.EXPIRES_SECONDS", 1.0)
        with Connection(url) as connection:
            app, name = make_app(url), f"farm.{queues[0]}"
            send_wakes(app, {queues[0]: 3})
            left = lambda: connection.default_channel.queue_declare(name, passive=True).message_count  # noqa: E731
            eventually(lambda: left() == 0, SOON, "their being dropped")
        options = app.conf.beat_schedule["repair"]["options"]
        assert options["expiration"] == options["expires"]


def rabbitmqctl(*words: str) -> bool:
    command = shutil.which("rabbitmqctl")
    if command is None:
        return False
    return subprocess.run([command, "-q", *words], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_a_broker_that_is_not_there_delays_no_client_for_long(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The builds are in the database already, and workers look for themselves."""
    dispatch = BrokerDispatch(url)
    began = time.monotonic()
    dispatch.wake({"a": 5})
    dispatch.wake({"a": 5})
    assert time.monotonic() - began < 15
    with pytest.raises(Unavailable, match="does not answer") as told:
        dispatch.check()
    assert "FARM_BROKER_URL" in told.value.hint and "guest:guest" not in told.value.message
    dispatch.stop()


@pytest.mark.parametrize("refused", ["guest:wrong@127.0.0.1:5672//", "guest:guest@127.0.0.1:5672/no-such-vhost"])
def test_a_broker_that_refuses_is_no_error_of_who_asked_for_a_build(refused: str, vhost: str) -> None:
    """The build is in the database, and workers look for themselves; what is wrong is told where it is asked for."""
    dispatch = BrokerDispatch(f"amqp://{refused}")
    dispatch.wake({"a": 1})
    with pytest.raises(Unavailable, match=r"ACCESS_REFUSED|NOT_ALLOWED"):
        dispatch.check()
    dispatch.stop()


def test_a_queue_of_other_properties_is_no_error_either(vhost: str, capsys: pytest.CaptureFixture[str]) -> None:
    from kombu import Connection

    name, url = f"other-{uuid.uuid4().hex}", f"{RABBITMQ}/{vhost}"
    with Connection(url) as connection:
        connection.default_channel.queue_declare(f"farm.{name}", durable=False, exclusive=False, auto_delete=False)
        dispatch = BrokerDispatch(url)
        dispatch.wake({name: 1})
        assert "cannot be reached or refuses" in capsys.readouterr().err
        connection.default_channel.queue_delete(f"farm.{name}")
        dispatch.wake({name: 1})
    dispatch.stop()


def test_a_missing_broker_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ConnectionError("no")

    monkeypatch.setitem(os.environ, "CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Redis"):
        needed("Redis", refuse, ConnectionError)
    monkeypatch.setitem(os.environ, "CI", "false")
    with pytest.raises(pytest.skip.Exception, match="no Redis"):
        needed("Redis", refuse, ConnectionError)


def test_beat_says_what_is_wrong_with_its_configuration(tmp_path: Path) -> None:
    """Celery's command line would show a traceback."""
    env = clean_environment(tmp_path, FARM_BROKER_URL="redis://127.0.0.1/0?nosuch=1")
    command = [sys.executable, "-m", "celery", "-A", "farm.celery_app", "beat"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("farm: FARM_BROKER_URL asks for 'nosuch=1'") and done.stderr.count("\n") == 2
