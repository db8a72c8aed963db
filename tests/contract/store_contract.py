"""What every blob store promises. A backend inherits this, and gives the fixtures ``store``, ``spoil`` and
``age``."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from farm.errors import BadInput, CorruptBlob
from farm.store import Blob, BlobStore

Spoil = Callable[[str, bytes], None]
"""Put other bytes in a blob's place, behind the store's back."""
Age = Callable[[str, float], None]
"""Make a blob so many seconds old, behind the store's back; nothing, where it is gone."""

EMPTY = b""
SMALL = b"an engine"
LARGE = random.Random(3).randbytes(5 * 2**20 + 257)
"""More than the buffer, no multiple of it, and nowhere the same."""

FOREIGN_NAMES = [
    "",
    "sha256:",
    "sha256:../../etc/passwd",
    "../" + "0" * 64,
    "0" * 64,
    "sha256:" + "0" * 63,
    "sha256:" + "0" * 65,
    "sha256:" + "A" * 64,
    "sha256:" + "g" * 64,
    "sha256:" + "0" * 63 + "\n",
    "sha256:" + "0" * 64 + "\n",
    "sha512:" + "0" * 64,
    "b3:" + "0" * 64,
    "SHA256:" + "0" * 64,
    "sha256:" + "0" * 62 + "/.",
    "sha256:" + "٠" * 64,
]


