"""Promotion: an engine of an untrusted namespace, into a trusted one. Explicit always, and one of two ways.

*Rebuilt*: a build of the same recipe is queued in the trusted namespace, from the stored program, for a trusted
worker, which computes the key again and trusts nobody's word. *Vouched for*: the very plan is taken over on the word of
somebody who is named in its manifest from then on; its key is computed again from the stored program here, so that the
word is for the plan's bytes alone. Either way the reader's trust policy applies to what comes of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farm.asks import Answer, EngineRef, Outcome
from farm.builds import BuildRequest, Engine
from farm.cache import EngineCache
from farm.canonical import to_json
from farm.errors import BadInput, Missing, NoSuchThing, NotAllowed, Untrusted
from farm.index import Claimed
from farm.keys import Keyed
from farm.namespaces import queue
from farm.placement import capability, gpu_memory_needed, memory_needed
from farm.remaking import answer_of, identity_of
from farm.service import Farm
from farm.store import lost
from farm.targets import parse_target
from farm.toolchains import exact_toolchain
from farm.trust import Signer

REBUILT, VOUCHED, THERE = "rebuilt", "vouched", "there"
NO_PROGRAM = "its program, or how it was asked for, is gone"
MADE_UP = "somebody made it up, or the file changed while it was submitted: build it anew from the model"
LISTED = "'farm ls engines --namespace NS' lists them"
LOOKED_AT = 1000


@dataclass(frozen=True)
class Source:
    """What is to be promoted: how it was asked for, where known, and the engines of it by namespace."""

    recipe: str
    request: BuildRequest | None
    engines: tuple[Engine, ...]

    @property
    def model(self) -> str:
        return self.request.model if self.request else str(self.engines[0].manifest.get("model", ""))


@dataclass(frozen=True)
class Promoted:
    """What came of one. ``how``: ``rebuilt`` (by ``build``, to be waited for), ``vouched``, or ``there`` already."""

    name: str
    to: str
    how: str
    answer: Answer
    source: str = ""
    by: str = ""

    def as_json(self) -> dict[str, Any]:
        told = self.answer.as_json()
        return {
            "name": self.name,
            "from": self.source or None,
            "to": self.to,
            "how": self.how,
            "by": self.by or None,
        } | {name: told[name] for name in ("model", "target", "key", "recipe", "outcome", "engine", "build", "error")}


def promote(
    farm: Farm,
    names: Sequence[str],
    *,
    to: str = "",
    source: str = "",
    vouch_by: str = "",
    signer: Signer | None = None,
    keep: bool = False,
) -> list[Promoted]:
    """Promote what each of ``names`` names (a key, recipe, digest or build, which may be shortened; a lock file's
    recipes are such names) into the namespace ``to`` (the configured one). ``source``: only what is in that namespace.

    With ``vouch_by`` on that person's word, signed by ``signer``; else by builds that ``Farm.wait`` waits for (with
    ``keep`` they stay wanted when this process ends). All names are found before anything is done. ``NotAllowed`` for
    whoever is not of a trusted namespace; ``NoSuchThing``, ``Missing``, ``BadInput``, ``Untrusted``, ``CorruptBlob``.
    """
    to = to or farm.config.namespace
    _check(farm, to, source, vouch_by)
    found = [(name, _find(farm, name, to, source)) for name in names]
    if vouch_by:
        _makeable(farm, [one for _, one in found if _there(farm, one, to) is None])
        cache = EngineCache(farm.index, farm.store, farm.config.realm, trust=farm.cache.trust, signer=signer)
        return [_vouched(farm, cache, name, one, to, vouch_by) for name, one in found]
    return _rebuilt(farm, found, to, keep)


def _check(farm: Farm, to: str, source: str, by: str) -> None:
    realm = farm.config.realm
    if not realm.is_trusted:
        raise NotAllowed(
            f"'{realm.own}' is not trusted, and promotes nothing", "have somebody of a trusted namespace promote it"
        )
    if not realm.trusts(to):
        trusted = ", ".join(realm.trusted)
        raise BadInput(f"'{to}' is not trusted: nothing is promoted into it", f"trusted namespaces: {trusted}")
    if source == to:
        raise BadInput(f"what is in '{to}' need not be promoted into it", "name another namespace after --from")
    if by and (not by.isprintable() or len(by) > 200 or by != by.strip()):
        raise BadInput("--by is no name", "give the name of whoever vouches")


# -- finding -------------------------------------------------------------------------------------------------


def _find(farm: Farm, name: str, to: str, source: str) -> Source:
    if not name.strip():
        raise BadInput("give a key, recipe, digest or build", LISTED)
    places = (source,) if source else ()
    engines = farm.index.engines(prefix=name, limit=LOOKED_AT, namespaces=places)
    if not engines and (built := _build(farm, name, source)) is not None:
        made = farm.index.engines(prefix=built.recipe, namespaces=(built.namespace,))
        return Source(built.recipe, built, tuple(one for one in made if one.recipe == built.recipe))
    recipes = {engine.recipe for engine in engines}
    if not recipes:
        where = f" in '{source}'" if source else ""
        raise NoSuchThing(f"no engine or build{where} starts with '{name}'", LISTED)
    if len(recipes) > 1:
        some = ", ".join(engine.recipe.partition(":")[2][:12] for engine in engines[:4])
        raise NoSuchThing(f"'{name}' stands for {len(recipes)} recipes: {some}", "name one of them")
    (recipe,) = recipes
    return Source(recipe, _request(farm, engines, to), tuple(engines))


def _build(farm: Farm, name: str, source: str) -> BuildRequest | None:
    found = [
        build.request
        for build in farm.index.builds(prefix=name, limit=LOOKED_AT)
        if not source or build.request.namespace == source
    ]
    return found[0] if len(found) == 1 else None


def _request(farm: Farm, engines: Sequence[Engine], to: str) -> BuildRequest | None:
    """How an engine was asked for: by the build that made it; else, of what a client built, as its manifest says."""
    for engine in sorted(engines, key=lambda one: one.namespace == to):
        build = farm.index.build(engine.build) if engine.build else None
        if build is not None and (build.request.recipe, build.request.namespace) == (engine.recipe, engine.namespace):
            return build.request
        told = engine.manifest
        if told.get("client") and told.get("program"):
            return request_of(told)
    return None


def request_of(told: Mapping[str, Any]) -> BuildRequest:
    """A manifest that ``EngineCache.keep`` wrote, as a request. The worker believes nothing of it. ``BadInput`` for one
    that is no such manifest."""
    try:
        return _request_of(told)
    except (KeyError, TypeError) as error:
        raise BadInput(
            f"its manifest does not say how it was built: {error}", "build it anew from the model"
        ) from error


def _request_of(told: Mapping[str, Any]) -> BuildRequest:
    return BuildRequest(
        key=told["key"],
        recipe=told["recipe"],
        program=told["program"],
        program_format=told["program_format"],
        model=told["model"],
        target=told["target"],
        toolchain=told["toolchain"],
        told=told["told"],
        profiles=tuple(told["profiles"]),
        settings=told["given"],
        custom_ops=told["custom_ops"],
        weights=told["weights"],
        capability=told["capability"],
        namespace=told["namespace"],
    )


def _makeable(farm: Farm, found: Collection[Source]) -> None:
    """``Missing`` for the first whose program is not there."""
    programs = {one.request.program for one in found if one.request}
    gone = lost(farm.store, programs) if programs else set()
    for one in found:
        if one.request is None or one.request.program in gone:
            raise Missing(
                f"{one.model} cannot be promoted: {NO_PROGRAM}",
                "ask for its model from the trusted namespace: that builds it there",
            )


def _there(farm: Farm, one: Source, to: str) -> Engine | None:
    """The engine that the trusted namespace has of the recipe, if it may be handed out."""
    found = next((e for e in farm.index.engines(prefix=one.recipe, namespaces=(to,)) if e.recipe == one.recipe), None)
    if found is None or farm.cache.distrusts(found) or lost(farm.store, [found.digest]):
        return None
    return found


# -- rebuilt -------------------------------------------------------------------------------------------------


def _rebuilt(farm: Farm, found: Sequence[tuple[str, Source]], to: str, keep: bool) -> list[Promoted]:
    there = {one.recipe: engine for _, one in found if (engine := _there(farm, one, to)) is not None}
    wanted = [one for _, one in found if one.recipe not in there]
    _makeable(farm, wanted)
    answers = _queue(farm, [_as_computed(farm, one.request) for one in wanted if one.request], to, keep)
    return [
        Promoted(name, to, THERE, hit(there[one.recipe]), to)
        if one.recipe in there
        else Promoted(name, to, REBUILT, answers[one.recipe], one.request.namespace if one.request else "")
        for name, one in found
    ]


def _as_computed(farm: Farm, request: BuildRequest) -> BuildRequest:
    """The request with what its stored program makes of it. ``Untrusted`` where that has another key: queued, what was
    made up would stand in the way of those who ask for that recipe in earnest."""
    if farm.config.realm.trusts(request.namespace):
        return request
    keyed = _computed_again(farm, request)
    if (keyed.key, keyed.recipe, keyed.weights) != (request.key, request.recipe, request.weights):
        raise Untrusted(f"{request.model}: its stored program has another key than was asked for", MADE_UP)
    return replace(request, told=keyed.effective.told)


def _queue(farm: Farm, wanted: Sequence[BuildRequest], to: str, keep: bool) -> dict[str, Answer]:
    requests = {one.recipe: _in_namespace(farm, one, to) for one in wanted}
    if not requests:
        return {}
    # What is there and could not be handed out is built in its place; so is what failed in another namespace.
    claims = farm.index.claim_or_join(list(requests.values()), "" if keep else farm.waiter, force=True)
    farm.dispatch.wake(farm.index.wakes(0.0))
    answers = {}
    for recipe, claim in zip(requests, claims, strict=True):
        assert claim.build is not None and claim.outcome in (Claimed.NEW, Claimed.JOINED)
        answers[recipe] = answer_of(claim.build)
    return answers


def _in_namespace(farm: Farm, request: BuildRequest, to: str) -> BuildRequest:
    """The same, asked for by whoever promotes it: nothing of how the build is scheduled is taken over."""
    toolchain, size = exact_toolchain(request.toolchain), farm.store.size(request.program) or 0
    return replace(
        request,
        namespace=to,
        capability=_capability(request),
        tenant=farm.config.tenant,
        flow=farm.waiter,
        priority=0,
        expected=0.0,
        memory=memory_needed(size, request.settings),
        gpu_memory=gpu_memory_needed(toolchain, size, request.settings),
    )


def _capability(request: BuildRequest) -> str:
    """The queue of trusted workers that can build this."""
    target = parse_target(request.target).target
    return queue(capability(exact_toolchain(request.toolchain), target, request.settings), trusted=True)


# -- vouched for ---------------------------------------------------------------------------------------------


def _vouched(farm: Farm, cache: EngineCache, name: str, one: Source, to: str, by: str) -> Promoted:
    there = _there(farm, one, to)
    if there is not None:
        return Promoted(name, to, THERE, hit(there), to)
    others = [engine for engine in one.engines if engine.namespace != to]
    if not others:
        raise Missing(f"{one.model} has no engine to vouch for", "leave --vouch out to have it built")
    if len({engine.digest for engine in others}) > 1:
        spaces = ", ".join(engine.namespace for engine in others)
        raise BadInput(f"'{name}' has different engines in {spaces}", "say which is meant with --from")
    engine = others[0]
    assert one.request is not None
    _check_engine(engine, one.request, _computed_again(farm, one.request))
    made = cache.vouch(engine, to, by, _capability(one.request))
    if made is None:
        raise BadInput(f"'{to}' has got another engine of {one.model} meanwhile", "look at it: 'farm ls engines'")
    return Promoted(name, to, VOUCHED, hit(made), engine.namespace, by)


def _check_engine(engine: Engine, request: BuildRequest, keyed: Keyed) -> None:
    """``Untrusted`` unless the engine's manifest says of it what its program and settings make of it."""
    told = engine.manifest
    if (keyed.key, keyed.recipe, keyed.weights) != (told.get("key"), engine.recipe, told.get("weights")):
        raise Untrusted(f"{request.model}: its stored program has another key than the engine says", MADE_UP)
    wrong = _made_up(told, keyed, request)
    if wrong:
        raise Untrusted(
            f"{request.model}: the engine's manifest is wrong about its {wrong}",
            "somebody made it up: have it built again ('farm promote', without --vouch)",
        )


