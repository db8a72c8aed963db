"""``make fleet``: really started, asked for a build, interrupted; and its parts, against the servers themselves."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from deployment import DEPLOY

from tests.conftest import FARM, Ran, clean_environment, descendants, eventually
from tests.contract.servers import reachable_server

# One after another: a fleet takes the first ports that are free.
pytestmark = pytest.mark.xdist_group("fleet")

REDIS = "redis://127.0.0.1:6379/13"
UP_S = 90
STOP_S = 40


# -- the parts -----------------------------------------------------------------------------------------------


@pytest.fixture
def database_name() -> Iterator[str]:
    import psycopg

    server, name = reachable_server(), f"farm_test_fleet_{uuid.uuid4().hex[:12]}"
    yield name
    with psycopg.connect(f"{server}/postgres", autocommit=True) as session:
        session.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def redis_database() -> Iterator[Any]:
    """A numbered database of the Redis that runs here, empty before and after."""
    redis = pytest.importorskip("redis")
    client = redis.Redis.from_url(REDIS)
    try:
        client.flushdb()
    except redis.ConnectionError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Redis to test with: {error}")
        pytest.skip(f"no Redis to test with: {error}")
    yield client
    client.flushdb()


def test_a_database_of_somebody_else_is_left_alone(database_name: str, tmp_path: Path) -> None:
    import psycopg
    from local_services import Database, Trouble

    server = reachable_server()
    with psycopg.connect(f"{server}/postgres", autocommit=True) as session:
        session.execute(f'CREATE DATABASE "{database_name}"')
    ours = Database(server, database_name, tmp_path)
    for touch in (lambda: ours.ensure(fresh=True), lambda: ours.ensure(fresh=False), ours.drop):
        with pytest.raises(Trouble, match="is not this fleet's"):
            touch()
    psycopg.connect(ours.url).close()


def test_a_database_of_ours_is_kept_made_anew_and_removed(database_name: str, tmp_path: Path) -> None:
    import psycopg
    from local_services import Database, Trouble

    ours = Database(reachable_server(), database_name, tmp_path / "it's")
    ours.ensure(fresh=True)
    with psycopg.connect(ours.url) as session:
        session.execute("CREATE TABLE kept (n int)")
    ours.ensure(fresh=False)
    with psycopg.connect(ours.url) as session:
        session.execute("SELECT * FROM kept")
    with pytest.raises(Trouble, match="is not this fleet's"):
        Database(ours.server, database_name, tmp_path / "other").ensure(fresh=True)
    ours.ensure(fresh=True)
    with psycopg.connect(ours.url) as session, pytest.raises(psycopg.errors.UndefinedTable):
        session.execute("SELECT * FROM kept")
    ours.drop()
    ours.drop()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(ours.url)


def test_a_redis_that_others_use_is_left_alone(redis_database: Any) -> None:
    from local_services import Trouble, empty_broker, prepare_broker

    redis_database.set("farm.some-queue", "x")
    prepare_broker(REDIS)
    redis_database.set("theirs", "y")
    with pytest.raises(Trouble, match="'theirs'"):
        prepare_broker(REDIS)
    empty_broker(REDIS)
    assert redis_database.keys() == [b"theirs"]


def test_what_does_not_run_is_said_with_how_to_start_it() -> None:
    from local_services import Trouble, find_broker, find_postgresql

    with pytest.raises(Trouble, match="systemctl start postgresql") as no_database:
        find_postgresql("postgresql://somebody:secret@127.0.0.1:9")
    with pytest.raises(Trouble, match="systemctl start redis"):
        find_broker("redis://:secret@127.0.0.1:9/0")
    assert "secret" not in str(no_database.value) and "--postgres" in str(no_database.value)


def test_ports_are_kept_while_they_are_free(tmp_path: Path) -> None:
    import socket

    from local_services import PORTS, free_ports

    ports = free_ports({}, tmp_path)
    assert len(set(ports.values())) == len(ports) == 5
    assert free_ports(ports, tmp_path) == ports
    with socket.create_server(("127.0.0.1", ports["filer"])):
        moved = free_ports(ports, tmp_path)
    assert moved["filer"] != ports["filer"] and moved["s3"] == ports["s3"]
    assert len(set(moved.values())) == 5
    last = {"s3": PORTS[-5]}
    with socket.create_server(("127.0.0.1", last["s3"])):
        assert free_ports(last, tmp_path)["s3"] in PORTS[:50]


def test_two_fleets_that_start_at_once_do_not_look_for_ports_at_one_place(tmp_path: Path) -> None:
    from local_services import free_ports

    begun = [frozenset(free_ports({}, tmp_path / f"fleet-{number}").values()) for number in range(20)]
    assert len(frozenset.union(*begun)) > 5 * 15


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    from local_processes import Process

    processes = []

    def make(*command: str, **more: Any) -> Process:
        environment = {"PATH": os.defpath}
        process = Process("it", list(command), environment, tmp_path / "it", tmp_path / "it.log", **more)
        processes.append(process)
        return process

    yield make
    for process in processes:
        process.finish(lambda: True)


def test_a_process_that_dies_is_started_again(made: Callable[..., Any]) -> None:
    process, said = made("sh", "-c", "echo begun; exec sleep 60"), []
    process.start()
    eventually(lambda: process.new_lines() == ["begun"])
    process._started -= 60
    first = process.running.pid
    process.running.kill()
    eventually(lambda: process.watch(said.append) or (process.alive and process.running.pid != first), timeout=10)
    assert said == ["it ended (SIGKILL); it is started again"]
    eventually(lambda: process.new_lines() == ["begun"], what="the log going on")


def test_a_process_that_never_works_is_given_up(made: Callable[..., Any]) -> None:
    from local_processes import HASTY_ENDS, GaveUp

    process, said = made("sh", "-c", "echo no such luck; exit 3"), []
    process.start()
    with pytest.raises(GaveUp, match="no such luck"):
        eventually(lambda: process.watch(said.append), timeout=20)
    assert said == ["it ended (exit 3); it is started again"] * (HASTY_ENDS - 1)


def test_the_end_is_asked_of_the_program_and_enforced_on_its_group(made: Callable[..., Any], tmp_path: Path) -> None:
    """SIGTERM goes to the program alone; what does not end in time is killed, and its children with it."""
    script = "trap 'echo told' TERM; sleep 61 & echo $!; while :; do sleep 0.1; done"
    process = made("sh", "-c", script, stop_s=1.0)
    process.start()
    (child,) = eventually(process.new_lines)
    began = time.monotonic()
    process.terminate()
    process.finish(lambda: False)
    assert 0.9 < time.monotonic() - began < 5
    assert process.new_lines()[0] == "told"
    eventually(lambda: not psutil.pid_exists(int(child)) or psutil.Process(int(child)).status() == "zombie", timeout=5)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    """The S3 server as a fleet has it, and the process that it is."""
    from local_processes import Process
    from local_services import S3Server, Trouble, free_ports

    server = S3Server(tmp_path / "data", free_ports({}, tmp_path), "the-key", "the-secret")
    server.folder.mkdir()
    try:
        command = server.command()
    except Trouble as error:
        pytest.skip(str(error))
    process = Process("s3", command, server.environment, tmp_path, tmp_path / "s3.log")
    process.start()
    server.wait(lambda: None)
    yield server, process
    process.finish(lambda: True)


@pytest.fixture
def weed(served: Any) -> Any:
    return served[0]


def test_the_s3_server_wants_a_key_and_listens_here_alone(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3")
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import ClientError
    from make_bucket import ensure_bucket

    weed, process = served
    for name, value in weed.environment.items():
        monkeypatch.setenv(name, value)
    assert [ensure_bucket("farm", weed.endpoint) for _ in range(2)] == [True, False]
    anonymous = boto3.client("s3", endpoint_url=weed.endpoint, config=Config(signature_version=UNSIGNED))
    stranger = boto3.client("s3", endpoint_url=weed.endpoint, aws_access_key_id="x", aws_secret_access_key="y")
    for client in (anonymous, stranger):
        with pytest.raises(ClientError, match=r"AccessDenied|InvalidAccessKeyId"):
            client.put_object(Bucket="farm", Key="k", Body=b"")
    heard = listening(process.running.pid)
    assert {ip for ip, _ in heard} == {"127.0.0.1"}, heard


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses at which a process can be reached."""
    found = psutil.Process(pid).net_connections("tcp")
    return {(item.laddr.ip, item.laddr.port) for item in found if item.status == psutil.CONN_LISTEN}


