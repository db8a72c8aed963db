"""Promotion: built again by a trusted worker, or vouched for by name; and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.asks import Ask, Outcome
from farm.builds import Engine
from farm.cli.run import run
from farm.errors import BadInput, FarmError, Missing, NoSuchThing, Untrusted
from farm.index import Adoption
from farm.manifests import blob_of, whole
from farm.promoting import promote
from farm.remaking import answer_of
from farm.service import Farm
from farm.trust import load_signer
from tests.namespaces.conftest import MODEL, Opener, ask
from tests.namespaces.test_adversary import EVIL, evil_engine, identity_of, served


def engines(farm: Farm) -> dict[str, Engine]:
    return {engine.namespace: engine for engine in farm.index.engines()}


def test_a_trusted_worker_builds_it_again(opened: Opener) -> None:
    pr, main = opened("pr-1"), opened()
    answer = ask(pr)
    for name in (answer.identity.recipe, answer.identity.key[:30], (answer.build or "")):
        (one,) = promote(main, [name])
        assert one.source == "pr-1" or one.how == "there"
        (ended,) = main.wait([one.answer], timeout=20)
        assert ended.outcome in (Outcome.BUILT, Outcome.HIT)
    made = engines(main)
    assert made["main"].manifest["namespace"] == "main" and made["main"].build != made["pr-1"].build
    assert "vouched" not in made["main"].manifest
    assert ask(main).outcome is Outcome.HIT
    build = main.index.build(made["main"].build)
    assert build is not None and not build.request.capability.endswith("untrusted")


def test_a_whole_list_is_promoted_at_once(opened: Opener) -> None:
    pr, main = opened("pr-1"), opened()
    recipes = [ask(pr, target).identity.recipe for target in ("sm_86", "sm_89")]
    ask(main, "sm_86")
    done = promote(main, recipes, source="pr-1")
    assert [one.how for one in done] == ["there", "rebuilt"]
    assert [a.outcome for a in main.wait([one.answer for one in done], timeout=20)] == [Outcome.HIT, Outcome.BUILT]


def test_somebody_vouches_by_name(opened: Opener) -> None:
    pr, main = opened("pr-1"), opened()
    answer = ask(pr)
    (one,) = promote(main, [answer.identity.key], vouch_by="Ada Lovelace")
    assert (one.how, one.answer.outcome, one.source) == ("vouched", Outcome.HIT, "pr-1")
    made = engines(main)
    assert made["main"].digest == made["pr-1"].digest and made["main"].build_seconds == made["pr-1"].build_seconds
    assert made["main"].manifest["vouched"] == {
        "by": "Ada Lovelace",
        "from": "pr-1",
        "manifest": made["pr-1"].manifest["manifest"],
    }
    assert ask(main).outcome is Outcome.HIT
    (event,) = (event for event in main.index.events(answer.build or "") if event.kind == "promoted")
    assert event.detail == {"to": "main", "by": "Ada Lovelace"}
    (again,) = promote(main, [answer.identity.key], vouch_by="Eve")
    assert again.how == "there" and engines(main)["main"].manifest["vouched"]["by"] == "Ada Lovelace"


def test_vouching_is_signed_where_signatures_are_asked_for(opened: Opener, keys: Path) -> None:
    policy = {"trust": str(keys / "policy")}
    pr = opened("pr-1", **policy, signing_key=str(keys / "untrusted"))
    recipe = ask(pr).identity.recipe
    main = opened(**policy)
    for signer in (None, load_signer(keys / "untrusted")):
        with pytest.raises(Untrusted, match="would not be handed out"):
            promote(main, [recipe], vouch_by="Ada", signer=signer)
        assert set(engines(main)) == {"pr-1"}
    admin = load_signer(keys / "admin")
    (one,) = promote(main, [recipe], vouch_by="Ada", signer=admin)
    assert one.how == "vouched" and ask(main).outcome is Outcome.HIT
    assert engines(main)["main"].manifest["signature"]["key"] == admin.id


def test_a_made_up_key_is_not_vouched_for(opened: Opener) -> None:
    """A build that asks for another program's recipe, and an engine that goes with it, all in its own namespace."""
    pr, main = opened("pr-1"), opened()
    victim = identity_of(main, "sm_86")
    liar = replace(identity_of(pr, "sm_89"), key=victim.key, recipe=victim.recipe, weights=victim.weights)
    (claim,) = pr.index.claim_or_join(pr._requests([liar]), "me")
    assert claim.build is not None
    evil = evil_engine(pr, victim, "pr-1", target="sm_86", build=claim.build.id)
    assert pr.index.adopt(replace(evil, build=claim.build.id), Adoption())
    for way in ({"vouch_by": "Ada"}, {}):
        with pytest.raises(Untrusted, match="another key"):
            promote(main, [victim.recipe], **way)
    assert served(main, "sm_86") is None
    assert ask(main, "sm_86").outcome is Outcome.BUILT, "nothing that was made up stands in its way"


