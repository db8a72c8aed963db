"""Namespaces: what is joined and found in others, who builds for whom, and the fence, as every index keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest
from contract_races import together
from index_things import (
    CAPABILITY,
    digest,
    engine_of,
    kinds,
    lease,
    made,
    made_of,
    offer,
    parts_of,
    queued,
    request,
    wanted,
)

from farm.builds import Engine
from farm.db.index import SqlIndex
from farm.errors import NotAllowed
from farm.index import Adoption, Claimed, Index
from farm.making import StoredForm
from farm.namespaces import UNTRUSTED, Realm

PR = Realm("pr-1")
READS = PR.reads


def pr(name: object = "a", **changes: Any) -> Any:
    return request(name, namespace="pr-1", **changes)


def engine(one: Any, **changes: Any) -> Engine:
    told = {"key": one.key, "recipe": one.recipe, "weights": one.weights, "parts": made_of(one)}
    told["manifest"] = digest("m")
    return replace(Engine(one.recipe, digest("own"), 10, told, 0.0, 2.5, one.namespace), **changes)


class NamespacesContract:
    """Inherit, and give the fixtures ``index`` and ``url``."""

    @pytest.fixture
    def as_of(self, url: str, index: Index) -> Iterator[Callable[[Realm], SqlIndex]]:
        with ExitStack() as stack:
            yield lambda realm: stack.enter_context(closing(SqlIndex(url, realm)))

    # -- asking ------------------------------------------------------------------------------------------------

    def test_a_build_of_a_namespace_that_is_read_is_joined(self, index: Index) -> None:
        theirs = queued(index, request(), "them")
        (claim,) = index.claim_or_join([pr(priority=5)], "me", reads=READS)
        assert claim.outcome is Claimed.JOINED and claim.build is not None and claim.build.id == theirs.id
        assert claim.build.request.priority == 0 and claim.build.waiters == 2
        (other,) = index.claim_or_join([pr()], "others", reads=[])
        assert other.outcome is Claimed.NEW
        (own,) = index.claim_or_join([pr()], "me too", reads=READS)
        assert own.outcome is Claimed.JOINED and own.build is not None

    def test_who_leaves_a_joined_build_takes_it_from_nobody(self, index: Index) -> None:
        theirs = queued(index, request(), "them")
        index.claim_or_join([pr()], "me", reads=READS)
        assert index.leave("me") == []
        assert index.leave("them") == [theirs.id]
        (claim,) = index.claim_or_join([pr()], "me", reads=READS)
        assert claim.outcome is Claimed.NEW, "what is being cancelled is not joined from elsewhere"

    def test_an_engine_of_a_namespace_that_is_read_answers_a_claim(self, index: Index) -> None:
        theirs = made(index, request())
        (claim,) = index.claim_or_join([pr()], "me", reads=READS)
        assert claim.outcome is Claimed.DONE and claim.engine is not None and claim.engine.digest == theirs.digest
        (forced,) = index.claim_or_join([pr()], "me", force=True, reads=READS)
        assert forced.outcome is Claimed.NEW
        given = lease(index)
        index.succeed(given, engine_of(given, "own"))
        (claim,) = index.claim_or_join([pr()], "me", reads=READS)
        assert claim.engine is not None and claim.engine.namespace == "pr-1", "its own is preferred"
        (claim,) = index.claim_or_join([request("b")], "me", reads=["main"])
        assert claim.outcome is Claimed.NEW

    def test_many_askers_of_both_kinds_at_once(self, index: Index) -> None:
        """Whoever is first, the trusted namespace has one build, and nobody is answered twice."""
        requests = [request(n) for n in range(8)]
        asks = [[replace(one, namespace="pr-1") for one in requests], requests]
        claims = together(lambda n: index.claim_or_join(asks[n % 2], f"w{n}", reads=READS if n % 2 == 0 else ["main"]))
        trusted = [claim for n, got in enumerate(claims) if n % 2 for claim in got]
        assert all(claim.build.request.namespace == "main" for claim in trusted)
        assert sum(claim.outcome is Claimed.NEW for claim in trusted) == len(requests)
        active: dict[tuple[str, str], int] = {}
        for build in index.builds():
            place = (build.request.namespace, build.request.recipe)
            active[place] = active.get(place, 0) + 1
        assert set(active.values()) == {1}
        assert {recipe for namespace, recipe in active if namespace == "main"} == {one.recipe for one in requests}

    # -- building ----------------------------------------------------------------------------------------------

    def test_builds_are_leased_to_those_who_build_for_their_namespace(self, index: Index) -> None:
        others = [request("c", namespace="pr_1"), request("d", namespace="sand/x")]
        index.claim_or_join([request("a"), pr("b"), *others], "me")
        for patterns, count in ((("main",), 1), (("pr-*",), 1), (("sand/*", "pr_1"), 2), (("*",), 0)):
            got = index.lease(offer(namespaces=patterns), 60.0, 9)
            assert len(got) == count, patterns
        assert index.waiting() == {}

    def test_what_waits_is_counted_by_namespace(self, index: Index) -> None:
        index.claim_or_join([request("a"), pr("b"), pr("c")], "me")
        assert index.waiting() == {CAPABILITY: 3}
        assert index.waiting(["pr-*"]) == {CAPABILITY: 2}
        assert index.waiting(["release"]) == {}

    # -- the fence ---------------------------------------------------------------------------------------------

    def test_the_fence(self, index: Index, as_of: Callable[[Realm], SqlIndex]) -> None:
        theirs = queued(index, request())
        mine = as_of(PR)
        ways: list[Callable[[], object]] = [
            lambda: mine.claim_or_join([request("b")], "me"),
            lambda: mine.claim_or_join([pr("b"), request("c", namespace="pr-2")], "me"),
            lambda: mine.cancel(theirs.id),
            lambda: mine.retry(theirs.id),
            lambda: mine.adopt(engine(request()), Adoption()),
            lambda: mine.put_form(StoredForm(digest("p"), "exporter", digest("g"), None)),
        ]
        for way in ways:
            with pytest.raises(NotAllowed):
                way()
        assert mine.lease(offer(), 60.0) == mine.lease(offer(namespaces=("main",)), 60.0) == []
        given = lease(index)
        with pytest.raises(NotAllowed):
            mine.succeed(given, engine_of(given))
        index.succeed(given, engine_of(given))
        assert not mine.drop_engine(given.build.request.recipe, engine_of(given).digest, "gone")
        mine.put_form(StoredForm(digest("p"), f"exporter{UNTRUSTED}", digest("g"), None))
        assert [one.namespace for one in index.engines()] == ["main"]

    def test_a_link_is_as_good_as_who_recorded_it(self, index: Index, as_of: Callable[[Realm], SqlIndex]) -> None:
        made(index, request("a"))
        mine = as_of(PR)
        asked = wanted(request("a"), key=digest("other"), recipe=digest("unbuilt"))
        link = parts_of(request("a"), key=asked.key)
        mine.record_parts([link])
        assert index.find([asked], ["main"]) == mine.find([asked], list(READS)) == [None]
        assert index.parts(asked.key) == [link], "it is remembered all the same"
        as_of(Realm("main")).record_parts([link])
        (found,) = index.find([asked], ["main"])
        assert found is not None and not found.exact
        mine.record_parts([link])
        assert index.find([asked], ["main"]) == [found], "and stays what it is"

    # -- adopting ----------------------------------------------------------------------------------------------

    def test_an_adopted_engine_is_found_as_any(self, index: Index) -> None:
        one = request("a", namespace="client/bob", weights="b3:mine")
        assert index.adopt(engine(one), Adoption(parts_of(one), CAPABILITY))
        (found,) = index.find([wanted(one)], ["client/bob"])
        assert found is not None and found.exact and found.same_weights
        assert (found.engine.build_seconds, found.engine.namespace) == (2.5, "client/bob")
        (by_key,) = index.find([wanted(one, recipe=digest("unbuilt"))], ["client/bob"])
        assert by_key is not None and not by_key.exact
        assert index.find([wanted(one)], ["main"]) == [None]

    def test_it_takes_a_place_only_where_it_may(self, index: Index) -> None:
        former = made(index, request())
        assert not index.adopt(engine(request()), Adoption(replace=False, event="promoted"))
        assert [one.digest for one in index.engines()] == [former.digest]
        assert index.adopt(engine(request()), Adoption())
        assert [one.digest for one in index.engines()] == [digest("own")]

    def test_of_many_that_vouch_at_once_one_is_first(self, index: Index) -> None:
        """And the others are told so: what their engine serves is not what stands there."""
        for name in range(5):
            one = request(name)
            made = [engine(one, manifest={**engine(one).manifest, "manifest": digest(n)}) for n in range(8)]
            done = together(lambda n, made=made: index.adopt(made[n], Adoption(replace=False)), len(made))
            (there,) = index.find([wanted(one)], ["main"])
            assert done.count(True) == 1 and there is not None
            assert there.engine.manifest["manifest"] == digest(done.index(True))

    def test_what_happened_is_told_of_its_build(self, index: Index) -> None:
        build = queued(index, pr())
        given = lease(index)
        index.succeed(given, engine_of(given))
        adopted = engine(request(), build=build.id)
        assert index.adopt(adopted, Adoption(replace=False, event="promoted", detail={"by": "Ada"}))
        assert kinds(index, build.id)[-1] == "promoted"
        assert index.adopt(engine(request("b"), build="unknown"), Adoption(event="promoted"))

    def test_what_an_adopted_engine_takes_the_place_of_may_be_fetched_yet(self, index: Any) -> None:
        """It was promised: its bytes are condemned as those that a build takes the place of."""
        one = request()
        assert index.adopt(engine(one), Adoption()) and index.condemned()[0] == 0
        assert index.adopt(engine(one, digest=digest("another")), Adoption()) and index.condemned()[0] == 1
        assert index.named([digest("own")]) == {digest("own")}, "and reconcile lets them be"
        assert index.adopt(engine(one, digest=digest("another")), Adoption()) and index.condemned()[0] == 1
