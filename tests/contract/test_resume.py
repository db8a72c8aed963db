"""Fetches that are cut off: whole verified blobs or none, and what has come is not brought again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.blobs import resuming
from farm.blobs.folder import FolderStore
from farm.blobs.memory import MemoryStore
from farm.blobs.s3 import open_s3
from farm.blobs.tiered import TieredStore
from farm.errors import BadInput, CorruptBlob
from farm.store import Resuming, fetch_on
from tests.support import dying
from tests.support.seaweed import Seaweed

MIB = 2**20
DATA = random.Random(7).randbytes(21 * MIB + 311)
"""Several parts and buffers, and a rest."""
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
SEEDS = 60


class Interrupted(Exception):
    pass


@pytest.fixture(params=["folder", "s3", "tiered", "tiered, warm"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Resuming:
    if request.param == "folder":
        return _holding(FolderStore(tmp_path / "store"))
    server: Seaweed = request.getfixturevalue("s3")
    back = _holding(open_s3(f"s3://farm-tests/{uuid.uuid4().hex}", server.endpoint))
    if request.param == "s3":
        return back
    tiered = TieredStore(tmp_path / "front", back, 1 << 30)
    if "warm" in request.param:
        assert tiered.fetch(DIGEST, tmp_path / "warming")
        (tmp_path / "warming").unlink()
    return tiered


def _holding(store: Any) -> Any:
    store.put(io.BytesIO(DATA))
    return store


def cut_off(after: int) -> Callable[[int], None]:
    """A listener that has had enough after so many bytes."""
    came = [0]

    def tell(count: int) -> None:
        came[0] += count
        if came[0] >= after:
            raise Interrupted

    return tell


def left_beside(dest: Path) -> list[str]:
    return [name for name in os.listdir(dest.parent) if name != dest.name]


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    folder = tmp_path / "dest"
    folder.mkdir()
    return folder / "engine.plan"


def test_what_came_is_not_brought_again(store: Resuming, dest: Path) -> None:
    with pytest.raises(Interrupted):
        store.resume(DIGEST, dest, cut_off(9 * MIB))
    assert not dest.exists()
    came: list[int] = []
    assert store.resume(DIGEST, dest, came.append)
    assert dest.read_bytes() == DATA and left_beside(dest) == []
    assert 0 < sum(came) <= len(DATA) - 8 * MIB


def test_what_is_there_is_not_brought_at_all(store: Resuming, dest: Path) -> None:
    dest.write_bytes(DATA)
    came: list[int] = []
    assert store.resume(DIGEST, dest, came.append)
    assert came == [] and left_beside(dest) == []


def test_other_bytes_under_the_name_are_replaced(store: Resuming, dest: Path) -> None:
    dest.write_bytes(DATA[:-1] + b"?")
    assert store.resume(DIGEST, dest)
    assert dest.read_bytes() == DATA


def test_a_partial_file_that_was_tampered_with_is_found_out(store: Resuming, dest: Path) -> None:
    with pytest.raises(Interrupted):
        store.resume(DIGEST, dest, cut_off(9 * MIB))
    (partial,) = [path for path in dest.parent.iterdir() if path.name.endswith(".partial")]
    with partial.open("r+b") as file:
        file.seek(MIB)
        file.write(b"nonsense")
    assert store.resume(DIGEST, dest)
    assert dest.read_bytes() == DATA and left_beside(dest) == []


@pytest.mark.parametrize("mark", [b"", b"abc", b"\xff" * 8, (40 * MIB).to_bytes(8, "little")])
def test_a_mark_that_is_none_does_no_harm(tmp_path: Path, dest: Path, mark: bytes) -> None:
    store = _holding(FolderStore(tmp_path / "store"))
    with pytest.raises(Interrupted):
        store.resume(DIGEST, dest, cut_off(9 * MIB))
    (path,) = dest.parent.glob(".*-mark")
    path.write_bytes(mark)
    assert store.resume(DIGEST, dest)
    assert dest.read_bytes() == DATA and left_beside(dest) == []


def test_what_came_of_another_blob_goes(store: Any, dest: Path) -> None:
    with pytest.raises(Interrupted):
        store.resume(DIGEST, dest, cut_off(9 * MIB))
    other = store.put(io.BytesIO(b"a newer engine")).digest
    assert store.resume(other, dest)
    assert dest.read_bytes() == b"a newer engine" and left_beside(dest) == []


def test_nothing_is_there(store: Resuming, dest: Path) -> None:
    assert store.resume("sha256:" + "0" * 64, dest) is False
    assert not dest.exists() and left_beside(dest) == []
    with pytest.raises(BadInput):
        store.resume("../../etc/passwd", dest)


def test_several_at_once_bring_it_once(store: Resuming, dest: Path) -> None:
    came: list[int] = []
    ended: list[bool] = []
    threads = [threading.Thread(target=lambda: ended.append(store.resume(DIGEST, dest, came.append))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [True] * 4 and dest.read_bytes() == DATA
    assert sum(came) == len(DATA) and left_beside(dest) == []


def test_a_corrupt_blob_leaves_nothing(tmp_path: Path, dest: Path) -> None:
    store = _holding(FolderStore(tmp_path / "store"))
    (path,) = (tmp_path / "store" / "sha256").rglob(DIGEST.removeprefix("sha256:"))
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(10 * MIB)
        file.write(b"rotten")
    for _ in range(2):
        with pytest.raises(CorruptBlob):
            store.resume(DIGEST, dest)
        assert not dest.exists() and left_beside(dest) == []


def test_a_stopped_process_is_not_waited_for(tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "STALLED_S", 0.2)
    store = _holding(FolderStore(tmp_path / "store"))
    with _forked(lambda: store.resume(DIGEST, dest, lambda count: os.kill(os.getpid(), signal.SIGSTOP))) as pid:
        os.waitpid(pid, os.WUNTRACED)
        assert store.resume(DIGEST, dest) and dest.read_bytes() == DATA
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
    assert dest.read_bytes() == DATA


def test_a_store_that_cannot_resume_fetches(dest: Path) -> None:
    store = _holding(MemoryStore())
    assert fetch_on(store, DIGEST, dest) and dest.read_bytes() == DATA


# -- kill -9 -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _forked(act: Callable[[], object]) -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            act()
        os._exit(0)
    try:
        yield pid
    finally:
        os.waitpid(pid, 0)


def test_killed_at_any_byte_in_a_folder(tmp_path: Path, dest: Path) -> None:
    """Each time a process goes on where the last was killed, in the middle of a write too."""
    store = _holding(FolderStore(tmp_path / "store"))
    chance, kills = random.Random(20), 0
    for _ in range(SEEDS):
        at = chance.choice([chance.randrange(len(DATA)), chance.randrange(len(DATA), len(DATA) + 12 * MIB)])
        with _forked(lambda at=at: dying.bring(store, DIGEST, dest, at)):
            pass
        if dest.exists():
            assert dest.read_bytes() == DATA
            dest.unlink()
        else:
            kills += 1
    assert kills > SEEDS / 3
    assert store.resume(DIGEST, dest) and dest.read_bytes() == DATA and left_beside(dest) == []


def _dying(store: str, endpoint: str, dest: Path, at: int) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tests.support.dying", store, endpoint, DIGEST, str(dest), str(at)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_byte_from_s3(s3: Seaweed, dest: Path, seed: int) -> None:
    where = f"s3://farm-tests/{uuid.uuid4().hex}"
    _holding(open_s3(where, s3.endpoint))
    at = random.Random(seed).randrange(len(DATA) + 4 * MIB)
    killed = _dying(where, s3.endpoint, dest, at)
    assert killed.returncode == -signal.SIGKILL and (not dest.exists() or dest.read_bytes() == DATA)
    again = _dying(where, s3.endpoint, dest, -1)
    assert again.returncode == 0, again.stderr
    assert dest.read_bytes() == DATA and left_beside(dest) == []
    # The parts before the one in which it died may have landed out of order; those that had been hashed stay.
    assert int(again.stdout) <= len(DATA)


def test_two_processes_at_once_from_s3(s3: Seaweed, dest: Path) -> None:
    where = f"s3://farm-tests/{uuid.uuid4().hex}"
    _holding(open_s3(where, s3.endpoint))
    words = [sys.executable, "-m", "tests.support.dying", where, s3.endpoint, DIGEST, str(dest), "-1"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) for _ in range(2)]
    started = time.monotonic()
    told = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0] and time.monotonic() - started < 30
    assert sum(map(int, told)) == len(DATA), "one brought it, the other waited"
    assert dest.read_bytes() == DATA and left_beside(dest) == []
