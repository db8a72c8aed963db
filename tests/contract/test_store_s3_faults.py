"""What an S3 store does about servers and ways to them that fail: patience, then words; never wrong bytes."""

from __future__ import annotations

import datetime
import io
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions as boto
import pytest
from store_contract import SMALL, name

from farm.blobs import s3_bucket
from farm.blobs.s3 import S3Store, open_s3
from farm.blobs.s3_faults import Attempts, Patience
from farm.blobs.s3_upload import PART
from farm.blobs.s3_urls import Place, place
from farm.errors import BadConfig, CorruptBlob, FarmError, Unavailable
from tests.support.faulty_proxy import FaultyProxy, Rules
from tests.support.seaweed import READER_KEY, READER_SECRET, Seaweed

BIG = random.Random(5).randbytes(PART * 2 + 54_321)
SOON = Patience(total=0.6, unreachable=0.3, first_pause=0.01, most_pause=0.1)
LONG = Patience(total=60, unreachable=10, first_pause=0.01, most_pause=0.1)


@pytest.fixture
def proxy(s3: Seaweed) -> Iterator[FaultyProxy]:
    with FaultyProxy.start(f"127.0.0.1:{s3.port}", seed=11) as proxy:
        yield proxy


@pytest.fixture
def where() -> str:
    return f"s3://farm-tests/{uuid.uuid4().hex}"


@pytest.fixture
def well(s3: Seaweed, where: str) -> S3Store:
    """The same store, past the proxy."""
    return open_s3(where, s3.endpoint)


@pytest.fixture
def store(proxy: FaultyProxy, where: str) -> S3Store:
    return open_s3(where, f"http://{proxy.address}", LONG)


@pytest.fixture
def hasty(proxy: FaultyProxy, where: str) -> S3Store:
    return open_s3(where, f"http://{proxy.address}", SOON)


