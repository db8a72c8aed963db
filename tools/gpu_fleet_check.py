"""A fleet on a machine with a real GPU: does its worker register as it should, and take what it should and no more?

    python tools/gpu_fleet_check.py        (needs farm's requirements, nvidia-ml-py and onnx; not TensorRT)

Two nodes on one SQLite database: ``farm worker --gpu 0`` with the tests' stand-in for plain TensorRT, whose engines are
bound to the GPU; and a builder without a GPU that serves TensorRT-RTX's queue. Where there are several GPUs, a worker
for each after that: all build side by side, one build at a time and on its own GPU alone, and one that is killed gives
up its GPU and no other. Prints JSON: what was seen, and every difference from what should be. Exit status 0: all as it
should be; 1: not; 2: there is no GPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from farm.hosts.gpu import gpu_of
from farm.hosts.probe import probe

ROOT = Path(__file__).resolve().parents[1]
STANDIN = ROOT / "tests" / "unit" / "builders" / "standin"
VERSION = "10.14.1.48"
PLAIN = f"tensorrt=={VERSION}"
RTX_QUEUE = "tensorrt_rtx==1.7.1.116/any/x86_64"
FARM = [sys.executable, "-m", "farm"]
BEHAVIOUR = {"inputs": [["x", "FLOAT", [2, 4]]], "outputs": [["y", "FLOAT", [2, 4]]]}
SLOW = {"sleep": 2.0}
BUILDS_OF_EACH = 3
"""So many for each of several GPUs: enough that a GPU which takes none is no accident."""


class Check:
    """The commands of one farm, and what was found wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[str, Any] = {}
        self.wrong: list[str] = []
        # What an installed TensorRT would look like: the module, and its package's metadata.
        metadata = folder / "site" / f"tensorrt-{VERSION}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {VERSION}\n")
        self.with_tensorrt = os.pathsep.join([str(STANDIN), str(folder / "site"), str(ROOT)])

    def environment(self, tensorrt: bool) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FARM_")}
        inherited = kept.get("PYTHONPATH", "")
        path = self.with_tensorrt if tensorrt else str(ROOT)
        return kept | {
            "FARM_HOME": str(self.folder / "home"),
            "PYTHONPATH": os.pathsep.join([path, inherited]),
            "NO_COLOR": "1",
        }

    def run(self, *words: str, tensorrt: bool = False) -> tuple[int, Any, str]:
        done = subprocess.run(
            [*FARM, *words], env=self.environment(tensorrt), capture_output=True, text=True, timeout=120
        )
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr.strip()

    @contextmanager
    def worker(self, command: list[str], name: str, tensorrt: bool) -> Iterator[subprocess.Popen[str]]:
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                command, env=self.environment(tensorrt), stdout=log, stderr=log, text=True, cwd=ROOT
            )
        try:
            yield process
        finally:
            if process.poll() != -signal.SIGKILL:
                process.send_signal(signal.SIGTERM)
                self.expect(f"{name} drains and ends with 0", process.wait(60), 0)

    def expect(self, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            self.wrong.append(f"{what}: {found!r}, not {wanted!r}")


def model(path: Path, **more: Any) -> Path:
    """A real ONNX graph whose doc string tells the stand-in how to behave."""
    import onnx
    from onnx import TensorProto, helper

    kind = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", kind[:1], kind[1:])
    text = f"STANDIN{json.dumps(BEHAVIOUR | more)}NIDNATS"
    onnx.save(helper.make_model(graph, doc_string=text, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def look_at_nodes(check: Check, names: Sequence[str]) -> dict[str, Any]:
    """These nodes, once all of them are there."""
    deadline = time.monotonic() + 60
    while True:
        _, nodes, _ = check.run("nodes", "--json")
        found = {node["node"]: node for node in nodes or [] if node["node"] in names}
        if set(names) <= found.keys() or time.monotonic() > deadline:
            check.expect("the nodes that are there", sorted(found), sorted(names))
            return found
        time.sleep(0.5)


def check_registration(check: Check, nodes: dict[str, Any]) -> str:
    """The GPU's node as NVML and nvidia-smi tell it; returns the catalogue's name of the GPU."""
    device = probe(os.environ).gpus[0]
    name = gpu_of(device).name
    row = nodes["gpu-node"]["workers"][0]
    told = row["detail"].get("gpu") or {}
    query = "name,memory.total,driver_version,compute_cap,uuid"
    smi = (
        subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "-i", "0"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        .stdout.strip()
        .split(", ")
    )
    check.seen["nvidia-smi"] = smi
    check.seen["gpu-node"] = {"capabilities": row["capabilities"], "detail": row["detail"]}
    check.expect("name", told.get("name"), smi[0])
    check.expect("memory in MiB", told.get("memory", 0) // 2**20, int(smi[1]))
    check.expect("driver", row["detail"].get("driver"), smi[2])
    check.expect("capability", told.get("capability"), int(smi[3].replace(".", "")))
    check.expect("uuid", told.get("uuid"), smi[4])
    check.expect("CUDA is told", bool(row["detail"].get("cuda")), True)
    arch = row["detail"]["arch"]
    bound = [queue for queue in row["capabilities"] if queue.startswith(f"{PLAIN}/")]
    check.expect("queues", bound, [f"{PLAIN}/{name}/{arch}", f"{PLAIN}/ampere_plus/{arch}"])
    check.expect("the other node has no GPU", nodes["cpu-node"]["gpus"], [])
    return name


def ended(check: Check, build: str) -> tuple[str, list[str]]:
    """How a build ended, and on which node."""
    deadline = time.monotonic() + 60
    while True:
        _, builds, _ = check.run("ls", "builds", "--json")
        (one,) = [one for one in builds if one["build"] == build]
        if one["state"] not in ("queued", "running") or time.monotonic() > deadline:
            return one["state"], [one["node"]]
        time.sleep(0.3)


def check_builds(check: Check, path: Path, gpu: str) -> None:
    """Each node makes its own, and what neither can make waits and says why."""
    other = "rtx4090" if gpu != "rtx4090" else "l4"
    _, nodes, _ = check.run("nodes", "--json")
    # TensorRT-RTX needs no GPU: where the GPU's node has it as well, both may build with it.
    able = {node["node"] for node in nodes if RTX_QUEUE in node["capabilities"]}
    wanted = [
        (f"{gpu}@{PLAIN}", {"gpu-node"}),
        ("sm_86@tensorrt_rtx==1.7.1.116", able),
        ("sm_120@tensorrt_rtx==1.7.1.116", able),
    ]
    for target, able_nodes in wanted:
        # Not waited for: who waits on a machine that has TensorRT-RTX builds, too.
        code, answers, err = check.run("build", str(path), "-t", target, "--no-wait", "--json")
        check.expect(f"{target} is queued", (code, err if code else ""), (0, ""))
        state, made = ended(check, answers[0]["build"])
        check.expect(f"{target} is built", state, "succeeded")
        check.seen[target] = {"state": state, "node": made}
        check.expect(f"{target} is made by one that can", set(made) <= able_nodes and bool(made), True)
    code, answers, err = check.run("build", str(path), "-t", f"{other}@{PLAIN}", "--no-wait", "--json")
    time.sleep(3)
    _, reasons, _ = check.run("nodes", "--for", answers[0]["build"], "--json")
    check.seen[f"{other}@{PLAIN}"] = reasons
    check.expect("a build for another GPU waits", [one["can"] for one in reasons], [False, False])
    _, builds, _ = check.run("ls", "builds", "--json")
    states = [one["state"] for one in builds if one["build"] == answers[0]["build"]]
    check.expect("its state", states, ["queued"])


def check_every_gpu(check: Check, path: Path, count: int, gpu: str) -> None:
    """A worker for each GPU of this machine, all at work at once."""
    names = [f"gpu-{number}" for number in range(count)]
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(check.worker([*FARM, "worker", "--gpu", name[4:], "--name", name], name, True))
            for name in names
        }
        nodes = look_at_nodes(check, names)
        uuids = {name: nodes[name]["workers"][0]["detail"]["gpu"]["uuid"] for name in nodes}
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60).stdout
        check.expect("each has a GPU of its own", len(set(uuids.values())), count)
        check.expect("which nvidia-smi lists", [one for one in uuids.values() if one not in listed], [])
        check.seen["several"] = {"uuids": uuids, "builds": build_on_all(check, path, count, gpu, workers, uuids)}
        check_killed(check, names, workers)


def build_on_all(
    check: Check, path: Path, count: int, gpu: str, workers: dict[str, subprocess.Popen[str]], uuids: dict[str, str]
) -> dict[str, int]:
    """How many builds each GPU made; watched from outside: the children of each worker, and the GPU they are shown."""
    wanted = count * BUILDS_OF_EACH
    grid = f"workspace_size={2**20}..{2**20 + wanted - 1}"
    words = ["sweep", str(path), "-t", f"{gpu}@{PLAIN}", "-g", grid, "--max-trials", str(wanted)]
    code, _, err = check.run(*words, "--no-wait", "--json")
    check.expect("the sweep is queued", (code, err if code else ""), (0, ""))
    shown, at_once, deadline = defaultdict[str, set[str]](set), Counter[str](), time.monotonic() + 90
    mine: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        for name, worker in workers.items():
            told = [one for child in psutil.Process(worker.pid).children(recursive=True) if (one := visible_to(child))]
            shown[name] |= set(told)
            at_once[name] = max(at_once[name], len(told))
        _, builds, _ = check.run("ls", "builds", "--json")
        mine = [one for one in builds if Path(one["model"]).name == path.name]
        if len(mine) == wanted and all(one["state"] not in ("queued", "running") for one in mine):
            break
    check.expect("all are built", Counter(one["state"] for one in mine), Counter(succeeded=wanted))
    check.expect("children see their worker's GPU", shown, {name: {uuids[name]} for name in workers})
    check.expect("one build at a time on each", at_once, Counter(dict.fromkeys(workers, 1)))
    made = Counter(one["node"] for one in mine)
    check.expect("every GPU built", sorted(made), sorted(workers))
    return dict(made)


def visible_to(child: psutil.Process) -> str:
    """The GPU that a build's child is shown; empty for one that has ended, or runs nothing of farm's."""
    try:
        return child.environ().get("CUDA_VISIBLE_DEVICES", "") if child.children() == [] else ""
    except psutil.Error:
        return ""


def check_killed(check: Check, names: list[str], workers: dict[str, subprocess.Popen[str]]) -> None:
    """The last GPU's worker is killed: its GPU is free for another at once, the first one's is not."""
    last = names[-1]
    workers[last].kill()
    workers[last].wait(60)
    code, _, err = check.run("worker", "--gpu", "0", "--name", "again-0", tensorrt=True)
    check.expect("the first GPU is still taken", code, 4)
    with check.worker([*FARM, "worker", "--gpu", last[4:], "--name", "again"], "again", True):
        look_at_nodes(check, ["again"])
    check.seen["after a kill"] = err.splitlines()[-2:]


def main() -> int:
    host = probe(os.environ)
    if not host.gpus:
        print(f"nothing was checked: {host.why_no_gpu}")
        return 2
    with tempfile.TemporaryDirectory() as name:
        check = Check(Path(name))
        path = model(check.folder / "m.onnx")
        on_gpu = [*FARM, "worker", "--gpu", "0", "--name", "gpu-node"]
        plain = [sys.executable, "-m", "tests.support.noop_worker", "--name", "cpu-node", "--serves", RTX_QUEUE]
        gpu = ""
        with check.worker(on_gpu, "gpu-node", True), check.worker(plain, "cpu-node", False):
            nodes = look_at_nodes(check, ["cpu-node", "gpu-node"])
            if not check.wrong:
                gpu = check_registration(check, nodes)
                code, _, err = check.run("worker", "--gpu", "0", "--name", "second", tensorrt=True)
                check.seen["a second worker for the GPU"] = err.splitlines()[-2:]
                check.expect("a second worker for the GPU is refused", code, 4)
                check_builds(check, path, gpu)
        if gpu and len(host.gpus) > 1:
            check_every_gpu(check, model(check.folder / "slow.onnx", **SLOW), len(host.gpus), gpu)
        logs = {log.name: log.read_text()[-1500:] for log in check.folder.glob("*.log")}
        print(
            json.dumps({"seen": check.seen, "wrong": check.wrong, **({"logs": logs} if check.wrong else {})}, indent=2)
        )
        return 1 if check.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
