"""A client with an address and a token: the same answers as beside the database, by real processes."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from farm.asks import Outcome
from farm.cli.run import run
from farm.errors import BadToken, NoSuchThing, Unavailable
from farm.index import Sweep, Trial, Wanted
from farm.measurements import MeasuringAsk, Runner
from farm.service import Farm
from farm.tokens import Scope
from tests.conftest import Farms, eventually
from tests.server.conftest import Client, Server, ask, noop_worker, target

pytestmark = pytest.mark.xdist_group("serve")


def test_a_client_builds_and_hits_and_pulls(client: Client, model: Path, tmp_path: Path) -> None:
    built = client.run("build", model, "-t", "sm_86", "-t", "sm_89", "--json")
    assert built.code == 0, built.err
    assert [answer["outcome"] for answer in built.json] == ["built", "built"]
    again = client.run("build", model, "-t", "sm_86", "-t", "sm_89", "--json")
    assert [answer["outcome"] for answer in again.json] == ["hit", "hit"]
    assert [answer["engine"] for answer in again.json] == [answer["engine"] for answer in built.json]
    pulled = client.run("pull", built.json[0]["key"], "-o", tmp_path / "out", "--json")
    assert pulled.code == 0, pulled.err
    plan = Path(pulled.json[0]["path"]).read_bytes()
    assert "sha256:" + hashlib.sha256(plan).hexdigest() == built.json[0]["engine"]["digest"]
    assert not (client.farms.home / "farm.db").exists() and not (client.farms.home / "store").exists()


def without_beats(answer: object) -> object:
    """An answer but for when workers were last heard of, which goes on meanwhile."""
    if isinstance(answer, dict):
        return {name: without_beats(value) for name, value in answer.items() if name != "seen"}
    return [without_beats(one) for one in answer] if isinstance(answer, list) else answer


def test_every_answer_is_the_one_beside_the_database(
    client: Client, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = client.run("build", model, "-t", "sm_80", "-s", "workspace_size=7340032", "--json")
    assert made.code == 0, made.err
    (built,) = made.json
    there = {"FARM_HOME": str(client.server.home), **client.server.environment}
    here = {"FARM_HOME": str(client.farms.home), "FARM_URL": client.server.url, "FARM_TOKEN": client.token}

    def told(environment: dict[str, str], args: Sequence[object]) -> tuple[int, object]:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = run([str(arg) for arg in args])
            return code, without_beats(json.loads(capsys.readouterr().out))

    for args in (
        ("key", model, "-t", "sm_80", "-t", "sm_75", "--json"),
        ("explain", model, "-t", "sm_75", "--json"),
        ("explain", built["recipe"], built["key"], "--json"),
        ("ls", "engines", "--json"),
        ("ls", "programs", "--json"),
        ("ls", "sweeps", "--json"),
        ("stats", built["key"], "--json"),
        ("stats", "--by-key", "3", "--json"),
        ("nodes", "--json"),
        ("show", built["build"], "--json"),
        ("show", built["engine"]["digest"][:20], "--json"),
        ("logs", built["build"], "--json"),
        ("show", "zzzzzz", "--json"),
        ("build", model, "-t", "sm_120", "--no-build", "--json"),
        ("pull", "f" * 20, "-o", model.parent / "none", "--json"),
        ("cancel", built["build"], "--json"),
    ):
        assert told(here, args) == told(there, args), args


def test_a_sweep_runs_by_a_server(client: Client, model: Path) -> None:
    ran = client.run("sweep", model, "-t", "sm_121", "-g", "workspace_size=1048576,2097152", "--json")
    assert ran.code == 0, ran.err
    shown = client.run("sweep", "show", ran.json["sweep"], "--json")
    assert shown.code == 0 and len(shown.json["trials"]) == 2, shown.err


def test_what_was_prebuilt_is_checked_and_pulled_by_who_may_only_read(client: Client, model: Path, name: str) -> None:
    folder = model.parent
    (folder / "farm.yaml").write_text("models: {c: {path: c.pt2}}\ntargets: [sm_86+sm_121, sm_80+sm_121]\n")
    built = client.run("prebuild")
    assert built.code == 0, built.err
    pod = client.with_token(client.server.token(f"{name}-pod", Scope.READ))
    assert pod.run("prebuild", "--check").code == 0
    pulled = pod.run("pull", "--lock", "farm.lock", "-t", "sm_80+sm_121", "-o", folder / "out", "--json")
    assert pulled.code == 0, pulled.err
    assert len(list((folder / "out").glob("*.plan"))) == 1
    (folder / "farm.yaml").write_text("models: {c: {path: c.pt2}}\ntargets: [sm_86+sm_121, sm_75+sm_121]\n")
    assert pod.run("prebuild", "--check").code == 3


def test_retrying_goes_to_the_server(client: Client, model: Path) -> None:
    queued = client.run("build", model, "-t", "sm_89@tensorrt_rtx==1.0.0", "--no-wait", "--json").json[0]
    assert queued["outcome"] == "queued"
    assert client.run("cancel", queued["build"], "--json").json["state"] == "cancelled"
    retried = client.run("retry", queued["build"], "--no-wait", "--json")
    assert retried.json[0]["outcome"] == "queued" and retried.json[0]["build"] != queued["build"]
    assert client.run("cancel", retried.json[0]["build"]).code == 0


def test_tokens_are_made_and_listed_and_revoked(client: Client, name: str) -> None:
    beside = Farms(client.server.home)
    made = beside.run("token", "create", f"{name}-ro", "--read-only", "--expires", "1d", "--json").json
    assert made["scope"] == "read" and made["expires"] - made["created"] == pytest.approx(86400)
    taken = beside.run("token", "create", f"{name}-ro")
    assert taken.code == 2 and len(taken.err.splitlines()) <= 2
    listed = beside.run("token", "ls", "--json")
    assert made["token"] not in listed.out and f"{name}-ro" in listed.out
    with client.with_token(made["token"]).open() as farm:
        assert farm.index.engines(limit=1) is not None
        assert beside.run("token", "revoke", f"{name}-ro").code == 0
        with pytest.raises(BadToken):
            farm.index.engines(limit=1)
    refused = client.with_token(made["token"]).run("ls")
    assert refused.code == 2 and "FARM_TOKEN" in refused.err and len(refused.err.splitlines()) == 2


def test_a_token_that_only_reads(client: Client, model: Path, name: str) -> None:
    reader = client.with_token(client.server.token(f"{name}-r", Scope.READ))
    with client.open() as farm:
        farm.wait(farm.submit([ask(model, 21)]))
    looked = ("-t", target(21), "--json")
    hit = reader.run("build", model, *looked)
    assert hit.code == 0 and hit.json[0]["outcome"] == "hit"
    assert reader.run("build", model, "-t", "sm_75", "--no-build").code == 3
    refused = reader.run("build", model, "-t", "sm_89", "--force", "--json")
    assert refused.code == 2 and refused.json["error"]["type"] == "NotAllowed"
    pulled = reader.run("pull", model, *looked[:2], "-o", model.parent / "out")
    assert pulled.code == 0, pulled.err


def test_an_expired_token_is_refused(client: Client, name: str) -> None:
    short = client.server.token(f"{name}-short", lasts=0.01)
    with pytest.raises(BadToken, match="expired"):
        eventually(lambda: client.with_token(short).open().close())


def test_a_server_that_is_away_is_said(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = Farms(tmp_path / "home").run("ls", env={"FARM_URL": "http://127.0.0.1:9", "FARM_TOKEN": "x"})
    assert ran.code == 4 and "127.0.0.1:9" in ran.err and len(ran.err.splitlines()) == 2
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("url", ["ftp://a", "127.0.0.1:80", "http://", "https://me:secret@host", "http://h:99999"])
def test_an_address_that_cannot_be(url: str, tmp_path: Path) -> None:
    ran = Farms(tmp_path / "home").run("ls", env={"FARM_URL": url})
    assert ran.code == 2 and "FARM_URL" in ran.err and "secret" not in ran.err


@pytest.mark.parametrize(
    "command", ["worker", "reconcile", "verify", "token ls", "db check", "db upgrade", "timing ls", "serve --port 0"]
)
def test_what_works_on_the_database_says_so(client: Client, command: str) -> None:
    ran = client.run(*command.split())
    assert ran.code == 2 and "FARM_URL" in ran.err, ran.err


def test_who_asks_together_shares_one_build(client: Client, model: Path, name: str) -> None:
    others = [client.with_token(client.server.token(f"{name}-{n}")) for n in range(4)]

    def build(one: Client) -> tuple[str, str]:
        with one.open() as farm:
            (answer,) = farm.wait(farm.submit([ask(model, 33)]))
            assert answer.engine is not None
            return str(answer.outcome), answer.engine.digest

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(build, others))
    assert len({digest for _, digest in done}) == 1
    assert [outcome for outcome, _ in done].count("built") <= 1


def test_an_interrupted_client_withdraws(site: Server, client: Client, model: Path) -> None:
    """Nobody serves this queue, so the build waits until its client has gone."""
    process = client.start("build", model, "-t", "sm_89@tensorrt_rtx==1.0.1", "--json")
    with site.index() as index:

        def mine() -> list[str]:
            return [b.state.value for b in index.builds() if b.request.toolchain.startswith("tensorrt_rtx==1.0.1")]

        eventually(lambda: mine() == ["queued"])
        process.send_signal(signal.SIGINT)
        assert client.farms.finish(process).code == 130
        assert mine() == ["cancelled"]


def test_a_lost_or_corrupt_blob_is_made_again(site: Server, client: Client, model: Path, tmp_path: Path) -> None:
    with client.open() as farm:
        (built,) = farm.wait(farm.submit([ask(model, 55)]))
        assert built.engine is not None
        digits = built.engine.digest.removeprefix("sha256:")
        blob = site.home / "store" / "sha256" / digits[:2] / digits
        blob.chmod(0o644)
        blob.write_bytes(b"rotten" + blob.read_bytes()[6:])
        engine = next(one for one in farm.index.engines() if one.digest == built.engine.digest)
        made = farm.fetch(engine, tmp_path / "plan", build=True)
        assert hashlib.sha256((tmp_path / "plan").read_bytes()).hexdigest() == digits and made.digest == engine.digest
        blob.unlink()
        (again,) = farm.wait(farm.submit([ask(model, 55)]))
        assert again.outcome is Outcome.BUILT


def test_sixty_four_look_ups_at_once(client: Client, model: Path) -> None:
    with client.open() as farm:
        (identity,) = farm.identify([ask(model)])
        farm.wait(farm.submit([ask(model)]))
        wanted = [Wanted(identity.key, identity.recipe, identity.weights)]
        start = threading.Barrier(64)

        def look(_: int) -> str:
            start.wait()
            (found,) = farm.index.find(wanted, ())
            return found.engine.digest if found else ""

        with ThreadPoolExecutor(64) as pool:
            assert len(set(pool.map(look, range(64)))) == 1


def test_ids_that_are_none(client: Client) -> None:
    with client.open() as farm:
        for id in ("../../session", "a/b", "%2e%2e", "x" * 500, "é"):
            assert farm.index.build(id) is None
        with pytest.raises(NoSuchThing):
            farm.cancel("nothing")


def test_a_worker_may_come_later_and_a_server_ends_in_order(tmp_path: Path, model: Path) -> None:
    server, farms = fresh(tmp_path), Farms(tmp_path / "client")
    try:
        server.start()
        process = Client(server, farms, server.token("late")).start("build", model, "-t", "sm_89", "--json")
        with server.index() as index:
            eventually(lambda: index.builds())
        with noop_worker(server.home):
            assert farms.finish(process).json[0]["outcome"] == "built"
        assert server.kill(signal.SIGTERM) == 0
        with pytest.raises(Unavailable):
            Farm.open(server.config(tmp_path / "client", "x"))
    finally:
        farms.close()
        server.kill()


@pytest.mark.torch
@pytest.mark.slow
def test_an_embedded_farms_server_builds_by_itself(tmp_path: Path, copied: Callable[[str], Path]) -> None:
    """A real engine, by the server's own process."""
    server, farms = fresh(tmp_path), Farms(tmp_path / "client")
    try:
        client = Client(server.start(build=True), farms, server.token("alone"))
        ran = client.run("build", copied("gemm.pt2"), "-t", "sm_89", "--json", timeout=200)
        assert ran.code == 0 and ran.json[0]["outcome"] == "built", ran.err
        assert server.kill(signal.SIGTERM) == 0
    finally:
        server.kill()


