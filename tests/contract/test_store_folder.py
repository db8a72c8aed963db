"""The store in a folder keeps the contract; and what is a folder's own: crashes, full disks, links, rights."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from store_contract import LARGE, SMALL, Age, Spoil, StoreContract, name

from farm.blobs import folder as folder_module
from farm.blobs.folder import FolderStore
from farm.blobs.temporary import SWEEP_AFTER_S
from farm.errors import BadInput, CorruptBlob, Unavailable
from farm.store import LABEL


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> FolderStore:
    return FolderStore(root)


def path_of(store: FolderStore, digest: str) -> Path:
    digits = digest.removeprefix("sha256:")
    return store.root / "sha256" / digits[:2] / digits


def temporary_files(store: FolderStore) -> list[str]:
    return os.listdir(store.root / "tmp") if (store.root / "tmp").exists() else []


class TestFolderStore(StoreContract):
    @pytest.fixture
    def spoil(self, store: FolderStore) -> Spoil:
        def spoil(digest: str, data: bytes) -> None:
            path = path_of(store, digest)
            path.chmod(0o644)
            path.write_bytes(data)

        return spoil

    @pytest.fixture
    def age(self, store: FolderStore) -> Age:
        def age(digest: str, seconds: float) -> None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path_of(store, digest), (store.clock() - seconds,) * 2)

        return age


class TestLayout:
    def test_blobs_are_read_only_files_named_by_their_digest(self, store: FolderStore) -> None:
        blob = store.put(io.BytesIO(SMALL))
        mode = path_of(store, blob.digest).stat().st_mode
        assert stat.S_ISREG(mode) and stat.S_IMODE(mode) == 0o444
        assert temporary_files(store) == []

    def test_opening_makes_nothing(self, store: FolderStore, root: Path) -> None:
        assert store.read(name(b"x")) is None and list(store.blobs()) == []
        assert not root.exists()

    def test_what_is_no_blob_is_not_listed(self, store: FolderStore) -> None:
        blob = store.put(io.BytesIO(SMALL))
        other = path_of(store, name(b"elsewhere"))
        folder = path_of(store, blob.digest).parent
        (folder / "README").write_text("hello")
        (folder / other.name).write_bytes(b"in the folder of another prefix")
        (store.root / "sha256" / "stray").write_text("hello")
        (folder / ("0" * 64)).mkdir()
        assert list(store.blobs()) == [blob]

    def test_a_link_shares_the_bytes_and_a_copy_does_not(self, store: FolderStore, tmp_path: Path) -> None:
        blob = store.put(io.BytesIO(SMALL))
        store.fetch(blob.digest, tmp_path / "linked", link=True)
        store.fetch(blob.digest, tmp_path / "copied")
        inode = path_of(store, blob.digest).stat().st_ino
        assert (tmp_path / "linked").stat().st_ino == inode
        assert (tmp_path / "copied").stat().st_ino != inode
        (tmp_path / "copied").write_bytes(b"changed")
        assert store.read(blob.digest) == SMALL

    @pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
    def test_where_no_link_can_be_it_copies(
        self, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        blob = store.put(io.BytesIO(SMALL))
        monkeypatch.setattr(os, "link", refuse(code))
        assert store.fetch(blob.digest, tmp_path / "dest", link=True)
        assert (tmp_path / "dest").read_bytes() == SMALL
        assert store.fetch(name(b"missing"), tmp_path / "other", link=True) is False


class TestLinksInTheStore:
    """A symbolic link in a blob's place is no blob, whatever it points at."""

    @pytest.fixture
    def planted(self, store: FolderStore, tmp_path: Path) -> str:
        digest = store.put(io.BytesIO(SMALL)).digest
        outside = tmp_path / "outside"
        outside.write_bytes(SMALL)
        path_of(store, digest).unlink()
        path_of(store, digest).symlink_to(outside)
        return digest

    def test_it_is_not_followed(self, store: FolderStore, planted: str, tmp_path: Path) -> None:
        assert store.size(planted) is None and store.missing([planted]) == {planted}
        assert store.read(planted) is None and list(store.blobs()) == []
        for link in (False, True):
            assert store.fetch(planted, tmp_path / "dest", link=link) is False
        assert not (tmp_path / "dest").exists()

    def test_a_put_replaces_it(self, store: FolderStore, planted: str, tmp_path: Path) -> None:
        store.put(io.BytesIO(SMALL))
        assert not path_of(store, planted).is_symlink() and store.read(planted) == SMALL

    def test_a_pipe_in_a_blobs_place_blocks_nobody(self, store: FolderStore, tmp_path: Path) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        path_of(store, digest).unlink()
        os.mkfifo(path_of(store, digest))
        assert store.read(digest) is None and store.size(digest) is None
        assert store.fetch(digest, tmp_path / "dest") is store.fetch(digest, tmp_path / "dest", link=True) is False


