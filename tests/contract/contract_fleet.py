"""What a fleet asks of every index: turns between tenants, room, other nodes, blame, wake-ups, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from index_things import (
    ABLE,
    CAPABILITY,
    TTL,
    claim,
    engine_of,
    failure,
    kinds,
    lease,
    made,
    made_of,
    offer,
    queued,
    request,
    state,
    take,
    there,
)

from farm.builds import BuildRequest, BuildState, FailureKind, Lease
from farm.errors import LeaseLost
from farm.index import Claimed, Index, Worker
from farm.making import Beat, Sign
from farm.placement import Needs, why_not

NODE, LOST = FailureKind.NODE, FailureKind.LOST


def submit(index: Index, who: str, count: int, flow: str = "", **changes: Any) -> list[BuildRequest]:
    """One submission of so many builds by one tenant."""
    asked = [request(f"{who}{flow}-{n}", tenant=who, flow=flow or who, **changes) for n in range(count)]
    index.claim_or_join(asked, who)
    return asked


def order(index: Index, count: int) -> list[str]:
    """Whose builds are leased, one after another."""
    return [lease(index).build.request.tenant for _ in range(count)]


class FleetContract:
    """Inherit, and give the fixture ``index``."""

    # -- turns -------------------------------------------------------------------------------------------------

    def test_a_large_sweep_does_not_starve_a_single_build(self, index: Index) -> None:
        submit(index, "sweeper", 300)
        order(index, 5)
        submit(index, "other", 1)
        assert "other" in order(index, 2)

    def test_a_sweep_in_one_queue_does_not_starve_another_that_is_long_under_way(self, index: Index) -> None:
        """A GPU's worker serves two queues, and so does one that builds for untrusted namespaces too."""
        submit(index, "first", 60, capability="x")
        submit(index, "nobody's", 5, capability="z")
        for _ in range(40):
            assert take(index, able=["x", "y"])
        submit(index, "second", 60, capability="y")
        submit(index, "single", 1, capability="x")
        taken = [take(index, able=["x", "y"]) for _ in range(12)]
        tenants = [one.build.request.tenant for one in taken if one]
        assert "single" in tenants[:4]
        assert 4 <= tenants.count("first") <= 7

    def test_two_submissions_share_by_the_time_their_builds_take(self, index: Index) -> None:
        submit(index, "slow", 40, expected=30.0)
        submit(index, "quick", 40, expected=10.0)
        first = order(index, 24)
        assert 5 <= first.count("slow") <= 7

    def test_submissions_of_one_tenant_share_its_share(self, index: Index) -> None:
        submit(index, "one", 40)
        for n in range(3):
            submit(index, "many", 40, flow=f"f{n}")
        first = order(index, 40)
        assert 15 <= first.count("one") <= 28

    def test_builds_asked_for_one_by_one_get_no_further_than_a_sweep(self, index: Index) -> None:
        submit(index, "sweeper", 20)
        for n in range(60):
            submit(index, "trickle", 1, flow=f"f{n}")
        assert order(index, 20).count("sweeper") >= 6

    def test_the_longest_of_a_submission_goes_first(self, index: Index) -> None:
        asked = [request(n, expected=seconds) for n, seconds in enumerate([5.0, 50.0, 20.0])]
        index.claim_or_join(asked, "me")
        assert [lease(index).build.request.model for _ in asked] == ["1.pt2", "2.pt2", "0.pt2"]

    def test_priority_comes_before_turns(self, index: Index) -> None:
        submit(index, "sweeper", 3, expected=0.1)
        queued(index, request("urgent", priority=1, expected=10_000.0))
        assert lease(index).build.request.model == "urgent.pt2"

    # -- several at once ---------------------------------------------------------------------------------------

    def test_a_worker_takes_as_many_as_it_has_hands(self, index: Index) -> None:
        index.claim_or_join([request(n) for n in range(5)], "me")
        first = index.lease(offer(), TTL, 3)
        second = index.lease(offer("w2"), TTL, 3)
        assert [len(first), len(second)] == [3, 2]
        assert [one.build.request.model for one in (*first, *second)] == [f"{n}.pt2" for n in range(5)]
        assert index.lease(offer(), TTL, 3) == [] == index.lease(offer(), TTL, 0)
        assert all(kinds(index, one.build.id) == ["queued", "leased"] for one in first)

    def test_of_two_queues_the_one_whose_next_build_comes_first(self, index: Index) -> None:
        queued(index, request("a", capability="x"))
        queued(index, request("b", capability="y", priority=5))
        given = take(index, "w", ["x", "y"])
        assert given and given.build.request.model == "b.pt2"

    def test_ends_written_together_tell_each_whether_it_held(self, index: Index) -> None:
        index.claim_or_join([request(n) for n in range(3)], "me")
        leases = index.lease(offer(), TTL, 3)
        index.cancel(leases[1].build.id)
        index.end_cancelled(leases[1])
        ends = [(one, engine_of(one)) for one in leases]
        assert index.succeed_all(ends) == [True, False, True]
        assert index.succeed_all(ends) == [False, False, False]
        assert index.succeed_all([]) == []
        assert [state(index, one.build.id) for one in leases] == ["succeeded", "cancelled", "succeeded"]
        assert {engine.recipe for engine in index.engines()} == {leases[n].build.request.recipe for n in (0, 2)}

    def test_beats_together_hear_each_its_own(self, index: Index) -> None:
        index.claim_or_join([request(n) for n in range(4)], "me")
        held, unwanted, given_back, again = index.lease(offer(), TTL, 4)
        index.cancel(unwanted.build.id)
        index.give_back(given_back)
        index.give_back(again)
        index.lease(offer("w2"), TTL, 2)
        leases = [held, unwanted, given_back, again]
        signs = [Sign.HELD, Sign.UNWANTED, Sign.LOST, Sign.LOST]
        assert index.signs(leases) == signs
        beats = [Beat(one, "build", 0.5, log=f"line {n}\n") for n, one in enumerate(leases)]
        assert index.beat(beats, TTL) == signs
        assert index.beat([], TTL) == index.signs([]) == []
        texts = [index.log(one.build.id)[0] for one in leases]
        assert texts == ["line 0\n", "line 1\n", "", ""]
        index.beat([Beat(held, "build", 0.7, log="more\n")], TTL)
        assert index.log(held.build.id)[0] == "line 0\nmore\n"
        shown = index.build(held.build.id)
        assert shown and (shown.phase, shown.progress) == ("build", 0.7)

    # -- room --------------------------------------------------------------------------------------------------

    def test_a_build_goes_only_where_it_fits(self, index: Index) -> None:
        build = queued(index, request(memory=100, gpu_memory=10))
        assert index.lease(offer(memory=99), TTL) == []
        assert index.lease(offer(gpu_memory=9), TTL) == []
        assert index.lease(offer(memory=100, free=50, gpu_memory=10), TTL) == []
        assert index.lease(offer(memory=100, free=100, gpu_memory=10, gpu_free=9), TTL) == []
        (given,) = index.lease(offer(memory=100, free=100, gpu_memory=10), TTL)
        assert given.build.id == build.id

    def test_what_fits_now_passes_what_does_not(self, index: Index) -> None:
        queued(index, request("large", memory=100, priority=1))
        queued(index, request("small", memory=10))
        (given,) = index.lease(offer(memory=100, free=20), TTL)
        assert given.build.request.model == "small.pt2"

    def test_a_large_build_that_has_waited_for_long_is_taken_all_the_same(
        self, index: Index, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("farm.db.statements.LONG_SECONDS", -1.0)
        queued(index, request(memory=100))
        assert len(index.lease(offer(memory=100, free=20), TTL)) == 1

    def test_a_gpu_that_others_fill_takes_nothing_however_long_it_waits(
        self, index: Index, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The node would hold it for as long as they do, though another's GPU is free."""
        monkeypatch.setattr("farm.db.statements.LONG_SECONDS", -1.0)
        queued(index, request(gpu_memory=10))
        assert index.lease(offer("w1", gpu_memory=100, gpu_free=9), TTL) == []
        assert len(index.lease(offer("w2", gpu_memory=100, gpu_free=10), TTL)) == 1

    def test_a_seat_says_what_its_gpu_has_free(self, index: Index) -> None:
        there(index, "w1", gpu_free=9, trouble="the store is away")
        (seat,) = index.seats()
        assert (seat.gpu_free, seat.trouble) == (9, "the store is away")

    # -- other nodes -------------------------------------------------------------------------------------------

    def test_what_a_node_cannot_goes_to_another_and_never_back(self, index: Index) -> None:
        there(index, "w1"), there(index, "w2")
        build = queued(index)
        after = index.fail(lease(index, "w1"), failure(NODE), 0.0)
        assert after.state is BuildState.QUEUED
        assert index.tried(build.id) == {"node-w1": "node"}
        assert take(index, "w1") is None
        assert lease(index, "w2").build.id == build.id

    def test_it_has_failed_when_no_other_could_take_it(self, index: Index) -> None:
        there(index, "w1")
        there(index, "other", ["another queue"])
        there(index, "small", ABLE, build_memory=50)
        queued(index, request(memory=100))
        after = index.fail(lease(index, "w1"), failure(NODE), 0.0)
        assert (after.state, after.failure) == (BuildState.FAILED, failure(NODE))
        assert claim(index, request(memory=100)).outcome is Claimed.NEW

    def test_a_worker_that_drains_is_said_to_and_is_no_other(self, index: Index) -> None:
        there(index, "w1")
        index.register(Worker("w2", "node-w2", 2, 5.0, (), {"state": "draining"}))
        build = queued(index)
        needs = Needs(build.request.capability)
        assert [why_not(needs, seat) for seat in index.seats()] == ["", "was told to stop, and takes no more builds"]
        assert index.fail(lease(index, "w1"), failure(NODE), 0.0).state is BuildState.FAILED

    def test_other_workers_of_the_same_node_are_no_others(self, index: Index) -> None:
        there(index, "w1")
        index.register(Worker("w1b", "node-w1", 2, 5.0, (CAPABILITY,)))
        queued(index)
        assert index.fail(lease(index, "w1"), failure(NODE), 0.0).state is BuildState.FAILED

    def test_other_failures_may_be_tried_again_anywhere(self, index: Index) -> None:
        queued(index)
        index.fail(lease(index, "w1"), failure(FailureKind.TRANSIENT), 0.0)
        assert take(index, "w1") is not None

    # -- blame -------------------------------------------------------------------------------------------------

    def blame(self, index: Index, rounds: Sequence[object], bad: str = "bad") -> None:
        """Builds that fail on one node and succeed on another."""
        there(index, bad), there(index, "good")
        for n in rounds:
            queued(index, request(n))
            index.fail(lease(index, bad), failure(NODE), 0.0)
            given = lease(index, "good")
            index.succeed(given, engine_of(given))

    def test_a_node_that_keeps_failing_what_others_can_is_set_aside(self, index: Index) -> None:
        self.blame(index, range(2))
        (health,) = index.health()
        assert (health.name, health.failures, health.aside_until) == ("node-bad", 2, None)
        self.blame(index, ["third"])
        (health,) = index.health()
        assert health.failures == 3 and health.aside_until and health.why
        queued(index, request("next"))
        assert take(index, "bad") is None
        assert take(index, "good") is not None

    def test_a_node_is_trusted_again_when_somebody_says_so(self, index: Index) -> None:
        self.blame(index, range(3))
        assert index.trust_node("node-bad") is True
        assert index.trust_node("node-bad") is False
        assert index.health() == []
        queued(index, request("next"))
        assert take(index, "bad") is not None

    def test_a_success_of_its_own_clears_a_node(self, index: Index) -> None:
        self.blame(index, range(2))
        queued(index, request("own"))
        given = lease(index, "bad")
        index.succeed(given, engine_of(given))
        assert index.health() == []

    def test_a_build_that_fails_everywhere_is_nobodys_fault_but_its_own(self, index: Index) -> None:
        there(index, "w1"), there(index, "w2")
        for n in range(5):
            queued(index, request(n))
            index.fail(lease(index, "w1"), failure(NODE), 0.0)
            assert index.fail(lease(index, "w2"), failure(NODE), 0.0).state is BuildState.FAILED
        assert index.health() == []

    def test_a_node_that_loses_builds_is_remembered_with_them(self, index: Index) -> None:
        build = queued(index)
        lease(index, "w1")
        index.reap(["w1"])
        assert index.tried(build.id) == {"node-w1": "lost"}
        given = lease(index, "w1")
        index.succeed(given, engine_of(given))
        assert index.health() == []

    def test_a_lease_names_its_node(self, index: Index) -> None:
        queued(index)
        given = lease(index, "w1")
        assert given.build.node == "node-w1"
        index.give_back(given)
        found = index.build(given.build.id)
        assert found and (found.node, found.worker) == (None, None)

    # -- waking ------------------------------------------------------------------------------------------------

    def test_a_queue_is_woken_for_what_waits_and_for_hands_that_are_free(self, index: Index) -> None:
        index.claim_or_join([request(n) for n in range(5)] + [request("x", capability="other")], "me")
        assert index.wakes(0.0) == {}
        there(index, "w1", slots=3)
        assert index.wakes(0.0) == {CAPABILITY: 3}
        index.lease(offer("w1"), TTL, 2)
        assert index.wakes(0.0) == {CAPABILITY: 1}
        index.lease(offer("w1"), TTL, 1)
        assert index.wakes(0.0) == {}
        there(index, "w2", slots=9)
        assert index.wakes(0.0) == {CAPABILITY: 2}

    def test_one_caller_wakes_for_all(self, index: Index) -> None:
        queued(index)
        there(index, "w1")
        assert index.wakes(60.0) == {CAPABILITY: 1}
        assert index.wakes(60.0) == {}

    # -- what is known of the past -----------------------------------------------------------------------------

    def test_the_past_tells_how_long_builds_take(self, index: Index) -> None:
        graph = str(made_of(request("a"))["graph"])
        assert index.past({(CAPABILITY, graph)}).of_graph == {}
        queued(index)
        given = lease(index)
        index.succeed(given, engine_of(given, seconds=8.0))
        queued(index, request("b"))
        other = lease(index)
        index.succeed(other, engine_of(other, seconds=2.0))
        past = index.past({(CAPABILITY, graph), ("elsewhere", graph)})
        assert past.of_graph == {(CAPABILITY, graph): 8.0}
        assert past.of_capability == {CAPABILITY: 5.0}

    def test_an_engine_that_was_made_says_nothing_twice(self, index: Index) -> None:
        made(index)
        with pytest.raises(LeaseLost):
            index.succeed(held_no_more(index), engine_of(held_no_more(index)))


def held_no_more(index: Index) -> Lease:
    """A lease of a build that has ended since."""
    (build, *_) = index.builds()
    return Lease(build, 1, 1, 0.0)
