"""A farm that has exported the test programs already: an export takes seconds, and few tests are about it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Farms

WARM = ("gemm.pt2", "conv.pt2", "deep.pt2")
WARM_TARGET = "sm_120"
"""What the warm farm has engines for; tests ask for other targets."""


@pytest.fixture(scope="session")
def warmed(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a farm with the forms of ``WARM``; copy it before use."""
    home = tmp_path_factory.mktemp("warm") / "home"
    farms = Farms(home)
    done = farms.run("build", *(programs / name for name in WARM), "-t", WARM_TARGET, timeout=280)
    assert done.code == 0, done.err
    return home


@pytest.fixture
def warm(warmed: Path, tmp_path: Path) -> Iterator[Farms]:
    """A farm of the test's own, with forms and a few engines for ``WARM_TARGET``."""
    farms = Farms(Path(shutil.copytree(warmed, tmp_path / "home")))
    yield farms
    farms.close()


@pytest.fixture
def stocked(warm: Farms, copied: Callable[[str], Path]) -> Farms:
    """A warm farm that has built ``gemm.pt2`` for two targets."""
    done = warm.run("build", copied("gemm.pt2"), "-t", "sm_86", "-t", "sm_89")
    assert done.code == 0, done.err
    return warm
