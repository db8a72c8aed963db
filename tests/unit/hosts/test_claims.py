"""One worker per GPU: real processes, real locks, real deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farm.errors import Unavailable
from farm.hosts.claims import Claim, claim_gpu

UUID = "GPU-02345678-1111-2222-3333-444444444444"
HOLD = """
import os, sys
from pathlib import Path
from farm.errors import Unavailable
from farm.hosts.claims import claim_gpu
uid, uuid, folder, node, *places = sys.argv[1:]
if int(uid):
    os.setgroups([])
    os.setuid(int(uid))
try:
    claim = claim_gpu(uuid, Path(folder), node, [Path(place) for place in places])
except Unavailable as error:
    print("refused", error.message, flush=True)
    sys.exit(4)
print("held", flush=True)
sys.stdin.read()
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder like ``/run/lock``: every user can reach it, which is not so of pytest's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def begin(*places: Path, home: str = "home", node: str = "node1", uid: int = 0) -> subprocess.Popen[str]:
        arguments = [str(uid), UUID, str(tmp_path / home), node, *map(str, places)]
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_second_is_refused_and_told_by_whom(start: Start, shared: Path) -> None:
    first = start(shared, home="one", node="box7:gpu0")
    assert said(first) == "held"
    second = start(shared, home="two")
    assert said(second) == f"refused GPU {UUID} is taken by process {first.pid} of node box7:gpu0"
    assert second.wait() == 4


def test_the_kernel_lets_go_when_the_holder_is_killed(start: Start, shared: Path) -> None:
    first = start(shared)
    assert said(first) == "held"
    first.send_signal(signal.SIGSTOP)
    assert said(start(shared)).startswith("refused"), "one that is stopped still holds its GPU"
    first.kill()
    first.wait()
    assert said(start(shared, home="other")) == "held"


def test_of_many_that_start_at_once_one_wins(start: Start, shared: Path) -> None:
    found = [said(process) for process in [start(shared, home=f"home{number}") for number in range(6)]]
    assert [word.split()[0] for word in found].count("held") == 1, found


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user needs root")
def test_users_meet(start: Start, shared: Path) -> None:
    first = start(shared, home="one", uid=12345)
    assert said(first) == "held"
    assert said(start(shared, home="two", uid=23456)).endswith(f"is taken by process {first.pid} of node node1")
    assert said(start(shared, home="three")).startswith("refused")
    first.kill()
    first.wait()
    assert said(start(shared, home="two", uid=23456)) == "held", "the file of another user serves"


def test_two_that_share_any_place_meet(start: Start, shared: Path, tmp_path: Path) -> None:
    """One has a private /tmp, say."""
    assert said(start(tmp_path / "private", shared, home="one")) == "held"
    assert said(start(shared, home="two")).startswith("refused")


def test_where_no_shared_place_can_be_had_the_farms_own_serves(start: Start, tmp_path: Path) -> None:
    no_folder = tmp_path / "file"
    no_folder.write_text("")
    assert said(start(no_folder)) == "held"
    assert said(start(no_folder)).startswith("refused")
    assert said(start(no_folder, home="elsewhere")) == "held"


def test_nowhere_to_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="no lock can be had in") as caught:
        claim_gpu(UUID, tmp_path / "file" / "below", places=[tmp_path / "file"])
    assert caught.value.hint


def test_within_one_process(tmp_path: Path, shared: Path) -> None:
    with claim_gpu(UUID, tmp_path / "home", "me", [shared]):
        with pytest.raises(Unavailable, match=f"process {os.getpid()} of node me"):
            claim_gpu(UUID, tmp_path / "home", "me", [shared])
        claim_gpu("MIG-another", tmp_path / "home", "me", [shared]).release()
    again = claim_gpu(UUID, tmp_path / "home", "me", [shared])
    again.release()
    again.release()
    assert isinstance(again, Claim) and again.uuid == UUID


def test_a_refusal_leaves_nothing_held(tmp_path: Path, shared: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with claim_gpu(UUID, tmp_path / "two", places=[shared]), pytest.raises(Unavailable):
        claim_gpu(UUID, tmp_path / "one", places=[other, shared])
    claim_gpu(UUID, tmp_path / "three", places=[other]).release()


def test_an_id_with_slashes_stays_in_its_folder(tmp_path: Path, shared: Path) -> None:
    with claim_gpu("MIG-GPU-x/../../1/0", tmp_path / "home", places=[shared]):
        assert [path.name for path in (shared / "farm-gpus").iterdir()] == ["MIG-GPU-x_______1_0.lock"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}', "\x1b[31m" * 2000])
def test_a_file_that_somebody_wrote_rubbish_into(tmp_path: Path, shared: Path, content: str) -> None:
    with claim_gpu(UUID, tmp_path / "one", places=[shared]):
        (shared / "farm-gpus" / f"{UUID}.lock").write_text(content)
        with pytest.raises(Unavailable, match="is taken by another process"):
            claim_gpu(UUID, tmp_path / "two", places=[shared])


def test_a_holders_name_cannot_write_to_the_terminal(tmp_path: Path, shared: Path) -> None:
    with claim_gpu(UUID, tmp_path / "one", "\x1b[2Jx\n", [shared]), pytest.raises(Unavailable) as caught:
        claim_gpu(UUID, tmp_path / "two", places=[shared])
    assert caught.value.message.endswith("of node [2Jx")


def test_links_and_other_things_are_left_alone(tmp_path: Path, shared: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    folder = shared / "farm-gpus"
    folder.mkdir()
    lock = folder / f"{UUID}.lock"
    for plant in (lambda: lock.symlink_to(target), lambda: lock.hardlink_to(target), lambda: os.mkfifo(lock)):
        plant()
        with claim_gpu(UUID, tmp_path / "home", places=[shared]):
            assert target.read_text() == "precious"
        lock.unlink()
    folder.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.symlink_to(elsewhere)
    with claim_gpu(UUID, tmp_path / "home", places=[shared]):
        assert list(elsewhere.iterdir()) == []


def test_the_lock_file_says_who(tmp_path: Path, shared: Path) -> None:
    with claim_gpu(UUID, tmp_path / "home", "box:0", [shared]):
        found = json.loads((shared / "farm-gpus" / f"{UUID}.lock").read_text())
    assert found == {"pid": os.getpid(), "node": "box:0"}