def _made_up(told: Mapping[str, Any], keyed: Keyed, request: BuildRequest) -> str:
    """What of a manifest is not what its key was made of, in words: what it was made for decides whom it serves
    (``portability``), and its program what it is built again from and refitted with."""
    asked = {name: getattr(request, name) for name in ("target", "toolchain", "program", "profiles", "model")}
    mine = {**asked, "parts": keyed.parts, "told": keyed.effective.told}
    return next((name for name, value in mine.items() if to_json({"": told.get(name)}) != to_json({"": value})), "")


# -- computed again ------------------------------------------------------------------------------------------


def _computed_again(farm: Farm, request: BuildRequest) -> Keyed:
    """What the stored program, as it was asked for, has for a key. ``Untrusted`` for what makes no sense."""
    with tempfile.TemporaryDirectory(prefix="farm-promote-") as folder:
        path = Path(folder) / f"program.{request.program_format}"

        def program() -> Path:
            if not farm.store.fetch(request.program, path):
                raise Missing(f"{request.model} cannot be promoted: {NO_PROGRAM}")
            return path

        try:
            return farm.identifier.recompute(program, request)[0]
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise Untrusted(f"{request.model}: what was asked for makes no sense: {error}", MADE_UP) from error


def hit(engine: Engine) -> Answer:
    """The answer for an engine that is there."""
    told = engine.manifest
    request = BuildRequest(
        key=str(told.get("key", "")),
        recipe=engine.recipe,
        program="",
        program_format="",
        model=str(told.get("model", "")),
        target=str(told.get("target", "")),
        toolchain=str(told.get("toolchain", "")),
        told={},
        profiles=(),
    )
    ref = EngineRef(engine.digest, engine.size)
    return Answer(identity_of(request), Outcome.HIT, engine=ref, manifest=told)
