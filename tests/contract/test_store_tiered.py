"""A folder before another store keeps the contract; and what is its own: once a node, healing, room, bad folders."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from aged import aged_objects
from store_contract import SMALL, Age, Spoil, StoreContract, name

from farm.blobs import tiered as tiered_module
from farm.blobs.folder import FolderStore
from farm.blobs.memory import MemoryStore
from farm.blobs.s3 import open_s3
from farm.blobs.s3_faults import Patience
from farm.blobs.tiered import TieredStore
from farm.errors import BadInput, CorruptBlob, Unavailable
from farm.store import Blob
from tests.support.faulty_proxy import FaultyProxy, Rules
from tests.support.seaweed import Seaweed

KIB = 2**10


def path_in(root: Path, digest: str) -> Path:
    digits = digest.removeprefix("sha256:")
    return root / "sha256" / digits[:2] / digits


def spoil_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.chmod(0o644)
    path.write_bytes(data)


@pytest.fixture
def front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("front") / "cache"


@pytest.fixture
def behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("back") / "store"


class Counting(FolderStore):
    """A folder that counts what is asked of it, and may be slow or gone."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetched: list[str] = []
        self.pause_s = 0.0
        self.gone = False

    def size(self, digest: str) -> int | None:
        self._ask()
        return super().size(digest)

    def read(self, digest: str) -> bytes | None:
        self._ask()
        return super().read(digest)

    def fetch(self, digest: str, dest: Path, *, link: bool = False) -> bool:
        self._ask()
        self.fetched.append(digest)
        time.sleep(self.pause_s)
        return super().fetch(digest, dest)

    def _ask(self) -> None:
        if self.gone:
            raise Unavailable("the back is gone", "wait")


@pytest.fixture
def back(behind: Path) -> Counting:
    return Counting(behind)


@pytest.fixture
def store(front: Path, back: Counting) -> TieredStore:
    return TieredStore(front, back, 100 * 2**20)


class TestOverAFolder(StoreContract):
    @pytest.fixture
    def spoil(self, front: Path, behind: Path) -> Spoil:
        def spoil(digest: str, data: bytes) -> None:
            for root in (front, behind):
                spoil_file(path_in(root, digest), data)

        return spoil

    @pytest.fixture
    def age(self, behind: Path) -> Age:
        def age(digest: str, seconds: float) -> None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path_in(behind, digest), (time.time() - seconds,) * 2)

        return age


class TestOverMemory(StoreContract):
    @pytest.fixture
    def store(self, front: Path) -> TieredStore:
        return TieredStore(front, MemoryStore(), 100 * 2**20)

    @pytest.fixture
    def spoil(self, front: Path, store: TieredStore) -> Spoil:
        def spoil(digest: str, data: bytes) -> None:
            spoil_file(path_in(front, digest), data)
            assert isinstance(store.back, MemoryStore)
            store.back._held[digest] = data

        return spoil

    @pytest.fixture
    def age(self, store: TieredStore) -> Age:
        def age(digest: str, seconds: float) -> None:
            assert isinstance(store.back, MemoryStore)
            with store.back._lock:
                if digest in store.back._held:
                    store.back._put_at[digest] = store.clock() - seconds

        return age


