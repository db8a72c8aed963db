"""What is condemned and what protects it, pins, and history that is trimmed: what collection asks of every index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from index_things import claim, digest, engine_of, failure, kinds, lease, made, parts_of, queued, request

from farm.builds import Engine, FailureKind
from farm.collection import Kind, Thing
from farm.index import StoredProgram, Sweep, Trial
from farm.leaving import Leaving, Pinned
from farm.making import StoredForm
from farm.upkeep import Holder
from farm.usage import Usage

PROGRAM = StoredProgram(digest("program"), "a.pt2", "pt2", 10, digest("g"), "b3:w")
FORM = StoredForm(
    PROGRAM.digest, "torch 2.13", digest("onnx"), digest("data"), {"graph": "m.onnx", "side": digest("side")}, 30
)
NONE, LONG = -1.0, 3600.0
"""Grace periods: one in which everything is old at once, and one in which nothing is."""


def things(index: Leaving, kind: Kind = Kind.ENGINE, limit: int = 2) -> list[Thing]:
    """Every row of one kind, by small pages."""
    found: list[Thing] = []
    while page := index.weighed(kind, found[-1].place if found else (), limit):
        found += page
    return found


def pinned(engine: Engine, **changes: str) -> Pinned:
    one = Pinned(engine.recipe, engine.namespace, engine.digest, digest("manifest"), PROGRAM.digest, engine.size)
    return replace(one, **changes)


def gone(index: Leaving, some: Sequence[Thing] | None = None, grace: float = NONE) -> int:
    return len(index.condemn(things(index) if some is None else some, grace))


class LeavingContract:
    """Inherit, and give the fixture ``index``."""

    # -- what there is -----------------------------------------------------------------------------------------

    def test_things_are_rows_with_their_bytes_and_their_use(self, index: Leaving) -> None:
        index.put_program(PROGRAM)
        index.put_form(FORM)
        engines = [made(index, request(n)) for n in range(5)]
        index.record_parts([parts_of(request(0))])
        use = Usage()
        use.used(engines[3].recipe, "main")
        index.add_usage(use)
        found = {thing.place: thing for thing in things(index)}
        assert set(found) == {(engine.recipe, "main") for engine in engines}
        one = found[engines[3].recipe, "main"]
        assert (one.blobs[0], one.size, one.namespace) == (engines[3].digest, 1000, "main")
        assert one.used >= one.created and [t.used for t in found.values()].count(0.0) == 4
        assert found[engines[0].recipe, "main"].name == "0.pt2 for sm_89"
        (program,), (form,) = things(index, Kind.PROGRAM), things(index, Kind.FORM)
        assert (program.size, program.blobs, program.name) == (10, (PROGRAM.digest,), "a.pt2")
        assert (form.size, set(form.blobs)) == (30, {digest("onnx"), digest("data"), digest("side")})
        assert form.used == program.used >= program.created > 0

    def test_a_program_that_is_stored_again_was_used(self, index: Leaving) -> None:
        index.put_program(PROGRAM)
        (before,) = things(index, Kind.PROGRAM)
        index.put_program(PROGRAM)
        (after,) = things(index, Kind.PROGRAM)
        assert after.used > before.used and after.created == before.created
        assert gone(index, [before]) == 0, "it is wanted again"
        assert gone(index, [after]) == 1

    def test_what_protects(self, index: Leaving) -> None:
        engine = made(index, request("a"))
        building = queued(index, request("b", program=digest("needed")))
        index.put_pin("mine", [pinned(engine)], None, LONG)
        safe = index.protected()
        assert safe.pins == {engine.digest: "mine", PROGRAM.digest: "mine"}
        assert safe.pinned == {(engine.recipe, "main"): "mine"}
        assert safe.building == {(building.request.recipe, "main")} and safe.needed == {digest("needed")}
        assert safe.now >= building.created

    # -- what goes ---------------------------------------------------------------------------------------------

    def test_an_engine_that_goes_is_found_no_more_and_its_blob_is_condemned(self, index: Leaving) -> None:
        engine = made(index, request("a"))
        (build,) = index.builds()
        assert gone(index) == 1 and gone(index) == 0
        assert index.holdings(Holder.ENGINE) == [] and kinds(index, build.id)[-1] == "engine dropped"
        assert index.stats()["counters"]["dropped"] == {"n": 1, "collected": 1}
        assert index.named([engine.digest]) == set() == index.named_elsewhere([engine.digest])
        index.hold_blobs([engine.digest], LONG)
        assert index.named([engine.digest]) == {engine.digest}, "its time is still to come"

    def test_what_is_young_used_pinned_or_being_built_does_not_go(self, index: Leaving) -> None:
        engine = made(index, request("a"))
        some = things(index)
        assert gone(index, grace=LONG) == 0, "it is young"
        index.put_pin("mine", [pinned(engine)], None, LONG)
        assert gone(index) == 0
        index.put_pin("mine", [pinned(engine)], -1.0, LONG)
        claim(index, request("a"), force=True)
        assert gone(index) == 0, "it is being built again"
        given = lease(index)
        index.succeed(given, engine_of(given, "another"))
        assert gone(index, some) == 0, "it was built again"
        assert gone(index) == 1, "the pin has expired"

    def test_a_pin_keeps_every_engine_with_the_same_plan(self, index: Leaving) -> None:
        one = made(index, request("a"))
        claim(index, request("b"))
        given = lease(index)
        index.succeed(given, replace(engine_of(given), digest=one.digest))
        index.put_pin("mine", [pinned(one)], None, LONG)
        assert gone(index) == 0

    def test_programs_and_forms_of_active_builds_and_pins_do_not_go(self, index: Leaving) -> None:
        index.put_program(PROGRAM)
        index.put_form(FORM)
        build = queued(index, request("a"))
        assert gone(index, things(index, Kind.PROGRAM)) == 0 == gone(index, things(index, Kind.FORM))
        index.cancel(build.id)
        engine = made(index, request("b"))
        index.put_pin("mine", [pinned(engine)], None, LONG)
        assert gone(index, things(index, Kind.PROGRAM)) == 0
        assert gone(index, things(index, Kind.FORM)) == 1
        index.drop_pin("mine", NONE)
        assert gone(index, things(index, Kind.PROGRAM)) == 1
        assert index.programs() == [] and index.form(FORM.program, FORM.exporter) is None
        taken = {one.blob: one.size for one in index.take_condemned(10)}
        assert {PROGRAM.digest: 10, digest("onnx"): 30, digest("data"): 0, digest("side"): 0}.items() <= taken.items()

    @pytest.mark.parametrize("name", ["nul\0.pt2", "\udcff.pt2", "\\u0000\\.pt2", "\N{PILE OF POO}.pt2"])
    def test_a_model_may_have_any_name(self, index: Leaving, name: str) -> None:
        index.put_program(PROGRAM)
        queued(index, request("a", model=name))
        assert gone(index, things(index, Kind.PROGRAM)) == 0

    # -- what is condemned -------------------------------------------------------------------------------------

    def test_what_is_condemned_is_taken_when_its_time_has_come(self, index: Leaving) -> None:
        old = made(index, request("old"))
        gone(index)
        waits = made(index, request("waits"))
        index.put_pin("w", [pinned(waits)], None, LONG)
        index.drop_pin("w", LONG)
        count, size, due = index.condemned()
        assert (count, size, due) == (3, 2000, 1)
        assert [one.blob for one in index.take_condemned(10)] == [old.digest]
        assert [one.blob for one in index.take_condemned(10)] == [old.digest], "whoever took it may have been killed"
        index.spare([old.digest])
        assert index.take_condemned(10) == [] and index.condemned()[0] == 2

    def test_what_is_held_stays(self, index: Leaving) -> None:
        engine = made(index, request("a"))
        assert index.hold_blobs([engine.digest], LONG) == set(), "nothing is condemned"
        gone(index)
        assert index.hold_blobs([engine.digest, digest("another")], LONG) == set()
        assert index.take_condemned(10) == [] and index.condemned()[0] == 1
        assert index.hold_blobs([engine.digest], NONE) == set() and index.take_condemned(10) == []

    def test_what_is_taken_cannot_be_held(self, index: Leaving) -> None:
        engine = made(index, request("a"))
        gone(index)
        index.take_condemned(10)
        assert index.hold_blobs([engine.digest], LONG) == {engine.digest}
        index.postpone([engine.digest], LONG)
        assert index.hold_blobs([engine.digest], LONG) == set() and index.take_condemned(10) == []

    def test_what_is_condemned_again_stays_for_as_long_again(self, index: Leaving) -> None:
        made(index, request("a"))
        gone(index)
        assert len(index.take_condemned(10)) == 1
        engine = made(index, request("a"))
        assert index.named_elsewhere([engine.digest]) == {engine.digest}
        index.put_pin("p", [pinned(engine)], None, LONG)
        index.drop_pin("p", LONG)
        assert index.take_condemned(10) == []
        index.spare([engine.digest])
        assert index.condemned()[0] == 2, "only what was taken is spared"

    def test_what_an_engine_took_the_place_of_stays_for_a_while(self, index: Leaving) -> None:
        """Whoever was promised it fetches it yet, though ``reconcile`` comes by."""
        first = made(index, request("a"))
        for plan in ("plan", "another"):
            claim(index, request("a"), force=True)
            claim(index, request(f"b {plan}"))
            ends = [(given, engine_of(given, plan)) for given in (lease(index), lease(index))]
            assert index.succeed_all(ends) == [True, True]
            assert index.condemned()[0] == (plan == "another")
        assert index.named_elsewhere([first.digest]) == set() and index.named([first.digest]) == {first.digest}
        assert index.take_condemned(9) == [] and index.condemned() == (1, 1000, 0)

    # -- pins --------------------------------------------------------------------------------------------------

    def test_a_name_keeps_one_set_at_a_time(self, index: Leaving) -> None:
        a, b, c = (made(index, request(name)) for name in "abc")
        assert index.put_pin("mine", [pinned(a), pinned(b), pinned(a)], None, LONG) == []
        (first,) = index.pins()
        assert {one.digest for one in first.engines} == {a.digest, b.digest} and first.expires is None
        assert index.put_pin("mine", [pinned(b), pinned(c)], 60.0, LONG) == []
        (second,) = index.pins("mine")
        assert {one.digest for one in second.engines} == {b.digest, c.digest}
        assert second.created == first.created and second.expires and second.expires > second.created
        assert gone(index) == 1
        assert index.drop_pin("mine", LONG) and not index.drop_pin("mine", LONG) and index.pins() == []

    def test_a_pin_of_what_is_not_there_changes_nothing(self, index: Leaving) -> None:
        a, b = (made(index, request(name)) for name in "ab")
        index.put_pin("mine", [pinned(a)], None, LONG)
        absent = pinned(b, digest=digest("another"))
        assert index.put_pin("mine", [pinned(b), absent], None, LONG) == [absent]
        (pin,) = index.pins("mine")
        assert [one.digest for one in pin.engines] == [a.digest] and index.pins("other") == []

    def test_a_pin_names_its_blobs_though_its_engine_was_replaced(self, index: Leaving) -> None:
        engine = made(index, request("a"))
        index.put_pin("mine", [pinned(engine)], None, LONG)
        claim(index, request("a"), force=True)
        given = lease(index)
        index.succeed(given, engine_of(given, "another"))
        blobs = [engine.digest, digest("manifest")]
        assert index.named_elsewhere(blobs) == set(blobs)
        index.drop_pin("mine", LONG)
        assert index.named_elsewhere(blobs) == set() and index.named(blobs) == set(blobs)

    def test_pins_expire(self, index: Leaving) -> None:
        a, b = (made(index, request(name)) for name in "ab")
        index.put_pin("short", [pinned(a)], -1.0, LONG)
        index.put_pin("long", [pinned(b)], 60.0, LONG)
        assert {pin.name for pin in index.pins()} == {"long", "short"} and set(index.protected().pins.values()) == {
            "long"
        }
        assert index.expire_pins(LONG) == 1 and [pin.name for pin in index.pins()] == ["long"]

    # -- history -----------------------------------------------------------------------------------------------

    def test_old_builds_go_and_those_that_matter_lose_their_logs(self, index: Leaving) -> None:
        def ended(name: str) -> str:
            build = queued(index, request(name))
            given = lease(index)
            index.append_log(given, "log\n")
            if name == "made":
                index.succeed(given, engine_of(given))
            else:
                kind = FailureKind.PERMANENT if name == "remembered" else FailureKind.TRANSIENT
                index.fail(given, failure(kind), None)
            return build.id

        ids = {name: ended(name) for name in ("made", "remembered", "failed", "swept")}
        ids["active"] = queued(index, request("active")).id
        index.put_sweep(Sweep("s1", 0.0, {}, (Trial(0, "m", "t", {}, "k", "r", "new", ids["swept"]),)))
        now = index.protected().now
        assert index.trim_builds(now - LONG) == (0, 0, ())
        assert index.history(now + LONG) == {"sweeps": 1, "builds": 1, "key_parts": 0}
        page, place = index.trim_builds(now + LONG, (), 2), ()
        total = [0, 0]
        while page.place:
            total, place = [total[0] + page.builds, total[1] + page.logs], page.place
            page = index.trim_builds(now + LONG, place, 2)
        assert total == [1, 3] and {build.id for build in index.builds()} == set(ids.values()) - {ids["failed"]}
        for name in ("made", "remembered", "swept"):
            assert index.log(ids[name]) == ("", 0) and index.events(ids[name]) == []
        assert kinds(index, ids["active"]) == ["queued"]

    def test_old_sweeps_go_unless_something_of_them_is_active(self, index: Leaving) -> None:
        build = queued(index, request("a"))
        for name, of in (("s1", None), ("s2", build.id)):
            index.put_sweep(Sweep(name, 0.0, {}, (Trial(0, "m", "t", {}, "k", "r", "new", of),)))
        now = index.protected().now
        assert index.trim_sweeps(now - LONG) == 0 and index.trim_sweeps(now + LONG) == 1
        assert [sweep.id for sweep in index.sweeps()] == ["s2"]
        index.cancel(build.id)
        assert index.trim_sweeps(now + LONG) == 1

    def test_old_key_parts_go_with_their_outlines_unless_something_needs_them(self, index: Leaving) -> None:
        made(index, request("made"))
        queued(index, request("active"))
        index.record_parts([parts_of(request(name)) for name in ("made", "active")])
        outlined = parts_of(request("nothing"))
        index.record_parts([replace(outlined, parts={**outlined.parts, "outline": digest("outline")})])
        now = index.protected().now
        assert index.trim_parts(now - LONG, NONE) == 0 and index.trim_parts(now + LONG, NONE) == 1
        assert index.trim_parts(now + LONG, NONE) == 0
        assert {part.model for part in index.recent_parts()} == {"made.pt2", "active.pt2"}
        assert [one.blob for one in index.take_condemned(9)] == [digest("outline")]

    def test_turns_are_taken_once(self, index: Leaving) -> None:
        assert index.take_turn("collected", 60.0) and not index.take_turn("collected", 60.0)
        assert index.take_turn("another", 60.0)
        assert index.take_turn("collected", -1.0)
