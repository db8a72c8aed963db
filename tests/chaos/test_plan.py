"""Plans and work are the same for the same seed, and hold what they must."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.identify import Identifier
from farm.worker import named_profiles
from tests.chaos.plan import LASTS, Kind, plan
from tests.chaos.work import Fate, piece_of, plan_for, work, write_programs


def test_the_same_seed_makes_the_same_plan() -> None:
    assert plan(7, frozenset(Kind), 40.0) == plan(7, frozenset(Kind), 40.0)
    assert plan(7, frozenset(Kind), 40.0) != plan(8, frozenset(Kind), 40.0)
    assert work(7, 100) == work(7, 100)


def test_each_kind_comes_within_the_time() -> None:
    faults = plan(3, frozenset(Kind), 8.0)
    assert {fault.kind for fault in faults} == set(Kind)
    assert all(0 <= fault.at < 8.0 and 0 <= fault.draw < 1 for fault in faults)
    assert all(fault.lasts >= LASTS.get(fault.kind, (0.0, 0.0))[0] for fault in faults)


def test_leaving_a_kind_out_changes_none_of_the_others() -> None:
    whole = plan(5, frozenset(Kind), 40.0)
    less = plan(5, frozenset(Kind) - {Kind.KILL_WORKER}, 40.0)
    assert less == tuple(fault for fault in whole if fault.kind is not Kind.KILL_WORKER)


def test_every_piece_is_asked_for() -> None:
    made = work(11, 200)
    steps = [step for lanes in made.clients for lane in lanes for step in lane]
    asked = [number for step in steps for number in step.numbers]
    assert set(asked) == set(range(200)) and len(asked) > 220
    assert {piece.fate for piece in made.pieces} == set(Fate)
    assert made.fickle and not made.fickle & made.wanted


def test_pieces_are_distinct_and_say_what_they_are(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    write_programs(tmp_path)
    pieces = work(1, 60).pieces
    identities = Identifier(installed=tuple, local_gpu=lambda: None).identify([piece.ask(tmp_path) for piece in pieces])
    assert len({identity.recipe for identity in identities}) == len({plan_for(one) for one in identities}) == 60
    assert [piece_of(named_profiles(one.profiles, (0,), ("x",))) for one in identities] == list(pieces)