class TestOverS3(StoreContract):
    @pytest.fixture
    def prefix(self) -> str:
        return uuid.uuid4().hex

    @pytest.fixture
    def store(self, front: Path, s3: Seaweed, prefix: str) -> TieredStore:
        return TieredStore(front, open_s3(f"s3://farm-tests/{prefix}", s3.endpoint), 100 * 2**20)

    @pytest.fixture
    def spoil(self, front: Path, s3: Seaweed, prefix: str) -> Spoil:
        def spoil(digest: str, data: bytes) -> None:
            spoil_file(path_in(front, digest), data)
            key = f"{prefix}/sha256/{digest[7:9]}/{digest[7:]}"
            s3.client().put_object(Bucket="farm-tests", Key=key, Body=data)

        return spoil

    @pytest.fixture
    def age(self, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Age:
        older = aged_objects(monkeypatch)
        return lambda digest, seconds: older(f"{prefix}/sha256/{digest[7:9]}/{digest[7:]}", seconds)

    test_what_is_put_anew_is_never_deleted_for_its_age = None  # S3 deletes under no condition of age

    def test_a_copy_serves_while_the_server_is_gone(self, front: Path, s3: Seaweed, tmp_path: Path) -> None:
        with FaultyProxy.start(f"127.0.0.1:{s3.port}") as proxy:
            url = f"s3://farm-tests/{uuid.uuid4().hex}"
            back = open_s3(url, f"http://{proxy.address}", Patience(total=0.3, unreachable=0.3))
            store = TieredStore(front, back, 2**20)
            digests = [store.put(io.BytesIO(data)).digest for data in (SMALL, b"never fetched")]
            assert store.fetch(digests[0], tmp_path / "one")
            proxy.rules = Rules(reset=1.0)
            assert store.fetch(digests[0], tmp_path / "two") and store.read(digests[0]) == SMALL
            with pytest.raises(Unavailable):
                store.fetch(digests[1], tmp_path / "three")
            assert sorted(os.listdir(tmp_path)) == ["one", "two"]
            assert os.listdir(front / "coming") == []


class TestOnce:
    def test_a_node_fetches_a_blob_once(self, store: TieredStore, back: Counting, tmp_path: Path) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        for link in (False, True, False):
            assert store.fetch(digest, tmp_path / "dest", link=link)
            assert (tmp_path / "dest").read_bytes() == SMALL
            (tmp_path / "dest").unlink()
        assert back.fetched == [digest]

    def test_what_was_stored_from_a_file_is_here_already(
        self, store: TieredStore, back: Counting, tmp_path: Path
    ) -> None:
        (tmp_path / "plan").write_bytes(SMALL)
        blob = store.put_file(tmp_path / "plan")
        assert store.fetch(blob.digest, tmp_path / "dest") and back.fetched == []
        assert back.read(blob.digest) == SMALL

    def test_threads_that_ask_at_once(self, store: TieredStore, back: Counting, tmp_path: Path) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        back.pause_s = 0.2
        got: list[bool] = []
        threads = [
            threading.Thread(target=lambda n=n: got.append(store.fetch(digest, tmp_path / f"{n}"))) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert got == [True] * 8 and back.fetched == [digest]
        assert {path.read_bytes() for path in tmp_path.iterdir()} == {SMALL}

    FETCHER = """
import sys, time
from pathlib import Path
from farm.blobs.folder import FolderStore
from farm.blobs.tiered import TieredStore
front, behind, digest, dest = sys.argv[1:5]
class Slow(FolderStore):
    def fetch(self, digest, dest, *, link=False):
        print("fetching", flush=True)
        if sys.argv[5:]:
            dest.with_name(f".{dest.name}-half").write_bytes(b"half")
            time.sleep(600)
        time.sleep(0.3)
        return super().fetch(digest, dest)
assert TieredStore(Path(front), Slow(Path(behind)), 2**30).fetch(digest, Path(dest))
"""

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", self.FETCHER, *map(str, words)], stdout=-1, text=True)

    def test_processes_that_ask_at_once(self, front: Path, behind: Path, store: TieredStore, tmp_path: Path) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        started = [self.start(front, behind, digest, tmp_path / f"{n}") for n in range(4)]
        said = "".join(process.communicate(timeout=60)[0] for process in started)
        assert said == "fetching\n" and [process.returncode for process in started] == [0] * 4
        assert {path.read_bytes() for path in tmp_path.iterdir()} == {SMALL}
        assert os.listdir(front / "locks") == [] == os.listdir(front / "coming")

    @pytest.mark.chaos
    def test_who_is_killed_on_the_way_is_not_waited_for(
        self, front: Path, behind: Path, store: TieredStore, back: Counting, tmp_path: Path
    ) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        process = self.start(front, behind, digest, tmp_path / "a", "for ever")
        assert process.stdout is not None and process.stdout.readline() == "fetching\n"
        _wait_for(lambda: os.listdir(front / "coming"))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert os.listdir(front / "coming") != []
        assert store.fetch(digest, tmp_path / "dest") and back.fetched == [digest]
        assert os.listdir(front / "coming") == []

    @pytest.mark.chaos
    def test_who_is_stopped_on_the_way_stops_nobody(
        self, front: Path, behind: Path, store: TieredStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tiered_module, "STALLED_S", 0.5)
        digest = store.put(io.BytesIO(SMALL)).digest
        process = self.start(front, behind, digest, tmp_path / "a", "for ever")
        assert process.stdout is not None and process.stdout.readline() == "fetching\n"
        process.send_signal(signal.SIGSTOP)
        try:
            assert store.fetch(digest, tmp_path / "dest") and (tmp_path / "dest").read_bytes() == SMALL
        finally:
            process.kill()
            process.communicate(timeout=30)

    def test_sweeping_removes_what_the_dead_left_and_no_more(self, store: TieredStore, front: Path) -> None:
        (front / "coming").mkdir(parents=True)
        digits = name(SMALL)[7:]
        for left in (f".0.{digits}.1-2-{uuid.uuid4().hex}", f"0.{digits}.1-2"):
            (front / "coming" / left).write_bytes(b"half")
        with tiered_module.alone(front / "locks" / digits, lambda: None, 0):
            assert store.sweep() == 0 and len(os.listdir(front / "coming")) == 2
        assert store.sweep() == 2 and os.listdir(front / "coming") == []


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestHealing:
    @pytest.mark.parametrize("bad", [b"", SMALL[:-1], b"an Engine"], ids=["emptied", "truncated", "flipped"])
    def test_a_bad_copy_is_fetched_anew(
        self, store: TieredStore, back: Counting, front: Path, tmp_path: Path, bad: bytes
    ) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        for link in (False, True):
            spoil_file(path_in(front, digest), bad)
            assert store.fetch(digest, tmp_path / "dest", link=link) and (tmp_path / "dest").read_bytes() == SMALL
        assert back.fetched == [digest] * 2
        spoil_file(path_in(front, digest), bad)
        assert store.read(digest) == SMALL
        assert path_in(front, digest).read_bytes() == SMALL, "healed here too"

    def test_a_bad_blob_behind_is_corrupt_and_comes_into_no_folder(
        self, store: TieredStore, front: Path, behind: Path, tmp_path: Path
    ) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        spoil_file(path_in(behind, digest), b"rotten")
        for act in (lambda: store.fetch(digest, tmp_path / "dest"), lambda: store.read(digest)):
            with pytest.raises(CorruptBlob):
                act()
        assert not path_in(front, digest).exists() and os.listdir(front / "coming") == []

    def test_what_is_gone_behind_is_gone(self, store: TieredStore, back: Counting, tmp_path: Path) -> None:
        (tmp_path / "plan").write_bytes(SMALL)
        digest = store.put_file(tmp_path / "plan").digest
        back.delete(digest)
        assert store.size(digest) is None and store.missing([digest]) == {digest} and list(store.blobs()) == []


class TestRoom:
    @pytest.fixture
    def store(self, front: Path, back: Counting) -> TieredStore:
        return TieredStore(front, back, 100 * KIB)

    def fill(self, store: TieredStore, count: int, size: int = 30 * KIB) -> list[str]:
        return [store.put(io.BytesIO(random.Random(n).randbytes(size))).digest for n in range(count)]

    def here(self, front: Path, digests: list[str]) -> list[int]:
        return [number for number, digest in enumerate(digests) if path_in(front, digest).exists()]

    def test_what_was_used_longest_ago_goes(self, store: TieredStore, front: Path, tmp_path: Path) -> None:
        digests = self.fill(store, 4)
        for number in (0, 1, 2, 0):
            assert store.fetch(digests[number], tmp_path / "dest")
        assert self.here(front, digests) == [0, 1, 2]
        assert store.fetch(digests[3], tmp_path / "dest")
        assert self.here(front, digests) == [0, 2, 3]

    def test_use_is_noted_without_changing_what_is_used(self, store: TieredStore, front: Path, tmp_path: Path) -> None:
        (digest,) = self.fill(store, 1)
        store.fetch(digest, tmp_path / "dest", link=True)
        then = time.time() - 1e6
        os.utime(path_in(front, digest), (then, then))
        store.fetch(digest, tmp_path / "dest", link=True)
        found = path_in(front, digest).stat()
        assert found.st_mtime == pytest.approx(then, abs=1) and found.st_atime == pytest.approx(time.time(), abs=60)

    def test_the_bound_holds_whatever_comes(self, store: TieredStore, front: Path, tmp_path: Path) -> None:
        rng = random.Random(8)
        digests = [store.put(io.BytesIO(rng.randbytes(rng.randrange(60 * KIB)))).digest for _ in range(30)]
        threads = [
            threading.Thread(
                target=lambda n=n: [store.fetch(d, tmp_path / f"{n}") for d in random.Random(n).sample(digests, 30)]
            )
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert 0 < sum(blob.size for blob in FolderStore(front).blobs()) <= 100 * KIB

    def test_what_is_larger_than_the_folder_passes_it_by(
        self, store: TieredStore, back: Counting, front: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "plan").write_bytes(bytes(200 * KIB))
        small, large = self.fill(store, 1)[0], store.put_file(tmp_path / "plan").digest
        store.fetch(small, tmp_path / "dest")
        for _ in range(2):
            assert store.fetch(large, tmp_path / "dest") and (tmp_path / "dest").read_bytes() == bytes(200 * KIB)
        assert back.fetched == [small, large, large]
        assert [blob.digest for blob in FolderStore(front).blobs()] == [small]

    def test_who_reads_keeps_what_is_removed(self, store: TieredStore, front: Path, tmp_path: Path) -> None:
        digests = self.fill(store, 6)
        store.fetch(digests[0], tmp_path / "linked", link=True)
        with path_in(front, digests[0]).open("rb") as reading:
            for digest in digests[1:]:
                store.fetch(digest, tmp_path / "dest")
            assert 0 not in self.here(front, digests)
            assert name(reading.read()) == digests[0] == name((tmp_path / "linked").read_bytes())

    def test_readers_beside_eviction_get_what_they_ask_for(self, store: TieredStore, tmp_path: Path) -> None:
        """Room for three of twelve, four threads that read them all: each answer is right."""
        digests = self.fill(store, 12)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for digest in random.Random(number).choices(digests, k=40):
                    dest = tmp_path / f"{number}"
                    assert store.fetch(digest, dest, link=True) and name(dest.read_bytes()) == digest
                    data = store.read(digest)
                    assert data is not None and name(data) == digest
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []

    def test_copies_leave_half_of_a_small_disk(
        self, front: Path, back: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As chaos found it: ten thousand small plans filled a worker's disk, and every build failed there."""
        store = TieredStore(front, back, 2**40)
        others = [0]

        def statvfs(_path: object) -> SimpleNamespace:
            mine = sum(path.is_file() for path in (front / "sha256").rglob("*"))
            return SimpleNamespace(f_bavail=40 - mine - others[0], f_frsize=4096)

        monkeypatch.setattr(tiered_module.os, "statvfs", statvfs)
        for number in range(60):
            (tmp_path / "plan").write_bytes(b"plan %d" % number)
            blob = store.put_file(tmp_path / "plan")
        assert len(list(FolderStore(front).blobs())) == 20
        others[0] = 36
        assert store.fetch(blob.digest, tmp_path / "dest") and store.read(blob.digest)
        (tmp_path / "plan").write_bytes(b"one more")
        store.put_file(tmp_path / "plan")
        assert len(list(FolderStore(front).blobs())) == 2

    def test_a_folder_without_room_at_all(self, front: Path, back: Counting, tmp_path: Path) -> None:
        store = TieredStore(front, back, 0)
        (digest,) = self.fill(store, 1)
        assert store.fetch(digest, tmp_path / "dest") and store.read(digest)
        assert list(FolderStore(front).blobs()) == []


class TestStrangeFolders:
    """Whatever is wrong with the folder, what is asked for comes from behind."""

    def serves(self, store: TieredStore, tmp_path: Path) -> None:
        (tmp_path / "plan").write_bytes(SMALL)
        blob = store.put_file(tmp_path / "plan")
        assert blob == Blob(name(SMALL), len(SMALL))
        for link in (False, True):
            assert store.fetch(blob.digest, tmp_path / "dest", link=link)
            assert (tmp_path / "dest").read_bytes() == SMALL
        assert store.read(blob.digest) == SMALL and store.delete(blob.digest) and store.read(blob.digest) is None

    def test_a_file_in_its_place(self, front: Path, store: TieredStore, tmp_path: Path) -> None:
        front.write_text("in the way")
        self.serves(store, tmp_path)

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
    def test_one_that_takes_nothing(
        self, front: Path, store: TieredStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        open_ = os.open

        def refuse(path: object, flags: int, *args: int, **kwargs: int) -> int:
            if flags & os.O_CREAT and str(path).startswith(str(front)):
                raise OSError(code, os.strerror(code), str(path))
            return open_(path, flags, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", refuse)
        self.serves(store, tmp_path)

    def test_a_destination_that_is_wrong_is_said(self, store: TieredStore, tmp_path: Path) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        with pytest.raises(BadInput, match="is a folder"):
            store.fetch(digest, tmp_path)
        with pytest.raises(Unavailable, match="nowhere"):
            store.fetch(digest, tmp_path / "nowhere" / "dest")

    def test_a_store_behind_that_is_gone_is_said(self, store: TieredStore, back: Counting, tmp_path: Path) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        back.gone = True
        for act in (lambda: store.fetch(digest, tmp_path / "dest"), lambda: store.size(digest)):
            with pytest.raises(Unavailable, match="the back is gone"):
                act()