LIES: dict[str, Any] = {
    "target": "sm_xx",
    "toolchain": "zz",
    "settings": {"a": 1},
    "profiles": (1,),
    "custom_ops": {"a": 1},
    "program_format": "../../x",
    "program": "../../x",
    "weights": "b3:lie",
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("vouch", ["", "Ada"])
def test_a_request_that_makes_no_sense_is_an_error_in_words(opened: Opener, lie: str, vouch: str) -> None:
    """Whatever an untrusted client writes as its request, nothing of it is queued, and nobody's build is held up."""
    pr, main = opened("pr-1"), opened()
    mine = identity_of(pr)
    request = replace(pr._requests([mine])[0], **{lie: LIES[lie]})
    (claim,) = pr.index.claim_or_join([request], "me")
    assert claim.build is not None
    pr.index.adopt(replace(evil_engine(pr, mine, "pr-1", build=claim.build.id), build=claim.build.id), Adoption())
    with pytest.raises(FarmError):
        promote(main, [mine.recipe], vouch_by=vouch)
    assert [build.request.namespace for build in main.index.builds()] == ["pr-1"] and set(engines(main)) == {"pr-1"}


def test_how_a_promoted_build_is_scheduled_is_farm_s_own(opened: Opener) -> None:
    pr, main = opened("pr-1"), opened()
    mine = identity_of(pr)
    lies = {"capability": "nobody/serves/this", "memory": 2**60, "gpu_memory": 2**60, "told": {}}
    (claim,) = pr.index.claim_or_join([replace(pr._requests([mine])[0], **lies)], "me")  # type: ignore[arg-type]
    assert claim.build is not None
    (one,) = promote(main, [claim.build.id])
    (ended,) = main.wait([one.answer], timeout=20)
    assert ended.outcome is Outcome.BUILT


def test_a_failure_that_was_made_up_is_not_remembered(opened: Opener) -> None:
    """Of a recipe that others ask for in earnest."""
    main = opened()
    mine = identity_of(main)
    (claim,) = main.index.claim_or_join([replace(main._requests([mine])[0], settings={"a": 1})], main.waiter)
    assert claim.build is not None
    (ended,) = main.wait([answer_of(claim.build)], timeout=20)
    assert ended.outcome is Outcome.FAILED and "no setting 'a'" in ended.error
    assert ask(main).outcome is Outcome.BUILT


@pytest.mark.parametrize("lie", ["parts", "target", "program", "toolchain", "profiles", "told", "model"])
def test_what_an_engine_is_for_cannot_be_made_up_when_it_is_vouched_for(opened: Opener, lie: str) -> None:
    """Its key is its own, and its manifest says of it what is another program's: a look-up for portable engines goes by
    that."""
    pr, main = opened("pr-1"), opened()
    victim = main.identify([Ask(str(MODEL.with_name("gemm.pt2")), "sm_89")])[0]
    answer = ask(pr)
    (mine,) = pr.index.engines()
    told = {**mine.manifest, lie: getattr(victim, lie, "sha256:" + "1" * 64)}
    told |= {"target": "sm_86"} if lie == "target" else {"toolchain": "tensorrt_rtx==1.6"} if lie == "toolchain" else {}
    told |= {"told": {"workspace_size": 7}} if lie == "told" else {}
    told = whole({name: value for name, value in told.items() if name != "manifest"}, mine.digest, mine.size)
    forged = replace(mine, manifest={**told, "manifest": blob_of(told)})
    assert forged.manifest != mine.manifest and pr.index.adopt(forged, Adoption())
    with pytest.raises(Untrusted, match=f"wrong about its {lie}"):
        promote(main, [answer.identity.recipe], vouch_by="Ada")
    assert set(engines(main)) == {"pr-1"} and main.cache.lookup_portable(victim) is None


def test_what_a_client_built_is_promoted_from_its_program(opened: Opener, tmp_path: Path) -> None:
    pr, main = opened("pr-1"), opened()
    plan = tmp_path / "plan"
    plan.write_bytes(EVIL)
    identity = identity_of(pr)
    pr.cache.keep(identity, plan, "bob", 1.0, {})
    with pytest.raises(Missing, match="its program"):
        promote(main, [identity.recipe])
    pr.cache.keep(identity, plan, "bob", 1.0, {"program": pr.store_program(identity)})
    (one,) = promote(main, [identity.recipe], source="client/bob")
    (ended,) = main.wait([one.answer], timeout=20)
    assert ended.outcome is Outcome.BUILT and served(main) not in (None, EVIL)


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ({"names": ["zzz"]}, NoSuchThing, "starts with 'zzz'"),
        ({"names": [" "]}, BadInput, "give a key"),
        ({"names": ["sha256:"]}, NoSuchThing, "stands for 2 recipes"),
        ({"to": "pr-1"}, BadInput, "not trusted: nothing is promoted"),
        ({"source": "main"}, BadInput, "need not be promoted"),
        ({"source": "pr-9"}, NoSuchThing, "in 'pr-9'"),
        ({"vouch_by": "a\nb"}, BadInput, "no name"),
    ],
)
def test_what_cannot_be_promoted_is_said(
    opened: Opener, words: dict[str, Any], error: type[FarmError], says: str
) -> None:
    pr, main = opened("pr-1"), opened()
    recipe, _ = (ask(pr, target).identity.recipe for target in ("sm_86", "sm_89"))
    with pytest.raises(error, match=says):
        promote(main, **{"names": [recipe], **words})
    assert set(engines(main)) == {"pr-1"}


