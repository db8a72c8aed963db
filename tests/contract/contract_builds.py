"""Builds, asked for and made: what every index promises, one caller at a time."""

from __future__ import annotations

import pytest
from index_things import (
    ABLE,
    CAPABILITY,
    EXPIRED,
    TTL,
    claim,
    digest,
    engine_of,
    failure,
    kinds,
    lease,
    made,
    offer,
    queued,
    reopened,
    request,
    spoil,
    state,
    take,
    unwanted,
)

from farm.builds import MAX_ATTEMPTS, BuildState, FailureKind, Lease
from farm.errors import BadInput, LeaseLost, NoSuchThing
from farm.index import Claimed, Index


class AskingContract:
    """Inherit, and give the fixture ``index``."""

    def test_a_retry_that_is_abandoned_is_cancelled_and_one_that_nobody_waits_for_is_kept(self, index: Index) -> None:
        for waiter, after in (("me", "cancelled"), ("", "queued")):
            build = queued(index, request(waiter))
            index.cancel(build.id)
            again = index.retry(build.id, waiter)
            index.leave("me")
            assert state(index, again.id) == after

    def test_a_build_comes_back_as_it_was_asked_for(self, index: Index) -> None:
        one = request("a", priority=3, custom_ops={"my.op": "sha256:1"}, namespace="pr")
        build = queued(index, one)
        assert index.build(build.id) == build
        assert build.request == one
        assert (build.state, build.attempts, build.waiters, build.failure) == (BuildState.QUEUED, 0, 1, None)
        assert build.created > 1_700_000_000

    def test_a_request_that_cannot_be_read_hides_no_other_and_stops_nobody(self, index: Index) -> None:
        spoilt, sound = queued(index, request("spoilt")), queued(index, request("sound"))
        spoil(index, spoilt.id)
        index = reopened(index)  # which remembers no request
        assert {build.id: build.request.model for build in index.builds()} == {spoilt.id: "?", sound.id: "sound.pt2"}
        leases = index.lease(offer(), TTL, 2)
        assert {one.build.id for one in leases} == {spoilt.id, sound.id}
        (bad,) = [one for one in leases if one.build.id == spoilt.id]
        assert index.fail(bad, failure(FailureKind.NODE), 0.0).state == "failed"
        index.close()

    def test_whatever_a_recipe_is_called_it_is_found_again(self, index: Index) -> None:
        odd = ["", 'a"b', "a\\", '\\"', "{a,b}", "a,b", " a ", "NULL", "null", "a\nb", "é\u2028", "'", "%s", "$1"]
        requests = [request(name, recipe=name) for name in odd]
        first, second = index.claim_or_join(requests, "me"), index.claim_or_join(requests, "you")
        assert [(claim.outcome, claim.build and claim.build.request.recipe) for claim in second] == [
            (Claimed.JOINED, name) for name in odd
        ]
        ids = {claim.build.id for claim in first if claim.build}
        assert {build.id for build in index.builds(ids=[*ids, 'b"', "b\\", ""])} == ids

    def test_the_second_to_ask_joins(self, index: Index) -> None:
        first, second = claim(index, waiter="me"), claim(index, waiter="you")
        assert (first.outcome, second.outcome) == (Claimed.NEW, Claimed.JOINED)
        assert first.build and second.build and first.build.id == second.build.id
        assert second.build.waiters == 2

    def test_a_running_build_is_joined_too(self, index: Index) -> None:
        build = queued(index)
        lease(index)
        joined = claim(index, waiter="you")
        assert joined.outcome is Claimed.JOINED and joined.build
        assert (joined.build.id, joined.build.state) == (build.id, BuildState.RUNNING)

    def test_requests_of_one_call_that_share_a_recipe_share_the_build(self, index: Index) -> None:
        claims = index.claim_or_join([request("a"), request("b"), request("a")], "me")
        assert [one.outcome for one in claims] == [Claimed.NEW, Claimed.NEW, Claimed.JOINED]
        assert claims[0].build and claims[2].build and claims[0].build.id == claims[2].build.id
        assert len(index.builds()) == 2

    def test_namespaces_build_for_themselves(self, index: Index) -> None:
        claims = index.claim_or_join([request("a"), request("a", namespace="pr")], "me")
        assert [one.outcome for one in claims] == [Claimed.NEW, Claimed.NEW]
        assert claims[0].build and claims[1].build and claims[0].build.id != claims[1].build.id

    def test_what_was_built_since_is_done(self, index: Index) -> None:
        engine = made(index)
        done = claim(index)
        assert done.outcome is Claimed.DONE and done.build is None
        assert done.engine and done.engine.digest == engine.digest
        assert claim(index, request(namespace="pr")).outcome is Claimed.NEW

    def test_force_builds_what_is_there(self, index: Index) -> None:
        made(index)
        assert claim(index, force=True).outcome is Claimed.NEW
        assert claim(index, force=True).outcome is Claimed.JOINED

    def test_nothing_asked_is_nothing_claimed(self, index: Index) -> None:
        assert index.claim_or_join([], "me") == []

    def test_a_priority_that_no_column_holds_is_bad_input(self, index: Index) -> None:
        with pytest.raises(BadInput, match="priority"):
            claim(index, request(priority=10**12))

    def test_a_permanent_failure_is_remembered_until_it_is_retried(self, index: Index) -> None:
        build = queued(index)
        index.fail(lease(index), failure(), None)
        remembered = claim(index)
        assert remembered.outcome is Claimed.FAILED and remembered.build
        assert remembered.build.id == build.id and remembered.build.failure == failure()
        assert claim(index, request(namespace="pr")).outcome is Claimed.NEW
        again = index.retry(build.id)
        assert again.id != build.id and again.state is BuildState.QUEUED
        assert claim(index).outcome is Claimed.JOINED

    def test_a_permanent_failure_is_of_the_file_that_was_tried(self, index: Index) -> None:
        """Another file with the same recipe may do; one that does not takes the first one's place."""
        first, other = request(), request(program=digest("another file"))
        claim(index, first)
        index.fail(lease(index), failure(), None)
        assert claim(index, other).outcome is Claimed.NEW
        assert claim(index, first).outcome is Claimed.JOINED
        index.fail(lease(index), failure(message="nor this one"), None)
        found = claim(index, other)
        assert found.outcome is Claimed.FAILED and found.build and found.build.failure
        assert found.build.failure.message == "nor this one"
        assert claim(index, first).outcome is Claimed.NEW

    def test_what_takes_down_workers_is_kept_from_them_in_any_file(self, index: Index) -> None:
        queued(index)
        index.fail(lease(index), failure(FailureKind.LOST), None)
        assert claim(index, request(program=digest("another file"))).outcome is Claimed.FAILED

    def test_force_forgets_a_failure(self, index: Index) -> None:
        queued(index)
        index.fail(lease(index), failure(), None)
        forced = claim(index, force=True)
        assert forced.outcome is Claimed.NEW and forced.build
        index.cancel(forced.build.id)
        assert claim(index).outcome is Claimed.NEW

    @pytest.mark.parametrize("kind", [FailureKind.TRANSIENT, FailureKind.NODE])
    def test_other_failures_are_not_remembered(self, index: Index, kind: FailureKind) -> None:
        queued(index)
        index.fail(lease(index), failure(kind), None)
        assert claim(index).outcome is Claimed.NEW

    def test_retry_of_an_active_build_is_that_build(self, index: Index) -> None:
        build = queued(index)
        assert index.retry(build.id).id == build.id

    def test_a_retried_build_waits_for_nobody_in_particular(self, index: Index) -> None:
        build = queued(index)
        index.fail(lease(index), failure(), None)
        again = index.retry(build.id)
        claim(index, waiter="you")
        assert index.leave("you") == []
        assert state(index, again.id) == "queued"
        assert kinds(index, again.id)[:2] == ["queued", "retried"]

    # -- leaving and cancelling --------------------------------------------------------------------------------

    def test_the_last_waiter_to_leave_cancels(self, index: Index) -> None:
        build = queued(index, waiter="me")
        claim(index, waiter="you")
        assert index.leave("me") == []
        assert index.leave("me") == []
        assert state(index, build.id) == "queued"
        assert index.leave("you") == [build.id]
        assert state(index, build.id) == "cancelled"
        assert claim(index).outcome is Claimed.NEW

    def test_asking_twice_is_waiting_once(self, index: Index) -> None:
        build = queued(index)
        queued(index)
        assert index.leave("me") == [build.id]

    def test_a_build_for_nobody_in_particular_stays(self, index: Index) -> None:
        build = queued(index, waiter="")
        claim(index, waiter="you")
        assert index.leave("you") == index.leave("") == []
        assert state(index, build.id) == "queued"

    def test_leaving_some_builds_leaves_only_those(self, index: Index) -> None:
        builds = [queued(index, request(n)) for n in range(3)]
        assert index.leave("me", [builds[1].id, "bnosuchbuild"]) == [builds[1].id]
        assert [state(index, build.id) for build in builds] == ["queued", "cancelled", "queued"]
        assert index.leave("me", []) == []
        assert set(index.leave("me")) == {builds[0].id, builds[2].id}

    def test_a_stranger_leaves_nothing(self, index: Index) -> None:
        build = queued(index)
        assert index.leave("you") == index.leave("you", [build.id]) == []
        assert state(index, build.id) == "queued"

    def test_a_running_build_that_nobody_waits_for_hears_of_it(self, index: Index) -> None:
        build = queued(index)
        given = lease(index)
        assert unwanted(index, given, TTL, "build", 0.1) is False
        assert index.leave("me") == [build.id]
        assert state(index, build.id) == "running"
        assert unwanted(index, given, TTL, "build", 0.2) is True
        index.end_cancelled(given)
        assert state(index, build.id) == "cancelled"
        assert kinds(index, build.id) == ["queued", "leased", "cancelling", "cancelled"]

    def test_who_asks_while_it_is_being_cancelled_gets_it_built(self, index: Index) -> None:
        build = queued(index, waiter="me")
        given = lease(index)
        index.leave("me")
        assert unwanted(index, given, TTL, "build", None) is True
        joined = claim(index, waiter="you")
        assert joined.outcome is Claimed.JOINED and joined.build and joined.build.id == build.id
        index.end_cancelled(given)
        assert state(index, build.id) == "queued"
        again = lease(index)
        assert again.build.id == build.id and again.attempt == 1
        assert unwanted(index, again, TTL, "build", None) is False

    def test_cancel_is_for_everybody(self, index: Index) -> None:
        build = queued(index, waiter="me")
        claim(index, waiter="")
        assert index.cancel(build.id).state is BuildState.CANCELLED
        assert index.cancel(build.id).state is BuildState.CANCELLED
        assert kinds(index, build.id).count("cancelled") == 1

    def test_cancelling_what_has_ended_changes_nothing(self, index: Index) -> None:
        engine = made(index)
        (build,) = index.builds()
        cancelled = index.cancel(build.id)
        assert cancelled == build and cancelled.engine == engine.digest

    def test_names_that_mean_nothing(self, index: Index) -> None:
        for act in (index.cancel, index.retry):
            with pytest.raises(NoSuchThing, match="bnothing"):
                act("bnothing")
        assert index.build("bnothing") is None
        assert index.events("bnothing") == index.attempts("bnothing") == []
        assert index.log("bnothing") == ("", 0)

    # -- looking -----------------------------------------------------------------------------------------------

    def test_builds_are_listed_newest_first(self, index: Index) -> None:
        older = [queued(index, request(n)).id for n in range(3)]
        newer = [one.build.id for one in index.claim_or_join([request("x"), request("y")], "me") if one.build]
        assert [build.id for build in index.builds()] == [*reversed(newer), *reversed(older)]
        assert [build.id for build in index.builds(limit=2)] == list(reversed(newer))

    def test_builds_by_ids_states_and_shortened_names(self, index: Index) -> None:
        ids = [queued(index, request(n)).id for n in range(4)]
        given = lease(index)
        assert {build.id for build in index.builds(ids=ids[:2])} == set(ids[:2])
        assert index.builds(ids=[]) == []
        assert [build.id for build in index.builds(states=[BuildState.RUNNING])] == [given.build.id]
        assert len(index.builds(states=[BuildState.QUEUED, BuildState.RUNNING])) == 4
        assert [build.id for build in index.builds(prefix=ids[2])] == [ids[2]]
        assert [build.id for build in index.builds(prefix=ids[2][:9])] == [ids[2]]
        assert index.builds(prefix=ids[2], states=[BuildState.FAILED]) == []

    def test_short_names_tell_builds_apart(self, index: Index) -> None:
        claims = index.claim_or_join([request(n) for n in range(100)], "me")
        ids = {one.build.id for one in claims if one.build}
        assert len({name[:9] for name in ids}) == 100
        assert all(name.startswith("b") and len(name) == 13 for name in ids)