def test_compose_starts_an_s3_server_whose_inner_services_are_heard_here_alone(weed: Any, tmp_path: Path) -> None:
    """Compose's own flags, with a folder and ports of a test's; its health check's own addresses."""
    from deployment import compose
    from local_processes import Process
    from local_services import S3Server, free_ports

    variables = dict.fromkeys(("POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"), "some-key")
    service = compose(variables)["services"]["s3"]
    theirs = S3Server(tmp_path / "theirs", free_ports({}, tmp_path / "theirs"), "some-key", "some-key")
    theirs.folder.mkdir()
    command = [part.replace("/data", str(theirs.folder)) for part in service["command"] if "s3.port=" not in part]
    ports = [f"-{part}.port={port}" for part, port in theirs.ports.items() if part != "admin"]
    command = [weed.command()[0], *command, *ports]
    process = Process("s3", command, service["environment"], tmp_path, tmp_path / "theirs.log", stop_s=0)
    process.start()
    try:
        theirs.wait(lambda: None)
        heard = listening(process.running.pid)
    finally:
        process.finish(lambda: True)
    open_ports = {port for ip, port in heard if ip not in ("127.0.0.1", "::1")}
    assert theirs.ports["s3"] in open_ports
    assert not open_ports & {theirs.ports[part] for part in ("master", "volume", "filer")}
    check = service["healthcheck"]["test"][1]
    assert "127.0.0.1:8333/healthz" in check and "127.0.0.1:9333/dir/status" in check