class TestNowAndThen:
    """Faults that pass: everything comes about, and what is stored and handed out is right."""

    @pytest.mark.parametrize("kind", ["error_500", "error_503", "reset", "lost", "truncated", "slow"])
    def test_each_kind(self, proxy: FaultyProxy, store: S3Store, well: S3Store, tmp_path: Path, kind: str) -> None:
        proxy.rules = Rules(**{kind: 0.3})
        for data in (SMALL, BIG, b"another"):
            blob = store.put(io.BytesIO(data))
            assert well.read(blob.digest) == data
            assert store.fetch(blob.digest, tmp_path / "dest") and (tmp_path / "dest").read_bytes() == data
            assert store.read(blob.digest) == data and store.missing([blob.digest, name(b"no")]) == {name(b"no")}
        assert {blob.digest for blob in store.blobs()} == {name(SMALL), name(BIG), name(b"another")}
        assert store.delete(name(SMALL)) in (True, False) and well.size(name(SMALL)) is None
        assert proxy.counts[kind] > 3

    def test_all_at_once(self, proxy: FaultyProxy, store: S3Store, well: S3Store, tmp_path: Path) -> None:
        proxy.rules = Rules(error_500=0.08, error_503=0.08, reset=0.08, lost=0.08, truncated=0.1, slow=0.1)
        for number in range(6):
            data = BIG[number:]
            (tmp_path / "plan").write_bytes(data)
            assert well.read(store.put_file(tmp_path / "plan").digest) == data
            assert store.fetch(name(data), tmp_path / "dest") and (tmp_path / "dest").read_bytes() == data
        assert proxy.faults > 20

    def test_what_breaks_off_is_taken_up_where_it_broke(
        self, proxy: FaultyProxy, store: S3Store, well: S3Store
    ) -> None:
        digest = well.put(io.BytesIO(BIG)).digest
        proxy.rules = Rules(truncated=1.0, least_body=100, most=1)
        assert store.read(digest) == BIG
        first, again = (line.rpartition("=")[2] for line in proxy.requests if line.startswith("GET"))
        assert first == f"0-{len(BIG) - 1}" and again == f"{len(BIG) // 2}-{len(BIG) - 1}"

    @pytest.mark.parametrize("data", [SMALL, BIG], ids=["small", "big"])
    def test_a_byte_that_changed_on_the_way_is_fetched_again(
        self, proxy: FaultyProxy, store: S3Store, well: S3Store, tmp_path: Path, data: bytes
    ) -> None:
        digest = well.put(io.BytesIO(data)).digest
        for get in (lambda: store.read(digest), lambda: _fetched(store, digest, tmp_path)):
            proxy.counts.clear()
            proxy.rules = Rules(torn=1.0, methods=("GET",), most=1)
            assert get() == data
            assert proxy.counts["torn"] == 1

    def test_a_label_that_was_damaged_on_the_way_is_read_again(
        self, proxy: FaultyProxy, store: S3Store, well: S3Store
    ) -> None:
        """As chaos found it: one changed byte, and a store was said to be another farm's."""
        assert well.set_label("abc" * 10) == "abc" * 10
        for _ in range(4):
            proxy.rules = Rules(torn=1.0, methods=("GET",), most=proxy.faults + 1)
            assert store.label() == "abc" * 10

    def test_a_time_that_was_damaged_on_the_way_is_asked_for_again(self, well: S3Store) -> None:
        """As chaos found it: one bit of a listing's LastModified, which botocore cannot read, and says in no words."""
        (kept, damaged) = (well.put(io.BytesIO(SMALL)), [])

        def damage(response_dict: dict[str, Any], **_more: Any) -> None:
            if not damaged:
                damaged.append(response_dict["body"])
                head, mark, tail = response_dict["body"].partition(b"<LastModified>")
                response_dict["body"] = head + mark + tail.replace(b":", b";", 2)

        well._bucket._connected().meta.events.register("before-parse.s3.ListObjectsV2", damage)
        assert [blob.digest for blob in well.blobs()] == [kept.digest]
        assert b"<LastModified>" in damaged[0]

    @pytest.mark.parametrize("data", [SMALL, BIG], ids=["small", "big"])
    def test_an_answer_that_is_lost_after_the_deed(
        self, proxy: FaultyProxy, store: S3Store, well: S3Store, data: bytes
    ) -> None:
        """The same request, made again, finds what it did itself: that is no conflict with anybody."""
        for method in ("PUT", "POST"):
            proxy.counts.clear()
            proxy.rules = Rules(lost=1.0, methods=(method,), most=3)
            assert well.read(store.put(io.BytesIO(data + method.encode())).digest) == data + method.encode()
        assert proxy.counts["lost"] == (3 if data is BIG else 0)

    def test_a_connection_cut_in_the_middle(self, proxy: FaultyProxy, store: S3Store, well: S3Store) -> None:
        digest = well.put(io.BytesIO(BIG)).digest
        head = store._bucket.head(f"{store._prefix}sha256/{digest[7:9]}/{digest[7:]}")
        assert head is not None
        got = b""
        for chunk in store._bucket.stream(f"{store._prefix}sha256/{digest[7:9]}/{digest[7:]}", head.etag, 0, head.size):
            if not got:
                proxy.cut()
            got += chunk
        assert got == BIG


def _fetched(store: S3Store, digest: str, folder: Path) -> bytes:
    assert store.fetch(digest, folder / "dest")
    return (folder / "dest").read_bytes()


