"""Between rows and the records of ``farm.index`` and ``farm.builds``."""

from __future__ import annotations

import base64
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from sqlalchemy import ColumnElement, Row

from farm.builds import UNREADABLE, Build, BuildRequest, BuildState, Engine, Failure, FailureKind
from farm.db.json_text import dump, dump_finite, load
from farm.index import Attempt, Event, KeyParts, StoredProgram, Trial, Worker
from farm.making import StoredForm

ID_LETTERS = 12
REMEMBERED_REQUESTS = 20_000
LAST_LETTER = "\U0010ffff"
DIGEST = "sha256:"

_REQUEST_FIELDS = frozenset(item.name for item in fields(BuildRequest))


def new_id(kind: str) -> str:
    """A short id: ``kind`` and 60 random bits. No time in it, so that a few letters tell two apart, as with git's."""
    return kind + base64.b32encode(secrets.token_bytes(8)).decode().lower()[:ID_LETTERS]


def clean(text: str) -> str:
    """Text that every database can hold: no NUL (PostgreSQL), no lone surrogates (file names that are not UTF-8)."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def starts(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """``column`` starts with ``prefix``, as a range that an index serves."""
    prefix = clean(prefix)
    return (column >= prefix) & (column < prefix + LAST_LETTER)


def whole_digest(prefix: str) -> str:
    """A digest's beginning with its algorithm, which people leave out."""
    return prefix if prefix.startswith(DIGEST) or DIGEST.startswith(prefix) else DIGEST + prefix


class Requests:
    """Requests by build id. They never change, and a client that polls thousands of builds twenty times a second
    should not parse them every time. Safe between threads; the oldest are forgotten."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, BuildRequest] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, build: str) -> BuildRequest | None:
        return self._held.get(build)

    def keep(self, build: str, request: BuildRequest) -> BuildRequest:
        with self._lock:
            self._held[build] = request
            while len(self._held) > REMEMBERED_REQUESTS:
                self._held.popitem(last=False)
        return request

    def parse(self, build: str, text: str) -> BuildRequest:
        return self.keep(build, request_from(text))


def request_json(request: BuildRequest) -> str:
    # Of numbers, a request holds settings, which are finite, and sizes; so do the parts of a key.
    return dump_finite({item: getattr(request, item) for item in _REQUEST_FIELDS})


def request_from(text: str) -> BuildRequest:
    """Fields that a newer farm added are left out: a worker computes key and recipe anew, and so finds out when
    they mattered. So are the parts that former ones wrote, half of all. A text that is no request is ``UNREADABLE``:
    one row that was spoilt must not hide the others, nor stop those who lease."""
    try:
        values = {name: value for name, value in load(text).items() if name in _REQUEST_FIELDS}
        return BuildRequest(**(values | {"profiles": tuple(values["profiles"]), "parts": {}}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return UNREADABLE


def build_from(row: Row[Any], request: BuildRequest) -> Build:
    """``row`` has every column of ``builds`` but the request, and the number of waiters."""
    if request.priority != row.priority:
        request = replace(request, priority=row.priority)
    return Build(
        id=row.id,
        request=request,
        state=BuildState(row.state),
        created=row.created,
        attempts=row.attempts,
        started=row.started,
        finished=row.finished,
        not_before=row.not_before,
        failure=failure_from(row),
        engine=row.engine,
        worker=row.worker,
        node=row.node,
        phase=row.phase,
        progress=row.progress,
        waiters=row.waiters,
    )


def failure_from(row: Row[Any]) -> Failure | None:
    if row.failure_kind is None:
        return None
    return Failure(FailureKind(row.failure_kind), row.failure_message or "", row.failure_hint or "")


def engine_from(row: Row[Any]) -> Engine:
    return Engine(
        recipe=row.recipe,
        digest=row.digest,
        size=row.size,
        manifest=manifest_from(row.manifest_json),
        created=row.created,
        build_seconds=row.build_seconds,
        namespace=row.namespace,
        build=row.build,
    )


def manifest_from(text: str) -> Mapping[str, Any]:
    """Nothing from a row that holds no JSON object: one that was spoilt must not hide the others."""
    try:
        found = load(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def parts_from(row: Row[Any]) -> KeyParts:
    return KeyParts(row.key, row.recipe, load(row.parts_json), row.model, row.target)


def parts_row(part: KeyParts, now: float, trusted: bool = True) -> dict[str, Any]:
    return {
        "key": part.key,
        "recipe": part.recipe,
        "graph": str(part.parts.get("graph", "")),
        "model": clean(part.model),
        "target": clean(part.target),
        "recorded": now,
        "trusted": trusted,
        "outline": str(part.parts.get("outline") or ""),
        "parts_json": dump_finite(part.parts),
    }


def event_from(row: Row[Any]) -> Event:
    return Event(row.at, row.kind, load(row.detail_json))


def attempt_from(row: Row[Any]) -> Attempt:
    return Attempt(row.number, row.worker, row.started, row.finished, row.outcome, row.message)


def worker_from(row: Row[Any]) -> Worker:
    return Worker(
        id=row.id,
        host=row.host,
        pid=row.pid,
        born=row.born,
        capabilities=tuple(load(row.capabilities_json)),
        detail=load(row.detail_json),
        seen=row.seen,
        fresh=bool(row.fresh),
    )


def program_from(row: Row[Any]) -> StoredProgram:
    return StoredProgram(row.digest, row.name, row.format, row.size, row.graph, row.weights, row.created)


def program_row(program: StoredProgram) -> dict[str, Any]:
    return asdict(replace(program, name=clean(program.name)))


def form_from(row: Row[Any]) -> StoredForm:
    return StoredForm(row.program, row.exporter, row.graph, row.data, load(row.detail_json), row.size)


def trial_from(row: Row[Any]) -> Trial:
    return Trial(
        number=row.number,
        model=row.model,
        target=row.target,
        settings=load(row.settings_json),
        key=row.key,
        recipe=row.recipe,
        asked=row.asked,
        build=row.build,
        error=row.error,
    )


def trial_row(sweep: str, trial: Trial) -> dict[str, Any]:
    return {
        "sweep": sweep,
        "number": trial.number,
        "model": clean(trial.model),
        "target": clean(trial.target),
        "settings_json": dump(trial.settings),
        "key": trial.key,
        "recipe": trial.recipe,
        "asked": trial.asked,
        "build": trial.build,
        "error": clean(trial.error),
    }
