"""The store in S3 keeps the contract, on a real server."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aged import aged_objects
from store_contract import SMALL, Age, Spoil, StoreContract, name

from farm.blobs import s3 as s3_module
from farm.blobs import s3_bucket
from farm.blobs.s3 import S3Store, open_s3
from farm.blobs.s3_bucket import Bucket, Head
from farm.blobs.s3_upload import PART, hash_file, part_size, upload
from farm.errors import BadInput, CorruptBlob, Unavailable
from farm.store import LABEL, Blob
from tests.support.seaweed import Seaweed

BUCKET = "farm-tests"


def key_of(store: S3Store, digest: str) -> str:
    digits = digest.removeprefix("sha256:")
    return f"{store._prefix}sha256/{digits[:2]}/{digits}"


@pytest.fixture
def store(s3: Seaweed) -> S3Store:
    return open_s3(f"s3://{BUCKET}/{uuid.uuid4().hex}/a prefix/ü", s3.endpoint)


@pytest.fixture
def spoil(store: S3Store, s3: Seaweed) -> Spoil:
    def spoil(digest: str, data: bytes) -> None:
        s3.client().put_object(Bucket=BUCKET, Key=key_of(store, digest), Body=data)

    return spoil


@pytest.fixture
def uploads(store: S3Store, s3: Seaweed) -> Callable[[], list[str]]:
    """The keys of the uploads in parts that are under way."""

    def uploads() -> list[str]:
        answer = s3.client().list_multipart_uploads(Bucket=BUCKET, Prefix=store._prefix)
        return [item["Key"] for item in answer.get("Uploads", ())]

    return uploads


@pytest.fixture
def age(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> Age:
    older = aged_objects(monkeypatch)
    return lambda digest, seconds: older(key_of(store, digest), seconds)


class TestS3Store(StoreContract):
    """Its fixtures are the module's."""

    test_what_is_put_anew_is_never_deleted_for_its_age = None  # S3 deletes under no condition of age