class TestWithoutEnd:
    """Faults that stay end in words, in bounded time, and leave nothing half done."""

    @pytest.mark.parametrize(
        ("rules", "words"),
        [
            (Rules(error_500=1.0), "answers (500|InternalError)"),
            (Rules(error_503=1.0), "fewer requests"),
            (Rules(reset=1.0), "broken"),
            (Rules(lost=1.0), "broken"),
            (Rules(truncated=1.0, methods=("GET",)), "broken|500"),
            (Rules(error_503=1.0, methods=("GET",)), "fewer requests"),
        ],
        ids=["500", "503", "reset", "lost", "truncated", "503 of GET"],
    )
    def test_reading(
        self, proxy: FaultyProxy, hasty: S3Store, well: S3Store, tmp_path: Path, rules: Rules, words: str
    ) -> None:
        digest = well.put(io.BytesIO(b"x")).digest
        proxy.rules = rules
        acts: list[Callable[[], object]] = [
            lambda: hasty.read(digest),
            lambda: hasty.fetch(digest, tmp_path / "dest"),
            lambda: list(hasty.blobs()),
        ]
        for act in acts:
            started = time.monotonic()
            with pytest.raises(Unavailable, match=words) as caught:
                act()
            assert caught.value.hint and time.monotonic() - started < 10
        assert os.listdir(tmp_path) == []

    def test_a_big_blob_that_never_comes_whole(
        self, proxy: FaultyProxy, hasty: S3Store, well: S3Store, tmp_path: Path
    ) -> None:
        digest = well.put(io.BytesIO(BIG)).digest
        proxy.rules = Rules(reset=1.0, methods=("GET",))
        with pytest.raises(Unavailable):
            hasty.fetch(digest, tmp_path / "dest")
        assert os.listdir(tmp_path) == []
        proxy.rules = Rules()
        assert hasty.fetch(digest, tmp_path / "dest")

    @pytest.mark.parametrize("data", [SMALL, BIG], ids=["small", "big"])
    def test_bytes_that_are_always_wrong_are_corrupt(
        self, proxy: FaultyProxy, hasty: S3Store, well: S3Store, tmp_path: Path, data: bytes
    ) -> None:
        digest = well.put(io.BytesIO(data)).digest
        proxy.rules = Rules(torn=1.0, methods=("GET",))
        for act in (lambda: hasty.read(digest), lambda: hasty.fetch(digest, tmp_path / "dest")):
            with pytest.raises(CorruptBlob, match=digest):
                act()
        assert os.listdir(tmp_path) == []
        proxy.rules = Rules()
        assert hasty.quarantine(digest) is False, "what was damaged on the way is sound where it lies"

    def test_a_server_that_says_nothing(
        self, proxy: FaultyProxy, hasty: S3Store, well: S3Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digest = well.put(io.BytesIO(SMALL)).digest
        monkeypatch.setattr(s3_bucket, "READ_S", 0.2)
        proxy.rules = Rules(stalled=1.0)
        started = time.monotonic()
        with pytest.raises(Unavailable, match="broken"):
            hasty.read(digest)
        assert time.monotonic() - started < 10
        proxy.rules = Rules(stalled=1.0, most=proxy.faults + 1)
        assert hasty.read(digest) == SMALL

    @pytest.mark.parametrize("rules", [Rules(error_500=1.0, methods=("PUT",)), Rules(reset=1.0, methods=("PUT",))])
    def test_writing(self, proxy: FaultyProxy, hasty: S3Store, well: S3Store, s3: Seaweed, rules: Rules) -> None:
        proxy.rules = rules
        for data in (SMALL, BIG):
            with pytest.raises(Unavailable):
                hasty.put(io.BytesIO(data))
        assert list(well.blobs()) == []
        assert s3.client().list_multipart_uploads(Bucket="farm-tests", Prefix=well._prefix).get("Uploads", []) == []


class TestWords:
    """Each of these is what a real server answers."""

    def refused(self, act: Callable[[], object], words: str, hint: str) -> None:
        with pytest.raises(Unavailable, match=words) as caught:
            act()
        assert hint in caught.value.hint and "\n" not in caught.value.message
        assert "secret" not in str(caught.value).lower().replace("secret_access_key", "").replace("secret key", "")

    def everything(self, store: S3Store, words: str, hint: str) -> None:
        digest = name(b"some blob")
        acts: list[Callable[[], object]] = [
            lambda: store.size(digest),
            lambda: store.missing([digest, name(b"b")]),
            lambda: store.read(digest),
            lambda: store.delete(digest),
            lambda: store.quarantine(digest),
            lambda: list(store.blobs()),
            lambda: store.put(io.BytesIO(b"some blob")),
            lambda: store.sweep(),
        ]
        for act in acts:
            self.refused(act, words, hint)

    def test_a_wrong_secret(self, well: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        self.everything(well, "the secret key is wrong", "AWS_SECRET_ACCESS_KEY")

    def test_an_unknown_key(self, well: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        self.everything(well, "does not know this access key", "AWS_ACCESS_KEY_ID")

    def test_no_credentials(self, well: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        self.everything(well, "no credentials", "AWS_ACCESS_KEY_ID")

    def test_half_of_the_credentials(self, well: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        self.refused(lambda: well.size(name(b"x")), "no credentials", "AWS_SECRET_ACCESS_KEY")

    def test_a_profile_that_is_not_there(self, well: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        self.refused(lambda: well.size(name(b"x")), "nobody", "profile")

    def test_a_configuration_that_boto3_cannot_read(
        self, well: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "config").write_text("[default\nregion")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        self.refused(lambda: well.size(name(b"x")), "boto3's own configuration", "AWS_CONFIG_FILE")

    def test_a_region_that_cannot_be(self, well: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the one variable that boto3 reads: ``AWS_REGION`` is none."""
        monkeypatch.setenv("AWS_DEFAULT_REGION", "no region at all")
        self.refused(lambda: well.size(name(b"x")), "boto3's own configuration", "AWS_CONFIG_FILE")

    def test_a_missing_bucket(self, s3: Seaweed) -> None:
        self.everything(open_s3("s3://not-there", s3.endpoint), "there is no such bucket", "FARM_STORE_URL")

    def test_no_right_to_write(self, well: S3Store, where: str, s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
        digest = well.put(io.BytesIO(SMALL)).digest
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
        reader = open_s3(where, s3.endpoint)
        assert reader.read(digest) == SMALL
        for act in (lambda: reader.put(io.BytesIO(b"new")), lambda: reader.delete(digest)):
            self.refused(act, "may not do that", "s3:PutObject")

    def test_a_clock_that_is_wrong(self, well: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        import botocore.auth

        def an_hour_ago(*args: Any, **kwargs: Any) -> datetime.datetime:
            return datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(hours=1)

        monkeypatch.setattr(botocore.auth, "get_current_datetime", an_hour_ago)
        self.everything(well, "clock is too far", "NTP")

    def test_nobody_answers(self, s3: Seaweed) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
            self.everything(open_s3("s3://farm-tests", endpoint, SOON), "cannot be reached", "FARM_S3_ENDPOINT_URL")

    def test_no_such_host(self, s3: Seaweed) -> None:
        store = open_s3("s3://farm-tests", "http://no-such-host.invalid:9", SOON)
        self.refused(lambda: store.size(name(b"x")), "cannot be reached", "FARM_S3_ENDPOINT_URL")

    def test_something_that_is_no_s3_server(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
            store = open_s3("s3://farm-tests", endpoint, Patience(total=0, unreachable=0))
            _answer_once(server, b"SSH-2.0-OpenSSH_9.2\r\n")
            with pytest.raises(Unavailable):
                store.size(name(b"x"))


def _answer_once(server: socket.socket, data: bytes) -> None:
    import threading

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(data)

    threading.Thread(target=answer, daemon=True).start()


class TestPatience:
    def slow_down(self) -> boto.ClientError:
        return boto.ClientError(
            {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject"
        )

    def test_pauses_grow_and_are_drawn_from_nothing_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bounds: list[float] = []
        monkeypatch.setattr(random, "uniform", lambda low, high: bounds.append(high) or low)
        attempts = Attempts(Patience(first_pause=1, most_pause=5), "here")
        for _ in range(5):
            attempts.after(self.slow_down())
        assert bounds == [1, 2, 4, 5, 5]
        attempts.progressed()
        attempts.after(self.slow_down())
        assert bounds[-1] == 1

    def test_what_is_final_is_not_tried_again(self) -> None:
        with pytest.raises(Unavailable, match="here: the server answers MalformedXML"):
            Attempts(Patience(), "here").after(boto.ClientError({"Error": {"Code": "MalformedXML"}}, "PutObject"))


@pytest.mark.parametrize(
    ("url", "endpoint", "expected"),
    [
        ("s3://bucket", "", Place("bucket")),
        ("s3://bucket/", "", Place("bucket")),
        ("s3://bucket/a", "", Place("bucket", "a/")),
        ("s3://bucket//a//b c/ü%20/", "https://s3.example/", Place("bucket", "a/b c/ü%20/", "https://s3.example")),
        ("s3://my.bucket-1/x", "http://[::1]:8333", Place("my.bucket-1", "x/", "http://[::1]:8333")),
    ],
)
def test_urls(url: str, endpoint: str, expected: Place) -> None:
    assert place(url, endpoint) == expected


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("file:///x", ""),
        ("s3:bucket", ""),
        ("s3://", ""),
        ("s3:///prefix", ""),
        ("s3://user@bucket/x", ""),
        ("s3://key:secret@bucket/x", ""),
        ("s3://bucket:80/x", ""),
        ("s3://bucket/../x", ""),
        ("s3://bucket/a/./x", ""),
        ("s3://bucket/x?versionId=1", ""),
        ("s3://bucket/x#y", ""),
        ("s3://bucket/a\\b", ""),
        ("s3://bucket/a\nb", ""),
        ("s3://bucket", "localhost:8333"),
        ("s3://bucket", "ftp://host"),
        ("s3://bucket", "http://"),
        ("s3://bucket", "http://host:port"),
        ("s3://bucket", "http://key:secret@host"),
        ("s3://bucket", "http://host?x=1"),
    ],
)
def test_what_is_no_url(url: str, endpoint: str) -> None:
    with pytest.raises(BadConfig) as caught:
        open_s3(url, endpoint)
    assert caught.value.hint and isinstance(caught.value, FarmError)
    assert "secret" not in caught.value.message
