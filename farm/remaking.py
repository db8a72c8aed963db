"""Builds by what the farm remembers of them, rather than by what a client brings: engines made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from farm.asks import Answer, Identity, Outcome
from farm.builds import Build, BuildRequest, Engine
from farm.compilation import FIELDS
from farm.index import Index
from farm.store import BlobStore, lost

HOLD_SECONDS = 600.0
"""For so long a program that collection has condemned stays until a build of it is queued, which keeps it."""


def remake(index: Index, store: BlobStore, engines: Sequence[Engine], waiter: str) -> list[Answer | None]:
    """Queue a build of each engine as it was first asked for, though it is there. ``None`` where the build that made
    it, or the program, is gone: whoever has the model must ask for it."""
    requests = _requests(index, store, engines)
    wanted = [replace(request, flow=waiter) for request in requests if request]
    claims = iter(index.claim_or_join(wanted, waiter, force=True) if wanted else [])
    builds = [next(claims).build if request else None for request in requests]
    return [answer_of(build) if build else None for build in builds]


def _requests(index: Index, store: BlobStore, engines: Sequence[Engine]) -> list[BuildRequest | None]:
    """How each was asked for. A build that made something else is not believed to have made it."""
    ids = {engine.build for engine in engines if engine.build}
    made = {build.id: build.request for build in index.builds(ids=ids, limit=len(ids))} if ids else {}
    programs = {request.program for request in made.values()}
    gone = index.hold_blobs(programs, HOLD_SECONDS) | lost(store, programs)
    found: list[BuildRequest | None] = []
    for engine in engines:
        request = made.get(engine.build)
        same = request and (request.recipe, request.namespace) == (engine.recipe, engine.namespace)
        found.append(request if request and same and request.program not in gone else None)
    return found


def answer_of(build: Build) -> Answer:
    """An answer that waits for ``build``, for a build that was found by its id rather than asked for."""
    return Answer(identity_of(build.request), Outcome.QUEUED, build=build.id)


def identity_of(request: BuildRequest) -> Identity:
    """As much of an ask's identity as a request holds."""
    return Identity(
        model=request.model,
        path=Path(request.model),
        target=request.target,
        toolchain=request.toolchain,
        key=request.key,
        recipe=request.recipe,
        graph="",
        weights=request.weights,
        settings={name: value for name, value in request.settings.items() if name in FIELDS},
        told=request.told,
        profiles=request.profiles,
        parts={},
        capability=request.capability,
        format=request.program_format,
        given=request.settings,
    )
