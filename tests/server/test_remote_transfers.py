"""Blobs to and from a server: whole and verified or not at all, whatever breaks, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from farm.errors import CorruptBlob, Unavailable
from farm.remote.link import Link
from farm.remote.store import Coming, RemoteStore
from farm.wire import Session
from tests.conftest import clean_environment
from tests.server.conftest import Client, Server
from tests.support.faulty_proxy import FaultyProxy, Rules

pytestmark = pytest.mark.xdist_group("serve")

MIB = 2**20
LARGE = 192 * MIB


def store_at(url: str, token: str, patience: float = 20.0) -> RemoteStore:
    link = Link(url, token)
    return RemoteStore(link, link.get("session", Session), patience)


@pytest.fixture
def data() -> bytes:
    return os.urandom(3 * MIB + 17)


def put(site: Server, data: bytes) -> str:
    """Straight into the server's folder."""
    digits = hashlib.sha256(data).hexdigest()
    path = site.home / "store" / "sha256" / digits[:2] / digits
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"sha256:{digits}"


@pytest.mark.parametrize("fault", ["truncated", "reset", "error_503", "lost"])
def test_a_download_that_breaks_goes_on(site: Server, client: Client, tmp_path: Path, data: bytes, fault: str) -> None:
    digest = put(site, data)
    with FaultyProxy.start(site.url.partition("//")[2], seed=3) as proxy:
        store = store_at(f"http://{proxy.address}", client.token)
        proxy.rules = Rules(**{fault: 1.0}, most=2)
        assert store.fetch(digest, tmp_path / "plan")
        assert proxy.counts[fault] == 2
    assert (tmp_path / "plan").read_bytes() == data


def test_bytes_that_change_on_their_way_reach_nobody(site: Server, client: Client, tmp_path: Path, data: bytes) -> None:
    digest, folder = put(site, data), tmp_path / "out"
    folder.mkdir()
    with FaultyProxy.start(site.url.partition("//")[2], seed=3) as proxy:
        store = store_at(f"http://{proxy.address}", client.token)
        proxy.rules = Rules(torn=1.0)
        with pytest.raises(CorruptBlob):
            store.fetch(digest, folder / "plan")
    assert list(folder.iterdir()) == []


def test_a_pull_that_was_cut_off_goes_on_later(site: Server, client: Client, tmp_path: Path, data: bytes) -> None:
    digest, folder = put(site, data), tmp_path / "out"
    folder.mkdir()
    store, came = store_at(site.url, client.token), list[int]()

    def enough(count: int) -> None:
        came.append(count)
        if sum(came) > MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.resume(digest, folder / "plan", enough)
    assert not (folder / "plan").exists()
    assert store.resume(digest, folder / "plan", came.append)
    assert (folder / "plan").read_bytes() == data and sum(came) == len(data)
    assert store.resume(digest, folder / "plan", came.append) and sum(came) == len(data), "it is there"
    (site.home / "store" / "sha256" / digest[7:9] / digest[7:]).write_bytes(data[:-1] + b"?")
    (folder / "plan").unlink()
    with pytest.raises(CorruptBlob):
        store.resume(digest, folder / "plan")
    assert list(folder.iterdir()) == []
    assert store.resume("sha256:" + "0" * 64, folder / "plan") is False