def test_a_program_that_is_gone_is_said(opened: Opener) -> None:
    pr, main = opened("pr-1"), opened()
    recipe = ask(pr).identity.recipe
    main.store.delete(main.index.programs()[0].digest, before=main.store.clock() + 60)
    for words in ({}, {"vouch_by": "Ada"}):
        with pytest.raises(Missing, match=r"conv\.pt2 cannot be promoted: its program"):
            promote(main, [recipe], **words)  # type: ignore[arg-type]


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str, namespace: str = "main") -> tuple[int, str, str]:
        monkeypatch.setenv("FARM_NAMESPACE", namespace)
        code = run(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_commands(farm: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = farm("build", str(MODEL), "-t", "sm_89", "-t", "sm_86", "--json", namespace="pr-1")
    assert code == 0
    one, two = (answer["recipe"] for answer in json.loads(out))
    code, out, err = farm("promote", one, namespace="pr-1")
    assert code == 2 and "'pr-1' is not trusted" in err and out == ""
    code, out, err = farm("ls", "engines", "--json")
    assert json.loads(out) == []
    code, out, _ = farm("promote", one, "--from", "pr-1", "--json")
    (told,) = json.loads(out)
    assert code == 0 and (told["how"], told["outcome"], told["from"], told["to"]) == (
        "rebuilt",
        "built",
        "pr-1",
        "main",
    )
    code, out, _ = farm("promote", two, "--vouch", "--by", "Ada")
    assert code == 0 and "vouched for by Ada" in out
    code, out, _ = farm("ls", "engines")
    assert "vouched for by Ada (from pr-1)" in out and "built on" in out
    code, out, _ = farm("ls", "engines", "--namespace", "*", "--json")
    assert sorted(item["namespace"] for item in json.loads(out)) == ["main", "main", "pr-1", "pr-1"]
    vouched = next(item for item in json.loads(out) if item["provenance"]["kind"] == "vouched")
    assert vouched["provenance"] == {"kind": "vouched", "by": "Ada", "from": "pr-1", "node": None}
    code, out, _ = farm("show", vouched["engine"].removeprefix("sha256:")[:20])
    assert "vouched for by Ada (from pr-1)" in out
    for words in (("--vouch", "--rebuild"), ("--by", "Ada")):
        assert farm("promote", one, *words)[0] == 2


def test_stats_by_key_and_overall(farm: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for _ in range(3):
        farm("build", str(MODEL), "-t", "sm_89")
    farm("build", str(MODEL), "-t", "sm_86")
    farm("build", str(MODEL), "-t", "sm_86", "--force")
    key = json.loads(farm("build", str(MODEL), "-t", "sm_89", "--no-build", "--json")[1])[0]["key"]
    assert farm("pull", key, "-o", str(tmp_path / "out"))[0] == 0
    code, out, _ = farm("stats", "--json")
    use = json.loads(out)["use"]
    assert code == 0
    assert (use["asked"], use["hits"], use["misses"], use["builds_avoided"], use["forced"]) == (5, 3, 2, 3, 1)
    assert use["hit_rate"] == 0.6 and use["miss_reasons"]["never_built"]["n"] == 2
    assert use["served"]["engines"] == 1 and use["served"]["bytes"] > 0
    seconds = use["seconds"]
    assert seconds["deserialise"] is None and seconds["refit"] is None and seconds["download"] > 0
    assert seconds["net_saved"] == pytest.approx(seconds["build_time_spared"] - seconds["download"], abs=0.01)
    code, out, _ = farm("stats", key.removeprefix("sha256:")[:16], "--json")
    (mine,) = json.loads(out)
    assert (mine["use"]["hits"], mine["use"]["misses"], mine["key"]) == (3, 1, key)
    assert mine["engines"][0]["last_used"] > mine["engines"][0]["created"] and mine["bytes"] > 0
    code, out, _ = farm("stats", "--by-key", "5", "--json")
    assert [item["key"] for item in json.loads(out)] == [key]
    code, out, _ = farm("stats")
    assert "not known" in out and "net saved" in out and "no engine of the key had been built" in out
    assert farm("stats", key)[0] == 0 and farm("stats", "--by-key", "3")[0] == 0
    code, _, err = farm("stats", "zzz")
    assert code == 2 and "starts with 'zzz'" in err


def test_what_it_took_to_use_an_engine_is_taken_off(opened: Opener) -> None:
    from farm.accounting import of_key, overall

    main = opened()
    key = ask(main).identity.key
    ask(main)
    main.spent(key, deserialise=0.25, refit=1.0)
    with pytest.raises(ValueError, match="thinking"):
        main.spent(key, thinking=1.0)
    main.recorder.flush()
    for use in (of_key(main.index.usage([key])[key]), overall(main.index.stats()["counters"])):
        assert (use["seconds"]["deserialise"], use["seconds"]["refit"], use["seconds"]["download"]) == (0.25, 1.0, None)
        assert use["seconds"]["net_saved"] == pytest.approx(use["seconds"]["build_time_spared"] - 1.25, abs=0.01)


def test_the_ask_is_of_no_namespace(opened: Opener) -> None:
    """Keys and recipes are the same wherever they are asked for: only who is served differs."""
    one, two = (farm.identify([Ask(str(MODEL), "sm_89")])[0] for farm in (opened(), opened("pr-1")))
    assert (one.key, one.recipe) == (two.key, two.recipe)
