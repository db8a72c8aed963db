"""Rows and the blobs that they name, notes, and rows that move: what upkeep asks of every index."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from index_things import claim, digest, engine_of, kinds, lease, made, parts_of, queued, request

from farm.index import StoredProgram, Wanted
from farm.making import StoredForm
from farm.upkeep import Holder, Holding, Upkeep

PROGRAM = StoredProgram(digest("p"), "a.pt2", "pt2", 10, digest("g"), "b3:w")
FORM = StoredForm(
    PROGRAM.digest, "torch 2.13", digest("onnx"), digest("data"), {"graph": "m.onnx", "side": digest("side")}
)


def all_of(index: Upkeep, holder: Holder, limit: int = 2) -> list[Holding]:
    """Every row of one kind, by small pages."""
    found: list[Holding] = []
    while page := index.holdings(holder, found[-1].place if found else (), limit):
        assert len(page) <= limit
        found += page
    return found


def manifested(index: Upkeep, note: str = "") -> str:
    """Build an engine (again); the digest of its manifest's blob."""
    claim(index, request("manifested"), force=True)
    given = lease(index)
    manifest = digest("manifest", note)
    index.succeed(given, replace(engine_of(given), manifest={"model": "m", "note": note, "manifest": manifest}))
    return manifest


class UpkeepContract:
    """Inherit, and give the fixture ``index``."""

    # -- blobs -------------------------------------------------------------------------------------------------

    def test_every_row_that_names_blobs_is_walked_once(self, index: Upkeep) -> None:
        engines = [made(index, request(n)) for n in range(5)]
        made(index, request("elsewhere", recipe=engines[0].recipe, namespace="other"))
        walked = all_of(index, Holder.ENGINE)
        assert sorted(row.place for row in walked) == sorted({row.place for row in walked}) and len(walked) == 6
        assert {row.blobs[0] for row in walked} >= {engine.digest for engine in engines}
        index.put_program(PROGRAM)
        index.put_form(FORM)
        index.put_form(replace(FORM, exporter="onnx", data=None))
        assert [row.blobs for row in all_of(index, Holder.PROGRAM)] == [(PROGRAM.digest,)]
        whole = (digest("onnx"), digest("data"), digest("side"))
        assert [row.blobs for row in all_of(index, Holder.FORM)] == [(whole[0], whole[2]), whole]

    def test_a_blob_is_named_whatever_names_it(self, index: Upkeep) -> None:
        manifest = manifested(index)
        engine = made(index, request("another"))
        index.put_program(PROGRAM)
        index.put_form(FORM)
        outlined = parts_of(request("unbuilt"))
        index.record_parts([replace(outlined, parts={**outlined.parts, "outline": digest("outline")})])
        blobs = {engine.digest, manifest, PROGRAM.digest, *(digest(w) for w in ("onnx", "data", "side", "outline"))}
        assert index.named({*blobs, digest("nobody's"), ""}) <= {*blobs, ""}
        assert index.named({*blobs, digest("nobody's")}) == blobs
        assert index.named([]) == set()

    def test_the_manifest_of_an_engine_built_again_takes_the_former_ones_place(self, index: Upkeep) -> None:
        first = manifested(index, "first")
        second = manifested(index, "second")
        assert first != second and index.named([first, second]) == {first, second}, "who was promised one has it yet"
        rows = index.holdings(Holder.ENGINE)
        assert {blob for row in rows for blob in row.blobs} & {first, second} == {second}

    def test_an_engine_is_dropped_as_it_was_read(self, index: Upkeep) -> None:
        made(index, request("a"))
        (row,) = index.holdings(Holder.ENGINE)
        claim(index, request("a"), force=True)
        given = lease(index)
        again = engine_of(given)
        index.succeed(given, again)
        assert not index.drop(row, "blob missing"), "it was built again since"
        assert index.find([Wanted(digest("key", "a"), again.recipe)], ["main"])[0]
        (row,) = index.holdings(Holder.ENGINE)
        assert index.drop(row, "blob missing") and not index.drop(row, "blob missing")
        assert index.holdings(Holder.ENGINE) == []
        assert kinds(index, row.version)[-1] == "engine dropped"
        assert index.stats()["counters"]["dropped"] == {"n": 1, "blob missing": 1}

    def test_a_form_is_dropped_as_it_was_read(self, index: Upkeep) -> None:
        index.put_form(FORM)
        (row,) = index.holdings(Holder.FORM)
        index.put_form(FORM)
        assert not index.drop(row, "blob missing"), "it was exported again since"
        (row,) = index.holdings(Holder.FORM)
        assert index.drop(row, "blob missing") and index.form(FORM.program, FORM.exporter) is None

    def test_programs_are_never_dropped(self, index: Upkeep) -> None:
        index.put_program(PROGRAM)
        (row,) = index.holdings(Holder.PROGRAM)
        with pytest.raises(ValueError, match="kept"):
            index.drop(row, "blob missing")

    def test_active_builds_by_the_program_that_they_need(self, index: Upkeep) -> None:
        made(index, request("done"))
        mine = queued(index, request("mine", program=PROGRAM.digest))
        queued(index, request("other"))
        assert index.needing({PROGRAM.digest}) == [mine.id]
        assert index.needing({digest("another")}) == []

    # -- notes -------------------------------------------------------------------------------------------------

    def test_a_note_is_written_once(self, index: Upkeep) -> None:
        assert index.note("store") is None
        assert index.put_note("store", "a") == "a" == index.put_note("store", "b") == index.note("store")
        assert index.put_notes({"store": "c", "x": "d"})["store"] == "a"
        assert index.notes(["store", "x", "nothing"]) == {"store": "a", "x": "d"}
        assert index.put_notes({}) == {} == index.notes([])

    def test_a_note_can_be_set_anew(self, index: Upkeep) -> None:
        for value in ("a", "b", "b", ""):
            index.set_note("verify", value)
            assert index.note("verify") == value
        index.put_note("verify", "c")
        assert index.note("verify") == ""

    def test_engines_come_by_the_page_whatever_their_rows_say(self, index: Upkeep) -> None:
        for n in range(5):
            made(index, request(n, namespace="other" if n == 3 else "main"))
        found, page = [], index.engines_after(limit=2)
        while page:
            found += page
            page = index.engines_after((page[-1].recipe, page[-1].namespace), 2)
        places = [(engine.recipe, engine.namespace) for engine in found]
        assert len(found) == 5 and places == sorted(places)
        builds = {build.request.recipe: build.id for build in index.builds()}
        assert all(builds[engine.recipe] == engine.build for engine in found)

    # -- rows that move ----------------------------------------------------------------------------------------

    def test_rows_come_by_the_page_in_the_order_of_their_keys(self, index: Upkeep) -> None:
        for n in range(5):
            made(index, request(n))
        for table in ("engines", "builds", "key_parts"):
            found: list[Any] = []
            while page := index.rows(table, index.place(table, found[-1]) if found else (), 2):
                found += page
            places = [index.place(table, row) for row in found]
            assert len(found) == 5 and places == sorted(places)
            assert index.unknown(table, found) == []
            renamed = [{**row, next(iter(row)): f"x{n}"} for n, row in enumerate(found)]
            assert index.unknown(table, [*found, *renamed]) == renamed

    def test_rows_are_taken_over_once_with_all_that_belongs_to_them(self, index: Upkeep) -> None:
        build = queued(index, request("b"))
        made_engine = made(index, request("b"))
        rows, owned = index.rows("builds"), {t: index.rows_of(t, [build.id]) for t in ("events", "attempts")}
        renamed = [{**row, "id": "bnew"} for row in rows]
        theirs = {table: [{**row, "build": "bnew"} for row in those] for table, those in owned.items()}
        shuffled = random.Random(1).sample([*rows, *renamed], 2)
        assert index.take_over("builds", shuffled, theirs) == 1
        assert index.take_over("builds", shuffled, theirs) == 0 == index.take_over("builds", [], {})
        assert kinds(index, "bnew") == kinds(index, build.id) and len(index.attempts("bnew")) == 1
        moved = index.build("bnew")
        assert moved and moved.engine == made_engine.digest and moved.request.model == "b.pt2"

    def test_counters_of_another_farm_are_added_once(self, index: Upkeep) -> None:
        index.count("hit", {"n": 1})
        theirs = {"hit": {"n": 3.0, "seconds": 1.5}, "miss": {"n": 1.0}}
        assert index.add_counters("theirs", theirs) and not index.add_counters("theirs", theirs)
        assert index.stats()["counters"] == {"hit": {"n": 4, "seconds": 1.5}, "miss": {"n": 1}}
        assert index.add_counters("theirs", {**theirs, "miss": {"n": 3.0}})
        assert index.add_counters("others'", {"miss": {"n": 1.0}})
        assert index.stats()["counters"]["miss"] == {"n": 4}