def name(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Dribble(io.RawIOBase):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step, self._at = data, step, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        count = self._step if size < 0 else min(size, self._step)
        chunk = self._data[self._at : self._at + count]
        self._at += len(chunk)
        return chunk


class StoreContract:
    """Inherit, and give the fixtures ``store`` (empty), ``spoil`` and ``age``."""

    @pytest.mark.parametrize("data", [EMPTY, SMALL, LARGE], ids=["empty", "small", "large"])
    def test_a_file_that_is_given_up_may_be_removed(self, store: BlobStore, tmp_path: Path, data: bytes) -> None:
        for round_ in range(2):
            path = tmp_path / f"given-up-{round_}"
            path.write_bytes(data)
            assert store.put_file(path, link=True) == Blob(name(data), len(data))
            path.unlink()
            assert store.read(name(data)) == data

    @pytest.mark.parametrize("data", [EMPTY, SMALL, LARGE], ids=["empty", "small", "large"])
    def test_what_was_put_comes_back(self, store: BlobStore, tmp_path: Path, data: bytes) -> None:
        blob = store.put(io.BytesIO(data))
        assert blob == Blob(name(data), len(data))
        assert store.size(blob.digest) == len(data)
        assert store.read(blob.digest) == data
        for link in (False, True):
            dest = tmp_path / f"dest-{link}"
            assert store.fetch(blob.digest, dest, link=link) is True
            assert dest.read_bytes() == data
        assert list(store.blobs()) == [blob]

    def test_a_stream_may_dribble(self, store: BlobStore) -> None:
        assert store.put(Dribble(SMALL * 100, 7)).digest == name(SMALL * 100)
        assert store.read(name(SMALL * 100)) == SMALL * 100

    def test_putting_twice_is_putting_once(self, store: BlobStore) -> None:
        assert store.put(io.BytesIO(SMALL)) == store.put(io.BytesIO(SMALL))
        assert len(list(store.blobs())) == 1

    def test_a_file_may_change_after_it_was_put(self, store: BlobStore, tmp_path: Path) -> None:
        path = tmp_path / "plan"
        path.write_bytes(SMALL)
        blob = store.put_file(path)
        path.write_bytes(b"something else")
        assert store.read(blob.digest) == SMALL
        path.unlink()
        assert store.read(blob.digest) == SMALL

    def test_a_miss_is_a_value(self, store: BlobStore, tmp_path: Path) -> None:
        missing = name(b"never put")
        assert store.size(missing) is None
        assert store.read(missing) is None
        assert store.delete(missing) is False
        assert store.quarantine(missing) is False
        for link in (False, True):
            assert store.fetch(missing, tmp_path / "dest", link=link) is False
        assert list(tmp_path.glob("*dest*")) == []
        assert list(store.blobs()) == []

    def test_missing_names_what_is_not_there(self, store: BlobStore) -> None:
        blob = store.put(io.BytesIO(SMALL))
        other = name(b"other")
        assert store.missing([blob.digest, other, other]) == {other}
        assert store.missing([]) == set()

    def test_a_deleted_blob_is_gone(self, store: BlobStore) -> None:
        blob = store.put(io.BytesIO(SMALL))
        assert store.delete(blob.digest) is True
        assert store.read(blob.digest) is None and list(store.blobs()) == []
        assert store.put(io.BytesIO(SMALL)) == blob and store.read(blob.digest) == SMALL

    def test_sweeping_takes_nothing_that_is_stored(self, store: BlobStore) -> None:
        blob = store.put(io.BytesIO(SMALL))
        assert store.sweep() == 0 and store.read(blob.digest) == SMALL

    def test_a_url_or_none(self, store: BlobStore) -> None:
        url = store.presign(store.put(io.BytesIO(SMALL)).digest, 60)
        assert url is None or name(SMALL).removeprefix("sha256:") in url

    @pytest.mark.parametrize("digest", FOREIGN_NAMES)
    def test_foreign_names_are_refused(self, store: BlobStore, tmp_path: Path, digest: str) -> None:
        acts: list[Callable[[], object]] = [
            lambda: store.size(digest),
            lambda: store.read(digest),
            lambda: store.missing([digest]),
            lambda: store.fetch(digest, tmp_path / "dest"),
            lambda: store.fetch(digest, tmp_path / "dest", link=True),
            lambda: store.delete(digest),
            lambda: store.quarantine(digest),
            lambda: store.presign(digest, 60),
        ]
        for act in acts:
            with pytest.raises(BadInput, match="no blob's name"):
                act()

    # -- age and label -------------------------------------------------------------------------------------------

    def test_a_blob_tells_when_it_was_put_and_putting_makes_it_new(self, store: BlobStore, age: Age) -> None:
        blob = store.put(io.BytesIO(SMALL))
        (listed,) = store.blobs()
        assert abs(listed.modified - store.clock()) < 5 and listed == blob
        age(blob.digest, 7200.0)
        (listed,) = store.blobs()
        assert 7100 < store.clock() - listed.modified < 7300
        store.put(io.BytesIO(SMALL))
        (listed,) = store.blobs()
        assert abs(listed.modified - store.clock()) < 5

    def test_only_what_is_old_is_deleted_where_that_was_asked(self, store: BlobStore, age: Age) -> None:
        old, young = store.put(io.BytesIO(SMALL)).digest, store.put(io.BytesIO(LARGE)).digest
        age(old, 7200.0)
        before = store.clock() - 3600
        assert store.delete(old, before=before) is True and store.delete(young, before=before) is False
        assert [blob.digest for blob in store.blobs()] == [young] and store.read(young) == LARGE
        assert store.delete(name(b"never put"), before=before) is False
        assert store.delete(young) is True

    def test_what_is_put_anew_is_never_deleted_for_its_age(self, store: BlobStore, age: Age) -> None:
        """Whoever has put a blob relies on it from then on."""
        lost: list[int] = []
        before, stop = store.clock() - 3600, threading.Event()

        def remove() -> None:
            while not stop.is_set():
                store.delete(name(SMALL), before=before)

        thread = threading.Thread(target=remove)
        thread.start()
        try:
            for round_ in range(60):
                store.put(io.BytesIO(SMALL))
                if round_ % 2:
                    age(name(SMALL), 7200.0)
                    store.put(io.BytesIO(SMALL))
                lost += [round_] if self._lacks(store, name(SMALL)) else []
        finally:
            stop.set()
            thread.join(30)
        assert lost == []

    @staticmethod
    def _lacks(store: BlobStore, digest: str) -> bool:
        """Whether a blob is not there, and does not come back: one that is looked at closely may be aside just now."""
        deadline = time.monotonic() + 1.0
        while store.size(digest) is None:
            if time.monotonic() > deadline:
                return True
            time.sleep(0.001)
        return False

    def test_a_store_is_labelled_once(self, store: BlobStore) -> None:
        assert store.label() is None
        given: list[str] = []
        threads = [threading.Thread(target=lambda n=n: given.append(store.set_label(f"l{n}"))) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(given) == 4 and set(given) == {store.label()} == {store.set_label("another")}
        store.put(io.BytesIO(SMALL))
        assert [blob.digest for blob in store.blobs()] == [name(SMALL)], "a label is no blob"

    # -- what is on the way --------------------------------------------------------------------------------------

    def test_fetching_replaces_what_was_there(self, store: BlobStore, tmp_path: Path) -> None:
        blob = store.put(io.BytesIO(SMALL))
        dest = tmp_path / "dest"
        for link in (False, True, True, False):
            dest.unlink(missing_ok=True)
            dest.write_bytes(b"old")
            assert store.fetch(blob.digest, dest, link=link)
            assert store.fetch(blob.digest, dest, link=link)
            assert dest.read_bytes() == SMALL
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["dest"]

    def test_fetching_beside_a_link_of_the_callers_leaves_its_file_alone(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        blob = store.put(io.BytesIO(SMALL))
        precious, dest = tmp_path / "precious", tmp_path / "dest"
        precious.write_bytes(b"mine")
        dest.symlink_to(precious)
        assert store.fetch(blob.digest, dest)
        assert precious.read_bytes() == b"mine" and dest.read_bytes() == SMALL

    @pytest.mark.parametrize("link", [False, True])
    def test_a_fetched_copy_is_independent(self, store: BlobStore, tmp_path: Path, link: bool) -> None:
        blob = store.put(io.BytesIO(SMALL))
        store.fetch(blob.digest, tmp_path / "dest", link=link)
        (tmp_path / "dest").unlink()
        assert store.read(blob.digest) == SMALL

    # -- corruption ----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "bad", [b"", SMALL[:-1], SMALL + b"\0", b"an Engine"], ids=["emptied", "truncated", "longer", "flipped"]
    )
    def test_corrupt_bytes_reach_nobody(self, store: BlobStore, spoil: Spoil, tmp_path: Path, bad: bytes) -> None:
        blob = store.put(io.BytesIO(SMALL))
        spoil(blob.digest, bad)
        dest = tmp_path / "dest"
        dest.write_bytes(b"old")
        with pytest.raises(CorruptBlob, match=blob.digest):
            store.read(blob.digest)
        for link in (False, True):
            with pytest.raises(CorruptBlob):
                store.fetch(blob.digest, dest, link=link)
        assert dest.read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["dest"]

    def test_a_check_reads_all_of_a_blob_and_places_nothing(self, store: BlobStore, spoil: Spoil) -> None:
        store.put(io.BytesIO(LARGE))
        heard: list[int] = []
        assert store.check(name(LARGE), heard.append) == len(LARGE) == sum(heard)
        assert store.check(name(b"never stored")) is None
        for bad in (LARGE[:-1], LARGE[:-1] + b"!", b""):
            spoil(name(LARGE), bad)
            with pytest.raises(CorruptBlob):
                store.check(name(LARGE))
        assert store.size(name(LARGE)) is not None, "what becomes of it is the caller's to say"

    def test_blobs_are_listed_by_how_they_begin(self, store: BlobStore) -> None:
        digests = {store.put(io.BytesIO(bytes([n]))).digest for n in range(40)}
        starts = {digest.removeprefix("sha256:")[:2] for digest in digests}
        for start in (*starts, "zz"):
            listed = {blob.digest for blob in store.blobs(start)}
            assert listed == {digest for digest in digests if digest.startswith(f"sha256:{start}")}

    def test_a_store_in_order_has_no_strays(self, store: BlobStore) -> None:
        store.put(io.BytesIO(SMALL))
        store.set_label("x")
        assert list(store.strays()) == []
        assert not store.set_aside("sha256/ab/nothing")

    def test_quarantine_makes_a_miss_that_a_put_heals(self, store: BlobStore, spoil: Spoil) -> None:
        blob = store.put(io.BytesIO(SMALL))
        spoil(blob.digest, b"rotten")
        assert store.quarantine(blob.digest) is True
        assert store.read(blob.digest) is None and store.missing([blob.digest]) and list(store.blobs()) == []
        store.put(io.BytesIO(SMALL))
        assert store.read(blob.digest) == SMALL

    def test_a_sound_blob_is_not_put_aside(self, store: BlobStore) -> None:
        blob = store.put(io.BytesIO(SMALL))
        assert store.quarantine(blob.digest) is False
        assert store.read(blob.digest) == SMALL

    def test_putting_again_heals(self, store: BlobStore, spoil: Spoil) -> None:
        blob = store.put(io.BytesIO(SMALL))
        spoil(blob.digest, b"rotten")
        assert store.put(io.BytesIO(SMALL)) == blob
        assert store.read(blob.digest) == SMALL

    # -- many at once --------------------------------------------------------------------------------------------

    def test_many_put_fetch_and_delete_the_same_blobs(self, store: BlobStore, tmp_path: Path) -> None:
        """Whoever comes when: a reader gets the right bytes or a miss."""
        data = [bytes([n]) * 50_000 for n in range(4)]
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for round_ in range(12):
                    one = data[(number + round_) % 4]
                    dest = tmp_path / f"dest-{number}"
                    assert store.put(io.BytesIO(one)).digest == name(one)
                    if store.fetch(name(one), dest, link=bool(round_ % 2)):
                        assert dest.read_bytes() == one
                        dest.unlink()
                    assert store.read(name(one)) in (one, None)
                    if number == 0:
                        store.delete(name(one))
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert {blob.digest for blob in store.blobs()} <= {name(one) for one in data}
