"""Who reads, builds and joins what."""

from __future__ import annotations

import pytest

from farm.asks import Ask, Outcome
from farm.builds import BuildState
from farm.errors import BadConfig
from farm.making import Offer
from tests.namespaces.conftest import MODEL, Opener, ask


def test_untrusted_reads_trusted_and_never_the_reverse(opened: Opener) -> None:
    main, pr = opened(), opened("pr-1")
    assert ask(main, "sm_86").outcome is Outcome.BUILT
    assert ask(pr, "sm_86").outcome is Outcome.HIT
    assert ask(pr, "sm_89").outcome is Outcome.BUILT
    (answer,) = main.submit([Ask(str(MODEL), "sm_89")], build=False)
    assert answer.outcome is Outcome.MISSING
    assert ask(opened("pr-2"), "sm_89").outcome is Outcome.BUILT, "one pull request is none of another's"
    assert ask(main, "sm_89").outcome is Outcome.BUILT
    assert {(e.namespace, e.manifest["target"]) for e in main.index.engines()} == {
        ("main", "sm_86"),
        ("main", "sm_89"),
        ("pr-1", "sm_89"),
        ("pr-2", "sm_89"),
    }


def test_its_own_engine_is_preferred_and_others_are_read_where_that_is_said(opened: Opener) -> None:
    main, pr = opened(), opened("pr-1")
    ask(pr)
    ask(main)
    (identity, found), *_ = pr.look([Ask(str(MODEL), "sm_89")])
    assert found.engine.namespace == "pr-1"  # type: ignore[union-attr]
    follower = opened("pr-2", read_namespaces=("pr-1",))
    (_, found), *_ = follower.look([Ask(str(MODEL), "sm_89")])
    assert found.engine.namespace == "pr-1" and identity.key  # type: ignore[union-attr]


def test_who_may_read_a_namespace_may_wait_for_what_it_makes(opened: Opener) -> None:
    main, pr = opened(), opened("pr-1")
    (queued,) = main.submit([Ask(str(MODEL), "sm_89")])
    (joined,) = pr.submit([Ask(str(MODEL), "sm_89", priority=9)])
    assert joined.outcome is Outcome.JOINED and joined.build == queued.build
    build = main.index.build(queued.build or "")
    assert build is not None and build.waiters == 2
    assert build.request.priority == 0, "who waits for a trusted build does not push it forward"
    pr.abandon()
    (ended,) = main.wait([queued])
    assert ended.outcome is Outcome.BUILT
    (ours,) = opened("pr-3").submit([Ask(str(MODEL), "sm_86")])
    (theirs,) = main.submit([Ask(str(MODEL), "sm_86")])
    assert theirs.outcome is Outcome.QUEUED and theirs.build != ours.build, "no trusted asker joins an untrusted build"


def test_what_is_forced_is_built_in_its_own_namespace(opened: Opener) -> None:
    main, pr = opened(), opened("pr-1")
    ask(main)
    assert ask(pr, force=True).outcome is Outcome.BUILT
    assert {engine.namespace for engine in main.index.engines()} == {"main", "pr-1"}


def test_a_trusted_engine_whose_bytes_are_gone_is_built_anew_in_its_own_namespace(opened: Opener) -> None:
    main, pr = opened(), opened("pr-1")
    answer = ask(main)
    assert answer.engine is not None
    main.store.delete(answer.engine.digest, before=main.store.clock() + 60)
    assert ask(pr).outcome is Outcome.BUILT
    assert {engine.namespace for engine in main.index.engines()} == {"main", "pr-1"}, "an untrusted reader forgets none"
    assert ask(pr).outcome is Outcome.HIT


def test_each_worker_builds_for_its_own_namespaces(opened: Opener) -> None:
    pr, other = opened("pr-1"), opened("pr-2")
    (answer,) = pr.submit([Ask(str(MODEL), "sm_89")])
    build = pr.index.build(answer.build or "")
    assert build is not None and build.request.capability.endswith("/untrusted")
    queues = (build.request.capability, build.request.capability.removesuffix("/untrusted"))
    everything = Offer("w", "node", queues)
    assert other.index.lease(everything, 60.0) == [], "whatever the worker says it builds for"
    main = opened()
    assert main.index.lease(Offer("w", "node", queues, namespaces=("main",)), 60.0) == []
    assert main.index.lease(Offer("w", "node", queues, namespaces=("x-*",)), 60.0) == []
    assert [one.build.id for one in opened("pr-3", builds_for=("pr-*",)).index.lease(everything, 60.0)] == [build.id]


def test_why_nobody_builds_for_a_namespace_is_said(opened: Opener) -> None:
    pr, other = opened("pr-1"), opened("pr-2")
    other.dispatch.start()
    (answer,) = pr.submit([Ask(str(MODEL), "sm_89")])
    build = pr.index.build(answer.build or "")
    assert build is not None and build.state is BuildState.QUEUED
    assert [reason for _, reason in pr.lookout.why_waiting(build)] == ["builds for pr-2, not for pr-1"]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"FARM_NAMESPACE": "../main"}, "cannot be a namespace"),
        ({"FARM_NAMESPACE": "a b"}, "cannot be a namespace"),
        ({"FARM_TRUSTED_NAMESPACES": "main,client/bob"}, "never trusted"),
        ({"FARM_READ_NAMESPACES": "pr-1"}, "must not read 'pr-1'"),
        ({"FARM_BUILDS_FOR": "pr-*"}, "do not build for 'pr-\\*'"),
        ({"FARM_BUILDS_FOR": "*"}, "do not build for"),
        ({"FARM_NAMESPACE": "pr-1", "FARM_BUILDS_FOR": "m*"}, "do not build for trusted"),
    ],
)
def test_what_cannot_be_is_said(told: dict[str, str], says: str) -> None:
    from farm.config import load

    with pytest.raises(BadConfig, match=says):
        load(told)


def test_trusted_namespaces_read_each_other(opened: Opener) -> None:
    both = ("main", "release")
    main, release = opened(trusted_namespaces=both), opened("release", trusted_namespaces=both)
    ask(release)
    assert ask(main).outcome is Outcome.HIT
    assert ask(opened("pr-1", trusted_namespaces=both)).outcome is Outcome.HIT