class MakingContract:
    """Inherit, and give the fixture ``index``."""

    def test_a_lease_is_for_what_one_is_able_to_do(self, index: Index) -> None:
        queued(index)
        assert take(index, "w1", [], TTL) is None
        assert take(index, "w1", ["other"], TTL) is None
        given = take(index, "w1", ["other", CAPABILITY], TTL)
        assert given and given.build.state is BuildState.RUNNING
        assert (given.build.worker, given.attempt, given.build.attempts) == ("w1", 1, 1)
        assert given.build.request == request()
        assert given.expires == pytest.approx((given.build.started or 0) + TTL)
        assert take(index, "w2", ABLE, TTL) is None

    def test_the_highest_priority_goes_first_then_the_oldest(self, index: Index) -> None:
        asked = [request(n, priority=p) for n, p in enumerate([0, 5, 0, 5, -1])]
        index.claim_or_join(asked[:3], "me")
        index.claim_or_join(asked[3:], "me")
        order = [lease(index).build.request.model for _ in asked]
        assert order == ["1.pt2", "3.pt2", "0.pt2", "2.pt2", "4.pt2"]

    def test_who_joins_with_a_higher_priority_raises_it(self, index: Index) -> None:
        index.claim_or_join([request("a"), request("b", priority=2)], "me")
        joined = claim(index, request("a", priority=7), "you")
        assert joined.build and joined.build.request.priority == 7
        claim(index, request("b", priority=-3), "you")
        given = [lease(index).build.request for _ in "ab"]
        assert [(one.model, one.priority) for one in given] == [("a.pt2", 7), ("b.pt2", 2)]

    def test_waiting_counts_what_is_due(self, index: Index) -> None:
        index.claim_or_join([request(n) for n in range(3)] + [request("x", capability="other")], "me")
        assert index.waiting() == {CAPABILITY: 3, "other": 1}
        index.fail(lease(index), failure(FailureKind.TRANSIENT), 3600.0)
        lease(index)
        assert index.waiting() == {CAPABILITY: 1, "other": 1}

    def test_a_failed_attempt_is_not_due_before_its_time(self, index: Index) -> None:
        build = queued(index)
        after = index.fail(lease(index), failure(FailureKind.TRANSIENT), 3600.0)
        assert (after.state, after.worker, after.started) == (BuildState.QUEUED, None, None)
        assert after.failure == failure(FailureKind.TRANSIENT)
        assert take(index, "w1", ABLE, TTL) is None
        assert claim(index).outcome is Claimed.JOINED
        index.cancel(build.id)

    def test_a_failed_attempt_is_made_again(self, index: Index) -> None:
        build = queued(index)
        index.fail(lease(index), failure(FailureKind.TRANSIENT), 0.0)
        again = lease(index, "w2")
        assert (again.build.id, again.attempt) == (build.id, 2)
        index.succeed(again, engine_of(again))
        ended = index.build(build.id)
        assert ended and (ended.state, ended.failure, ended.attempts) == (BuildState.SUCCEEDED, None, 2)
        assert [(try_.number, try_.worker, try_.outcome) for try_ in index.attempts(build.id)] == [
            (1, "w1", "transient"),
            (2, "w2", "succeeded"),
        ]
        assert kinds(index, build.id) == ["queued", "leased", "requeued", "leased", "succeeded"]

    def test_a_success_says_what_was_made(self, index: Index) -> None:
        engine = made(index)
        (build,) = index.builds()
        assert (build.state, build.engine) == (BuildState.SUCCEEDED, engine.digest)
        assert build.finished and build.started and build.finished >= build.started >= build.created
        (attempt,) = index.attempts(build.id)
        assert attempt.finished == build.finished and attempt.started == build.started

    def test_an_engine_of_another_recipe_ends_nothing(self, index: Index) -> None:
        queued(index, request("a"))
        given = lease(index)
        queued(index, request("b"))
        with pytest.raises(ValueError, match="was to be ended"):
            index.succeed(given, engine_of(lease(index)))
        assert state(index, given.build.id) == "running" and index.engines() == []

    def test_beats_keep_a_lease_and_show_how_far_it_is(self, index: Index) -> None:
        build = queued(index)
        given = lease(index, ttl=EXPIRED)
        assert unwanted(index, given, TTL, "build", 0.25) is False
        assert index.reap() == []
        now = index.build(build.id)
        assert now and (now.phase, now.progress, now.state) == ("build", 0.25, BuildState.RUNNING)
        index.succeed(given, engine_of(given))
        ended = index.build(build.id)
        assert ended and (ended.phase, ended.progress) == ("", None)

    def test_handing_back_counts_no_attempt(self, index: Index) -> None:
        build = queued(index)
        index.give_back(lease(index))
        assert state(index, build.id) == "queued"
        again = lease(index)
        assert (again.build.id, again.attempt, again.token) == (build.id, 1, 2)

    def test_handing_back_what_nobody_wants_ends_it(self, index: Index) -> None:
        build = queued(index)
        given = lease(index)
        index.leave("me")
        index.give_back(given)
        assert state(index, build.id) == "cancelled"

    def test_a_failure_of_what_nobody_wants_ends_it(self, index: Index) -> None:
        queued(index)
        given = lease(index)
        index.leave("me")
        ended = index.fail(given, failure(FailureKind.TRANSIENT), 1.0)
        assert ended.state is BuildState.CANCELLED

    def test_success_comes_before_cancellation(self, index: Index) -> None:
        build = queued(index)
        given = lease(index)
        index.cancel(build.id)
        index.succeed(given, engine_of(given))
        assert state(index, build.id) == "succeeded" and len(index.engines()) == 1

    # -- the log -----------------------------------------------------------------------------------------------

    def test_the_log_is_read_from_where_one_was(self, index: Index) -> None:
        build = queued(index)
        given = lease(index)
        index.append_log(given, "one\ntwö\n")
        text, position = index.log(build.id)
        assert (text, index.log(build.id, position)) == ("one\ntwö\n", ("", position))
        index.append_log(given, "")
        index.append_log(given, "three\n")
        assert index.log(build.id, position) == ("three\n", position + 6)
        assert index.log(build.id, 4)[0] == "twö\nthree\n"
        assert index.log(build.id)[0] == "one\ntwö\nthree\n"

    def test_the_log_goes_on_with_the_next_attempt(self, index: Index) -> None:
        build = queued(index)
        first = lease(index)
        index.append_log(first, "first\n")
        index.fail(first, failure(FailureKind.TRANSIENT), 0.0)
        index.append_log(lease(index), "second \0 \udcff\n")
        assert index.log(build.id)[0] == "first\nsecond \ufffd ?\n"

    # -- lost leases -------------------------------------------------------------------------------------------

    def test_an_expired_lease_is_reaped_and_made_again(self, index: Index) -> None:
        build = queued(index)
        late = lease(index, "w1", EXPIRED)
        assert [one.id for one in index.reap()] == [build.id]
        assert index.reap() == []
        again = lease(index, "w2")
        assert (again.build.id, again.attempt) == (build.id, 2) and again.token > late.token
        assert [try_.outcome for try_ in index.attempts(build.id)] == ["lost", ""]

    def test_a_late_finisher_commits_nothing(self, index: Index) -> None:
        queued(index)
        late = lease(index, "w1", EXPIRED)
        index.reap()
        in_time = lease(index, "w2")
        for act in every_write(index, late):
            with pytest.raises(LeaseLost):
                act()
        assert index.engines() == []
        assert index.log(in_time.build.id) == ("", 0)
        index.succeed(in_time, engine_of(in_time, "right"))
        for act in every_write(index, late) + every_write(index, in_time):
            with pytest.raises(LeaseLost):
                act()
        assert [engine.digest for engine in index.engines()] == [engine_of(in_time, "right").digest]

    def test_who_comes_back_before_anybody_noticed_may_finish(self, index: Index) -> None:
        build = queued(index)
        late = lease(index, ttl=EXPIRED)
        index.succeed(late, engine_of(late))
        assert index.reap() == []
        assert state(index, build.id) == "succeeded"

    def test_builds_of_gone_workers_need_not_expire(self, index: Index) -> None:
        builds = [queued(index, request(n)) for n in range(2)]
        lease(index, "dead")
        lease(index, "alive")
        assert [one.id for one in index.reap(["dead", "unheard of"])] == [builds[0].id]
        assert state(index, builds[1].id) == "running"

    def test_attempts_are_used_up(self, index: Index) -> None:
        build = queued(index)
        for _ in range(MAX_ATTEMPTS[FailureKind.LOST]):
            assert state(index, build.id) == "queued"
            lease(index, "w1", EXPIRED)
            index.reap()
        ended = index.build(build.id)
        assert ended and ended.state is BuildState.FAILED
        assert ended.failure and ended.failure.kind is FailureKind.LOST and "w1" in ended.failure.message
        # It may be what kills its workers: set aside, with its history, until somebody retries it.
        assert claim(index).outcome is Claimed.FAILED
        assert len(index.attempts(build.id)) == MAX_ATTEMPTS[FailureKind.LOST]
        assert index.retry(build.id).state is BuildState.QUEUED

    def test_a_lost_build_that_nobody_wants_is_not_made_again(self, index: Index) -> None:
        build = queued(index)
        lease(index, "w1", EXPIRED)
        index.leave("me")
        assert [one.state for one in index.reap()] == [BuildState.CANCELLED]
        assert state(index, build.id) == "cancelled"

    def test_tokens_never_fall(self, index: Index) -> None:
        queued(index)
        tokens = []
        for _ in range(2):
            tokens.append(lease(index, ttl=EXPIRED).token)
            index.reap()
            given = lease(index)
            tokens.append(given.token)
            index.give_back(given)
        assert tokens == sorted(set(tokens))

    def test_a_build_under_a_made_up_lease(self, index: Index) -> None:
        build = queued(index)
        for act in every_write(index, Lease(build, 0, 1, 0.0)) + every_write(index, Lease(build, 1, 1, 0.0)):
            with pytest.raises(LeaseLost):
                act()
        assert state(index, build.id) == "queued" and digest("x") and kinds(index, build.id) == ["queued"]


def every_write(index: Index, given: Lease) -> list:
    """Each thing that a lease's holder may do."""
    return [
        lambda: unwanted(index, given, TTL, "build", None),
        lambda: index.append_log(given, "late\n"),
        lambda: index.append_log(given, ""),
        lambda: index.succeed(given, engine_of(given, "late")),
        lambda: index.fail(given, failure(), None),
        lambda: index.fail(given, failure(FailureKind.TRANSIENT), 0.0),
        lambda: index.end_cancelled(given),
        lambda: index.give_back(given),
    ]
