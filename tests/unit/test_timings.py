"""What a worker does with timings: it never fails a build because of them, unless it is to replay them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from farm.blobs.memory import MemoryStore
from farm.blobs.objects import MemoryObjects
from farm.builders import AttemptFailed, Cancelled, Merged, Product, Timed, Watch
from farm.builds import Failure, FailureKind
from farm.errors import Unavailable
from farm.store import Versioned
from farm.timing import Lesson, TimingCaches
from farm.timing_history import Author, Scope
from farm.timings import Timings, alike
from farm.toolchains import Toolchain
from tests.support.timing_model import cache, combine, entries

PLAIN, RTX = Toolchain("tensorrt", "10.14.1.48"), Toolchain("tensorrt_rtx", "1.7.1.116")
GPU = {"name": "NVIDIA L4", "capability": 89, "memory": 23 * 2**30, "multiprocessors": 58, "mig": ""}
SCOPE = Scope.of(PLAIN, GPU)
ME = Author("node-a")


class Model:
    """A merger over the model of timings; it may be told to fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def merge(self, toolchain: Toolchain, theirs: bytes, mine: bytes, watch: Watch) -> Merged:
        if self.error:
            raise self.error
        return combine(theirs, mine)


class Away(MemoryObjects):
    def read_versioned(self, name: str) -> Versioned | None:
        raise Unavailable("the store is away")


def caches(objects: MemoryObjects | None = None) -> TimingCaches:
    return TimingCaches(objects or MemoryObjects(), MemoryStore(), pause=0.0)


def timings(shared: TimingCaches, mode: str = "share", error: Exception | None = None) -> Timings:
    return Timings(shared, Model(error), GPU, ME, mode)


def product(folder: Path, timed: Timed | None = None, **more: str) -> Product:
    """A build's, whose cache holds ``more``."""
    path = folder / "timing.cache"
    path.write_bytes(cache(more))
    return Product(folder / "plan", 1, {"build": 4.0}, 0, {}, {}, path, timed or Timed("", 0, len(more)))


def learn(using: Timings, folder: Path, made: Product) -> dict[str, Any] | None:
    taken = using.take(PLAIN, folder)
    return using.learn(taken, made, {"graph": "g", "profiles": []}, {}, Watch())


def test_the_next_build_starts_from_what_the_last_one_learned(tmp_path: Path) -> None:
    shared = caches()
    first = learn(timings(shared), tmp_path, product(tmp_path, a="1"))
    assert first == {
        "scope": SCOPE.id,
        "mode": "share",
        "taken": None,
        "written": 1,
        "entries": {"before": 0, "after": 1},
    }
    taken = timings(shared).take(PLAIN, tmp_path)
    assert taken.file and entries(taken.file.read_bytes()) == {"a": "1"} and taken.version
    assert taken.version.number == 1


@pytest.mark.parametrize(
    "using",
    [
        Timings(),
        Timings(caches(), Model(), None, ME),
        timings(caches(), "off"),
    ],
    ids=["nothing", "no GPU", "off"],
)
def test_where_nothing_is_shared_nothing_is_taken_or_said(using: Timings, tmp_path: Path) -> None:
    taken = using.take(PLAIN, tmp_path)
    assert taken.scope is None and taken.file is None
    assert using.learn(taken, product(tmp_path, a="1"), {}, {}, Watch()) is None


def test_tensorrt_rtx_takes_and_leaves_none(tmp_path: Path) -> None:
    shared = caches()
    taken = timings(shared).take(RTX, tmp_path)
    assert timings(shared).learn(taken, product(tmp_path, a="1"), {}, {}, Watch()) is None
    assert shared.scopes() == []


def test_a_store_that_is_away_is_noted_and_no_more(tmp_path: Path) -> None:
    note = learn(timings(caches(Away())), tmp_path, product(tmp_path, a="1"))
    assert note and note["not_used"] == note["not_learned"] == "the store is away" and note["written"] is None


def test_a_merge_that_fails_is_noted_and_no_more(tmp_path: Path) -> None:
    shared = caches()
    shared.learn(SCOPE, Lesson(cache({"a": "1"}), ME), combine)
    broken = timings(shared, error=AttemptFailed(Failure(FailureKind.TRANSIENT, "it crashed", "again")))
    taken = broken.take(PLAIN, tmp_path)
    shared.learn(SCOPE, Lesson(cache({"b": "1"}), ME), combine)
    note = broken.learn(taken, product(tmp_path, a="1", c="1"), {}, {}, Watch())
    assert note and note["not_learned"] == "it crashed"
    stopped = timings(shared, error=Cancelled("no longer wanted"))
    with pytest.raises(Cancelled):
        stopped.learn(taken, product(tmp_path, a="1", c="1"), {}, {}, Watch())


