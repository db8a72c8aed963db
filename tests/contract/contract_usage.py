"""Use: when engines were last handed out and what keys were worth, as every index promises it."""

from __future__ import annotations

from index_things import digest, lease, made, queued, request

from farm.index import Index
from farm.usage import Usage


def usage(*engines: tuple[str, str], **fields: float) -> Usage:
    more = Usage()
    for recipe, namespace in engines:
        more.used(recipe, namespace)
    if fields:
        more.of_key(digest("key"), fields)
    return more


class UsageContract:
    """Inherit, and give the fixture ``index``."""

    def test_an_engine_is_unused_until_it_is_handed_out(self, index: Index) -> None:
        engine = made(index)
        place = (engine.recipe, "main")
        assert index.last_used([place]) == index.last_used([]) == {}
        index.add_usage(usage(place, place))
        (first,) = index.last_used([place]).values()
        (created,) = (one.created for one in index.engines())
        assert created < first
        index.add_usage(usage(place))
        assert index.last_used([place, (engine.recipe, "pr")])[place] > first

    def test_each_namespaces_engine_has_a_use_of_its_own(self, index: Index) -> None:
        made(index)
        made(index, request(namespace="pr"))
        index.add_usage(usage((request().recipe, "pr")))
        places = [(request().recipe, name) for name in ("main", "pr")]
        assert list(index.last_used(places)) == places[1:]

    def test_the_use_of_what_is_gone_is_forgotten_and_harmless(self, index: Index) -> None:
        engine = made(index)
        place = (engine.recipe, "main")
        index.add_usage(usage(place, (digest("nothing"), "main")))
        assert index.drop_engine(engine.recipe, engine.digest, "collected")
        index.add_usage(usage(place))
        assert index.last_used([place, (digest("nothing"), "main")]) == {}

    def test_a_rebuilt_engine_keeps_its_last_use(self, index: Index) -> None:
        engine = made(index)
        index.add_usage(usage((engine.recipe, "main")))
        before = index.last_used([(engine.recipe, "main")])
        index.claim_or_join([request()], "me", force=True)
        given = lease(index)
        index.succeed(given, engine)
        assert index.last_used([(engine.recipe, "main")]) == before

    def test_numbers_add_up_by_key_and_overall(self, index: Index) -> None:
        index.add_usage(Usage())
        assert index.usage([digest("key")]) == {}
        for _ in range(2):
            more = usage(hits=1.0, seconds=2.5)
            more.count("hit", {"n": 1.0})
            index.add_usage(more)
        index.add_usage(usage(misses=1.0))
        assert index.usage([digest("key"), digest("another")]) == {
            digest("key"): {"hits": 2.0, "seconds": 5.0, "misses": 1.0}
        }
        assert index.stats()["counters"] == {"hit": {"n": 2.0}}

    def test_of_many_keys_those_asked_for_of_late_are_kept_whole(self, index: Index) -> None:
        for name in "abcab":
            more = Usage()
            more.of_key(digest(name), {"hits": 1.0} if name != "b" else {"misses": 1.0, "seconds": 1.0})
            index.add_usage(more)
        index.db.run(lambda connection: index._trim_usage(connection, 3), writes=True)  # type: ignore[attr-defined]
        kept = index.usage([digest(name) for name in "abc"])
        assert kept == {digest("a"): {"hits": 2.0}, digest("b"): {"misses": 2.0, "seconds": 2.0}}
        assert queued(index).state == "queued"
