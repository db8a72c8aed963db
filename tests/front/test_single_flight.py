"""Many clients that ask for one engine at the same instant: one build, and an answer for each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from farm.db.index import SqlIndex
from farm.db.migrate import upgrade
from tests.conftest import Farms, clean_environment
from tests.contract.servers import Server, reachable_server

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("fleet")]

ROOT = Path(__file__).parents[2]
PROCESSES = 2
THREADS = 32
"""Clients, of each process. A server has a hundred connections, and these take most: no fleet's tests run meanwhile."""
COMMANDS = 6
TARGET = "sm_89@tensorrt_rtx==1.7.1.116"
BUILD_SECONDS = "0.5"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'shared.db'}"
        upgrade(url)
        yield url
        return
    server = Server(reachable_server())
    url = server.database()
    upgrade(url)
    yield url
    server.drop_all()


@contextmanager
def process(env: dict[str, str], *words: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m WORDS``, killed at the end if it still runs."""
    started = subprocess.Popen(
        [sys.executable, "-m", *words],
        env=env,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def says(started: subprocess.Popen[str], line: str) -> None:
    assert started.stdout is not None
    assert started.stdout.readline().strip() == line


def all_answers(clients: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """Let all ask at once."""
    for client in clients:
        says(client, "open")
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("ask\n")
        client.stdin.flush()
    ended = [client.communicate(timeout=200)[0] for client in clients]
    assert [client.returncode for client in clients] == [0] * len(clients)
    return [json.loads(line) for text in ended for line in text.splitlines()]


def test_sixty_four_clients_get_one_build(database: str, tmp_path: Path, copied: Callable[[str], Path]) -> None:
    store = (tmp_path / "store").as_uri()
    env = clean_environment(
        tmp_path / "home", FARM_DATABASE_URL=database, FARM_STORE_URL=store, FARM_POLL_SECONDS="0.2"
    )
    model = str(copied("gemm.pt2"))
    with ExitStack() as stack:
        worker = stack.enter_context(process(env, "tests.support.noop_worker", "--seconds", BUILD_SECONDS))
        says(worker, "ready")
        asker = ("tests.support.asker", str(THREADS), model, TARGET)
        clients = [stack.enter_context(process(env, *asker)) for _ in range(PROCESSES)]
        answers = all_answers(clients)
    assert len(answers) == PROCESSES * THREADS
    assert {answer["error"] for answer in answers} == {None}
    outcomes = Counter(answer["outcome"] for answer in answers)
    assert outcomes["built"] == 1 and outcomes["joined"] + outcomes["hit"] == PROCESSES * THREADS - 1, outcomes
    assert len({answer["engine"]["digest"] for answer in answers}) == 1
    one_build_was_made(database)


def one_build_was_made(database: str) -> None:
    index = SqlIndex(database)
    try:
        (build,) = index.builds()
        assert len(index.attempts(build.id)) == 1
        assert [engine.digest for engine in index.engines()] == [build.engine]
    finally:
        index.close()


def test_commands_at_once_get_one_build(warm: Farms, copied: Callable[[str], Path]) -> None:
    """Each command of an embedded farm has a worker of its own; one of them builds."""
    model = copied("gemm.pt2")
    started = [warm.start("build", model, "-t", "sm_86", "--json") for _ in range(COMMANDS)]
    ended = [warm.finish(command, timeout=200) for command in started]
    assert [ran.code for ran in ended] == [0] * COMMANDS, [ran.err for ran in ended]
    answers = [ran.json[0] for ran in ended]
    assert len({answer["engine"]["digest"] for answer in answers}) == 1
    builds = [one for one in warm.run("ls", "builds", "--json").json if one["target"] == "sm_86"]
    assert len(builds) == 1, builds
    assert Counter(answer["outcome"] for answer in answers)["built"] == 1, answers
