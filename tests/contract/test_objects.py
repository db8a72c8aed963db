"""Small changing objects in memory, in a folder and in S3 keep the contract; and what is each one's own."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from objects_contract import ObjectsContract, SharedObjectsContract, add, held

from farm.blobs.folder_objects import FolderObjects
from farm.blobs.objects import MemoryObjects
from farm.blobs.s3_bucket import Bucket
from farm.blobs.s3_faults import Patience
from farm.blobs.s3_objects import S3Objects, open_s3_objects
from farm.errors import Unavailable
from tests.support.faulty_proxy import FaultyProxy, Rules
from tests.support.seaweed import Seaweed


class TestMemoryObjects(ObjectsContract):
    @pytest.fixture
    def objects(self) -> MemoryObjects:
        return MemoryObjects()


class TestFolderObjects(SharedObjectsContract):
    @pytest.fixture
    def objects(self, tmp_path: Path) -> FolderObjects:
        return FolderObjects(tmp_path / "store")

    @pytest.fixture
    def opening(self, tmp_path: Path) -> str:
        return f"""
from pathlib import Path
from farm.blobs.folder_objects import FolderObjects
objects = FolderObjects(Path({str(tmp_path / "store")!r}))
"""

    def test_reading_makes_nothing(self, objects: FolderObjects) -> None:
        assert objects.read_versioned("one") is None and not objects.root.exists()

    def test_a_full_disk_leaves_what_was_there(self, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch) -> None:
        version = objects.write_if("one", b"old", None)

        def full(*args: object) -> int:
            raise OSError(errno.ENOSPC, "full")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(Unavailable, match="the disk is full"):
                objects.write_if("one", b"new", version)
        assert objects.read_versioned("one") == (b"old", version)
        assert objects.write_if("one", b"new", version)

    def test_where_there_are_no_locks_nothing_is_written(
        self, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none(*args: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", none)
        with pytest.raises(Unavailable, match="No locks available"):
            objects.write_if("one", b"new", None)
        assert objects.read_versioned("one") is None

    def test_a_link_is_not_followed(self, objects: FolderObjects, tmp_path: Path) -> None:
        version = objects.write_if("one", b"1", None)
        (tmp_path / "outside").write_bytes(b"mine")
        for folder in ("objects", "object-locks"):
            (objects.root / folder / "two").symlink_to(tmp_path / "outside")
        (objects.root / "object-locks" / "one~").symlink_to(tmp_path / "outside")
        assert objects.read_versioned("two") is None
        for name, seen in (("one", version), ("two", None)):
            with pytest.raises(Unavailable):
                objects.write_if(name, b"2", seen)
        assert (tmp_path / "outside").read_bytes() == b"mine"


class TestS3Objects(SharedObjectsContract):
    @pytest.fixture
    def url(self) -> str:
        return f"s3://farm-tests/{uuid.uuid4().hex}"

    @pytest.fixture
    def objects(self, url: str, s3: Seaweed) -> S3Objects:
        return open_s3_objects(url, s3.endpoint)

    @pytest.fixture
    def opening(self, url: str, s3: Seaweed) -> str:
        return f"""
from farm.blobs.s3_objects import open_s3_objects
objects = open_s3_objects({url!r}, {s3.endpoint!r})
objects.write_if("warm", b"", None)
"""

    def test_writers_under_faults_lose_nothing(self, url: str, objects: S3Objects, s3: Seaweed) -> None:
        """Answers are lost after the deed, too: then a writer meets its own write."""
        rules = Rules(error_500=0.05, error_503=0.05, reset=0.05, lost=0.15, truncated=0.05)
        with FaultyProxy.start(f"127.0.0.1:{s3.port}", rules, seed=3) as proxy:
            patience = Patience(first_pause=0.01, most_pause=0.1)
            behind = open_s3_objects(url, f"http://{proxy.address}", patience)
            for count in range(20):
                add(behind, "set", {f"behind-{count}"})
                add(objects, "set", {f"past-{count}"})
            assert proxy.counts["lost"] > 5
        assert held(objects, "set") == {f"{who}-{count}" for who in ("behind", "past") for count in range(20)}

    def test_a_write_whose_answer_is_lost_is_known_again(self, url: str, objects: S3Objects, s3: Seaweed) -> None:
        with FaultyProxy.start(f"127.0.0.1:{s3.port}") as proxy:
            behind = open_s3_objects(url, f"http://{proxy.address}", Patience(first_pause=0.01))
            first = behind.write_if("one", b"1", None)
            for seen, data in ((None, b"2"), (first, b"3")):
                proxy.rules = Rules(lost=1.0, methods=("PUT",), most=proxy.faults + 1)
                name = "two" if seen is None else "one"
                version = behind.write_if(name, data, seen)
                assert version and objects.read_versioned(name) == (data, version)
            assert proxy.counts["lost"] == 2

    @pytest.mark.parametrize("ignored", ["IfNoneMatch", "IfMatch"])
    def test_a_server_that_ignores_conditions_is_not_written_to(
        self, objects: S3Objects, monkeypatch: pytest.MonkeyPatch, ignored: str
    ) -> None:
        call = Bucket.call

        def ignoring(self: Bucket, operation: str, **arguments: Any) -> dict[str, Any]:
            if operation == "put_object":
                arguments.pop(ignored, None)
            return call(self, operation, **arguments)

        monkeypatch.setattr(Bucket, "call", ignoring)
        with pytest.raises(Unavailable, match="does not hold the conditions"):
            objects.write_if("one", b"1", None)
        assert objects.read_versioned("one") is None