def fresh(tmp_path: Path) -> Server:
    server = Server(tmp_path / "home")
    server.home.mkdir()
    with server.index():
        return server


def test_a_sweep_is_kept_by_the_server(client: Client, model: Path) -> None:
    asked = ("sweep", model, "-t", "sm_89@tensorrt_rtx==1.0.0", "-g", "disable_tf32=false,true", "--no-wait", "--json")
    queued = client.run(*asked)
    assert queued.code == 0, queued.err
    assert queued.json["counts"]["queued"] == 2 and queued.json["state"] == "running"
    sweep = queued.json["sweep"]
    assert client.run("sweep", "show", sweep, "--json").json["trials"] == queued.json["trials"]
    cancelled = client.run("sweep", "cancel", sweep, "--json")
    assert len(cancelled.json["cancelled"]) == 2 and cancelled.json["left"] == []
    assert client.run("sweep", "status", sweep, "--json").json["state"] == "cancelled"


def test_what_a_search_writes_goes_through_the_server(client: Client) -> None:
    index = client.open().index
    trial = Trial(3, "m.pt2", "sm_89", {"optimization_level": 3}, "sha256:" + "1" * 64, "sha256:" + "2" * 64)
    index.put_sweep(Sweep("sremote", 0.0, {"search": "tpe"}))
    assert index.add_trials("sremote", [trial]) and not index.add_trials("sremote", [trial])
    index.change_trials("sremote", [replace(trial, asked="new", build="b1")])
    index.end_sweep("sremote", "enough")
    (found,) = index.sweeps("sremote")
    assert found.trials == (replace(trial, asked="new", build="b1"),) and found.spec["ended"] == "enough"
    ask = MeasuringAsk(Runner.EAGER, "sha256:" + "3" * 64, "pt2", "torch/nowhere/x86_64", shapes={"0": [1, 8]})
    index.await_measuring([ask])
    assert [one.ask for one in index.awaiting([ask.id])] == [ask] and index.measurements_of([ask.program]) == []
