"""The index on SQLite keeps the contract."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract_builds import AskingContract, MakingContract
from contract_engines import EnginesContract
from contract_fleet import FleetContract
from contract_keeping import KeepingContract
from contract_leaving import LeavingContract
from contract_machine import SETTINGS, BuildsMachine
from contract_measuring import MeasuringContract
from contract_namespaces import NamespacesContract
from contract_races import RacesContract
from contract_serving import ServingContract
from contract_upkeep import UpkeepContract
from contract_usage import UsageContract
from hypothesis.stateful import run_state_machine_as_test

from farm.db.index import SqlIndex


@pytest.fixture
def url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def index(url: str) -> Iterator[SqlIndex]:
    index = SqlIndex(url)
    yield index
    index.close()


class TestEngines(EnginesContract):
    pass


class TestFleet(FleetContract):
    pass


class TestServing(ServingContract):
    pass


class TestAsking(AskingContract):
    pass


class TestMaking(MakingContract):
    pass


class TestKeeping(KeepingContract):
    pass


class TestMeasuring(MeasuringContract):
    pass


class TestUpkeep(UpkeepContract):
    pass


class TestLeaving(LeavingContract):
    pass


class TestUsage(UsageContract):
    pass


class TestNamespaces(NamespacesContract):
    pass


class TestRaces(RacesContract):
    pass


def test_any_order_of_calls_keeps_to_the_model(migrated_sqlite: Path, tmp_path: Path) -> None:
    class Machine(BuildsMachine):
        @staticmethod
        def open_index() -> SqlIndex:
            for old in tmp_path.glob("farm.db*"):
                old.unlink()
            shutil.copyfile(migrated_sqlite, tmp_path / "farm.db")
            return SqlIndex(f"sqlite:///{tmp_path / 'farm.db'}")

    run_state_machine_as_test(Machine, settings=SETTINGS)
