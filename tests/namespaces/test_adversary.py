"""An untrusted client with all of farm's Python in its hands, and then with the database's password too."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.asks import Ask, Identity, Outcome
from farm.builds import BuildRequest, Engine, Lease
from farm.cache import EngineCache, Miss, key_parts
from farm.canonical import to_json
from farm.collecting import things_of
from farm.collection import Kind
from farm.config import Config
from farm.errors import NotAllowed
from farm.forms import EXPORTER_NAME, SCHEMA
from farm.index import Adoption, KeyParts
from farm.making import Offer, StoredForm
from farm.manifests import blob_of, body, whole
from farm.promoting import promote
from farm.remaking import answer_of
from farm.service import Farm
from farm.timing import Lesson, TimingCaches
from farm.timing_history import Author, Device, Scope
from farm.trust import load_signer
from farm.upkeep import Holder
from farm.wiring.backends import open_timing, open_upkeep
from tests.namespaces.conftest import MODEL, Opener, ask

EVIL = b"what an untrusted client would have trusted readers load"


@pytest.fixture
def main(opened: Opener) -> Farm:
    return opened()


@pytest.fixture
def pr(opened: Opener) -> Farm:
    return opened("pr-1")


def identity_of(farm: Farm, target: str = "sm_89") -> Identity:
    return farm.identify([Ask(str(MODEL), target)])[0]


def evil_engine(farm: Farm, identity: Identity, namespace: str, **told: Any) -> Engine:
    """An engine whose row and manifest agree in all that they say, with bytes of the client's own choice."""
    blob = farm.store.put(io.BytesIO(EVIL))
    said = {"key": identity.key, "recipe": identity.recipe, "weights": identity.weights, "parts": identity.parts}
    manifest = whole({**said, "model": identity.model, "namespace": namespace, **told}, blob.digest, blob.size)
    farm.store.put(io.BytesIO(body(manifest)))
    row = {**manifest, "manifest": blob_of(manifest)}
    return Engine(identity.recipe, blob.digest, blob.size, row, 0.0, 1.0, namespace)


def served(farm: Farm, target: str = "sm_89") -> bytes | None:
    """What a look-up hands out, if anything."""
    ((_, found),) = farm.look([Ask(str(MODEL), target)])
    if isinstance(found, Miss):
        return None
    return farm.store.read(found.engine.digest)


def test_nothing_of_a_trusted_namespace_is_written(main: Farm, pr: Farm) -> None:
    (queued,) = main.submit([Ask(str(MODEL), "sm_89")], keep=True)
    build = pr.index.build(queued.build or "")
    assert build is not None
    mine = identity_of(pr)
    request = replace(pr._requests([mine])[0], namespace="main")
    evil = evil_engine(pr, mine, "main")
    ways: list[Callable[[], object]] = [
        lambda: pr.index.claim_or_join([request], "me"),
        lambda: pr.index.retry(build.id),
        lambda: pr.index.cancel(build.id),
        lambda: pr.index.adopt(evil, Adoption(key_parts(mine))),
        lambda: pr.index.put_form(StoredForm(request.program, f"{EXPORTER_NAME} form {SCHEMA}", evil.digest, None)),
        lambda: promote(pr, [build.id], to="main"),
        lambda: promote(pr, [build.id], to="main", vouch_by="somebody"),
    ]
    for way in ways:
        with pytest.raises(NotAllowed):
            way()
    assert main.index.engines() == [] and served(main) is None


def test_a_trusted_build_is_neither_leased_nor_ended(main: Farm, pr: Farm) -> None:
    (queued,) = main.submit([Ask(str(MODEL), "sm_89")], keep=True)
    build = pr.index.build(queued.build or "")
    assert build is not None
    capability = build.request.capability
    assert pr.index.lease(Offer("w", "n", (capability,), namespaces=("main",)), 60.0) == []
    assert pr.index.lease(Offer("w", "n", (capability,)), 60.0) == []
    (theirs,) = main.index.lease(Offer("w", "n", (capability,), namespaces=("main",)), 60.0)
    evil = evil_engine(pr, identity_of(pr), "main")
    for stolen in (theirs, Lease(theirs.build, theirs.token, 1, 0.0)):
        for way in (
            pr.index.succeed,
            lambda one, _: pr.index.give_back(one),
            lambda one, _: pr.index.append_log(one, "x"),
        ):
            with pytest.raises(NotAllowed):
                way(stolen, evil)
    assert served(main) is None


def test_a_link_that_an_untrusted_client_made_up_serves_nobody(main: Farm, pr: Farm) -> None:
    """Look-ups by key go over what recipes serve it: an engine of another program must not come in by that way."""
    other, wanted = identity_of(main, "sm_86"), identity_of(main, "sm_89")
    ask(main, "sm_86")
    pr.index.record_parts([KeyParts(wanted.key, other.recipe, wanted.parts, wanted.model, wanted.target)])
    for farm in (main, pr):
        assert served(farm) is None
        (answer,) = farm.submit([Ask(str(MODEL), "sm_89")], build=False)
        assert answer.outcome is Outcome.MISSING
    main.index.record_parts([KeyParts(wanted.key, other.recipe, wanted.parts, wanted.model, wanted.target)])
    assert served(main) is not None, "one of a trusted namespace is believed"