def test_health_is_told_from_what_the_database_has_heard() -> None:
    from healthcheck import silence

    nodes = [{"node": "a", "seen": 1000.0}, {"node": "b", "seen": 400.0}]
    assert silence(nodes, "a", 1010.0) == ""
    assert "heard from 610 s ago" in silence(nodes, "b", 1010.0)
    assert "no worker of c" in silence(nodes, "c", 1010.0)


def test_health_of_beat_is_told_from_its_schedule(tmp_path: Path) -> None:
    from healthcheck import beat_trouble

    schedule = tmp_path / "schedule"
    assert "not there" in beat_trouble(schedule, time.time())
    (tmp_path / "schedule.db").touch()
    assert beat_trouble(schedule, time.time()) == ""
    assert "ago" in beat_trouble(schedule, time.time() + 3600)


def test_a_worker_that_cannot_be_asked_about_is_not_well(farm: Any) -> None:
    """The check as the image runs it, with farm's own command line on the path."""
    bin_folder = farm.cwd / "bin"
    bin_folder.mkdir()
    (bin_folder / "farm").write_text(f'#!/bin/sh\nexec {shlex.join(FARM)} "$@"\n')
    (bin_folder / "farm").chmod(0o755)
    path = f"{bin_folder}:{os.environ['PATH']}"
    environment = clean_environment(farm.home, PATH=path)
    check = [sys.executable, DEPLOY / "healthcheck.py", "worker"]
    done = subprocess.run(check, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "no worker of" in done.stderr
    elsewhere = environment | {"FARM_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x"}
    done = subprocess.run(check, env=elsewhere, capture_output=True, text=True)
    assert done.returncode == 1 and "no worker of" not in done.stderr


def test_another_database_is_not_taken_silently(tmp_path: Path) -> None:
    from local_fleet import DATABASE, database_name, parse
    from local_services import Trouble

    assert [database_name("", ""), database_name("", "b"), database_name("c", "")] == [DATABASE, "b", "c"]
    with pytest.raises(Trouble, match="fleet-down"):
        database_name("c", "b")
    assert isinstance(parse(["up"]), argparse.Namespace)


# -- the whole -----------------------------------------------------------------------------------------------


class RunningFleet:
    """``local_fleet.py`` with a state, a database and a broker of a test's own."""

    def __init__(self, state: Path, database: str) -> None:
        self.state, self.database = state, database
        self.process: subprocess.Popen[bytes] | None = None
        self.out = state.parent / "fleet.out"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(DEPLOY / "local_fleet.py"), "--state", str(self.state), *arguments]

    def up(self) -> None:
        """Start it and wait until it says that it is up."""
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                self.command("up", "--database", self.database, "--broker", REDIS),
                stdout=out,
                stderr=subprocess.STDOUT,
                env=clean_environment(self.state / "nobody"),
            )
        eventually(lambda: "fleet: up" in self.said() or self.process.poll() is not None, UP_S, "the fleet")  # type: ignore[union-attr]
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.out.read_text("utf-8", "replace")

    def pid_of(self, name: str, other_than: int = 0) -> int:
        """The worker of that name, once it runs."""
        return int(eventually(lambda: next(iter(self._pids(name) - {other_than}), 0), 20, f"a process of {name}"))

    def _pids(self, name: str) -> set[int]:
        assert self.process
        return {child.pid for child in psutil.Process(self.process.pid).children() if name in child.cmdline()}

    def end(self, number: signal.Signals) -> int:
        """Its exit status; asserts that nothing of it is left."""
        assert self.process
        all_of_it = descendants(self.process.pid)
        assert {"weed"} < {process.name() for process in all_of_it}
        self.process.send_signal(number)
        code = self.process.wait(STOP_S)
        _, left = psutil.wait_procs(all_of_it, STOP_S if number == signal.SIGKILL else 0.5)
        assert not left, self.said()
        return code

    def environment(self) -> dict[str, str]:
        """A shell's that has evaluated what ``env`` prints."""
        printed = subprocess.run(self.command("env"), capture_output=True, text=True, check=True).stdout
        exports = dict(shlex.split(line)[1].split("=", 1) for line in printed.splitlines())
        return clean_environment(self.state / "nobody") | exports

    def farm(self, *arguments: str) -> Ran:
        """A command of a user who has evaluated ``make -s fleet-env``."""
        command, cwd = [*FARM, *arguments], self.state.parent
        done = subprocess.run(command, env=self.environment(), cwd=cwd, capture_output=True, text=True, timeout=120)
        return Ran(done.returncode, done.stdout, done.stderr)

    def health(self, worker: str) -> str:
        """What the image's health check says of one worker; empty when it is well."""
        asked = "import sys; sys.path.insert(0, sys.argv[1]); import healthcheck, time\n"
        asked += "healthcheck.FARM = sys.argv[3:]; print(healthcheck.worker_trouble(sys.argv[2], time.time()))"
        command = [sys.executable, "-c", asked, str(DEPLOY), worker, *FARM]
        done = subprocess.run(command, env=self.environment(), cwd=self.state.parent, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()

    def down(self) -> None:
        subprocess.run(self.command("down"), check=True, capture_output=True, timeout=90)


@pytest.fixture
def fleet(tmp_path: Path, database_name: str, redis_database: Any) -> Iterator[RunningFleet]:
    pytest.importorskip("boto3")
    running = RunningFleet(tmp_path / "fleet", database_name)
    yield running
    if running.process is not None and running.process.poll() is None:
        running.process.terminate()
        running.process.wait(STOP_S)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """The path of an ONNX model of two operators."""
    onnx = pytest.importorskip("onnx")
    numpy = pytest.importorskip("numpy")
    made, real = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(numpy.arange(128, dtype=numpy.float32).reshape(16, 8) / 128, "w")
    nodes = [made.make_node("MatMul", ["x", "w"], ["h"]), made.make_node("Relu", ["h"], ["y"])]
    ends = [[made.make_tensor_value_info(name, real, shape)] for name, shape in (("x", [4, 16]), ("y", [4, 8]))]
    graph = made.make_graph(nodes, "tiny", *ends, [weights])
    model = made.make_model(graph, opset_imports=[made.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "tiny.onnx"))
    return str(tmp_path / "tiny.onnx")


@pytest.mark.torch
def test_a_fleet_builds_and_ends(fleet: RunningFleet, tiny: str) -> None:
    fleet.up()
    outcomes = []
    for _ in range(2):
        ran = fleet.farm("build", tiny, "-t", "sm_86", "--json")
        assert ran.code == 0, f"{ran.err}\n{fleet.said()}"
        outcomes.append(ran.json[0]["outcome"])
    assert outcomes == ["built", "hit"]
    assert {node["node"] for node in fleet.farm("nodes", "--json").json} == {"cpu-a", "cpu-b"}
    assert fleet.farm("doctor", "--json").code == 0
    assert fleet.health("cpu-a") == "" and "no worker of cpu-c" in fleet.health("cpu-c")
    assert not (fleet.state / "nobody").exists(), "the user's own farm is left alone"
    assert fleet.end(signal.SIGINT) == 0
    fleet.down()
    assert not fleet.state.exists()


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.chaos
def test_a_fleet_outlives_a_worker_and_leaves_nothing_when_it_is_killed(
    fleet: RunningFleet, tiny: str, redis_database: Any
) -> None:
    fleet.up()
    first = fleet.pid_of("cpu-b")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: "cpu-b ended (SIGKILL); it is started again" in fleet.said(), 20)
    assert fleet.pid_of("cpu-b", other_than=first)
    assert fleet.farm("build", tiny, "-t", "sm_86", "--json").json[0]["outcome"] == "built"
    fleet.end(signal.SIGKILL)
    fleet.up()
    assert fleet.farm("build", tiny, "-t", "sm_86", "--json").json[0]["outcome"] == "hit", "a fleet goes on"
    second = subprocess.run(fleet.command("up"), capture_output=True, text=True, timeout=30)
    assert second.returncode == 1 and "runs from" in second.stderr
    fleet.down()
    assert fleet.process is not None and fleet.process.wait(STOP_S) == 0, "down stops what runs"
    assert not fleet.state.exists() and not redis_database.keys()
