"""Each fault alone, on a fleet that stays."""

from __future__ import annotations

import pytest

from tests.chaos.plan import Kind
from tests.chaos.standing import Standing

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]

NEEDS_A_FOLDER = frozenset({Kind.FULL_STORE})


@pytest.mark.parametrize("kind", sorted(frozenset(Kind) - NEEDS_A_FOLDER))
def test_a_fault_alone(fleet: Standing, kind: Kind) -> None:
    if kind not in fleet.stage.ground.possible():
        pytest.skip(f"'{kind}' cannot be done on this machine")
    suffered = fleet.suffer(kind)
    assert suffered.struck == 1
    assert not suffered.wrong, "\n".join(suffered.wrong)
