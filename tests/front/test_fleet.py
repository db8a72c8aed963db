"""A fleet through the front door: clients and workers with homes of their own, on real servers, and workers that go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from farm.builds import Build
from farm.db.index import SqlIndex
from farm.index import Worker
from tests.conftest import Farms, Ran, clean_environment, descendants, eventually
from tests.contract.servers import Server, needed, reachable_server

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("fleet")]

NOOP = [sys.executable, "-m", "tests.support.noop_worker"]
ROOT = Path(__file__).parents[2]
TENSORRT = "10.14.1.48"
TARGET = f"l4@tensorrt=={TENSORRT}"
BROKERS = {"redis": "redis://127.0.0.1:6379/9", "rabbitmq": "amqp://guest:guest@127.0.0.1:5672//"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(reachable_server())
    yield server
    server.drop_all()


class Fleet:
    """Machines that share a database, a broker and a store, each with a home of its own."""

    def __init__(self, folder: Path, database: str, broker: str) -> None:
        self.folder = folder
        self.env = {"FARM_DATABASE_URL": database, "FARM_STORE_URL": (folder / "store").as_uri()}
        self.env |= {"FARM_BROKER_URL": broker}
        self.env |= {"FARM_LEASE_SECONDS": "3", "FARM_DRAIN_SECONDS": "1.5"}
        self._index: SqlIndex | None = None
        self._machines: list[Farms] = []
        self._workers: list[subprocess.Popen[str]] = []

    @property
    def index(self) -> SqlIndex:
        if self._index is None:
            self._index = SqlIndex(self.env["FARM_DATABASE_URL"])
        return self._index

    def machine(self, name: str) -> Farms:
        farms = Farms(self.folder / name)
        self._machines.append(farms)
        return farms

    def run(self, *words: str | Path) -> Ran:
        """A command on the client's machine."""
        return self.machine("client").run(*words, env=self.env)

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        return self.machine("client").start(*words, env=self.env)

    def worker(self, name: str, *words: str, **env: str) -> subprocess.Popen[str]:
        """``farm worker``, once it is among the nodes."""
        process = self.machine(name).start("worker", "--name", name, *words, env={**self.env, **env})
        eventually(lambda: name in self.nodes() or process.poll() is not None, what=f"the worker {name}")
        assert process.poll() is None, process.communicate()
        return process

    def noop(self, name: str, *words: str) -> subprocess.Popen[str]:
        """A worker whose builds do nothing, for as long as ``--seconds`` says."""
        env = clean_environment(self.folder / name, **self.env)
        process = subprocess.Popen(
            [*NOOP, "--name", name, *words], env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        self._workers.append(process)
        assert process.stdout and process.stdout.readline().strip() == "ready"
        return process

    def nodes(self) -> dict[str, list[Worker]]:
        """Workers by node; read here, since a command takes longer than some of what is looked for lasts."""
        found: dict[str, list[Worker]] = {}
        for worker in self.index.workers():
            found.setdefault(worker.host, []).append(worker)
        return found

    def builds(self) -> list[Build]:
        return self.index.builds(limit=10_000)

    def states(self) -> list[str]:
        return [str(build.state) for build in self.builds()]

    def close(self) -> None:
        for process in self._workers:
            process.kill()
            process.communicate()
        for machine in self._machines:
            machine.close()
        if self._index is not None:
            self._index.close()


@pytest.fixture
def fleet(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """On the broker that the test names."""
    broker = getattr(request, "param", "redis")
    if broker == "redis":
        redis = pytest.importorskip("redis")
        client = redis.Redis.from_url(BROKERS[broker])
        needed("Redis", client.ping, redis.exceptions.ConnectionError)
        client.flushdb()
    fleet = Fleet(tmp_path, server.database(), BROKERS[broker])
    assert fleet.run("db", "upgrade").code == 0
    yield fleet
    fleet.close()


@pytest.mark.parametrize("fleet", BROKERS, indirect=True)
def test_a_client_without_tensorrt_gets_its_engines_from_workers(fleet: Fleet, copied: Callable[[str], Path]) -> None:
    model = copied("gemm.pt2")
    fleet.worker("builder", "--concurrency", "2")
    built = fleet.run("build", model, "-t", "sm_86", "-t", "sm_89", "--json")
    assert built.code == 0, built.err
    assert [answer["outcome"] for answer in built.json] == ["built", "built"]
    assert {build.node for build in fleet.builds()} == {"builder"}
    assert [one["outcome"] for one in fleet.run("build", model, "-t", "sm_89", "--json").json] == ["hit"]
    pulled = fleet.run("pull", model, "-t", "sm_89", "-o", fleet.folder / "out", "--json")
    assert pulled.code == 0, pulled.err


def test_a_build_that_nobody_can_take_waits_and_says_why(fleet: Fleet, copied: Callable[[str], Path]) -> None:
    model = copied("gemm.pt2")
    other = "tensorrt_rtx==1.6.0.1"
    fleet.noop("cpu-a")
    asked = fleet.run("build", model, "-t", f"sm_86@{other}", "--no-wait", "--json")
    assert asked.code == 0, asked.err
    build = asked.json[0]["build"]
    time.sleep(1.0)
    shown = fleet.run("show", build)
    assert "queued" in shown.out and f"cpu-a  does not build {other}" in shown.out
    (reason,) = fleet.run("nodes", "--for", build[:6], "--json").json
    assert reason["can"] is False and other in reason["reason"]
    fleet.noop("cpu-b", "--serves", f"{other}/any/x86_64")
    eventually(lambda: fleet.states() == ["succeeded"], what="the build, once a node can")


def test_a_killed_workers_build_goes_to_another(fleet: Fleet, copied: Callable[[str], Path]) -> None:
    victim = fleet.noop("victim", "--seconds", "600")
    client = fleet.start("build", copied("gemm.pt2"), "-t", "sm_86", "--json")
    eventually(lambda: [build.node for build in fleet.builds()] == ["victim"], what="the victim's lease")
    fleet.noop("heir")
    victim.kill()
    ran = Farms(fleet.folder).finish(client, timeout=60)
    assert ran.code == 0 and ran.json[0]["outcome"] == "built", ran.err
    (build,) = fleet.builds()
    assert (build.node, build.attempts) == ("heir", 2)
    eventually(lambda: "victim" not in fleet.nodes(), what="the victim's leaving the list")


@pytest.mark.slow
def test_a_worker_that_is_frozen_loses_its_build_and_spoils_nothing(
    fleet: Fleet, copied: Callable[[str], Path]
) -> None:
    frozen = fleet.noop("frozen", "--seconds", "8")
    client = fleet.start("build", copied("gemm.pt2"), "-t", "sm_86", "--json")
    eventually(lambda: fleet.states() == ["running"], what="the lease")
    frozen.send_signal(signal.SIGSTOP)
    fleet.noop("heir")
    ran = Farms(fleet.folder).finish(client, timeout=60)
    assert ran.code == 0 and ran.json[0]["outcome"] == "built", ran.err
    frozen.send_signal(signal.SIGCONT)
    time.sleep(10.0)
    (build,) = fleet.builds()
    assert (str(build.state), build.node) == ("succeeded", "heir")
    assert len(fleet.run("ls", "engines", "--json").json) == 1
    assert frozen.poll() is None, "it goes on working"


# -- draining: a worker on stand-ins of a GPU and of TensorRT, whose builds last as long as a test wants --------------


@pytest.fixture
def on_gpu(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with a GPU and TensorRT."""
    metadata = tmp_path / "site" / f"tensorrt-{TENSORRT}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {TENSORRT}\n")
    support = [ROOT / "tests" / "support" / "gpu_site", ROOT / "tests" / "unit" / "builders" / "standin"]
    path = [*support, metadata.parent, os.environ.get("PYTHONPATH", "")]
    number = str(uuid.uuid4().int % 10**6)
    return {"PYTHONPATH": os.pathsep.join(map(str, path)), "GPU_SITE_NUMBER": number}


def lasting(path: Path, seconds: float) -> Path:
    """A model that takes the stand-in so long."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    kind = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", kind[:1], kind[1:])
    told = {"inputs": [["x", "FLOAT", [2, 4]]], "outputs": [["y", "FLOAT", [2, 4]]], "sleep": seconds}
    model = helper.make_model(
        graph, doc_string=f"STANDIN{json.dumps(told)}NIDNATS", opset_imports=[helper.make_opsetid("", 18)]
    )
    onnx.save(model, path)
    return path


def test_sigterm_lets_a_worker_finish_what_it_has(fleet: Fleet, on_gpu: dict[str, str]) -> None:
    fleet.env["FARM_DRAIN_SECONDS"] = "60"
    worker = fleet.worker("builder", "--gpu", "0", **on_gpu)
    fleet.run("build", lasting(fleet.folder / "m.onnx", 6.0), "-t", TARGET, "--no-wait")
    eventually(lambda: fleet.states() == ["running"], what="the lease")
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: is_draining(fleet), what="the node's draining")
    assert worker.wait(60) == 0
    (build,) = fleet.builds()
    assert (str(build.state), build.attempts) == ("succeeded", 1)
    assert fleet.nodes() == {}


@pytest.mark.parametrize("again", [False, True])
def test_what_is_unfinished_then_is_handed_back(fleet: Fleet, on_gpu: dict[str, str], again: bool) -> None:
    """After the time that is allowed, or at once when it is asked for again."""
    fleet.env["FARM_DRAIN_SECONDS"] = "60" if again else "1.5"
    worker = fleet.worker("builder", "--gpu", "0", **on_gpu)
    fleet.run("build", lasting(fleet.folder / "m.onnx", 600.0), "-t", TARGET, "--no-wait")
    child = eventually(lambda: descendants(worker.pid), what="a build child")[0]
    worker.send_signal(signal.SIGTERM)
    if again:
        eventually(lambda: is_draining(fleet), what="the node's draining")
        worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    (build,) = fleet.builds()
    assert (str(build.state), build.attempts, build.worker) == ("queued", 0, None)


def is_draining(fleet: Fleet) -> bool:
    return [worker.detail.get("state") for worker in fleet.index.workers()] == ["draining"]


def test_a_large_sweep_does_not_starve_a_single_build(fleet: Fleet, copied: Callable[[str], Path]) -> None:
    model = copied("gemm.pt2")
    fleet.noop("builder", "--seconds", "1.0", "--hands", "2")
    sweep = fleet.start("sweep", model, "-t", "sm_86", "-g", "workspace_size=1048576..1048776", "--json")
    eventually(lambda: "succeeded" in fleet.states(), what="the sweep's first build")
    began = time.monotonic()
    single = fleet.run("build", model, "-t", "sm_89", "--json")
    took = time.monotonic() - began
    assert single.json[0]["outcome"] == "built"
    left = fleet.states().count("queued")
    assert left > 50, f"the sweep was over first ({took:.1f} s)"
    sweep.send_signal(signal.SIGINT)
    assert Farms(fleet.folder).finish(sweep, timeout=60).code == 130


def test_a_worker_that_cannot_reach_the_store_takes_nobodys_tries(fleet: Fleet, copied: Callable[[str], Path]) -> None:
    """One machine whose secret, address or network is wrong must not fail what the others could make."""
    model, at = copied("gemm.pt2"), fleet.env["FARM_STORE_URL"]
    fleet.env |= {"FARM_S3_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_EC2_METADATA_DISABLED": "true"}
    fleet.env["FARM_STORE_URL"] = "s3://bucket"
    fleet.noop("bad", "--hands", "2")
    fleet.env["FARM_STORE_URL"] = at
    asked = fleet.run("build", model, "-t", "sm_89", "--no-wait", "--json")
    assert asked.code == 0, asked.err
    eventually(lambda: [seat.trouble for seat in fleet.index.seats()] != [""], what="the worker's standing by")
    (reason,) = fleet.run("nodes", "--for", asked.json[0]["build"], "--json").json
    assert not reason["can"] and "takes nothing until this works again" in reason["reason"]
    fleet.noop("good", "--hands", "1", "--seconds", "0.4")
    grid = "workspace_size=1048576..1048591"
    done = fleet.run("sweep", model, "-t", "sm_86", "-g", grid, "--json")
    assert done.code == 0, done.err
    eventually(lambda: set(fleet.states()) == {"succeeded"}, what="every build")
    assert {(build.node, build.attempts) for build in fleet.builds()} == {("good", 1)}
    (bad,) = [node for node in fleet.run("nodes", "--json").json if node["node"] == "bad"]
    assert bad["state"] == "stands by" and "s3://bucket" in bad["trouble"]


def test_a_worker_that_is_to_end_by_itself_does_not_stand_by_for_ever(
    fleet: Fleet, copied: Callable[[str], Path]
) -> None:
    """In a pipeline, say: nobody would correct its secret meanwhile."""
    assert fleet.run("build", copied("gemm.pt2"), "-t", "sm_86", "--no-wait").code == 0
    fleet.env |= {"FARM_S3_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_EC2_METADATA_DISABLED": "true"}
    fleet.env |= {"FARM_STORE_URL": "s3://bucket", "FARM_PATIENCE_SECONDS": "1"}
    ended = fleet.run("worker", "--until-idle")
    assert ended.code == 4 and "nothing could be built here: s3://bucket" in ended.err, ended.err
    assert [(str(build.state), build.attempts) for build in fleet.builds()] == [("queued", 0)]


def test_a_worker_with_another_farms_store_does_not_start(fleet: Fleet) -> None:
    for _ in range(2):
        assert fleet.run("worker", "--until-idle").code == 0
    fleet.env["FARM_STORE_URL"] += "-mistyped"
    refused = fleet.run("worker", "--until-idle")
    assert refused.code == 2 and "not labelled as the farm's" in refused.err and "reconcile --yes" in refused.err


def test_a_broker_that_is_away_delays_builds_and_loses_none(fleet: Fleet, copied: Callable[[str], Path]) -> None:
    fleet.env["FARM_BROKER_URL"] = "redis://127.0.0.1:1/0"
    fleet.env["FARM_POLL_SECONDS"] = "0.5"
    fleet.noop("builder")
    ran = fleet.run("build", copied("gemm.pt2"), "-t", "sm_86", "--json")
    assert ran.code == 0 and ran.json[0]["outcome"] == "built", ran.err
    assert "broker cannot be reached" in ran.err and "Traceback" not in ran.err


def test_names_of_machines_mean_nothing_to_each_other(fleet: Fleet, copied: Callable[[str], Path]) -> None:
    """Two nodes of one name, on this one machine: each is a worker of its own."""
    for _ in range(2):
        fleet.noop("twin", "--seconds", "0.05")
    assert len(fleet.nodes()["twin"]) == 2
    names = [f"{uuid.uuid4().hex}" for _ in range(3)]
    asked = [fleet.run("build", copied("gemm.pt2"), "-t", "sm_86", "--no-wait").code for _ in names]
    assert asked == [0, 0, 0]
    eventually(lambda: fleet.states() == ["succeeded"], what="one build for all")