@pytest.mark.parametrize("fault", ["reset", "lost", "error_503"])
def test_an_upload_that_breaks_is_sent_again(
    site: Server, client: Client, data: bytes, fault: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(data)
    with FaultyProxy.start(site.url.partition("//")[2], seed=3) as proxy:
        store = store_at(f"http://{proxy.address}", client.token)
        proxy.rules = Rules(**{fault: 1.0}, most=1, methods=("PUT",))
        blob = store.put_file(tmp_path / "file")
    assert store_at(site.url, client.token).read(blob.digest) == data


def test_a_server_killed_in_the_middle_is_waited_for(tmp_path: Path, data: bytes) -> None:
    """And one that stays away is said, with how far it got."""
    server = Server(tmp_path / "home")
    server.home.mkdir()
    with server.index():
        pass
    token = server.start().token("t")
    try:
        data = data * 8
        digest = put(server, data)
        link = Link(server.url, token)
        session = link.get("session", Session)
        came: list[bytes] = []

        def kill_once(piece: bytes) -> None:
            came.append(piece)
            if len(came) == 2:
                server.kill()
                server.start()

        store = RemoteStore(link, session, 30.0)
        assert store._bring(Coming(digest, link, kill_once)) and b"".join(came) == data

        def kill_for_good(piece: bytes) -> None:
            if server.process is not None and server.process.poll() is None:
                server.kill()

        with pytest.raises(Unavailable, match="had come"):
            RemoteStore(link, session, 0.5)._bring(Coming(digest, link, kill_for_good))
    finally:
        server.kill()


PULLER = """
import resource, sys
from pathlib import Path
from farm.remote.link import Link
from farm.remote.store import RemoteStore
from farm.wire import Session
url, token, source, dest = sys.argv[1:]
link = Link(url, token)
store = RemoteStore(link, link.get("session", Session), 10.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blob = store.put_file(Path(source))
assert store.fetch(blob.digest, Path(dest))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_blob_takes_little_memory(site: Server, client: Client, tmp_path: Path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.write(os.urandom(16))
        file.truncate(LARGE)
    assert site.process is not None
    server = psutil.Process(site.process.pid)
    before = server.memory_info().rss
    done = subprocess.run(
        [sys.executable, "-c", PULLER, site.url, client.token, source, tmp_path / "back"],
        env=clean_environment(tmp_path / "home", PYTHONPATH=os.pathsep.join(sys.path)),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 48 * MIB, "the client's"
    assert server.memory_info().rss - before < 64 * MIB, "the server's"
    assert (tmp_path / "back").stat().st_size == LARGE


def test_ranges_and_tags(site: Server, client: Client, data: bytes) -> None:
    import httpx

    digest = put(site, data)
    with httpx.Client(headers={"Authorization": f"Bearer {client.token}"}) as asking:
        url = f"{site.url}/api/v1/blobs/{digest}"
        whole = asking.get(url)
        assert (
            whole.content == data
            and whole.headers["etag"] == f'"{digest}"'
            and "immutable" in whole.headers["cache-control"]
        )
        part = asking.get(url, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, data[5:10])
        assert part.headers["content-range"] == f"bytes 5-9/{len(data)}"
        assert asking.get(url, headers={"Range": "bytes=-7"}).content == data[-7:]
        assert asking.get(url, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
        assert asking.get(url, headers={"Range": "bytes=5-9", "If-Range": '"other"'}).status_code == 200
        assert asking.get(url, headers={"If-None-Match": f'"{digest}"'}).status_code == 304
        assert asking.head(url).headers["content-length"] == str(len(data))
        assert asking.get(f"{site.url}/api/v1/blobs/sha256:{'0' * 64}").status_code == 404


def test_what_is_there_is_not_sent_again(site: Server, client: Client, data: bytes, tmp_path: Path) -> None:
    digest = put(site, data)
    (tmp_path / "file").write_bytes(data)
    with FaultyProxy.start(site.url.partition("//")[2]) as proxy:
        proxy.rules = Rules(error_500=1.0, methods=("PUT",))
        assert store_at(f"http://{proxy.address}", client.token).put_file(tmp_path / "file").digest == digest
    assert proxy.counts["error_500"] == 0


def test_a_pull_that_was_cut_off_goes_on_in_the_next_process(
    site: Server, client: Client, data: bytes, tmp_path: Path
) -> None:
    """What has come is kept beside the file, and only the rest is asked for."""
    digest, dest = put(site, data), tmp_path / "plan"
    came: list[int] = []

    def give_up(count: int) -> None:
        came.append(count)
        if sum(came) >= MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_at(site.url, client.token).resume(digest, dest, give_up)
    assert not dest.exists() and MIB <= sum(came) < len(data)
    assert store_at(site.url, client.token).resume(digest, dest, came.append)
    assert dest.read_bytes() == data and sum(came) == len(data)
    assert not store_at(site.url, client.token).resume("sha256:" + "0" * 64, tmp_path / "none")
