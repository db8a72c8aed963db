"""Measurements, and what awaits measuring: what every index promises of them."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from index_things import EXPIRED, TTL, digest

from farm.index import Index
from farm.measurements import Accuracy, Latency, Measurement, MeasuringAsk, MeasuringLease, Runner

PLACE = "tensorrt==10.14.1/l4/x86_64"


def measurement(p50: float = 1.5, **changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "runner": Runner.ENGINE,
        "engine": digest("plan"),
        "program": digest("program"),
        "shapes": {"0": [1, 3], "10": []},
        "device": "l4-sm89-58mp-23g",
        "place": PLACE,
        "latency": Latency(p50, 1.6, 1.9, 1.55, 1.4, 2.0),
        "throughput": 700.5,
        "memory": 123456789,
        "load_seconds": 0.25,
        "first_seconds": 0.5,
        "spread": 0.01,
        "runs": 5,
        "iterations": 1000,
        "accuracy": Accuracy(1e-3, 1e-4, 0.9999),
        "throttled": ("power cap",),
        "signature": {"driver": "580.1", "gpu": {"name": "NVIDIA L4"}},
        "node": "gpu-1",
    }
    return Measurement(**(values | changes))


def ask(name: object = "a", **changes: Any) -> MeasuringAsk:
    values: dict[str, Any] = {
        "runner": Runner.ENGINE,
        "engine": digest("plan", name),
        "program": digest("program"),
        "program_format": "pt2",
        "place": PLACE,
        "shapes": {"0": [1, 3]},
        "inputs": ("x",),
        "outputs": ("y", "z"),
        "toolchain": "tensorrt==10.14.1",
    }
    return MeasuringAsk(**(values | changes))


def taken(index: Index, worker: str = "w1", ttl: float = TTL) -> MeasuringLease:
    found = index.lease_measuring([PLACE, "elsewhere"], worker, ttl)
    assert found is not None
    return found


class MeasuringContract:
    """Inherit, and give the fixture ``index``."""

    def test_a_measurement_comes_back_as_it_was(self, index: Index) -> None:
        one = measurement()
        index.record_measurement(one)
        (found,) = index.measurements_of([one.engine])
        assert found.at > 0 and replace(found, at=0.0) == one and found.id == one.id

    def test_a_baseline_is_filed_under_its_program(self, index: Index) -> None:
        eager = measurement(runner=Runner.EAGER, engine="", accuracy=None)
        index.record_measurement(eager)
        index.record_measurement(measurement())
        assert [one.runner for one in index.measurements_of([eager.program])] == [Runner.EAGER]
        assert {one.runner for one in index.measurements_of([eager.program, digest("plan")])} == {"eager", "engine"}
        assert index.measurements_of([]) == index.measurements_of([digest("another")]) == []

    def test_a_newer_measurement_takes_the_older_ones_place(self, index: Index) -> None:
        index.record_measurement(measurement(1.5))
        index.record_measurement(measurement(1.4))
        assert [one.latency.p50 for one in index.measurements_of([digest("plan")])] == [1.4]

    def test_what_was_measured_otherwise_stands_beside_it_newest_first(self, index: Index) -> None:
        otherwise = [{"device": "a10"}, {"shapes": {"0": [8, 3]}}, {"cuda_graphs": True}, {"runtime": "x"}, {}]
        for change in otherwise:
            index.record_measurement(measurement(**change))
        found = index.measurements_of([digest("plan")])
        assert len(found) == 5 and replace(found[0], at=0.0) == measurement()

    def test_an_engine_that_gives_nonsense_can_be_recorded(self, index: Index) -> None:
        wild = Accuracy(float("inf"), float("inf"), 0.0, finite=False)
        index.record_measurement(measurement(accuracy=wild))
        (found,) = index.measurements_of([digest("plan")])
        assert found.accuracy == wild

    # -- what awaits measuring ---------------------------------------------------------------------------------

    def test_an_ask_is_leased_once_oldest_first_and_only_where_it_belongs(self, index: Index) -> None:
        index.await_measuring([ask("a")])
        index.await_measuring([ask("b"), ask("far", place="elsewhere else")])
        assert index.lease_measuring([], "w1", TTL) is None
        first, second = taken(index), taken(index, "w2")
        assert [first.ask, second.ask] == [ask("a"), ask("b")]
        assert index.lease_measuring([PLACE], "w3", TTL) is None
        states = {one.ask.engine: one.worker for one in index.awaiting()}
        assert states == {ask("a").engine: "w1", ask("b").engine: "w2", ask("far").engine: ""}

    def test_asking_again_changes_nothing_of_what_is_awaited(self, index: Index) -> None:
        index.await_measuring([ask()])
        held = taken(index)
        index.await_measuring([ask(), ask()])
        assert index.lease_measuring([PLACE], "w2", TTL) is None and index.hold_measuring(held, TTL)
        assert len(index.awaiting([ask().id])) == 1

    def test_what_was_measured_awaits_nothing(self, index: Index) -> None:
        index.await_measuring([ask()])
        held = taken(index)
        assert index.end_measuring(held)
        assert index.awaiting() == [] and not index.hold_measuring(held, TTL) and not index.end_measuring(held)

    def test_a_lease_that_ran_out_is_anothers_and_the_first_may_write_nothing(self, index: Index) -> None:
        index.await_measuring([ask()])
        lost = taken(index, "w1", EXPIRED)
        assert [one.worker for one in index.awaiting()] == [""]
        held = taken(index, "w2")
        assert held.token > lost.token and held.attempt == 2
        assert not index.hold_measuring(lost, TTL)
        assert not index.end_measuring(lost, "it broke") and not index.end_measuring(lost)
        assert [(one.worker, one.failure) for one in index.awaiting()] == [("w2", "")]

    def test_a_lease_that_ran_out_and_is_nobodys_still_holds(self, index: Index) -> None:
        index.await_measuring([ask()])
        late = taken(index, "w1", EXPIRED)
        assert index.hold_measuring(late, TTL)
        assert index.lease_measuring([PLACE], "w2", TTL) is None and index.end_measuring(late)

    def test_what_failed_is_left_alone_until_it_is_asked_for_again(self, index: Index) -> None:
        index.await_measuring([ask()])
        index.end_measuring(taken(index), "the engine does not load")
        (failed,) = index.awaiting()
        assert failed.failure == "the engine does not load" and index.lease_measuring([PLACE], "w", TTL) is None
        index.await_measuring([ask()])
        assert taken(index).attempt == 1

    def test_what_is_to_be_tried_again_is_free_at_once(self, index: Index) -> None:
        index.await_measuring([ask()])
        index.end_measuring(taken(index), "the GPU was busy", again=True)
        assert [(one.failure, one.attempts) for one in index.awaiting()] == [("", 1)]
        assert taken(index).attempt == 2

    def test_of_many_at_once_each_gets_another(self, index: Index) -> None:
        index.await_measuring([ask(n) for n in range(8)])
        found: list[MeasuringLease | None] = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(index.lease_measuring([PLACE], f"w{n}", TTL)))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        got = [one.ask.id for one in found if one is not None]
        while (more := index.lease_measuring([PLACE], "late", TTL)) is not None:
            got.append(more.ask.id)
        assert sorted(got) == sorted(ask(n).id for n in range(8))
