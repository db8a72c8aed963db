"""Engines, keys and counters: what every index promises about look-ups."""

from __future__ import annotations

import pytest
from index_things import digest, engine_of, lease, made, parts_of, queued, request, wanted

from farm.index import Index, KeyParts


class EnginesContract:
    """Inherit, and give the fixture ``index``."""

    def test_nothing_is_found_in_an_empty_index(self, index: Index) -> None:
        assert index.find([wanted(request(n)) for n in range(3)], ["main"]) == [None, None, None]
        assert index.find([], ["main"]) == []
        assert index.engines() == []
        assert index.parts("") == index.recent_parts() == []

    def test_an_engine_comes_back_as_it_was_committed(self, index: Index) -> None:
        engine = made(index)
        (found,) = index.find([wanted(request())], ["main"])
        assert found is not None and found.exact and found.same_weights
        got = found.engine
        assert (got.recipe, got.digest, got.size, got.manifest) == (
            engine.recipe,
            engine.digest,
            engine.size,
            engine.manifest,
        )
        assert got.created > 1_700_000_000 and got.build_seconds == 1.5 and got.namespace == "main"

    def test_the_exact_recipe_is_found_without_any_link_from_its_key(self, index: Index) -> None:
        engine = made(index)
        (found,) = index.find([wanted(request(), key=digest("another key"))], ["main"])
        assert found is not None and found.exact and found.engine.digest == engine.digest

    def test_a_key_takes_any_recipe_of_its_own(self, index: Index) -> None:
        engine = made(index, request("a"))
        (found,) = index.find([wanted(request("a"), recipe=digest("another recipe"))], ["main"])
        assert found is not None and not found.exact and found.engine.digest == engine.digest

    def test_a_recipe_serves_each_key_that_was_recorded_for_it(self, index: Index) -> None:
        engine = made(index, request("a"))
        other = wanted(request("a"), key=digest("inert setting differs"), recipe=digest("unbuilt"))
        assert index.find([other], ["main"]) == [None]
        index.record_parts([parts_of(request("a"), key=other.key)])
        (found,) = index.find([other], ["main"])
        assert found is not None and not found.exact and found.engine.digest == engine.digest

    def test_the_exact_recipe_is_preferred_to_a_newer_one(self, index: Index) -> None:
        key = digest("shared key")
        exact = made(index, request("a", key=key))
        made(index, request("b", key=key))
        (found,) = index.find([wanted(request("a", key=key))], ["main"])
        assert found is not None and found.exact and found.engine.digest == exact.digest

    def test_same_weights_are_preferred_to_newer_ones(self, index: Index) -> None:
        key = digest("shared key")
        mine = made(index, request("a", key=key, weights="b3:mine"))
        theirs = made(index, request("b", key=key, weights="b3:theirs"))
        asks = [
            wanted(request("c", key=key, weights="b3:mine")),
            wanted(request("d", key=key, weights="b3:nobody's")),
            wanted(request("e", key=key, weights="b3:theirs")),
        ]
        first, second, third = index.find(asks, ["main"])
        assert first and (first.engine.digest, first.same_weights) == (mine.digest, True)
        assert second and (second.engine.digest, second.same_weights) == (theirs.digest, False)
        assert third and (third.engine.digest, third.same_weights) == (theirs.digest, True)

    def test_engines_of_other_namespaces_are_not_seen(self, index: Index) -> None:
        made(index, request("a", namespace="pull-request"))
        assert index.find([wanted(request("a"))], ["main"]) == [None]
        assert index.find([wanted(request("a"))], []) == [None]
        (found,) = index.find([wanted(request("a"))], ["main", "pull-request"])
        assert found and found.engine.namespace == "pull-request"

    def test_of_one_recipe_in_several_namespaces_the_first_named_wins(self, index: Index) -> None:
        made(index, request("a", namespace="main"), plan="m")
        made(index, request("a", namespace="pr"), plan="p")
        for order in (["main", "pr"], ["pr", "main"]):
            (found,) = index.find([wanted(request("a"))], order)
            assert found and found.engine.namespace == order[0]

    def test_many_are_found_at_once_in_their_order(self, index: Index) -> None:
        requests = [request(n) for n in range(60)]
        index.claim_or_join(requests, "me")
        for _ in range(0, 60, 2):
            given = lease(index)
            index.succeed(given, engine_of(given))
        found = index.find([wanted(one) for one in [*requests, requests[0]]], ["main"])
        built = {engine.recipe for engine in index.engines()}
        assert len(built) == 30
        assert [hit.engine.recipe if hit else None for hit in found[:-1]] == [
            one.recipe if one.recipe in built else None for one in requests
        ]
        assert found[-1] == found[0]

    def test_a_rebuilt_engine_takes_the_former_ones_place(self, index: Index) -> None:
        made(index, plan="first")
        index.claim_or_join([request()], "me", force=True)
        given = lease(index)
        index.succeed(given, engine_of(given, "second"))
        assert [engine.digest for engine in index.engines()] == [engine_of(given, "second").digest]

    # -- parts -------------------------------------------------------------------------------------------------

    def test_parts_come_back_by_shortened_key_and_recipe(self, index: Index) -> None:
        index.record_parts([parts_of(request(n)) for n in "abc"])
        for part in (parts_of(request(n)) for n in "abc"):
            for name in (part.key, part.recipe):
                assert index.parts(name) == [part]
                assert index.parts(name[:20]) == [part]
                assert index.parts(name.removeprefix("sha256:")[:12]) == [part]
        assert index.parts("ffffffffffffffffffff") == []

    def test_recording_parts_again_is_harmless(self, index: Index) -> None:
        twice = [parts_of(request("a")), parts_of(request("a")), parts_of(request("b"))]
        index.record_parts(twice)
        index.record_parts(twice)
        assert len(index.recent_parts()) == 2

    def test_recent_parts_are_newest_first_and_of_one_graph(self, index: Index) -> None:
        for n in range(5):
            index.record_parts([parts_of(request(n), parts={"graph": f"g{n % 2}", "n": n})])
        assert [part.parts["n"] for part in index.recent_parts()] == [4, 3, 2, 1, 0]
        assert [part.parts["n"] for part in index.recent_parts(graph="g0", limit=2)] == [4, 2]

    def test_a_build_leaves_its_parts_behind(self, index: Index) -> None:
        made(index, request("a"))
        assert index.parts(request("a").key) == [parts_of(request("a"))]

    def test_names_that_are_no_text_are_kept_as_well_as_may_be(self, index: Index) -> None:
        index.record_parts([parts_of(request("a"), model="na\udcffme\0.pt2", parts={"x": "\udcff\0", "n": 1.0})])
        (part,) = index.parts(request("a").key)
        assert part == KeyParts(
            request("a").key, request("a").recipe, {"x": "\udcff\0", "n": 1.0}, "na?me\ufffd.pt2", "sm_89"
        )

    # -- listing and dropping ----------------------------------------------------------------------------------

    def test_engines_are_listed_newest_first_and_by_shortened_names(self, index: Index) -> None:
        engines = [made(index, request(n), plan=n) for n in range(4)]
        assert [engine.digest for engine in index.engines()] == [engine.digest for engine in reversed(engines)]
        assert len(index.engines(limit=2)) == 2
        other_key = parts_of(request(2), key=digest("another key of it"))
        index.record_parts([other_key])
        for name in (engines[2].digest, request(2).recipe, request(2).key, other_key.key):
            for prefix in (name, name[:24], name.removeprefix("sha256:")[:14]):
                assert [engine.digest for engine in index.engines(prefix)] == [engines[2].digest]
        assert index.engines("00000000000000000") == []
        assert len(index.engines("sha")) == 4

    @pytest.mark.parametrize("prefix", ["%", "_", "sha256:%", "'", "Ω", "\0", "sha256:" + "F" * 10])
    def test_a_prefix_is_no_pattern(self, index: Index, prefix: str) -> None:
        made(index)
        assert index.engines(prefix) == index.parts(prefix) == index.builds(prefix=prefix) == []

    def test_a_dropped_engine_is_a_miss_and_is_counted(self, index: Index) -> None:
        engine = made(index)
        assert not index.drop_engine(engine.recipe, digest("other bytes"), "blob missing")
        assert index.drop_engine(engine.recipe, engine.digest, "blob missing")
        assert not index.drop_engine(engine.recipe, engine.digest, "blob missing")
        assert index.find([wanted(request())], ["main"]) == [None]
        assert index.stats()["counters"]["dropped"] == {"n": 1, "blob missing": 1}
        assert queued(index).state == "queued"

    def test_dropping_forgets_the_bytes_in_every_namespace(self, index: Index) -> None:
        engine = made(index, request("a"))
        made(index, request("a", namespace="pr"))
        assert index.drop_engine(engine.recipe, engine.digest, "blob corrupt")
        assert index.engines() == []

    # -- counters ----------------------------------------------------------------------------------------------

    def test_counters_add_up(self, index: Index) -> None:
        index.count("hit", {"n": 3, "seconds": 41.5})
        index.count("hit", {"n": 1, "seconds": 0.25, "bytes": 7})
        index.count("miss", {"n": 2})
        index.count("nothing", {})
        assert index.stats()["counters"] == {"hit": {"n": 4, "seconds": 41.75, "bytes": 7}, "miss": {"n": 2}}

    def test_stats_count_what_there_is(self, index: Index) -> None:
        made(index, request("a"))
        for name in ("b", "c"):
            queued(index, request(name))
        given = lease(index)
        shared = engine_of(given)
        index.succeed(given, shared)
        stats = index.stats()
        assert (stats["engines"], stats["blobs"], stats["bytes"]) == (2, 2, 2000)
        assert stats["builds"] == {"queued": 1, "running": 0, "succeeded": 2, "failed": 0, "cancelled": 0}
        assert (stats["programs"], stats["program_bytes"]) == (0, 0)

    def test_bytes_are_of_distinct_blobs(self, index: Index) -> None:
        made(index, request("a", namespace="main"))
        made(index, request("a", namespace="pr"))
        stats = index.stats()
        assert (stats["engines"], stats["blobs"], stats["bytes"]) == (2, 1, 1000)