def test_an_untrusted_form_is_never_built_from(main: Farm, pr: Farm) -> None:
    ask(pr, "sm_86")
    program = pr.index.programs()[0].digest
    exporter = f"{EXPORTER_NAME} form {SCHEMA}"
    assert pr.index.form(program, f"{exporter}/untrusted") is not None
    assert main.index.form(program, exporter) is None
    ask(main, "sm_89")
    form = main.index.form(program, exporter)
    assert form is not None
    assert pr.index.form(program, f"{exporter}/untrusted") is not None, "each has its own"


def test_a_trusted_engine_is_not_forgotten_on_an_untrusted_word(main: Farm, pr: Farm) -> None:
    ask(main)
    (engine,) = main.index.engines()
    assert not pr.index.drop_engine(engine.recipe, engine.digest, "blob corrupt")
    assert main.index.engines() == [engine]
    ask(pr, force=True)
    assert pr.index.drop_engine(engine.recipe, engine.digest, "blob corrupt")
    assert [one.namespace for one in main.index.engines()] == ["main"]


def test_upkeep_from_an_untrusted_namespace_leaves_trusted_rows_alone(main: Farm, pr: Farm, config: Config) -> None:
    ask(main)
    ask(pr, "sm_86")
    index = open_upkeep(replace(config, namespace="pr-1"))
    with closing(index):
        holdings = {one.place[1]: one for one in index.holdings(Holder.ENGINE)}
        with pytest.raises(NotAllowed):
            index.drop(holdings["main"], "blob missing")
        rows = index.rows("engines")
        with pytest.raises(NotAllowed):
            index.take_over("engines", [{**row, "recipe": "sha256:mine"} for row in rows], {})
        things = list(things_of(index, (Kind.ENGINE,), index.protected()))
        assert {thing.namespace for thing in things} == {"main", "pr-1"}
        index.condemn(things, 0.0)
        for kind in (Kind.PROGRAM, Kind.FORM):
            some = list(things_of(index, (kind,), index.protected()))
            assert some and index.condemn(some, 0.0) == [], "trusted engines are built again from it"
        for way in (index.trim_sweeps, index.trim_builds, lambda before: index.trim_parts(before, 0.0)):
            with pytest.raises(NotAllowed):
                way(1e12)
    assert [engine.namespace for engine in main.index.engines()] == ["main"]


def test_what_a_client_built_itself_is_its_own(main: Farm, pr: Farm, tmp_path: Path, config: Config) -> None:
    plan = tmp_path / "plan"
    plan.write_bytes(EVIL)
    for farm in (pr, main):
        made = farm.cache.keep(identity_of(farm), plan, "bob", 12.0, {})
        assert made.namespace == "client/bob"
    assert served(main) is None and served(pr) is None
    bob = EngineCache(main.index, main.store, config.realm.of_client("bob"))
    (found,) = bob.lookup([identity_of(main)])
    assert not isinstance(found, Miss) and found.engine.manifest["client"] == "bob"
    (nothing,) = EngineCache(main.index, main.store, config.realm.of_client("eve")).lookup([identity_of(main)])
    assert isinstance(nothing, Miss)
    for name in ("../main", "", "a b", "/", "*"):
        with pytest.raises(ValueError, match="cannot be a client's name"):
            pr.cache.keep(identity_of(pr), plan, name, 1.0, {})


def test_a_client_s_key_is_farm_s_own(main: Farm, pr: Farm, tmp_path: Path) -> None:
    """Whatever it says of the engine beside: key and recipe are those of the program that farm opened."""
    plan = tmp_path / "plan"
    plan.write_bytes(EVIL)
    other = identity_of(main, "sm_86")
    made = pr.cache.keep(
        identity_of(pr), plan, "bob", 1.0, {"key": other.key, "recipe": other.recipe, "client": "main"}
    )
    assert (made.recipe, made.manifest["key"], made.manifest["client"]) == (
        identity_of(pr).recipe,
        identity_of(pr).key,
        "bob",
    )


@pytest.mark.parametrize(
    "lie", [{"weights": "b3:lie"}, {"key": "sha256:" + "1" * 64}, {"recipe": "sha256:" + "2" * 64}]
)
def test_a_request_that_lies_is_not_built(pr: Farm, lie: dict[str, str]) -> None:
    request: BuildRequest = replace(pr._requests([identity_of(pr)])[0], **lie)
    (claim,) = pr.index.claim_or_join([request], pr.waiter)
    assert claim.build is not None
    (answer,) = pr.wait([answer_of(claim.build)], timeout=20)
    assert answer.outcome is Outcome.FAILED and "is not what its key was computed from" in answer.error
    assert pr.index.engines() == []


