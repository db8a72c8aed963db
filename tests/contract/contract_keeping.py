"""Workers, programs, forms and sweeps: what every index keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from index_things import EXPIRED, TTL, digest, lease, queued, unwanted

from farm.errors import NoSuchThing
from farm.index import Index, StoredProgram, Sweep, Trial, Worker
from farm.making import StoredForm

WORKER = Worker("h:1:a", "h", 1, 1234.5, ("c1", "c2"), {"cores": 2, "vantage": "x"})
PROGRAM = StoredProgram(digest("p"), "models/a.pt2", "pt2", 2**33, digest("g"), "b3:w")


def trial(number: int, **changes: object) -> Trial:
    one = Trial(number, "a.pt2", "sm_89", {"optimization_level": number}, digest("k", number), digest("r", number))
    return replace(one, **changes)


class KeepingContract:
    """Inherit, and give the fixture ``index``."""

    def test_workers_come_and_go(self, index: Index) -> None:
        index.register(WORKER)
        (found,) = index.workers()
        assert replace(found, seen=0.0) == WORKER and found.seen > 1_700_000_000
        index.register(replace(WORKER, capabilities=("c3",)))
        (again,) = index.workers()
        assert again.capabilities == ("c3",) and again.seen >= found.seen
        index.unregister(WORKER.id)
        index.unregister(WORKER.id)
        assert index.workers() == []

    def test_a_beat_is_a_sign_of_life(self, index: Index) -> None:
        index.register(WORKER)
        (before,) = index.workers()
        queued(index)
        unwanted(index, lease(index, WORKER.id), TTL, "build", None)
        (after,) = index.workers()
        assert after.seen > before.seen

    def test_the_gone_are_forgotten(self, index: Index) -> None:
        index.register(WORKER)
        index.register(replace(WORKER, id="h:2:b"))
        index.reap([WORKER.id])
        assert [worker.id for worker in index.workers()] == ["h:2:b"]

    def test_an_expired_lease_alone_says_nothing_of_its_worker(self, index: Index) -> None:
        index.register(WORKER)
        queued(index)
        lease(index, WORKER.id, EXPIRED)
        index.reap()
        assert len(index.workers()) == 1

    # -- programs ----------------------------------------------------------------------------------------------

    def test_a_program_keeps_its_first_name(self, index: Index) -> None:
        index.put_program(PROGRAM)
        index.put_program(replace(PROGRAM, name="copy/b.pt2"))
        (found,) = index.programs()
        assert replace(found, created=0.0) == PROGRAM and found.created > 1_700_000_000
        assert index.stats()["programs"] == 1 and index.stats()["program_bytes"] == 2**33

    def test_programs_by_shortened_digest(self, index: Index) -> None:
        programs = [replace(PROGRAM, digest=digest("p", n)) for n in range(3)]
        for program in programs:
            index.put_program(program)
        assert [found.digest for found in index.programs()] == [program.digest for program in reversed(programs)]
        assert [found.digest for found in index.programs(programs[0].digest[7:20])] == [programs[0].digest]
        assert len(index.programs(limit=2)) == 2

    def test_forms_are_of_a_program_and_an_exporter(self, index: Index) -> None:
        form = StoredForm(PROGRAM.digest, "torch 2.13", digest("onnx"), None, {"graph": "m.onnx", "side": digest("s")})
        assert index.form(form.program, form.exporter) is None
        index.put_form(form)
        assert index.form(form.program, form.exporter) == form
        assert index.form(form.program, "torch 2.14") is None
        again = replace(form, graph=digest("onnx again"), data=digest("data"))
        index.put_form(again)
        assert index.form(form.program, form.exporter) == again

    # -- sweeps ------------------------------------------------------------------------------------------------

    def test_a_sweep_comes_back_with_its_trials_when_it_alone_is_meant(self, index: Index) -> None:
        trials = tuple(trial(n, build=f"b{n}", asked="new") for n in range(3))
        sweep = Sweep("sabc", 0.0, {"grid": {"optimization_level": [0, 1, 2]}}, trials)
        index.put_sweep(sweep)
        index.put_sweep(Sweep("sabd", 0.0, {}))
        (found,) = index.sweeps("sabc")
        assert replace(found, created=0.0) == sweep and found.created > 1_700_000_000
        assert [one.id for one in index.sweeps()] == ["sabd", "sabc"]
        assert [one.trials for one in index.sweeps("sab")] == [(), ()]
        assert index.sweeps("x") == [] and len(index.sweeps(limit=1)) == 1

    def test_a_sweep_stored_again_is_replaced(self, index: Index) -> None:
        index.put_sweep(Sweep("sabc", 0.0, {"n": 1}, (trial(0), trial(1))))
        (first,) = index.sweeps("sabc")
        index.put_sweep(Sweep("sabc", 0.0, {"n": 2}, (trial(1, error="bad \0 thing"),)))
        (second,) = index.sweeps("sabc")
        assert second == replace(first, spec={"n": 2}, trials=(trial(1, error="bad \ufffd thing"),))

    def test_trials_are_appended_once(self, index: Index) -> None:
        index.put_sweep(Sweep("sabc", 0.0, {"search": "tpe"}))
        assert index.add_trials("sabc", [trial(3), trial(7)])
        assert not index.add_trials("sabc", [trial(5), trial(7)]), "another process has been first with one of them"
        assert index.add_trials("sabc", [trial(5)])
        (found,) = index.sweeps("sabc")
        assert [one.number for one in found.trials] == [3, 5, 7]
        index.cancel_sweep("sabc")
        assert not index.add_trials("sabc", [trial(9)])
        with pytest.raises(NoSuchThing, match="snothing"):
            index.add_trials("snothing", [trial(1)])

    def test_what_became_of_a_trial_is_written(self, index: Index) -> None:
        index.put_sweep(Sweep("sabc", 0.0, {}, (trial(1), trial(2))))
        index.change_trials("sabc", [trial(2, asked="new", build="b2", error="bad \0 thing", model="other.pt2")])
        (found,) = index.sweeps("sabc")
        assert found.trials == (trial(1), trial(2, asked="new", build="b2", error="bad \ufffd thing"))

    def test_a_search_ends_for_the_first_reason_and_may_go_on(self, index: Index) -> None:
        index.put_sweep(Sweep("sabc", 0.0, {"search": "tpe"}))
        index.end_sweep("sabc", "enough")
        index.end_sweep("sabc", "more than enough")
        assert [one.spec for one in index.sweeps()] == [{"search": "tpe", "ended": "enough"}]
        index.end_sweep("sabc", "")
        assert not index.sweeps()[0].spec["ended"]
        with pytest.raises(NoSuchThing, match="snothing"):
            index.end_sweep("snothing", "why")

    def test_a_cancelled_sweep_stays_cancelled(self, index: Index) -> None:
        index.put_sweep(Sweep("sabc", 0.0, {}))
        index.cancel_sweep("sabc")
        index.put_sweep(Sweep("sabc", 0.0, {}))
        assert [one.cancelled for one in index.sweeps()] == [True]
        with pytest.raises(NoSuchThing, match="snothing"):
            index.cancel_sweep("snothing")
