"""``/api/v1/engines``, ``/parts`` and ``/usage``: look-ups, and what keys are made of and worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Response

from farm.builds import Engine
from farm.errors import Missing, NoSuchThing
from farm.index import Adoption, Found, KeyParts, WantedPortable
from farm.manifests import alteration
from farm.store import is_name, lost
from farm.usage import Usage
from farm.web.access import Builder, Reader
from farm.web.desk import Caller, Json
from farm.web.vetting import check_engine, check_parts
from farm.wire import MOST, Adopting, Counted, Done, Dropping, Looking

router = APIRouter(tags=["engines"])
Limit = Annotated[int, Query(ge=1, le=MOST)]
Prefix = Annotated[str, Query(max_length=100)]
Names = Annotated[list[str] | None, Query(max_length=100)]
COUNTERS = frozenset({"hit", "miss", "joined", "forced", "served"})
"""What clients count; what is built, workers do."""


@router.get("/engines", response_model=list[Engine])
def engines(caller: Reader, prefix: Prefix = "", limit: Limit = 1000, namespace: Names = None) -> Response:
    """Engines, newest first, whose digest, recipe or key starts with ``prefix``, with their manifests."""
    places = caller.within(namespace or ())
    if not places and not caller.all_seeing:
        return Json([])
    return Json(caller.index.engines(prefix=prefix, limit=limit, namespaces=places))


@router.post("/engines/find", response_model=list[Found | None])
def find(caller: Reader, looking: Looking) -> Response:
    """The best engine for each look-up, or null."""
    places = caller.within(looking.namespaces) or caller.reads
    return Json(caller.index.find(looking.wanted, places))


@router.post("/engines/find-portable", response_model=list[Engine])
def find_portable(caller: Reader, wanted: WantedPortable) -> Response:
    """Engines that were built to be portable and serve what is wanted, best suited first."""
    return Json(caller.index.find_portable(wanted, caller.reads))


@router.post("/engines/last-used", response_model=list[tuple[str, str, float]])
def last_used(caller: Reader, places: list[tuple[str, str]]) -> Response:
    """When engines (recipe, namespace) were last handed out, seconds since the epoch."""
    found = caller.index.last_used([place for place in places if caller.sees(place[1])])
    return Json([(recipe, namespace, at) for (recipe, namespace), at in found.items()])


@router.post("/engines/drop", response_model=Done)
def drop(caller: Builder, dropping: Dropping) -> Response:
    """Forget an engine, if its bytes are gone or its row is wrong: the server looks for itself."""
    dropped = False
    for engine in caller.index.engines(prefix=dropping.recipe, namespaces=caller.reads):
        named = (engine.recipe, engine.digest) == (dropping.recipe, dropping.digest)
        why = _wrong(caller, engine) if named and dropping.namespace in (None, engine.namespace) else ""
        if why and caller.realm.may_write(engine.namespace):
            dropped |= caller.index.drop_engine(engine.recipe, engine.digest, why, engine.namespace)
    return Json(Done(dropped))


def _wrong(caller: Caller, engine: Engine) -> str:
    if alteration(engine):
        return "row altered"
    return "blob missing" if lost(caller.desk.store, [engine.digest]) else ""


@router.post("/engines/adopt", response_model=Done)
def adopt(caller: Builder, given: Adopting) -> Response:
    """Keep an engine that a client built itself, in a namespace of its token's own, which nobody else reads."""
    caller.check_adoption(given.engine)
    check_parts([given.parts])
    check_engine(given.engine, given.parts)
    if lost(caller.desk.store, [given.engine.digest]):
        raise Missing(f"engine {given.engine.digest} is not in the store", "send its bytes first")
    index = caller.desk.book.under(caller.realm.of_client(caller.token.name))
    engine = replace(given.engine, serves=(), build="")
    return Json(Done(index.adopt(engine, Adoption(given.parts, given.capability))))


@router.get("/engines/{digest}", response_model=Engine)
def engine(caller: Reader, digest: str) -> Response:
    """One engine by its whole digest, with its manifest. Its plan is ``/blobs/{digest}``."""
    named = caller.index.engines(prefix=digest, limit=1, namespaces=caller.within(())) if is_name(digest) else []
    if not named or named[0].digest != digest:
        raise NoSuchThing(f"no engine is called '{digest[:80]}'", "give its whole digest, sha256:…")
    return Json(named[0])


# -- what keys are made of -----------------------------------------------------------------------------------


@router.post("/parts", response_model=Done)
def record_parts(caller: Builder, parts: list[KeyParts]) -> Response:
    """Remember what keys were made of. The sums are done again: what does not come to its key is refused."""
    check_parts(parts)
    caller.index.record_parts(parts)
    return Json(Done(True))


@router.get("/parts", response_model=list[KeyParts])
def parts(caller: Reader, prefix: Prefix) -> Response:
    """The parts of every key or recipe that starts with ``prefix``."""
    return Json(caller.index.parts(prefix))


@router.get("/parts/recent", response_model=list[KeyParts])
def recent_parts(caller: Reader, graph: str | None = None, limit: Limit = 200) -> Response:
    """The newest parts recorded, of one graph where given."""
    return Json(caller.index.recent_parts(graph=graph, limit=limit))


# -- what the cache is worth ---------------------------------------------------------------------------------


@router.get("/stats")
def stats(caller: Reader) -> Response:
    """What the cache holds and what it has saved."""
    return Json(caller.index.stats())


@router.post("/usage", response_model=Done)
def add_usage(caller: Reader, counted: Counted) -> Response:
    """Add what a client counted of its look-ups and pulls."""
    more = Usage()
    for name, by in counted.counters.items():
        if name in COUNTERS:
            more.count(name, _sound(by))
    for key, by in counted.keys.items():
        if is_name(key):
            more.of_key(key, _sound(by))
    for recipe, namespace, hits in counted.engines:
        if is_name(recipe) and caller.sees(namespace) and 0 < hits < 1_000_000:
            more.engines[recipe, namespace] = hits
    caller.index.add_usage(more)
    return Json(Done(True))


def _sound(by: Mapping[str, float]) -> dict[str, float]:
    """Numbers that can be sums; under names that are short."""
    return {name[:40]: value for name, value in by.items() if 0 <= value < 1e15}


@router.get("/usage/best", response_model=list[str])
def best_keys(caller: Reader, limit: Limit = 20) -> Response:
    """The keys whose hits spared most build time, the best first."""
    return Json(caller.index.best_keys(limit))


@router.post("/usage/of")
def usage(caller: Reader, keys: list[str]) -> Response:
    """What each of these keys was worth, by field."""
    return Json(caller.index.usage(keys))
