"""A farm that has exported the test programs already: an export takes seconds, and few tests are about it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Farms


@pytest.fixture
def warm(warmed: Path, tmp_path: Path) -> Iterator[Farms]:
    """A farm of the test's own, with forms and a few engines for ``WARM_TARGET``."""
    farms = Farms(Path(shutil.copytree(warmed, tmp_path / "home")))
    yield farms
    farms.close()


@pytest.fixture
def ready(formed: Path, tmp_path: Path) -> Iterator[Farms]:
    """A farm of the test's own that has been asked for nothing yet, and need not export the programs of ``WARM``."""
    farms = Farms(Path(shutil.copytree(formed, tmp_path / "home")))
    yield farms
    farms.close()


@pytest.fixture
def stocked(warm: Farms, copied: Callable[[str], Path]) -> Farms:
    """A warm farm that has built ``gemm.pt2`` for two targets."""
    done = warm.run("build", copied("gemm.pt2"), "-t", "sm_86", "-t", "sm_89")
    assert done.code == 0, done.err
    return warm
