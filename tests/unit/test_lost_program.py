"""A build whose program the store has lost ends in words, and the next ask is not turned away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from farm.builds import BuildState, FailureKind
from farm.config import load
from farm.index import Claimed
from tests.contract.index_things import CAPABILITY, digest, request
from tests.support.noop import NoopBuilder
from tests.support.noop_worker import open_noop_crew
from tests.support.stock import open_place


def test_it_is_tried_again_and_then_fails_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.builds.FIRST_BACKOFF_S", 0.0)
    place = open_place(tmp_path)
    worker = open_noop_crew(
        replace(load({"FARM_HOME": str(tmp_path)}, tmp_path)), NoopBuilder(), 1, (CAPABILITY,)
    ).worker
    worker.open()
    asked = request(program=digest("never stored"), target="sm_89")
    (claim,) = place.index.claim_or_join([asked], "me")
    assert claim.build is not None
    tries = 0
    while leases := worker.lease(1):
        worker.make(leases[0])
        tries += 1
        assert tries <= 3, "it must not be tried for ever"
    worker.close()
    build = place.index.build(claim.build.id)
    assert build is not None and build.state is BuildState.FAILED and build.failure is not None and tries == 3
    assert build.failure.kind is FailureKind.TRANSIENT and "gone from the store" in build.failure.message
    assert "ask for the model again" in build.failure.hint
    assert place.index.health() == [], "no node is to blame"
    (again,) = place.index.claim_or_join([asked], "me")
    assert again.outcome is Claimed.NEW
    place.index.close()
    worker.shop.index.close()
