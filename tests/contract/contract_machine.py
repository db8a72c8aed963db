"""Any order of calls, against a model: what a build may become, and who may end it.

The model knows nothing of SQL. It holds each build's state, token, waiters and what was asked of it, and says
what each call must answer; after every step the index must hold exactly that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from index_things import ABLE, EXPIRED, TTL, engine_of, failure, request, take, unwanted

from farm.builds import ACTIVE, BuildState, FailureKind, Lease, decide_retry, is_remembered
from farm.errors import LeaseLost
from farm.index import Claimed, Index

RECIPES = ("a", "b", "c")
WAITERS = ("", "me", "you")
SETTINGS = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@dataclass
class Thing:
    """A build as the model sees it."""

    id: str
    recipe: str
    state: BuildState = BuildState.QUEUED
    waiters: set[str] = field(default_factory=set)
    token: int = 0
    attempts: int = 0
    unwanted: bool = False
    remembered: bool = False
    expired: bool = False


class BuildsMachine(RuleBasedStateMachine):
    """Subclass, and set ``open_index``: a fresh and empty index for each run."""

    open_index: Callable[[], Index]

    @initialize()
    def begin(self) -> None:
        self.index = type(self).open_index()
        self.things: dict[str, Thing] = {}
        self.leases: list[Lease] = []
        self.engines: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()

    def active(self, recipe: str) -> Thing | None:
        found = [thing for thing in self.things.values() if thing.recipe == recipe and thing.state in ACTIVE]
        assert len(found) <= 1
        return found[0] if found else None

    def held(self, lease: Lease) -> Thing | None:
        """The build that ``lease`` still holds."""
        thing = self.things[lease.build.id]
        return thing if thing.state is BuildState.RUNNING and thing.token == lease.token else None

    # -- asking ------------------------------------------------------------------------------------------------

    @rule(recipe=st.sampled_from(RECIPES), waiter=st.sampled_from(WAITERS), force=st.booleans())
    def claim(self, recipe: str, waiter: str, force: bool) -> None:
        (claim,) = self.index.claim_or_join([request(recipe)], waiter, force=force)
        failed = [thing.id for thing in self.things.values() if thing.recipe == recipe and thing.remembered]
        known = self.active(recipe)
        if force:
            self.forget(recipe)
        if not force and recipe in self.engines:
            assert (claim.outcome, claim.build) == (Claimed.DONE, None)
        elif not force and failed:
            assert claim.outcome is Claimed.FAILED and claim.build and claim.build.id in failed
        elif known:
            assert claim.outcome is Claimed.JOINED and claim.build and claim.build.id == known.id
            known.waiters.add(waiter)
            known.unwanted = False
        else:
            assert claim.outcome is Claimed.NEW and claim.build and claim.build.id not in self.things
            self.things[claim.build.id] = Thing(claim.build.id, recipe, waiters={waiter})

    def forget(self, recipe: str) -> None:
        for thing in self.things.values():
            if thing.recipe == recipe:
                thing.remembered = False

    @rule(waiter=st.sampled_from(WAITERS))
    def leave(self, waiter: str) -> None:
        left = self.index.leave(waiter)
        mine = [thing for thing in self.things.values() if waiter in thing.waiters and thing.state in ACTIVE]
        if not waiter:
            mine = []
        for thing in mine:
            thing.waiters.discard(waiter)
        unwanted = [thing for thing in mine if not thing.waiters]
        assert sorted(left) == sorted(thing.id for thing in unwanted)
        for thing in unwanted:
            self.unwant(thing)

    def unwant(self, thing: Thing) -> None:
        if thing.state is BuildState.QUEUED:
            thing.state = BuildState.CANCELLED
        elif thing.state is BuildState.RUNNING:
            thing.unwanted = True

    @precondition(lambda self: self.things)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        thing = self.things[data.draw(st.sampled_from(list(self.things)))]
        self.unwant(thing)
        assert self.index.cancel(thing.id).state is thing.state

    @precondition(lambda self: self.things)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        thing = self.things[data.draw(st.sampled_from(list(self.things)))]
        again = self.index.retry(thing.id)
        self.forget(thing.recipe)
        known = self.active(thing.recipe)
        if known:
            assert again.id == known.id
            known.waiters.add("")
            known.unwanted = False
        else:
            assert again.id not in self.things
            self.things[again.id] = Thing(again.id, thing.recipe, waiters={""})

    # -- making ------------------------------------------------------------------------------------------------

    @rule(expired=st.booleans())
    def lease(self, expired: bool) -> None:
        lease = take(self.index, "w", ABLE, EXPIRED if expired else TTL)
        queued = [thing for thing in self.things.values() if thing.state is BuildState.QUEUED]
        assert (lease is None) == (not queued)
        if lease is not None:
            thing = self.things[lease.build.id]
            assert thing in queued and lease.token > thing.token
            thing.state, thing.token, thing.expired = BuildState.RUNNING, lease.token, expired
            thing.attempts += 1
            assert lease.attempt == thing.attempts
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), kind=st.sampled_from(["beat", "succeed", "end_cancelled", "give_back", "log"]))
    def write(self, data: st.DataObject, kind: str) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        thing = self.held(lease)
        try:
            answer = self.do(kind, lease)
        except LeaseLost:
            assert thing is None
            return
        assert thing is not None
        if kind == "beat":
            assert answer is thing.unwanted
            thing.expired = False
        elif kind == "succeed":
            thing.state = BuildState.SUCCEEDED
            self.engines.add(thing.recipe)
        elif kind != "log" and thing.unwanted:
            thing.state = BuildState.CANCELLED
        elif kind != "log":
            thing.state = BuildState.QUEUED
            thing.attempts -= 1

    def do(self, kind: str, lease: Lease) -> object:
        if kind == "beat":
            return unwanted(self.index, lease, TTL, "build", 0.5)
        if kind == "log":
            return self.index.append_log(lease, "line\n")
        if kind == "succeed":
            return self.index.succeed(lease, engine_of(lease))
        return getattr(self.index, kind)(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), kind=st.sampled_from(FailureKind), again=st.booleans())
    def fail(self, data: st.DataObject, kind: FailureKind, again: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        thing = self.held(lease)
        try:
            ended = self.index.fail(lease, failure(kind), 0.0 if again else None)
        except LeaseLost:
            assert thing is None
            return
        assert thing is not None
        # Nobody else is there to take what this node cannot make.
        self.failed(thing, kind, again and kind is not FailureKind.NODE)
        assert ended.state is thing.state

    def failed(self, thing: Thing, kind: FailureKind, again: bool) -> None:
        if thing.unwanted:
            thing.state = BuildState.CANCELLED
        elif again:
            thing.state = BuildState.QUEUED
        else:
            thing.state = BuildState.FAILED
            thing.remembered = is_remembered(kind)

    @rule(gone=st.booleans())
    def reap(self, gone: bool) -> None:
        reaped = {build.id for build in self.index.reap(["w"] if gone else [])}
        running = [thing for thing in self.things.values() if thing.state is BuildState.RUNNING]
        over = [thing for thing in running if thing.expired or gone]
        assert reaped == {thing.id for thing in over}
        for thing in over:
            self.failed(thing, FailureKind.LOST, decide_retry(FailureKind.LOST, thing.attempts) is not None)

    @rule(recipe=st.sampled_from(RECIPES))
    def drop(self, recipe: str) -> None:
        for engine in self.index.engines(request(recipe).recipe):
            assert self.index.drop_engine(engine.recipe, engine.digest, "gone") and recipe in self.engines
        self.engines.discard(recipe)

    # -- what always holds -------------------------------------------------------------------------------------

    @invariant()
    def index_and_model_agree(self) -> None:
        if not hasattr(self, "index"):
            return
        held = {build.id: build for build in self.index.builds()}
        assert set(held) == set(self.things)
        for thing in self.things.values():
            build = held[thing.id]
            assert (build.state, build.waiters, build.attempts) == (thing.state, len(thing.waiters), thing.attempts)
            assert (build.finished is None) == build.state.active
            assert (build.worker is not None) or build.state is not BuildState.RUNNING
        assert {engine.recipe for engine in self.index.engines()} == {request(name).recipe for name in self.engines}
