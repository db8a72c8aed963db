"""The index on PostgreSQL keeps the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import empty
from contract_builds import AskingContract, MakingContract
from contract_engines import EnginesContract
from contract_keeping import KeepingContract
from contract_machine import SETTINGS, BuildsMachine
from contract_races import RacesContract
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from farm.db.index import SqlIndex


@pytest.fixture
def url(postgresql_url: str) -> str:
    return postgresql_url


@pytest.fixture
def index(url: str) -> Iterator[SqlIndex]:
    index = SqlIndex(url)
    yield index
    index.close()


class TestEngines(EnginesContract):
    pass


class TestAsking(AskingContract):
    pass


class TestMaking(MakingContract):
    pass


class TestKeeping(KeepingContract):
    pass


class TestRaces(RacesContract):
    pass


def test_any_order_of_calls_keeps_to_the_model(migrated_postgresql: str) -> None:
    class Machine(BuildsMachine):
        @staticmethod
        def open_index() -> SqlIndex:
            empty(migrated_postgresql)
            return SqlIndex(migrated_postgresql)

    run_state_machine_as_test(Machine, settings=settings(SETTINGS, max_examples=10))