def test_a_cache_that_the_build_could_not_use_is_set_aside(tmp_path: Path) -> None:
    shared = caches()
    shared.learn(SCOPE, Lesson(cache({"a": "1"}), ME), combine)
    note = learn(timings(shared), tmp_path, product(tmp_path, Timed("it does not fit", 0, 1), b="2"))
    assert note and note["not_used"] == "it does not fit" and note["written"] == 2
    history = shared.history(SCOPE)
    assert history.find(1).aside == "it does not fit"
    assert (history.statistics.from_cache, history.statistics.without) == (0, 1), "it started from nothing"


def test_replay_takes_editable_timings_learns_nothing_and_fails_without(tmp_path: Path) -> None:
    shared = caches()
    shared.learn(SCOPE, Lesson(cache({"a": "1"}), ME), combine)
    with pytest.raises(AttemptFailed, match="there are none"):
        timings(shared, "strict").take(PLAIN, tmp_path)
    assert learn(timings(shared, "editable"), tmp_path, product(tmp_path, b="1"))
    note = learn(timings(shared, "strict"), tmp_path, product(tmp_path, b="1", c="1"))
    assert note and note["taken"] == 1 and note["written"] is None
    editable = Scope.of(PLAIN, GPU, editable=True)
    assert len(shared.history(editable).versions) == 1 == len(shared.history(SCOPE).versions)
    with pytest.raises(Unavailable):
        timings(caches(Away()), "strict").take(PLAIN, tmp_path)


def test_builds_are_compared_with_their_like() -> None:
    parts = {"graph": "g", "profiles": [{"0": 1}]}
    assert alike(parts, {"optimization_level": 3}) == alike(
        {**parts, "weights": "w"}, {"optimization_level": 3, "debug": 1}
    )
    others = [alike({**parts, "graph": "h"}, {}), alike({**parts, "profiles": []}, {}), alike(parts, {})]
    assert len({*others, alike(parts, {"optimization_level": 5})}) == 4


def test_an_untrusted_worker_begins_from_trusted_timings_and_writes_its_own(tmp_path: Path) -> None:
    objects, store = MemoryObjects(), MemoryStore()
    trusted = TimingCaches(objects, store, pause=0.0)
    untrusted = TimingCaches(objects, store, pause=0.0, trusted=False)
    trusted.learn(SCOPE, Lesson(cache({"a": "1"}), ME), combine)
    theirs = Timings(untrusted, Model(), GPU, ME, "share", trusted=False)
    taken = theirs.take(PLAIN, tmp_path)
    assert taken.file and entries(taken.file.read_bytes()) == {"a": "1"}
    note = theirs.learn(taken, product(tmp_path, a="1", b="2"), {"graph": "g", "profiles": []}, {}, Watch())
    own = Scope.of(PLAIN, GPU, trusted=False)
    assert note and (note["scope"], note["taken"], note["written"]) == (own.id, None, 1)
    assert note["lent"] == f"version 1 of {SCOPE.id}"
    assert own.id != SCOPE.id and Scope.from_json(own.as_json()) == own and Scope.from_json(SCOPE.as_json()) == SCOPE
    assert [version.number for version in trusted.history(SCOPE).versions] == [1], "nothing of it went there"
    again = theirs.take(PLAIN, tmp_path)
    assert again.file and entries(again.file.read_bytes()) == {"a": "1", "b": "2"} and not again.lent
    assert timings(trusted).take(PLAIN, tmp_path).version == trusted.history(SCOPE).newest
    assert untrusted.history(own).statistics == trusted.history(own).statistics
    assert untrusted.history(own).statistics.from_cache == 0, "a build from lent timings is compared with none"


def test_a_scope_s_name_is_what_it_was_before_there_were_realms() -> None:
    """Caches that are out there are found by it."""
    assert "realm" not in SCOPE.as_json()
    assert Scope.from_json(
        {"flavour": "tensorrt", "version": "10.14.1.48", "cuda": 13, "device": asdict(SCOPE.device)}
    ).id == (SCOPE.id)