@pytest.mark.parametrize("at_once", [2**30, PART], ids=["whole", "in parts"])
def test_what_is_put_again_is_made_new_on_the_server(
    store: S3Store, age: Age, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """By a copy onto itself, which moves no bytes; and then it is left alone for a while."""
    monkeypatch.setattr(s3_bucket, "MOST_COPIED", at_once)
    blob = store.put(io.BytesIO(BIG))
    key = key_of(store, blob.digest)
    first = store._bucket.head(key)
    time.sleep(1.1)
    assert store.put(io.BytesIO(BIG)) == blob and store._bucket.head(key) == replace_age(first, store._bucket.head(key))
    age(blob.digest, 7200.0)
    assert store.put(io.BytesIO(BIG)) == blob
    second = store._bucket.head(key)
    assert first and second and second.modified > first.modified and second.digest == blob.digest
    assert store.read(blob.digest) == BIG


def replace_age(head: Head | None, other: Head | None) -> Head | None:
    """The same head as long ago as the other: time goes on."""
    return replace(head, age=other.age) if head and other else None


BIG = random.Random(4).randbytes(PART * 2 + 12_345)
"""Three parts."""


class TestBig:
    """What is sent and fetched in parts."""

    def test_it_comes_back_from_a_file_and_from_a_stream(self, store: S3Store, tmp_path: Path) -> None:
        path = tmp_path / "plan"
        path.write_bytes(BIG)
        blob = store.put_file(path)
        assert blob == Blob(name(BIG), len(BIG)) == store.put(io.BytesIO(BIG))
        assert store.fetch(blob.digest, tmp_path / "dest") and (tmp_path / "dest").read_bytes() == BIG
        assert store.read(blob.digest) == BIG and list(store.blobs()) == [blob]

    def test_a_stream_is_sent_in_parts(self, store: S3Store, uploads: Callable[[], list[str]]) -> None:
        assert store.put(io.BytesIO(BIG)).size == len(BIG)
        assert store.read(name(BIG)) == BIG and uploads() == []

    @pytest.mark.parametrize("bad", [BIG[:-1], BIG[:PART] + b"!" + BIG[PART + 1 :]], ids=["truncated", "flipped"])
    def test_corrupt_bytes_reach_nobody(self, store: S3Store, spoil: Spoil, tmp_path: Path, bad: bytes) -> None:
        blob = store.put(io.BytesIO(BIG))
        spoil(blob.digest, bad)
        with pytest.raises(CorruptBlob, match=r"check that bucket"):
            store.fetch(blob.digest, tmp_path / "dest")
        assert os.listdir(tmp_path) == []
        assert store.quarantine(blob.digest) and store.size(blob.digest) is None
        assert store.put(io.BytesIO(BIG)) == blob and store.read(blob.digest) == BIG

    def test_a_file_that_changes_meanwhile_gets_no_name(
        self, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uploads: Callable[[], list[str]]
    ) -> None:
        path = tmp_path / "plan"
        path.write_bytes(BIG)
        call = Bucket.call

        def change_first(self: Bucket, operation: str, **arguments: Any) -> dict[str, Any]:
            if operation == "create_multipart_upload":
                with path.open("r+b") as file:
                    file.seek(PART + 5)
                    file.write(b"changed")
            return call(self, operation, **arguments)

        monkeypatch.setattr(Bucket, "call", change_first)
        with pytest.raises(BadInput, match="changed while"):
            store.put_file(path)
        assert list(store.blobs()) == [] and uploads() == []

    def test_a_file_that_shrinks_meanwhile_gets_no_name(self, tmp_path: Path, store: S3Store) -> None:
        path = tmp_path / "plan"
        path.write_bytes(BIG)
        with path.open("rb") as file:
            hashed = hash_file(file.fileno())
            os.truncate(path, PART)
            with pytest.raises(BadInput, match="changed while"):
                upload(store._bucket, key_of(store, hashed.blob.digest), file.fileno(), hashed, {})
        assert list(store.blobs()) == []

    def test_a_bigger_object_is_copied_in_parts(self, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3_bucket, "MOST_COPIED", PART)
        digest = store.put(io.BytesIO(BIG)).digest
        head = store._bucket.head(key_of(store, digest))
        assert head is not None
        store._bucket.copy(key_of(store, digest), f"{store._prefix}copy", head)
        copied = store._bucket.head(f"{store._prefix}copy")
        assert copied is not None
        assert b"".join(store._bucket.stream(f"{store._prefix}copy", copied.etag, 0, copied.size)) == BIG


@pytest.mark.parametrize(
    ("size", "step"),
    [(1, PART), (PART * 10_000, PART), (PART * 10_000 + 1, PART + 2**20), (5 * 2**40, 525 * 2**20)],
)
def test_a_file_never_has_more_parts_than_s3_takes(size: int, step: int) -> None:
    assert part_size(size) == step and -(-size // step) <= 10_000


class TestSweeping:
    def test_uploads_of_the_dead_go_after_a_day(
        self, store: S3Store, uploads: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = key_of(store, name(BIG))
        for _ in range(2):
            store._bucket.call("create_multipart_upload", Key=key)
        assert store.sweep() == 0 and uploads() == [key, key]
        monkeypatch.setattr(s3_module, "LEFT_AFTER_S", -60.0)
        assert store.sweep() == 2 and uploads() == []

    def test_a_killed_writer_leaves_nothing_to_be_seen(
        self, store: S3Store, s3: Seaweed, tmp_path: Path, uploads: Callable[[], list[str]]
    ) -> None:
        """It is killed when its first part is there; the blob is whole after somebody else's put."""
        (tmp_path / "plan").write_bytes(BIG)
        body = """
import sys, os, signal
from pathlib import Path
from farm.blobs import s3_upload
from farm.blobs.s3 import open_s3
send = s3_upload._send_part
def once(*args):
    send(*args)
    os.kill(os.getpid(), signal.SIGKILL)
s3_upload._send_part = once
open_s3(*sys.argv[1:3]).put_file(Path(sys.argv[3]))
"""
        where = [f"s3://{BUCKET}/{store._prefix}", s3.endpoint, str(tmp_path / "plan")]
        done = subprocess.run([sys.executable, "-c", body, *where], timeout=60)
        assert done.returncode == -signal.SIGKILL
        assert uploads() != [] and list(store.blobs()) == [] and store.size(name(BIG)) is None
        assert store.put_file(tmp_path / "plan").digest == name(BIG) and store.read(name(BIG)) == BIG


def test_objects_under_other_keys_are_strays(store: S3Store, s3: Seaweed) -> None:
    kept = store.put(io.BytesIO(SMALL))
    keys = ["ab/..%2f..%2fx", "zz/" + "0" * 64, "ab/" + "0" * 64, "plain", "ab/cd/" + "0" * 64]
    for key in keys:
        s3.client().put_object(Bucket=BUCKET, Key=f"{store._prefix}sha256/{key}", Body=b"x")
    strays = list(store.strays())
    assert {stray.place for stray in strays} == {f"sha256/{key}" for key in keys}
    assert list(store.blobs()) == [kept]
    assert all(store.set_aside(stray.place) for stray in strays)
    assert list(store.strays()) == [] and store.read(kept.digest) == SMALL
    with pytest.raises(BadInput, match="no place among blobs"):
        store.set_aside(LABEL)


class TestPresigned:
    def test_anybody_may_get_it_and_nothing_else(self, store: S3Store) -> None:
        url = store.presign(store.put(io.BytesIO(SMALL)).digest, 60)
        assert url is not None
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read() == SMALL
        for method in ("PUT", "DELETE"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(urllib.request.Request(url, b"x", method=method), timeout=10)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url.replace(name(SMALL)[7:], name(b"other")[7:]), timeout=10)

    def test_it_ends(self, store: S3Store) -> None:
        url = store.presign(store.put(io.BytesIO(SMALL)).digest, 1)
        assert url is not None
        time.sleep(2.1)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(url, timeout=10)

    @pytest.mark.parametrize("seconds", [0, -1, 7 * 86_400 + 1])
    def test_only_for_a_time_that_can_be(self, store: S3Store, seconds: int) -> None:
        with pytest.raises(BadInput, match="a URL cannot be good for"):
            store.presign(name(SMALL), seconds)


class TestThisMachine:
    """What goes wrong on this side is said as what it is."""

    @pytest.mark.parametrize("data", [SMALL, BIG], ids=["small", "big"])
    def test_a_disk_full_where_it_is_fetched_to(
        self, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
    ) -> None:
        digest = store.put(io.BytesIO(data)).digest

        def full(*args: object) -> int:
            raise OSError(errno.ENOSPC, "full")

        for write in ("write", "pwrite"):
            monkeypatch.setattr(os, write, full)
        with pytest.raises(Unavailable, match="the disk is full") as caught:
            store.fetch(digest, tmp_path / "dest")
        assert str(tmp_path) in caught.value.message and os.listdir(tmp_path) == []

    def test_no_room_for_a_stream(self, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(Unavailable, match="it is not there"):
            store.put(io.BytesIO(BIG))
        assert list(store.blobs()) == []

    def test_places_that_cannot_be(self, store: S3Store, tmp_path: Path) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        (tmp_path / "folder").mkdir()
        with pytest.raises(Unavailable, match="nowhere"):
            store.fetch(digest, tmp_path / "nowhere" / "plan")
        with pytest.raises(BadInput, match="is a folder"):
            store.fetch(digest, tmp_path / "folder")
        for path in (tmp_path / "nothing", tmp_path):
            with pytest.raises(BadInput, match="cannot be read"):
                store.put_file(path)
        assert os.listdir(tmp_path) == ["folder"]

    def test_a_source_that_fails_half_way(self, store: S3Store) -> None:
        class Failing(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell():
                    raise OSError(errno.EIO, "the stick was pulled")
                return super().read(10)

        with pytest.raises(BadInput, match="the stick was pulled"):
            store.put(Failing(SMALL * 100))
        assert list(store.blobs()) == []


class TestLayout:
    def test_what_is_no_blob_is_not_listed(self, store: S3Store, s3: Seaweed) -> None:
        blob = store.put(io.BytesIO(SMALL))
        for key in ("sha256/README", f"sha256/00/{name(SMALL)[7:]}", "sha256/ab/short", "other/thing"):
            s3.client().put_object(Bucket=BUCKET, Key=f"{store._prefix}{key}", Body=b"x")
        assert list(store.blobs()) == [blob]

    def test_one_prefix_does_not_see_another(self, s3: Seaweed) -> None:
        folder = uuid.uuid4().hex
        one, longer = (open_s3(f"s3://{BUCKET}/{folder}/{end}", s3.endpoint) for end in ("a", "ab"))
        digest = longer.put(io.BytesIO(SMALL)).digest
        assert one.size(digest) is None and list(one.blobs()) == [] and len(list(longer.blobs())) == 1

    def test_pages_are_turned(self, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        put = {store.put(io.BytesIO(bytes([n]))).digest for n in range(7)}
        call = Bucket.call

        def small_pages(self: Bucket, operation: str, **arguments: Any) -> dict[str, Any]:
            more = {"MaxKeys": 3} if operation == "list_objects_v2" else {}
            return call(self, operation, **arguments, **more)

        monkeypatch.setattr(Bucket, "call", small_pages)
        assert {blob.digest for blob in store.blobs()} == put
        assert store.missing([*put, name(b"none")]) == {name(b"none")}

    def test_a_blob_that_is_there_is_not_sent_again(self, store: S3Store, s3: Seaweed) -> None:
        store.put(io.BytesIO(SMALL))
        stored = s3.client().head_object(Bucket=BUCKET, Key=key_of(store, name(SMALL)))["LastModified"]
        time.sleep(1.1)
        store.put(io.BytesIO(SMALL))
        assert s3.client().head_object(Bucket=BUCKET, Key=key_of(store, name(SMALL)))["LastModified"] == stored

    def test_a_corrupt_blob_is_kept_aside_to_be_looked_at(self, store: S3Store, s3: Seaweed, spoil: Spoil) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        spoil(digest, b"rotten")
        assert store.quarantine(digest)
        (aside,) = s3.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{store._prefix}quarantine/")["Contents"]
        assert s3.client().get_object(Bucket=BUCKET, Key=aside["Key"])["Body"].read() == b"rotten"

    def test_who_is_healed_while_he_is_put_aside_stays(
        self, store: S3Store, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digest = store.put(io.BytesIO(SMALL)).digest
        spoil(digest, b"rotten")
        copy = Bucket.copy

        def heal_then(self: Bucket, key: str, to: str, head: Head) -> None:
            copy(self, key, to, head)
            store.put(io.BytesIO(SMALL))

        monkeypatch.setattr(Bucket, "copy", heal_then)
        assert store.quarantine(digest) is False and store.read(digest) == SMALL


def test_who_uses_no_bucket_imports_no_boto3() -> None:
    body = "import sys, farm.cli, farm.wiring; print([n for n in sys.modules if n.startswith(('boto', 's3transfer'))])"
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
