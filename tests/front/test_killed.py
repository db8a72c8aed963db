"""Things that go wrong while a build runs. Each ends with a reason, nothing half-written, and a next ask that works."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Farms, descendants, eventually

pytestmark = [pytest.mark.torch, pytest.mark.chaos, pytest.mark.xdist_group("kills")]


def build_child(pid: int) -> psutil.Process | None:
    """The process below ``pid`` that runs TensorRT, once it has loaded the library."""
    for child in descendants(pid):
        try:
            if any("tensorrt" in mapped.path for mapped in child.memory_maps()):
                return child
        except psutil.Error:
            continue
    return None


def frozen_child(process: subprocess.Popen[str]) -> psutil.Process:
    """The build child, stopped as soon as it is seen, so that what follows never races with its end."""
    found = eventually(lambda: build_child(process.pid) or process.poll() is not None, what="a build child")
    assert found is not True, process.communicate()
    assert isinstance(found, psutil.Process)
    found.suspend()
    return found


def half_written(home: Path) -> list[Path]:
    """Temporary files of the store, and work folders: nothing of these may outlast a finished command."""
    store = home / "store"
    leftovers = [path for path in store.rglob("*") if "tmp" in path.relative_to(store).parts and path.is_file()]
    return leftovers + list((home / "cache").glob("build-*")) + list((home / "cache" / "forms").glob("form-*"))


def test_a_killed_build_child_is_tried_again(ready: Farms, copied: Callable[[str], Path]) -> None:
    process = ready.start("build", copied("deep.pt2"), "-t", "sm_89", "--json")
    frozen_child(process).kill()
    ran = ready.finish(process)
    assert ran.code == 0 and ran.json[0]["outcome"] == "built", ran.err
    shown = ready.run("show", ran.json[0]["build"], "--json").json
    assert shown["attempts"] == 2 or len(shown["attempts"]) == 2
    assert not half_written(ready.home)


def test_the_whole_command_killed(ready: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("deep.pt2")
    process = ready.start("build", model, "-t", "sm_89", "--json")
    child = frozen_child(process)
    process.kill()
    process.wait()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, what="the child's death")
    assert ready.run("ls", "engines", "--json").json == []
    again = ready.run("build", model, "-t", "sm_89", "--json")
    assert again.code == 0 and again.json[0]["outcome"] in ("built", "joined"), again.err
    assert not half_written(ready.home)


def test_interrupted_cleanly(ready: Farms, copied: Callable[[str], Path]) -> None:
    model = copied("deep.pt2")
    process = ready.start("build", model, "-t", "sm_86", "-t", "sm_89", "--json")
    child = frozen_child(process)
    process.send_signal(signal.SIGINT)
    ran = ready.finish(process, timeout=30)
    assert ran.code == 130 and "Traceback" not in ran.err
    assert not child.is_running()
    states = {build["state"] for build in ready.run("ls", "builds", "--json").json}
    assert states == {"cancelled"}
    assert not half_written(ready.home)
    assert ready.run("build", model, "-t", "sm_89", "--json").json[0]["outcome"] == "built"


@pytest.mark.slow
def test_interrupted_while_another_waits(ready: Farms, copied: Callable[[str], Path]) -> None:
    """A waiter that leaves cancels nothing that somebody else wants."""
    model = copied("deep.pt2")
    first = ready.start("build", model, "-t", "sm_89", "--json")
    frozen_child(first)
    second = ready.start("build", model, "-t", "sm_89", "--json")
    eventually(lambda: ready.run("ls", "builds", "--json").json[0]["waiters"] == 2, what="the second waiter")
    first.send_signal(signal.SIGINT)
    assert ready.finish(first, timeout=30).code == 130
    ran = ready.finish(second)
    assert ran.code == 0 and ran.json[0]["outcome"] == "joined", ran.err


@pytest.mark.slow
def test_a_hanging_native_call(ready: Farms, copied: Callable[[str], Path]) -> None:
    """A stopped process hangs as a deadlocked library does: only a kill from outside ends it."""
    model = copied("deep.pt2")
    assert ready.run("build", model, "-t", "sm_86").code == 0, "the ONNX form is there now, and is not timed below"
    process = ready.start("build", model, "-t", "sm_89", "--json", env={"FARM_BUILD_TIMEOUT": "8"})
    child = frozen_child(process)
    ran = ready.finish(process, timeout=60)
    assert ran.code == 1 and ran.json[0]["outcome"] == "failed"
    assert "8 s" in ran.json[0]["error"], ran.json[0]["error"]
    assert not child.is_running()
    again = ready.run("build", model, "-t", "sm_89", "--json")
    assert again.code == 0 and again.json[0]["outcome"] == "built", again.err


def test_cancelled_from_another_terminal(ready: Farms, copied: Callable[[str], Path]) -> None:
    process = ready.start("build", copied("deep.pt2"), "-t", "sm_89", "--json")
    child = frozen_child(process)
    build = ready.run("ls", "builds", "--json").json[0]["build"]
    assert ready.run("cancel", build, "--json").code == 0
    ran = ready.finish(process, timeout=30)
    assert ran.code == 1 and ran.json[0]["outcome"] == "cancelled"
    assert not child.is_running()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with hardly any room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(tiny_disk: Path, copied: Callable[[str], Path]) -> None:
    """The program's 19 MB fit once; its form and its engine do not. What to do is said, and room is all it takes."""
    farm = Farms(tiny_disk / "home")
    model = copied("deep.pt2")
    ran = farm.run("build", model, "-t", "sm_89", timeout=200)
    assert ran.code in (1, 4), ran.err
    assert "Traceback" not in ran.err and ("full" in ran.err or "space" in ran.err), ran.err
    subprocess.run(["mount", "-o", "remount,size=400m", tiny_disk], check=True)
    again = farm.run("build", model, "-t", "sm_89", "--json", timeout=200)
    assert again.code == 0 and again.json[0]["outcome"] in ("built", "joined"), again.err + again.out
    assert not half_written(farm.home)