def test_trusted_timings_are_read_and_not_written(config: Config) -> None:
    device = Device("NVIDIA L4", 89, 23, 58)
    scope = Scope("tensorrt", "10.14.1", 13, device)
    lesson = Lesson(b"x" * 64, Author("me"))
    trusted, untrusted = open_timing(config), open_timing(replace(config, namespace="pr-1"))
    assert trusted.replace(scope, lesson).written
    for way in (
        lambda caches: caches.replace(scope, lesson),
        lambda caches: caches.learn(scope, lesson, lambda a, b: None),
        lambda caches: caches.rollback(scope, 1, Author("me")),
    ):
        with pytest.raises(NotAllowed):
            way(untrusted)
    assert untrusted.latest(scope) is not None
    own = replace(scope, realm="untrusted")
    assert own.id != scope.id and own.name != scope.name and untrusted.replace(own, lesson).written
    assert len(TimingCaches.named(trusted)) == 1, "equal bytes are one blob, and both histories name it"


# -- with the database's password ----------------------------------------------------------------------------


def forge(config: Config, engine: Engine) -> None:
    """Write the row of an engine as SQL does."""
    told = engine.manifest
    row = (engine.recipe, engine.namespace, told["key"], engine.digest, engine.size, told["weights"], "", 1e9, 1.0)
    with closing(sqlite3.connect(config.home / "farm.db")) as connection:
        connection.execute(
            "INSERT OR REPLACE INTO engines (recipe, namespace, key, digest, size, weights, build, created, "
            "build_seconds, manifest, manifest_json) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (*row, told["manifest"], json.dumps(told)),
        )
        connection.commit()


def test_a_row_moved_into_a_trusted_namespace_is_not_handed_out(main: Farm, pr: Farm, config: Config) -> None:
    ask(pr)
    (engine,) = pr.index.engines()
    forge(config, replace(engine, namespace="main"))
    ((_, miss),) = main.look([Ask(str(MODEL), "sm_89")])
    assert isinstance(miss, Miss) and miss.reason == "altered" and "made for pr-1" in miss.why
    assert ask(main).outcome is Outcome.BUILT
    assert {one.namespace for one in main.index.engines()} == {"main", "pr-1"}, "only the row that was wrong goes"
    assert served(main) is not None


@pytest.mark.parametrize("signer", ["untrusted", ""])
def test_a_forged_row_is_refused_under_a_policy(opened: Opener, config: Config, keys: Path, signer: str) -> None:
    """Signed by a key that is good for pull requests, or by none; row and manifest agree that it is of ``main``."""
    pr = opened("pr-1")
    mine = identity_of(pr)
    evil = evil_engine(pr, mine, "main")
    if signer:
        plain = {name: value for name, value in evil.manifest.items() if name != "manifest"}
        evil = replace(evil, manifest={**evil.manifest, "signature": load_signer(keys / signer).sign(plain)})
    forge(config, evil)
    assert served(opened()) == EVIL, "who has the database's password and meets no policy is believed"
    reader = opened(trust=str(keys / "policy"))
    ((_, miss),) = reader.look([Ask(str(MODEL), "sm_89")])
    assert isinstance(miss, Miss) and miss.untrusted
    assert ("untrusted, whom FARM_TRUST does not name for main" if signer else "not signed") in miss.why
    assert ask(opened("pr-1", trust=str(keys / "policy"), signing_key=str(keys / "untrusted"))).outcome is Outcome.BUILT
    built = ask(opened(trust=str(keys / "policy"), signing_key=str(keys / "trusted")))
    assert built.outcome is Outcome.BUILT and served(reader) != EVIL and served(reader) is not None


def test_a_form_signed_for_pull_requests_is_not_taken(opened: Opener, config: Config, keys: Path) -> None:
    """Its row is copied to where trusted workers look: they export it anew."""
    untrusted = opened("pr-1", trust=str(keys / "policy"), signing_key=str(keys / "untrusted"))
    assert ask(untrusted, "sm_86").outcome is Outcome.BUILT
    with closing(sqlite3.connect(config.home / "farm.db")) as connection:
        exporter = f"{EXPORTER_NAME} form {SCHEMA}"
        connection.execute(
            "INSERT INTO forms (program, exporter, graph, data, side, detail_json, created) "
            "SELECT program, ?, graph, data, side, detail_json, created FROM forms",
            (exporter,),
        )
        connection.commit()
    trusted = opened(trust=str(keys / "policy"), signing_key=str(keys / "trusted"))
    assert ask(trusted).outcome is Outcome.BUILT
    program = trusted.index.programs()[0].digest
    form = trusted.index.form(program, exporter)
    assert form is not None and form.detail["signature"]["key"] == load_signer(keys / "trusted").id


def test_signatures_are_over_the_namespace(keys: Path) -> None:
    told = whole({"key": "k", "recipe": "r", "namespace": "main"}, "sha256:" + "d" * 64, 1)
    assert hashlib.sha256(body(told)).digest() != hashlib.sha256(body({**told, "namespace": "pr-1"})).digest()
    assert b'"namespace":"main"' in to_json(told)
