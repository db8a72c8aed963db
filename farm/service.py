"""The farm's use cases: identify, submit, wait, cancel, sweep. What a client holds; it never builds itself.

The same object serves an embedded farm and a fleet: they differ in the index, store and dispatch that
``wiring`` gave it. ``client.RemoteFarm`` offers the same methods over HTTP.
What only some of them need is imported there: every command holds a farm, and most use one or two of its cases.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from farm.answers import awaits, claimed_answer, ended_answer, first_answer, hit_answer, missing_unless_exact
from farm.asks import Answer, Outcome
from farm.builds import BuildState
from farm.cache import HOLD_SECONDS, EngineCache, Miss
from farm.errors import (
    BadInput,
    BuildFailed,
    CorruptBlob,
    FarmError,
    Missing,
    NoSuchThing,
    Unavailable,
    Untrusted,
)
from farm.index import Found, Wanted
from farm.namespaces import queue
from farm.placement import expected_seconds, gpu_memory_needed, memory_needed
from farm.toolchains import exact_toolchain
from farm.usage import tally, tally_joined, tally_served, tally_spent

if TYPE_CHECKING:
    from farm.asks import Ask, Identity
    from farm.builds import Build, BuildRequest, Engine
    from farm.config import Config
    from farm.explain import Comparison
    from farm.explaining import Explanation
    from farm.identify import Common, Identifier
    from farm.index import Index
    from farm.leaving import Leaving, Pin, Pinned
    from farm.lookout import Lookout
    from farm.measurements import MeasuringAsk
    from farm.measuring import Asked
    from farm.pulling.pulls import Pulled
    from farm.recorder import Recorder
    from farm.repair import Repair
    from farm.stock import Stock
    from farm.store import BlobStore
    from farm.trust import Policy

T = TypeVar("T")

POLL_SECONDS = 0.05
AWAY_SECONDS = 1.0


class Dispatch(Protocol):
    """How builds reach workers. The messages carry nothing but wake-ups: losing them all loses nothing.

    ``start`` begins to build in this process where the farm is embedded, and does nothing where a fleet
    builds; ``stop`` ends that, handing back what is unfinished, and returns when no child runs any more.
    """

    def wake(self, counts: Mapping[str, int]) -> None:
        """Send so many wake-ups to the workers of each queue (``Index.wakes``)."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Farm:
    """A farm, whichever backends it has. Not safe to share between threads; open one in each."""

    def __init__(
        self,
        config: Config,
        index: Index,
        store: BlobStore,
        dispatch: Dispatch,
        identifier: Identifier,
        gone_workers: Callable[[], Collection[str]],
        trust: Policy | None = None,
    ) -> None:
        self.config = config
        self.index = index
        self.store = store
        self.dispatch = dispatch
        self.identifier = identifier
        self.cache = EngineCache(index, store, config.realm, trust=trust)
        self.cache.hold_seconds = min(HOLD_SECONDS, config.gc_grace) or HOLD_SECONDS
        self.waiter = f"{config.host}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self.waiters = {self.waiter}
        """The names under which this process waits: its own, and those of the sweeps that it runs."""
        self._gone_workers = gone_workers
        self._opened = time.monotonic()
        self._submissions = 0
        self.care: Callable[[], None] = lambda: None
        """What is done beside the builds, now and then: collection, where nobody else sees to it."""
        self.notify: Callable[[str], None] = lambda text: None
        """Takes a line for whoever watches, such as why a build cannot start."""

    @classmethod
    def open(cls, config: Config | None = None) -> Farm:
        """The configured farm: embedded unless the environment or ``farm.toml`` names servers."""
        from farm.wiring import open_farm

        return open_farm(config)

    @cached_property
    def _repair(self) -> Repair:
        from farm.making import for_making
        from farm.repair import CALM_SECONDS, Repair

        calm = CALM_SECONDS - (time.monotonic() - self._opened) if self.config.fleet else 0.0
        return Repair(for_making(self.index), self.dispatch.wake, self._gone_workers, calm=max(0.0, calm))

    @cached_property
    def stock(self) -> Stock:
        """The programs that this process has put into the store."""
        from farm.stock import Stock

        return Stock(self.identifier, self.index, self.store, self.config.gc_grace)

    @cached_property
    def lookout(self) -> Lookout:
        """Why builds wait."""
        from farm.lookout import Lookout

        return Lookout(self.index)

    @cached_property
    def recorder(self) -> Recorder:
        """What the cache is worth, written down in batches."""
        from farm.recorder import Recorder

        return Recorder(self.index)

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop building here, if this process did, and let go of the database."""
        self.dispatch.stop()
        if "recorder" in vars(self):
            self.recorder.close()
        self.index.close()

    # -- asking ------------------------------------------------------------------------------------------------

    def identify(self, asks: Sequence[Ask], common: Common | None = None) -> list[Identity]:
        """Key and recipe of each ask × target, without side effects. ``BadInput`` for what cannot be asked. Who asks
        one by one for what has much in ``common`` gives the same one each time."""
        return self.identifier.identify(asks, common)

    def look(self, asks: Sequence[Ask]) -> list[tuple[Identity, Found | Miss]]:
        """Each ask's identity and what the cache has for it; builds nothing."""
        identities = self.identify(asks)
        return list(zip(identities, self.cache.lookup(identities), strict=True))

    def submit(
        self,
        asks: Sequence[Ask],
        *,
        build: bool = True,
        force: bool = False,
        keep: bool = False,
        allow_portable: bool = False,
        exact: bool = False,
    ) -> list[Answer]:
        """Answer each ask × target: ``hit``; or, with ``build``, ``queued`` or ``joined``; else ``missing``.

        ``force`` builds even what is there. ``keep`` leaves the builds wanted after this process has gone
        (``--no-wait``); otherwise they are withdrawn by ``abandon``. ``allow_portable`` takes, where the very engine
        is missing, one that was built to be portable and serves the ask; ``exact`` takes none but the very recipe's,
        as a sweep over search settings must. Ask ``wait`` for how the builds end.
        """
        return self.submit_identified(
            self.identify(asks), build=build, force=force, keep=keep, allow_portable=allow_portable, exact=exact
        )

    def submit_identified(
        self,
        identities: Sequence[Identity],
        *,
        build: bool = True,
        force: bool = False,
        keep: bool = False,
        allow_portable: bool = False,
        exact: bool = False,
        waiter: str = "",
    ) -> list[Answer]:
        """``submit`` for what has been identified already, as a sweep that was planned has; ``waiter`` waits for the
        builds in place of this process."""
        found = self.cache.lookup(identities)
        answers = [first_answer(item, hit) for item, hit in zip(identities, found, strict=True)]
        if exact:
            answers = [missing_unless_exact(answer) for answer in answers]
        if allow_portable:
            answers = [self._or_portable(answer) for answer in answers]
        reasons = [miss.reason if isinstance(miss, Miss) else "other_recipe" for miss in found]
        with self.recorder.adding() as more:
            tally(more, answers, reasons, force and build)
        if build:
            self.cache.forget(found)
        missed = [answer.identity for answer in answers if answer.outcome is not Outcome.HIT or force]
        if not build:
            with self._recording(missed):
                return answers
        wanted = [
            n for n, answer in enumerate(answers) if answer.outcome is Outcome.MISSING or (force and not answer.error)
        ]
        useless = {n for n, miss in enumerate(found) if isinstance(miss, Miss) and self._stays(miss)}
        with self._recording(missed):
            for again in (False, True):
                some = [n for n in wanted if (n in useless) is again]
                who = waiter or ("" if keep else self.waiter)
                for n, answer in zip(some, self._claim([answers[n] for n in some], force or again, who), strict=True):
                    answers[n] = answer
        with self.recorder.adding() as more:
            tally_joined(more, answers)
        return answers

    def _stays(self, miss: Miss) -> bool:
        """Whether there is an engine that stays and cannot be had: it must be built though it is there."""
        lost = miss.lost is not None and not self.config.realm.may_write(miss.lost.namespace)
        return miss.untrusted or lost

    def _or_portable(self, answer: Answer) -> Answer:
        if answer.outcome is Outcome.HIT:
            return answer
        engine = self.cache.lookup_portable(answer.identity)
        if engine is None:
            return answer
        made_for = f"{engine.manifest['target']} by {engine.manifest['toolchain']}"
        hit = hit_answer(answer.identity, Found(engine, exact=False, same_weights=True))
        return replace(hit, portable=made_for)

    def _claim(self, answers: Sequence[Answer], force: bool, waiter: str) -> list[Answer]:
        """Queue or join a build for each. Programs first: a build must never wait for bytes that are not there."""
        if not answers:
            return []
        self._submissions += 1
        requests = self._requests([answer.identity for answer in answers])
        claims = self.index.claim_or_join(requests, waiter, force=force, reads=self.cache.namespaces)
        self.dispatch.wake(self.index.wakes(0.0))
        return [
            claimed_answer(answer, claim, self.cache.distrusts(claim.engine) if claim.engine else "")
            for answer, claim in zip(answers, claims, strict=True)
        ]

    def _requests(self, identities: Sequence[Identity]) -> list[BuildRequest]:
        """What is to be built, with what is known of how long it takes and what it needs."""
        past = self.index.past({(item.capability, item.graph) for item in identities})
        flow = f"{self.waiter}:{self._submissions}"
        return [
            self._request(item, flow, expected_seconds(past.of_graph, past.of_capability, item.capability, item.graph))
            for item in identities
        ]

    def _request(self, identity: Identity, flow: str, expected: float) -> BuildRequest:
        from farm.requests import request_for

        weights = identity.weight_bytes
        return request_for(
            identity,
            program=self.stock.keep(identity),
            capability=queue(identity.capability, self.config.realm.is_trusted),
            namespace=self.config.namespace,
            tenant=self.config.tenant,
            custom_ops=identity.custom_ops,
            priority=identity.priority,
            flow=flow,
            expected=expected,
            memory=memory_needed(weights, identity.given),
            gpu_memory=gpu_memory_needed(exact_toolchain(identity.toolchain), weights, identity.told),
        )

    def _recording(self, missed: Sequence[Identity]) -> AbstractContextManager[None]:
        """Record what ``missed`` are made of, at the latest at this one's end."""
        return self.stock.recording(missed)

    # -- waiting -----------------------------------------------------------------------------------------------

    def wait(
        self,
        answers: Sequence[Answer],
        *,
        on_change: Callable[[Sequence[Build]], None] = lambda builds: None,
        timeout: float | None = None,
    ) -> list[Answer]:
        """Wait until every build of ``answers`` has ended and say how. ``on_change`` sees the builds about twenty
        times a second, thousands of them less often. After ``timeout`` seconds those still unfinished are returned as
        they were."""
        pending = {answer.build for answer in answers if answer.build and answer.outcome is not Outcome.FAILED}
        ended: dict[str, Build] = {}
        if pending:
            self.dispatch.start()
        deadline = None if timeout is None else time.monotonic() + timeout
        while pending:
            looked = time.monotonic()
            builds = self.glance(pending)
            on_change(builds + list(ended.values()))
            for build in builds:
                if not build.state.active:
                    ended[build.id] = build
                    pending.discard(build.id)
            if deadline is not None and time.monotonic() >= deadline:
                break
            if pending:
                self._pause(looked)
        return self._patiently(lambda: self._last_answers(answers, ended))

    def glance(self, builds: Collection[str]) -> list[Build]:
        """How these builds stand now, bearing with a database that is away for a while. Keeps the farm in order as a
        waiting client does."""
        return self._patiently(lambda: self._look(builds))

    def _pause(self, looked: float) -> None:
        """Looking at thousands of builds takes a while, of database and processor: no more than a fifth of this."""
        time.sleep(min(AWAY_SECONDS, max(POLL_SECONDS, 4 * (time.monotonic() - looked))))

    def _look(self, pending: Collection[str]) -> list[Build]:
        self.repair()
        builds = self.index.builds(ids=pending, limit=len(pending))
        self.lookout.tell(builds, self.notify)
        return builds

    def _patiently(self, look: Callable[[], T]) -> T:
        """Look, bearing with a database that is away for a while: the builds go on without it."""
        deadline = time.monotonic() + self.config.patience_seconds
        while True:
            try:
                return look()
            except Unavailable as error:
                if not self.config.fleet or time.monotonic() > deadline:
                    raise
                self.notify(f"{error.message}; still waiting")
                time.sleep(AWAY_SECONDS)

    def _last_answers(self, answers: Sequence[Answer], ended: dict[str, Build]) -> list[Answer]:
        made = {b.request.recipe: b.request.key for b in ended.values() if b.state is BuildState.SUCCEEDED}
        found = self.index.find([Wanted(key, recipe) for recipe, key in made.items()], self.cache.namespaces)
        engines = {hit.engine.recipe: hit.engine for hit in found if hit is not None and hit.exact}
        return [self._last_answer(answer, ended.get(answer.build or ""), engines) for answer in answers]

    def _last_answer(self, answer: Answer, build: Build | None, engines: Mapping[str, Engine]) -> Answer:
        if build is None or not awaits(answer):
            return answer
        engine = engines.get(build.request.recipe)
        return ended_answer(answer, build, engine, self.cache.distrusts(engine) if engine else "")

    # -- fetching ----------------------------------------------------------------------------------------------

    def fetch(self, engine: Engine, dest: Path, *, build: bool = False) -> Engine:
        """Place an engine's plan at ``dest``, verified; returns the engine that it is of.

        With ``build``, one whose bytes are gone or wrong, or that nobody vouches for, is built again first, from the
        stored program. Else, or when that cannot be, it is an error: ``Missing``, ``CorruptBlob``, ``Untrusted``.
        """
        try:
            self._fetch(engine, dest)
            return engine
        except (Missing, CorruptBlob, Untrusted) as error:
            if not build:
                raise
            self.notify(f"{error.message}; it is built again")
            made = self._made_again(engine, error)
        self._fetch(made, dest)
        return made

    def _fetch(self, engine: Engine, dest: Path) -> None:
        began = time.monotonic()
        self.cache.fetch(engine, dest)
        with self.recorder.adding() as more:
            tally_served(more, engine, time.monotonic() - began)

    def pull(
        self,
        lock: Path,
        folder: Path,
        targets: Sequence[str] = (),
        *,
        names: Sequence[str] = (),
        layout: str = "plain",
        jobs: int | None = None,
        allow_portable: bool = False,
    ) -> list[Pulled]:
        """Place what a lock file names in ``folder``: of the models ``names`` (all by default), for ``targets`` (all by
        default). ``Missing`` when that is nothing, or is gone."""
        from farm.prebuilds.lock_file import read_lock
        from farm.pulling.pulls import JOBS, Pulling

        wanted = [self.identifier.target(text) for text in targets]
        pulling = Pulling(self.store, self.cache.refuses_line if self.cache.trust else lambda line: "")
        choices = pulling.choose(lock, read_lock(lock), names, wanted, allow_portable)
        return pulling.pull(choices, folder, layout, jobs or JOBS)

    def _made_again(self, engine: Engine, error: FarmError) -> Engine:
        (answer,) = self.remake([engine])
        if answer is None:
            raise error
        (answer,) = self.wait([answer])
        if not answer.outcome.has_engine:
            raise BuildFailed(answer.error or f"the build ended as {answer.outcome}", answer.hint) from error
        found = self.index.engines(prefix=engine.recipe, namespaces=(engine.namespace,))
        made = next((one for one in found if one.recipe == engine.recipe), None)
        if made is None:
            raise Missing(f"engine {engine.digest} was built again, and is gone again", "ask again") from error
        return made

    def remake(self, engines: Sequence[Engine], *, keep: bool = False) -> list[Answer | None]:
        """Queue a build of each as it was first asked for, though it is there; ask ``wait`` for how they end. ``None``
        where the build that made it, or the program, is gone: whoever has the model must ask for it."""
        from farm.remaking import remake

        answers = remake(self.index, self.store, engines, "" if keep else self.waiter)
        self.dispatch.wake(self.index.wakes(0.0))
        return answers

    def pin(self, wanted: Sequence[Pinned], name: str, seconds: float | None = None) -> Pin:
        """Have ``name`` keep these engines (``pinning.by_lock``, ``by_prefix``), in place of those that it kept
        before."""
        from farm.pinning import pin

        index = cast("Leaving", self.index)  # every backend's is one
        return pin(index, wanted, name, seconds=seconds, grace=self.config.gc_grace)

    # -- measuring ---------------------------------------------------------------------------------------------

    def measure(self, asks: Sequence[MeasuringAsk], *, wait: bool = True) -> list[Asked]:
        """Have each measured where its device is, and wait until it has been, has failed, or is nobody's to measure."""
        from farm.measuring import Waiting, asked

        self.index.await_measuring(asks)
        if wait and asks:
            self.dispatch.start()
            waiting = Waiting(self.index, lambda text: self.notify(text))
            self._patiently(lambda: waiting.until_over(asks))
        return asked(self.index, asks)

    def store_program(self, identity: Identity) -> str:
        """Have an identity's program in the store, as ``submit`` does, though it need not be built: for whoever
        measures it, or refits an engine with its weights. The digest of its bytes."""
        return self.stock.keep(identity)

    def spent(self, key: str, **seconds: float) -> None:
        """Tell what it took to bring an engine of ``key`` into use: ``deserialise`` and ``refit``, in seconds, which
        only whoever did it knows. It is taken off what the cache has saved (``farm stats``)."""
        with self.recorder.adding() as more:
            tally_spent(more, key, seconds)

    # -- ending ------------------------------------------------------------------------------------------------

    def abandon(self) -> list[str]:
        """Withdraw this process from every build it waits for; returns those that nobody else wanted, which
        are cancelled now."""
        return [build for waiter in sorted(self.waiters) for build in self.index.leave(waiter)]

    def repair(self) -> None:
        """Queue again what vanished workers held, and wake workers for whatever waits. At most once a second."""
        self._repair.tick()
        self.care()

    # -- explaining --------------------------------------------------------------------------------------------

    def explain(self, asks: Sequence[Ask], limit: int = 3) -> list[Explanation]:
        """For each ask × target: a hit, or why it is a miss: the stored keys most like it and what differs."""
        return [self._explain(identity, answer, limit) for identity, answer in self.look(asks)]

    def _explain(self, identity: Identity, answer: Found | Miss, limit: int) -> Explanation:
        from farm.explaining import Explanation, likest
        from farm.outlines import outline_of

        outline = outline_of(self.identifier.program(identity.model, identity.custom_ops))
        found = likest(self.index, self.store, identity, outline, isinstance(answer, Miss), limit)
        return Explanation(identity, answer, found)

    def explain_keys(self, one: str, other: str) -> Comparison:
        """How two stored keys (or recipes) differ; either may be shortened."""
        from farm.explaining import compared

        mine, theirs = (
            one_of(self.index.parts(prefix), prefix, "key", lambda parts: parts.key) for prefix in (one, other)
        )
        return compared(self.store, mine, theirs)

    # -- looking and acting ------------------------------------------------------------------------------------

    def find_build(self, prefix: str) -> Build:
        """The one build that ``prefix`` names; ``NoSuchThing`` when none or several do."""
        return one_of(self.index.builds(prefix=prefix, limit=10), prefix, "build", lambda build: build.id)

    def cancel(self, prefix: str) -> Build:
        """Cancel a build for everybody who waits for it."""
        return self.index.cancel(self.find_build(prefix).id)

    def retry(self, prefix: str, *, keep: bool = False) -> Build:
        """Build again what failed or was cancelled, its remembered failure forgotten. Withdrawn by ``abandon``
        unless it is to be kept."""
        build = self.index.retry(self.find_build(prefix).id, "" if keep else self.waiter)
        self.dispatch.wake(self.index.wakes(0.0))
        return build

    def follow_log(self, build: str) -> Iterator[str]:
        """The build's log, and what is added to it until the build has ended."""
        position = 0
        while True:
            state = self.find_build(build).state
            text, position = self.index.log(build, position)
            if text:
                yield text
            if not state.active:
                return
            time.sleep(0.2)


def one_of(things: Sequence[T], prefix: str, noun: str, name: Callable[[T], str]) -> T:
    """The single thing of ``things``; ``NoSuchThing`` otherwise, with the candidates."""
    if not prefix:
        raise BadInput(f"give the {noun}'s id", _where(noun))
    if not things:
        raise NoSuchThing(f"no {noun} starts with '{prefix}'", _where(noun))
    exact = [thing for thing in things if name(thing) == prefix]
    if len(things) > 1 and not exact:
        names = ", ".join(name(thing) for thing in things[:5])
        raise NoSuchThing(f"'{prefix}' is short for several {noun}s: {names}", "write a few more characters")
    return (exact or things)[0]


def _where(noun: str) -> str:
    """Where the things of one kind are listed."""
    return "'farm ls engines --json' shows whole keys" if noun == "key" else f"'farm ls {noun}s' lists them"
