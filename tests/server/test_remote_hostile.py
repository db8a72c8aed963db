"""Clients that mean harm, or only err: nobody gets in without a token, and nobody's word is kept for a fact."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from farm.builds import Engine
from farm.cache import key_parts
from farm.errors import BadInput, BadToken, NoSuchThing, NotAllowed
from farm.index import Adoption, Wanted
from farm.tokens import Scope
from farm.wire import API
from tests.server.conftest import Client, Server, ask

pytestmark = pytest.mark.xdist_group("serve")

NONE = "sha256:" + "0" * 64
OPEN = {"/healthz", "/readyz", "/metrics"}
LOOKS = {  # they are POSTs for what they carry, and change nothing but what was counted
    "/engines/find",
    "/engines/find-portable",
    "/engines/last-used",
    "/usage",
    "/usage/of",
    "/builds/watch",
    "/blobs/missing",
    "/blobs/hold",
    "/measurements/find",
    "/measurements/awaiting",
}


@pytest.fixture
def bare(site: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url) as asking:
        yield asking


def shown(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def routes(site: Server, bare: httpx.Client) -> list[tuple[str, str]]:
    """Every method and path that there is, with something in the place of parameters."""
    paths: dict[str, dict[str, Any]] = bare.get("/openapi.json").json()["paths"]
    filled = [(method.upper(), re.sub(r"\{\w+\}", NONE, path)) for path, methods in paths.items() for method in methods]
    assert len(filled) > 35
    return filled


def test_nothing_is_said_without_a_token(site: Server, bare: httpx.Client) -> None:
    made = site.token(f"{site.url}-known".replace(":", "").replace("/", ""))
    wrong = made[:-4] + ("aaaa" if not made.endswith("aaaa") else "bbbb")
    for method, path in routes(site, bare):
        if path in OPEN:
            continue
        for headers in ({}, shown("x"), shown(wrong), {"Authorization": f"Basic {made}"}):
            answered = bare.request(method, path, headers=headers, json={})
            assert answered.status_code == 401, (method, path, headers)
            if method != "HEAD":
                assert answered.json()["error"]["type"] == "BadToken"


def test_a_token_that_reads_changes_nothing(site: Server, bare: httpx.Client, name: str) -> None:
    token = site.token(name, Scope.READ)
    for method, path in routes(site, bare):
        if method in ("GET", "HEAD") or path.removeprefix(API) in LOOKS:
            continue
        assert bare.request(method, path, headers=shown(token), json={}).status_code == 403, (method, path)


@pytest.mark.parametrize(
    "name_of_blob",
    [
        "../../farm.db",
        "..%2f..%2ffarm.db",
        "sha256:../../../farm.db",
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 63,
        "%00",
    ],
)
def test_no_path_is_a_blob(client: Client, bare: httpx.Client, name_of_blob: str) -> None:
    for method in ("GET", "HEAD", "PUT"):
        answered = bare.request(method, f"{API}/blobs/{name_of_blob}", headers=shown(client.token), content=b"x")
        assert answered.status_code in (400, 404, 405), (method, answered.text)


def test_what_is_not_its_name_is_not_stored(site: Server, client: Client, bare: httpx.Client) -> None:
    answered = bare.put(f"{API}/blobs/{NONE}", content=b"something else", headers=shown(client.token))
    assert answered.status_code == 400 and answered.json()["error"]["exit_code"] == 2
    assert bare.post(f"{API}/blobs/missing", json={"digests": [NONE]}, headers=shown(client.token)).json() == [NONE]
    assert list((site.home / "cache" / "serve").iterdir()) == []


def test_what_is_too_large_is_cut_off(client: Client, bare: httpx.Client) -> None:
    """Told or not: chunks are counted."""
    host, _, port = client.server.url.partition("//")[2].partition(":")
    with socket.create_connection((host, int(port)), 30) as line:
        head = f"PUT {API}/blobs/{NONE} HTTP/1.1\r\nHost: farm\r\nAuthorization: Bearer {client.token}\r\n"
        line.sendall(f"{head}Content-Length: {2 * 2**30}\r\n\r\nx".encode())
        assert line.makefile("rb").readline().startswith(b"HTTP/1.1 413")
    pieces = (b" " * 2**20 for _ in range(80))
    with bare.stream("POST", f"{API}/engines/find", headers=shown(client.token), content=pieces) as answered:
        assert answered.status_code == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"wanted": 3}', b'{"wanted": [{"key": 1}]}', b"\xff"])
def test_nonsense_is_said_in_a_line(client: Client, bare: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json", **shown(client.token)}
    answered = bare.post(f"{API}/engines/find", content=body, headers=headers)
    assert answered.status_code == 400 and "\n" not in answered.json()["error"]["message"]


def test_tokens_are_in_no_log(site: Server, client: Client, bare: httpx.Client, model: Path) -> None:
    client.run("build", model, "-t", "sm_89")
    bare.get(f"{API}/session", headers=shown("farm_secret"))
    bare.get(f"{API}/session?token={client.token}")
    debug = client.run("ls", "--debug", FARM_URL=site.url + "/nowhere")
    secret = client.token.rpartition("_")[2]
    assert site.log and not any(secret in line or "farm_secret" in line for line in site.log)
    assert secret not in debug.err + debug.out and secret not in repr(site.config(model, client.token))


def test_a_program_is_no_other_than_its_key_says(site: Server, client: Client, model: Path) -> None:
    """Neither an engine nor a remembered failure comes to stand under another's recipe."""
    with client.open() as farm:
        victim, other = farm.identify([ask(model, 41), ask(model, 42)])
        (request,) = farm._requests([other])
        with pytest.raises(BadInput, match="key"):
            farm.index.claim_or_join([replace(request, key=victim.key, recipe=victim.recipe)], "me")
        with pytest.raises(BadInput, match="parts"):
            farm.index.record_parts([replace(key_parts(other), key=victim.key)])
        with pytest.raises(BadInput, match="parts"):
            farm.index.record_parts([replace(key_parts(victim), recipe=other.recipe)])
    with site.index() as index:
        assert not index.parts(victim.key)
        assert not [build for build in index.builds() if build.request.recipe == victim.recipe]