def refuse(code: int) -> Callable[..., object]:
    def act(*args: object, **kwargs: object) -> object:
        raise OSError(code, os.strerror(code))

    return act


class TestFaults:
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    @pytest.mark.parametrize("where", ["write", "fsync"])
    def test_a_disk_that_cannot_take_it(
        self, store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch, code: int, where: str
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, where, refuse(code))
            with pytest.raises(Unavailable) as caught:
                store.put(io.BytesIO(LARGE))
        assert str(root) in caught.value.message and caught.value.hint
        assert temporary_files(store) == [] and list(store.blobs()) == []
        assert store.put(io.BytesIO(LARGE)).digest == name(LARGE)

    def test_a_disk_that_is_really_full(self, tmp_path: Path) -> None:
        """A file size limit stands in for a small disk: what the kernel refuses, the store says and clears away."""
        body = f"""
import io, resource, signal, sys
from pathlib import Path
from farm.blobs.folder import FolderStore
from farm.errors import Unavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    FolderStore(Path({str(tmp_path / "store")!r})).put(io.BytesIO(bytes(1_000_000)))
except Unavailable as error:
    print(error.message)
"""
        done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=60)
        assert str(tmp_path / "store") in done.stdout and "larger than may be written" in done.stdout
        assert temporary_files(FolderStore(tmp_path / "store")) == []

    def test_a_disk_full_where_it_is_fetched_to_names_that_folder(
        self, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        (tmp_path / "out").mkdir()
        monkeypatch.setattr(os, "write", refuse(errno.ENOSPC))
        with pytest.raises(Unavailable) as caught:
            store.fetch(digest, tmp_path / "out" / "plan")
        assert str(tmp_path / "out") in caught.value.message and "full" in caught.value.message
        assert os.listdir(tmp_path / "out") == []

    @pytest.mark.parametrize("link", [False, True])
    def test_fetching_into_a_folder_that_is_not_there(self, store: FolderStore, tmp_path: Path, link: bool) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        with pytest.raises(Unavailable, match="nowhere"):
            store.fetch(digest, tmp_path / "nowhere" / "plan", link=link)

    @pytest.mark.parametrize("link", [False, True])
    def test_fetching_onto_a_folder(self, store: FolderStore, tmp_path: Path, link: bool) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        (tmp_path / "dest").mkdir()
        with pytest.raises(BadInput, match="is a folder"):
            store.fetch(digest, tmp_path / "dest", link=link)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dest", "store"]

    def test_a_file_where_the_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("in the way")
        store = FolderStore(tmp_path / "store")
        assert store.read(name(SMALL)) is None and list(store.blobs()) == []
        with pytest.raises(Unavailable, match="no folder"):
            store.put(io.BytesIO(SMALL))

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
    def test_rights_and_read_only_file_systems(
        self, store: FolderStore, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        monkeypatch.setattr(os, "open", refuse(code))
        with pytest.raises(Unavailable) as caught:
            store.put(io.BytesIO(SMALL))
        assert caught.value.hint

    def test_a_source_that_cannot_be_read_is_the_askers_fault(self, store: FolderStore, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "nothing", tmp_path, tmp_path / "pipe"):
            with pytest.raises(BadInput, match="cannot be read"):
                store.put_file(path)
        assert temporary_files(store) == []

    def test_a_source_that_fails_half_way(self, store: FolderStore) -> None:
        class Failing(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell():
                    raise OSError(errno.EIO, "the stick was pulled")
                return super().read(10)

        with pytest.raises(BadInput, match="the stick was pulled"):
            store.put(Failing(LARGE))
        assert temporary_files(store) == [] and list(store.blobs()) == []


class TestOrder:
    """Bytes, then their sync, then the name, then the folder's sync: a power cut leaves no name without its bytes."""

    def test_the_name_comes_after_the_bytes_are_safe(self, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
        store.put(io.BytesIO(b"first, so that folders are there"))
        did: list[str] = []
        fsync, replace = os.fsync, Path.replace

        def note_fsync(descriptor: int) -> None:
            did.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
            fsync(descriptor)

        def note_replace(self: Path, target: Path) -> Path:
            did.append("rename")
            return replace(self, target)

        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(Path, "replace", note_replace)
        store.put(io.BytesIO(SMALL))
        assert did[0] == "sync file" and did[-2:] == ["rename", "sync folder"]

    def test_a_new_folder_is_synced_into_its_parents(self, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[Path] = []
        monkeypatch.setattr(folder_module, "sync_folder", synced.append)
        blob = store.put(io.BytesIO(SMALL))
        assert path_of(store, blob.digest).parent in synced
        assert {store.root / "sha256", store.root} <= set(synced)


@pytest.mark.chaos
class TestKilled:
    BODY = """
import io, sys, time
from pathlib import Path
from farm.blobs.folder import FolderStore

class Slow(io.RawIOBase):
    def read(self, size=-1):
        if not hasattr(self, "given"):
            self.given = True
            return bytes(300_000)
        print("half", flush=True)
        time.sleep(600)

FolderStore(Path(sys.argv[1])).put(Slow())
"""

    def test_in_the_middle_of_a_put(self, store: FolderStore) -> None:
        """What is left is a temporary file, which no reader sees, and which goes once it is a minute old."""
        process = subprocess.Popen([sys.executable, "-c", self.BODY, str(store.root)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"half\n"
        (left,) = temporary_files(store)
        make_old(store.root / "tmp" / left)
        FolderStore(store.root)
        assert temporary_files(store) == [left], "its writer still lives"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert list(store.blobs()) == [] and temporary_files(store) == [left]
        FolderStore(store.root)
        assert temporary_files(store) == []

    def test_at_random_points_every_blob_is_whole(self, store: FolderStore, tmp_path: Path) -> None:
        body = """
import io, os, sys
from pathlib import Path
from farm.blobs.folder import FolderStore
store = FolderStore(Path(sys.argv[1]))
print("busy", flush=True)
while True:
    store.put(io.BytesIO(os.urandom(int.from_bytes(os.urandom(2), "big"))))
"""
        for round_ in range(3):
            process = subprocess.Popen([sys.executable, "-c", body, str(store.root)], stdout=subprocess.PIPE)
            assert process.stdout is not None and process.stdout.readline() == b"busy\n"
            time.sleep(0.03 * (round_ + 1))
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
        for blob in store.blobs():
            data = store.read(blob.digest)
            assert data is not None and len(data) == blob.size
            assert "sha256:" + hashlib.sha256(data).hexdigest() == blob.digest


class TestSweeping:
    def leave(self, store: FolderStore, old: bool) -> Path:
        (store.root / "tmp").mkdir(parents=True, exist_ok=True)
        path = store.root / "tmp" / f"put-{time.monotonic_ns()}"
        path.write_bytes(b"half a blob")
        if old:
            make_old(path)
        return path

    def test_what_is_young_stays(self, store: FolderStore) -> None:
        young, old = self.leave(store, old=False), self.leave(store, old=True)
        FolderStore(store.root)
        assert young.exists() and not old.exists()

    def test_what_is_locked_stays_however_old(self, store: FolderStore) -> None:
        path = self.leave(store, old=True)
        with path.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            FolderStore(store.root)
            assert path.exists()
        FolderStore(store.root)
        assert not path.exists()

    def test_without_locks_only_a_day_tells(self, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOTSUP))
        path = self.leave(store, old=True)
        FolderStore(store.root)
        assert path.exists()
        make_old(path, 2 * 86_400)
        FolderStore(store.root)
        assert not path.exists()
        assert store.read(store.put(io.BytesIO(SMALL)).digest) == SMALL


def make_old(path: Path, seconds: float = 2 * SWEEP_AFTER_S) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_corrupt_blob_is_kept_aside_to_be_looked_at(store: FolderStore) -> None:
    blob = store.put(io.BytesIO(SMALL))
    path_of(store, blob.digest).chmod(0o644)
    path_of(store, blob.digest).write_bytes(b"rotten")
    with pytest.raises(CorruptBlob):
        store.read(blob.digest)
    assert store.quarantine(blob.digest)
    (aside,) = (store.root / "quarantine").iterdir()
    assert aside.read_bytes() == b"rotten"


def test_what_is_no_blob_is_told_of_and_set_aside(store: FolderStore, tmp_path: Path) -> None:
    kept = store.put(io.BytesIO(SMALL))
    below = store.root / "sha256"
    (tmp_path / "elsewhere").mkdir()
    digits = "ab" + "0" * 62
    (below / "ab").mkdir(exist_ok=True)
    (below / "ab" / digits).symlink_to("/etc/passwd")
    (below / "ab" / "..%2fx").write_bytes(b"x")
    os.mkfifo(below / "ab" / ("ab" + "1" * 62))
    (below / "ab" / ("cd" + "0" * 62)).write_bytes(b"x")
    (below / "cd").symlink_to(tmp_path / "elsewhere")
    (below / "plain").write_bytes(b"x")
    strays = {stray.place: stray.what for stray in store.strays()}
    assert {place.removeprefix("sha256/") for place in strays} == {
        f"ab/{digits}",
        "ab/..%2fx",
        "ab/ab" + "1" * 62,
        "ab/cd" + "0" * 62,
        "cd",
        "plain",
    }
    assert strays[f"sha256/ab/{digits}"] == "a symbolic link in a blob's place"
    assert "pipe" in strays["sha256/ab/ab" + "1" * 62]
    assert list(store.blobs()) == [kept]
    assert all(store.set_aside(place) for place in strays)
    assert list(store.strays()) == [] and store.read(kept.digest) == SMALL
    assert (tmp_path / "elsewhere").is_dir() and Path("/etc/passwd").exists()


PLACES = ["", "tmp/x", "sha256", "sha256/../../x", "sha256/ab/../x", "sha256//x", LABEL, "/etc"]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_else_is_set_aside(store: FolderStore, place: str) -> None:
    store.put(io.BytesIO(SMALL))
    with pytest.raises(BadInput, match="no place among blobs"):
        store.set_aside(place)


def test_a_file_that_is_given_up_is_kept_itself(store: FolderStore, tmp_path: Path) -> None:
    path = tmp_path / "plan"
    path.write_bytes(SMALL)
    os.utime(path, (0, 0))
    blob = store.put_file(path, link=True)
    kept = path_of(store, blob.digest).stat()
    assert kept.st_ino == path.stat().st_ino and stat.S_IMODE(kept.st_mode) == 0o444
    assert kept.st_mtime > store.clock() - 60, "what was stored just now is not old"
    assert store.put_file(path, link=True) == blob
    assert temporary_files(store) == []


def test_a_given_file_is_copied_where_it_cannot_be_linked(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "plan"
    path.write_bytes(SMALL)
    blob = store.put_file(path, link=True)
    assert path_of(store, blob.digest).stat().st_ino != path.stat().st_ino
    path.write_bytes(b"another")
    assert store.read(blob.digest) == SMALL and temporary_files(store) == []


def test_a_given_file_that_is_not_there_is_said(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        store.put_file(tmp_path / "nothing", link=True)
