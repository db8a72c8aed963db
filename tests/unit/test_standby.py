"""A worker that cannot reach what every build needs leaves builds to others, and takes none of their tries."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from farm import standby
from farm.admission import Admission
from farm.blobs.faults import fault
from farm.blobs.s3_faults import said
from farm.builds import Failure, FailureKind
from farm.errors import BadInput, Unavailable
from farm.mishaps import failure_of
from farm.standby import Standby
from farm.worker import BuildWorker, Workshop
from tests.conftest import eventually


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "FIRST_S", 0.02)


class Trouble:
    """What every build needs, and whether it can be had."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.looked = 0

    def __call__(self) -> None:
        self.looked += 1
        if self.error:
            raise self.error


class Index:
    """Notes what becomes of a build, and how often one was asked for."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.asked = 0

    def fail(self, *_how: Any) -> None:
        self.told.append("failed")

    def give_back(self, *_how: Any) -> None:
        self.told.append("given back")

    def lease(self, *_how: Any) -> list[Any]:
        self.asked += 1
        return []


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
def worker(trouble: Trouble, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildWorker:
    monkeypatch.setattr("farm.scratch.Scratch.is_full", lambda folder: False)
    parts: dict[str, Any] = dict.fromkeys(("cache", "forms", "builder", "identifier"))
    room = Admission(0)
    return BuildWorker(
        Workshop(index=index, serves=("q",), scratch=tmp_path, host="h", admission=room, sound=trouble, **parts)  # type: ignore[arg-type]
    )


def fail(worker: BuildWorker, kind: FailureKind = FailureKind.TRANSIENT) -> None:
    worker._fail(SimpleNamespace(attempt=1), Failure(kind, "no"))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [Unavailable("the secret key is wrong"), BadInput("it looks like the wrong store")])
def test_what_a_machine_in_trouble_could_not_make_is_no_failed_try(
    worker: BuildWorker, trouble: Trouble, index: Index, error: Exception
) -> None:
    trouble.error = error
    fail(worker)
    fail(worker)
    worker.lease(1)
    assert (index.told, index.asked) == (["given back", "given back"], 0)
    assert worker.standby.reason == error.message  # type: ignore[attr-defined]
    trouble.error = None
    eventually(lambda: not worker.standby.reason, what="the end of the trouble")
    worker.lease(1)
    assert index.asked == 1
    fail(worker)
    assert index.told[-1] == "failed"


@pytest.mark.parametrize("kind", [FailureKind.PERMANENT, FailureKind.NODE])
def test_other_failures_are_not_looked_into(
    worker: BuildWorker, trouble: Trouble, index: Index, kind: FailureKind
) -> None:
    trouble.error = Unavailable("gone")
    fail(worker, kind)
    assert (index.told, trouble.looked) == (["failed"], 0)


def test_one_looks_at_a_time_and_ever_less_often(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    changes: list[str] = []
    one = Standby(trouble, lambda: changes.append(one.reason))

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        if len(pauses) == 14:
            trouble.error = None
        return False

    monkeypatch.setattr(one._stopped, "wait", wait)
    monkeypatch.setattr(standby, "FIRST_S", 1.0)
    trouble.error = Unavailable("gone")
    one.look()
    eventually(lambda: changes[-1:] == [""], what="the end")
    assert pauses[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0] and max(pauses) == 30.0 and len(pauses) == 14


def test_one_that_is_stopped_looks_no_more(trouble: Trouble) -> None:
    trouble.error = Unavailable("gone")
    one = Standby(trouble)
    one.look()
    one.stop()
    assert one._thread
    one._thread.join(5)
    assert not one._thread.is_alive()


def test_what_a_store_does_not_let_a_machine_do_is_that_machines_failure() -> None:
    """So that another builds it, and a machine that keeps failing so is set aside."""
    denied = said(ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject"), "s3://bucket")
    assert failure_of(denied).kind is FailureKind.NODE
    assert failure_of(fault(PermissionError(errno.EACCES, "no"), Path("/store"))).kind is FailureKind.NODE
    slow = said(ClientError({"Error": {"Code": "SlowDown"}}, "PutObject"), "s3://bucket")
    assert failure_of(slow).kind is FailureKind.TRANSIENT
    assert failure_of(fault(OSError(errno.ENOSPC, "full"), Path("/store"))).kind is FailureKind.TRANSIENT


def test_an_engine_that_may_not_be_stored_is_not_waited_with(worker: BuildWorker) -> None:
    denied = Unavailable("these credentials may not do that")
    denied.refused = True

    def commit(*_what: Any) -> None:
        raise denied

    worker.shop.__dict__["cache"] = SimpleNamespace(commit=commit)
    heart = SimpleNamespace(check=lambda: None, lost=False)
    with pytest.raises(Unavailable):
        worker._commit(SimpleNamespace(build=SimpleNamespace(id="b")), heart, Path("plan"), {}, 1.0)  # type: ignore[arg-type]
