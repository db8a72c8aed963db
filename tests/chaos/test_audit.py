"""The auditor sees what is wrong: one thing after another is changed in a case that is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farm.asks import Identity
from farm.identify import Identifier
from tests.chaos.audit import Case, Tables, all_wrong
from tests.chaos.spoken import Diary, read
from tests.chaos.work import Fate, Piece, Step, Work, write_programs

pytest.importorskip("onnx")

PIECES = (Piece(0, Fate.PLAIN), Piece(1, Fate.POISON), Piece(2, Fate.PLAIN))
WORK = Work(PIECES, (((Step("want", (0, 1), 0.0), Step("leave", (2,), 0.0)),),))
FAILED = {"failure_kind": "permanent", "failure_message": "no kernel", "attempts": 1}


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    folder = tmp_path_factory.mktemp("programs")
    write_programs(folder)
    return Identifier(installed=tuple, local_gpu=lambda: None).identify([piece.ask(folder) for piece in PIECES])


@pytest.fixture
def case(identities: list[Identity]) -> Case:
    """Piece 0 was built at its second lease, 1 failed for good, 2 was cancelled by its only waiter."""
    case = Case(WORK, identities, Tables(), [{"kind": "accepted", "build": f"b{n}", "number": n} for n in range(3)])
    digest = case.digests[identities[0].recipe]
    ended = {"lease_expires": None, "attempts": 1, "failure_kind": None, "failure_message": None, "engine": None}
    builds: list[dict[str, Any]] = [
        {**ended, "id": f"b{n}", "recipe": identity.recipe, "token": 1} for n, identity in enumerate(identities)
    ]
    builds[0] |= {"state": "succeeded", "engine": digest, "token": 2}
    builds[1] |= {"state": "failed", **FAILED}
    builds[2] |= {"state": "cancelled", "token": 0}
    case.tables.builds[:] = builds
    tried = {"started": 1.0, "finished": 2.0, "message": ""}
    case.tables.attempts[:] = [
        {**tried, "build": "b0", "token": 1, "outcome": "lost", "worker": "w1"},
        {**tried, "build": "b0", "token": 2, "outcome": "succeeded", "worker": "w2"},
        {**tried, "build": "b1", "token": 1, "outcome": "permanent", "worker": "w1"},
    ]
    manifest = json.dumps({"build": "b0", "worker": "w2"})
    engine = {"recipe": identities[0].recipe, "digest": digest, "build": "b0", "manifest_json": manifest}
    case.tables.engines[:] = [engine]
    case.tables.waiters[:] = [{"build": "b0", "waiter": "x"}, {"build": "b1", "waiter": "x"}]
    return case


def build(case: Case, number: int, **changes: Any) -> None:
    case.tables.builds[number] = {**case.tables.builds[number], **changes}


def attempt(case: Case, number: int, **changes: Any) -> None:
    case.tables.attempts[number] = {**case.tables.attempts[number], **changes}


def tell(case: Case, kind: str, **what: Any) -> None:
    case.diaries.append({"kind": kind, **what})  # type: ignore[attr-defined]


def build_again(case: Case) -> None:
    case.tables.builds.append({**case.tables.builds[0], "id": "b9"})
    case.tables.attempts.extend({**row, "build": "b9"} for row in case.tables.attempts[:2])


CHANGES: dict[str, Callable[[Case], object]] = {
    "is gone": lambda case: tell(case, "accepted", build="b7"),
    "still running": lambda case: build(case, 0, state="running"),
    "still holds a lease": lambda case: build(case, 0, lease_expires=5.0),
    "which is not its engine": lambda case: build(case, 0, engine="sha256:other"),
    "it can be built": lambda case: build(case, 0, state="failed", **FAILED),
    "it had attempts left": lambda case: build(case, 0, **{**FAILED, "state": "failed", "failure_kind": "lost"}),
    "no node was at fault": lambda case: build(case, 1, failure_kind="node", attempts=6),
    "waited for it": lambda case: case.tables.waiters.append({"build": "b2", "waiter": "x"}),
    "never ended": lambda case: attempt(case, 0, finished=None),
    "its attempts at": lambda case: build(case, 0, token=3),
    "say they succeeded": lambda case: attempt(case, 0, outcome="succeeded"),
    "before it began": lambda case: attempt(case, 0, finished=0.5),
    "a defect of farm's own": lambda case: attempt(case, 0, message="a defect of farm's own: KeyError"),
    "has 0 engines": lambda case: case.tables.engines.clear(),
    "has 2 engines": lambda case: case.tables.engines.append(case.tables.engines[0]),
    "which did not make it": lambda case: build(case, 0, id="b8"),
    "while w1 held": lambda case: attempt(case, 1, worker="w1"),
    "was built 2 times": build_again,
    "WRONG BYTES": lambda case: tell(case, "WRONG BYTES", number=0),
    "UNANSWERED": lambda case: tell(case, "UNANSWERED", number=0),
}


def test_nothing_is_wrong_where_nothing_is(case: Case) -> None:
    assert all_wrong(case) == []


@pytest.mark.parametrize("words", CHANGES)
def test_what_is_wrong_is_seen(case: Case, words: str) -> None:
    CHANGES[words](case)
    assert any(words in wrong for wrong in all_wrong(case)), all_wrong(case)


def test_a_rebuild_is_right_where_the_engine_was_dropped(case: Case) -> None:
    build_again(case)
    case.tables.events.append({"build": "b0", "kind": "engine dropped"})
    assert all_wrong(case) == []


def test_a_cancellation_for_everybody_may_have_waiters(case: Case) -> None:
    case.tables.waiters.append({"build": "b2", "waiter": "x"})
    tell(case, "cancelling", build="b2")
    assert all_wrong(case) == []


def test_a_diary_survives_its_writers_death(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    Diary(path).write("one", number=1)
    with path.open("a") as file:
        file.write('{"at": 3.2, "kind": "bro')
    Diary(path).write("two", number=2)
    assert [(entry["kind"], entry["number"]) for entry in read(path)] == [("one", 1), ("two", 2)]
