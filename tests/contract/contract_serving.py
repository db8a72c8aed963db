"""Portable engines: what every index promises about finding one for a place that it was not built for alone."""

from __future__ import annotations

from dataclasses import replace

from index_things import digest, engine_of, lease, queued, request

from farm.builds import Engine
from farm.index import Index, WantedPortable
from farm.portability import Serves, sortable

FAMILY = digest("family")


def made_to_serve(index: Index, name: str, *served: Serves) -> Engine:
    queued(index, request(name))
    held = lease(index)
    engine = replace(engine_of(held, name), serves=served)
    index.succeed(held, engine)
    return engine


def serves(place: str, version: str = "10.14.1", portable: bool = False, breadth: int = 1) -> Serves:
    return Serves(FAMILY, place, sortable(version), portable, breadth)


def found(index: Index, *places: str, version: str = "10.14.1", family: str = FAMILY) -> list[str]:
    wanted = WantedPortable(family, places, sortable(version))
    return [engine.recipe for engine in index.find_portable(wanted, ["main"])]


class ServingContract:
    """Inherit, and give the fixture ``index``."""

    def test_an_engine_for_a_set_serves_each_member_and_nothing_else(self, index: Index) -> None:
        both = made_to_serve(index, "both", serves("sm_86", breadth=2), serves("sm_89", breadth=2))
        assert found(index, "sm_86") == found(index, "sm_89") == found(index, "sm_86", "sm_89") == [both.recipe]
        assert found(index, "sm_120") == found(index, "sm_89", family=digest("another")) == found(index) == []

    def test_the_best_suited_comes_first(self, index: Index) -> None:
        """The same version before older ones, older ones newest first, narrow before broad."""
        old = made_to_serve(index, "old", serves("l4", "10.9.0", portable=True))
        older = made_to_serve(index, "older", serves("l4", "10.2.0", portable=True))
        broad = made_to_serve(index, "broad", serves("l4", breadth=1000))
        narrow = made_to_serve(index, "narrow", serves("l4"))
        assert found(index, "l4") == [narrow.recipe, broad.recipe, old.recipe, older.recipe]

    def test_a_newer_engine_never_serves_an_older_runtime_nor_one_that_is_bound_to_its_version(
        self, index: Index
    ) -> None:
        made_to_serve(index, "newer", serves("l4", "10.15.0", portable=True))
        made_to_serve(index, "bound", serves("l4", "10.9.0", portable=False))
        assert found(index, "l4", version="10.14.1") == []

    def test_who_wants_a_version_compatible_engine_gets_no_other(self, index: Index) -> None:
        made_to_serve(index, "bound", serves("l4"))
        wanted = WantedPortable(FAMILY, ("l4",), sortable("10.14.1"), portable=True)
        assert index.find_portable(wanted, ["main"]) == []
        free = made_to_serve(index, "free", serves("l4", portable=True))
        assert [engine.recipe for engine in index.find_portable(wanted, ["main"])] == [free.recipe]

    def test_versions_compare_as_numbers(self, index: Index) -> None:
        nine = made_to_serve(index, "nine", serves("l4", "10.9.0", portable=True))
        assert found(index, "l4", version="10.14.1") == [nine.recipe]

    def test_a_dropped_engine_serves_nobody(self, index: Index) -> None:
        engine = made_to_serve(index, "gone", serves("l4"))
        assert index.drop_engine(engine.recipe, engine.digest, "blob missing")
        assert found(index, "l4") == []

    def test_an_engine_built_again_serves_what_its_successor_serves(self, index: Index) -> None:
        made_to_serve(index, "again", serves("l4"))
        index.claim_or_join([request("again")], "me", force=True)
        held = lease(index)
        index.succeed(held, replace(engine_of(held, "second"), serves=(serves("a10"),)))
        assert found(index, "l4") == [] and len(found(index, "a10")) == 1
