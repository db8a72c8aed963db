"""A worker whose disk is full leaves builds to others for a while."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farm import worker as worker_module
from farm.admission import Admission
from farm.builds import Failure, FailureKind
from farm.worker import BuildWorker, Workshop
from tests.support.clocks import hand_turned


class Index:
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.asked = 0

    def fail(self, *_how: Any) -> None:
        return None

    def lease(self, *_how: Any) -> Sequence[Any]:
        self.asked += 1
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return hand_turned(monkeypatch)


def worker(index: Index, scratch: Path) -> BuildWorker:
    parts: dict[str, Any] = dict.fromkeys(("cache", "forms", "builder", "identifier"))
    return BuildWorker(Workshop(index=index, serves=("q",), scratch=scratch, host="h", admission=Admission(0), **parts))  # type: ignore[arg-type]


def asked_after(failure: FailureKind, percent: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(worker_module.psutil, "disk_usage", lambda path: SimpleNamespace(percent=percent))
    index = Index()
    mine = worker(index, tmp_path)
    mine._fail(SimpleNamespace(attempt=1), Failure(failure, "no"))  # type: ignore[arg-type]
    mine.lease(1)
    return index.asked


def test_a_full_disk_is_left_alone_for_a_while(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module.psutil, "disk_usage", lambda path: SimpleNamespace(percent=100.0))
    index = Index()
    mine = worker(index, tmp_path)
    mine._fail(SimpleNamespace(attempt=1), Failure(FailureKind.TRANSIENT, "the disk is full"))  # type: ignore[arg-type]
    mine.lease(1)
    assert index.asked == 0
    clock[0] += worker_module.FULL_PAUSE_S + 0.1
    mine.lease(1)
    assert index.asked == 1


@pytest.mark.parametrize(("failure", "percent"), [(FailureKind.TRANSIENT, 98.0), (FailureKind.PERMANENT, 100.0)])
def test_other_failures_are_no_reason(
    failure: FailureKind, percent: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked_after(failure, percent, tmp_path, monkeypatch) == 1
