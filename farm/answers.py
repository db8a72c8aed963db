"""What is answered to an ask: from what the cache has, from what its claim came to, from how its build ended. Pure.

``refused`` says why the cache does not believe an engine (``EngineCache.distrusts``; empty: it does).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from farm.asks import Answer, EngineRef, Outcome
from farm.builds import BuildState
from farm.cache import VOUCHED, Miss
from farm.index import Claimed

if TYPE_CHECKING:
    from farm.asks import Identity
    from farm.builds import Build, Engine
    from farm.index import Claim, Found


def first_answer(identity: Identity, found: Found | Miss) -> Answer:
    """What can be said before anything is built."""
    if isinstance(found, Miss):
        if identity.refused:
            return Answer(identity, Outcome.FAILED, error=identity.refused[0], why=found.why)
        return Answer(identity, Outcome.MISSING, why=found.why)
    return hit_answer(identity, found)


def hit_answer(identity: Identity, found: Found) -> Answer:
    """A hit; one whose baked weights are not the asker's says *needs refit*."""
    engine = found.engine
    return Answer(
        identity,
        Outcome.HIT,
        engine=EngineRef(engine.digest, engine.size),
        saved=engine.build_seconds,
        needs_refit=not found.same_weights,
        exact=found.exact,
        manifest=engine.manifest,
    )


def not_handed_out(answer: Answer, refused: str) -> Answer:
    """The same answer, failed: there is an engine, and it may not be handed out."""
    return replace(answer, outcome=Outcome.FAILED, error=f"its engine is not handed out: {refused}", hint=VOUCHED)


def missing_unless_exact(answer: Answer) -> Answer:
    """The same answer, unless its engine is the key's but another recipe's."""
    if answer.outcome is not Outcome.HIT or answer.exact:
        return answer
    return Answer(answer.identity, Outcome.MISSING, why="only another recipe's engine of this key has been built")


def claimed_answer(answer: Answer, claim: Claim, refused: str) -> Answer:
    """The answer once its build has been asked for; ``refused`` is of the engine that was committed meanwhile."""
    if claim.outcome is Claimed.DONE and claim.engine is not None:
        if refused:
            return not_handed_out(answer, refused)
        return replace(answer, outcome=Outcome.HIT, engine=EngineRef(claim.engine.digest, claim.engine.size))
    assert claim.build is not None
    if claim.outcome is Claimed.FAILED:
        return failed_answer(replace(answer, build=claim.build.id), claim.build, remembered=True)
    outcome = Outcome.JOINED if claim.outcome is Claimed.JOINED else Outcome.QUEUED
    return replace(answer, outcome=outcome, build=claim.build.id, engine=None)


def failed_answer(answer: Answer, build: Build, remembered: bool = False) -> Answer:
    """The answer of a build that failed, now or at an earlier ask."""
    failure = build.failure
    message = failure.message if failure else "the build failed"
    hint = failure.hint if failure else ""
    if remembered:
        hint = (hint + " " if hint else "") + f"(remembered; 'farm retry {build.id}' builds it again)"
    return replace(answer, outcome=Outcome.FAILED, error=message, hint=hint)


def awaits(answer: Answer) -> bool:
    """Whether its answer is still to come: that of its build."""
    return answer.outcome in (Outcome.QUEUED, Outcome.JOINED)


def ended_answer(answer: Answer, build: Build, engine: Engine | None, refused: str) -> Answer:
    """The answer once its build has ended, with the engine of its recipe that is there now."""
    seconds = (build.finished or 0.0) - (build.started or build.finished or 0.0)
    answer = replace(answer, seconds=seconds)
    if build.state is BuildState.CANCELLED:
        return replace(answer, outcome=Outcome.CANCELLED, error="the build was cancelled")
    if build.state is BuildState.FAILED:
        return failed_answer(answer, build)
    if engine is None:
        return replace(answer, outcome=Outcome.MISSING, error="the engine was removed as soon as it was built")
    if refused:
        return not_handed_out(answer, refused)
    outcome = Outcome.JOINED if answer.outcome is Outcome.JOINED else Outcome.BUILT
    ref = EngineRef(engine.digest, engine.size)
    return replace(answer, outcome=outcome, engine=ref, manifest=engine.manifest, error="")