def test_what_a_client_says_of_a_build_is_computed_again(site: Server, client: Client, model: Path, name: str) -> None:
    with client.open() as farm:
        (identity,) = farm.identify([ask(model, 43)])
        (request,) = farm._requests([identity])
        lies = {"told": {"version_compatible": True}, "namespace": "release", "tenant": "boss", "capability": "x"}
        (claim,) = farm.index.claim_or_join([replace(request, **lies)], farm.waiter)
        assert claim.build is not None
        kept = claim.build.request
    assert (kept.namespace, kept.tenant, kept.told) == ("main", name, dict(identity.told))
    assert kept.capability == identity.capability


def test_a_waiter_is_withdrawn_by_its_own_token_alone(client: Client, model: Path, name: str) -> None:
    other = client.with_token(client.server.token(f"{name}-other"))
    with client.open() as mine, other.open() as theirs:
        (answer,) = mine.submit([replace(ask(model, 44), target="sm_89@tensorrt_rtx==1.0.3")])
        assert theirs.index.leave(mine.waiter) == []
        assert mine.abandon() == [answer.build]


def test_an_untrusted_namespace_reads_and_writes_its_own(client: Client, model: Path, name: str) -> None:
    untrusted = client.with_token(client.server.token(f"{name}-pr", namespace=f"pr/{name}"))
    with client.open() as main, untrusted.open() as pull_request:
        main.wait(main.submit([ask(model, 45)]))
        (hit,) = pull_request.submit([ask(model, 45)], build=False)
        assert str(hit.outcome) == "hit", "trusted engines are read"
        (queued,) = pull_request.submit([ask(model, 46)])
        (unseen,) = main.submit([ask(model, 46)], build=False)
        assert str(queued.outcome) == "queued" and str(unseen.outcome) == "missing"
        assert queued.build is not None
        with pytest.raises(NoSuchThing):
            main.cancel(queued.build)
        (of_main,) = main.submit([replace(ask(model, 47), target="sm_89@tensorrt_rtx==1.0.4")])
        assert of_main.build is not None
        with pytest.raises(NotAllowed):
            pull_request.cancel(of_main.build)
        main.abandon(), pull_request.abandon()


def test_what_a_client_built_stays_its_tokens(client: Client, model: Path, name: str) -> None:
    other = client.with_token(client.server.token(f"{name}-other"))
    plan = model.with_name("plan")
    plan.write_bytes(b"built here " + name.encode())
    with client.open() as mine, other.open() as theirs:
        (identity,) = mine.identify([ask(model, 48)])
        kept = mine.cache.keep(identity, plan, name, 1.0, {})
        wanted = [Wanted(identity.key, identity.recipe, identity.weights)]
        assert mine.index.find(wanted, (f"client/{name}", "main"))[0] is not None
        assert theirs.index.find(wanted, (f"client/{name}", "main"))[0] is None
        assert mine.index.find(wanted, ("main",))[0] is None
        terms = Adoption(key_parts(identity), identity.capability)
        for place in ("main", f"client/{name}-other", f"pr/{name}"):
            with pytest.raises((NotAllowed, BadInput)):
                mine.index.adopt(replace(kept, namespace=place), terms)
        forged: Engine = replace(kept, manifest={**kept.manifest, "key": NONE})
        with pytest.raises(BadInput):
            mine.index.adopt(forged, terms)


def test_metrics_are_open_here_and_ask_for_a_token_elsewhere(client: Client, bare: httpx.Client) -> None:
    text = bare.get("/metrics").text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert names and all(name.startswith("farm_") for name in names) and "farm_engines" in names
    assert bare.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 401
    through = {"X-Forwarded-For": "192.0.2.1", **shown(client.token)}
    assert bare.get("/metrics", headers=through).status_code == 200


def test_what_is_documented(bare: httpx.Client) -> None:
    assert bare.get("/docs").status_code == 200 and bare.get("/").status_code == 200
    assert bare.get("/healthz").json()["status"] == "ok" and bare.get("/readyz").json()["status"] == "ok"
    assert bare.get("/nothing").json()["error"]["exit_code"] == 2


def test_a_bad_token_is_one_error(site: Server, tmp_path: Path) -> None:
    from farm.service import Farm

    with pytest.raises(BadToken, match="does not let"):
        Farm.open(site.config(tmp_path, "farm_aaaaaaaaaa_" + "x" * 43))
