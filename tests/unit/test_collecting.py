"""Collection on a real database and real folders: what goes and when, what is held, and what a killed run leaves."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from farm.blobs.folder_objects import FolderObjects
from farm.builds import Engine
from farm.cache import EngineCache
from farm.collecting import Collect, Collected, Routine, configured_rules, standings
from farm.collection import Kind, Rules, Why
from farm.config import load
from farm.db.models import condemned, forms, programs
from farm.db.models import engines as engine_rows
from farm.errors import BadInput, Missing, NoSuchThing, NotAllowed, Unavailable
from farm.index import Sweep
from farm.leaving import Leaving
from farm.pinning import by_lock, by_prefix, pin, pinned_of, unpin
from farm.prebuilds.lock import LockEntry
from farm.remaking import remake
from farm.store import BlobStore
from farm.timing import Lesson, TimingCaches
from farm.timing_history import Author
from farm.upkeep import Holder
from farm.wiring.backends import open_upkeep
from farm.wiring.upkeep import collect as collect_configured
from farm.wiring.upkeep import collect_when_due
from tests.support.stock import Place, open_place, put, stock, stock_engines, stock_form, stock_program, stock_request
from tests.support.timing_model import SCOPE

ALL = Rules(max_bytes=0, grace=0.0)
DAY = 86_400.0


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("migrated")
    open_place(home).index.close()
    return home / "farm.db"


@pytest.fixture
def place(tmp_path: Path, migrated: Path) -> Iterator[Place]:
    (tmp_path / "home").mkdir()
    shutil.copyfile(migrated, tmp_path / "home" / "farm.db")
    opened = open_place(tmp_path / "home")
    yield opened
    opened.index.close()


@pytest.fixture
def age(tmp_path: Path) -> Callable[[], None]:
    """Make every blob a day old."""

    def age() -> None:
        for path in (tmp_path / "home" / "store" / "sha256").rglob("*"):
            if path.is_file():
                os.utime(path, (time.time() - DAY,) * 2)

    return age


def pass_time(place: Place, seconds: float, age: Callable[[], None]) -> None:
    """Make every row so much older, and every blob a day."""

    def change(connection: Connection) -> None:
        for table in (engine_rows, programs, forms):
            connection.execute(update(table).values(created=table.c.created - seconds))
        connection.execute(update(programs).values(used=programs.c.used - seconds))
        connection.execute(update(condemned).values(until=condemned.c.until - seconds))

    place.index.db.run(change, writes=True)  # type: ignore[attr-defined]
    age()


def index_of(place: Place) -> Leaving:
    return place.index  # type: ignore[return-value]


def collect(place: Place, rules: Rules = ALL, **more: Any) -> Collected:
    return Collect(index_of(place), place.store, rules, **more).run()


def everything(place: Place) -> set[str]:
    return {blob.digest for blob in place.store.blobs()}


def named(place: Place) -> set[str]:
    return {blob for holder in Holder for row in place.index.holdings(holder) for blob in row.blobs}


def engines(place: Place) -> dict[str, Engine]:
    return {str(engine.manifest["model"]): engine for engine in place.index.engines()}


def some(place: Place, count: int) -> list[Engine]:
    program = stock_program(place, "m")
    return stock_engines(place, [stock_request(place, n, program) for n in range(count)])


# -- what goes -------------------------------------------------------------------------------------------------


def test_all_goes_but_what_is_in_use(place: Place, age: Callable[[], None]) -> None:
    """A running and a queued build need the program, and so its form."""
    stock(place, 5)
    age()
    done = collect(place)
    assert {one.thing.kind for one in done.going} == {Kind.ENGINE} and len(done.going) == 5
    assert done.removed == 10, "plans and manifests"
    assert place.index.stats()["engines"] == 0 and len(place.index.programs()) == 1
    assert named(place) <= everything(place) and done.waiting == 0
    for build in place.index.builds():
        place.index.cancel(build.id)
    place.index.reap(["w1"])
    age()
    done = collect(place)
    assert {one.thing.kind for one in done.going} == {Kind.PROGRAM, Kind.FORM} and done.removed == 4
    assert place.index.programs() == []


def test_what_goes_is_said_beforehand_and_nothing_is_changed(place: Place, age: Callable[[], None]) -> None:
    stock(place, 6)
    age()
    before, whole = everything(place), collect(place, Rules(max_bytes=10**9), dry_run=True).bytes
    rules = Rules(max_bytes=whole - 25, grace=0.0)
    told = collect(place, rules, dry_run=True, history=0.0)
    assert everything(place) == before and place.index.stats()["engines"] == 6 and place.store.label() is None
    assert told.as_json()["reasons"] == {Why.BYTES.value: {"n": 3, "bytes": 30}}
    done = collect(place, rules)
    assert [one.thing for one in told.going] == [one.thing for one in done.going]
    assert (told.bytes, told.left, told.kept) == (done.bytes, done.left, done.kept)
    assert place.index.stats()["engines"] == 3


def test_rows_go_first_and_bytes_a_grace_period_later(place: Place, age: Callable[[], None]) -> None:
    some(place, 3)
    before, rules = everything(place), Rules(max_bytes=0, grace=600.0)
    assert collect(place, rules).going == [], "all of it is young"
    pass_time(place, 700, age)
    done = collect(place, rules)
    assert len(done.going) == 4 and done.removed == 0 and done.waiting == 7
    assert everything(place) == before and place.index.stats()["engines"] == 0
    assert place.index.named(sorted(before)) == before, "reconcile lets them be"
    pass_time(place, 700, age)
    assert collect(place, Rules(grace=600.0)).removed == 7


def test_a_blob_that_is_stored_anew_stays(place: Place, age: Callable[[], None]) -> None:
    """Its row is yet to come; and once that has come, it is no longer looked at."""
    (engine,) = some(place, 1)
    pass_time(place, 700, age)
    rules = Rules(max_bytes=0, grace=600.0)
    assert len(collect(place, rules).going) == 2
    pass_time(place, 700, age)
    asked = stock_request(place, 0, stock_program(place, "m"))
    assert put(place.store, "plan", asked.recipe, "") == engine.digest
    done = collect(place, rules)
    assert engine.digest in everything(place) and done.waiting > 0
    stock_engines(place, [asked])
    place.index.db.run(lambda one: one.execute(update(condemned).values(until=0.0)), writes=True)  # type: ignore[attr-defined]
    age()
    assert collect(place, rules).waiting == 0 and engine.digest in everything(place)


def test_kernel_timings_are_never_removed(place: Place, age: Callable[[], None]) -> None:
    """Not even where an engine's plan happened to be the same bytes."""
    caches = TimingCaches(FolderObjects(place.store.root), place.store)  # type: ignore[attr-defined]
    (engine,) = some(place, 1)
    plan = repr(("plan", engine.recipe, "")).encode()
    caches.replace(SCOPE, Lesson(plan, Author("me")))
    assert caches.named() == {engine.digest}
    age()
    done = collect(place, named=caches.named)
    assert len(done.going) == 2 and engine.digest in everything(place)


def test_history_is_trimmed_with_its_outlines(place: Place, age: Callable[[], None]) -> None:
    stock(place, 3)
    place.index.put_sweep(Sweep("sold", 0.0, {}))
    age()
    kept = collect(place, Rules(), history=DAY)
    assert kept.trimmed == {"sweeps": 0, "builds": 0, "logs": 0, "key_parts": 0}
    told = collect(place, Rules(grace=0.0), history=0.0, dry_run=True).trimmed
    outlines = len(everything(place))
    done = collect(place, Rules(grace=0.0), history=0.0)
    assert done.trimmed == {"sweeps": 1, "builds": 0, "logs": 3, "key_parts": 1}
    assert {name: done.trimmed[name] for name in told} == told
    assert done.removed == 1 and len(everything(place)) == outlines - 1, "of the one that failed"
    assert [sweep.id for sweep in place.index.sweeps()] == ["sstock"], "one of its builds is still to be made"


def test_the_wrong_store_is_left_alone(place: Place, tmp_path: Path) -> None:
    some(place, 2)
    collect(place, Rules())
    other = open_place(tmp_path / "other")
    collect(other, Rules())
    with pytest.raises(BadInput, match="do not belong together"):
        collect(Place(place.index, other.store))
    assert place.index.stats()["engines"] == 2
    other.index.close()


# -- readers ---------------------------------------------------------------------------------------------------


class SlowStore:
    """A store whose fetch takes its time, and looks again at its end whether the blob is there."""

    def __init__(self, store: BlobStore, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self.fetching = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def resume(self, digest: str, dest: Path, tell: Callable[[int], None]) -> bool:
        self.fetching.set()
        time.sleep(self._seconds)
        return self._store.fetch(digest, dest)


@pytest.mark.parametrize("held", [True, False], ids=["held", "not held"])
def test_a_fetch_that_takes_longer_than_the_grace_period(
    place: Place, tmp_path: Path, age: Callable[[], None], held: bool
) -> None:
    (engine,) = some(place, 1)
    age()
    time.sleep(0.4)
    slow = SlowStore(place.store, 1.5)
    cache = EngineCache(place.index, slow)  # type: ignore[arg-type]
    cache.hold_seconds = 0.3 if held else 0.0001
    if not held:
        cache.index = _Holding(place.index)  # type: ignore[assignment]
    cache._check_row = lambda engine: None  # type: ignore[method-assign]  # the stock's manifests are no real ones
    got: list[BaseException | None] = []

    def fetch() -> None:
        try:
            cache.fetch(engine, tmp_path / "plan")
            got.append(None)
        except Missing as error:
            got.append(error)

    reader = threading.Thread(target=fetch)
    reader.start()
    slow.fetching.wait(10)
    while reader.is_alive():
        collect(place, Rules(max_bytes=0, grace=0.3))
        time.sleep(0.02)
    reader.join()
    assert (got == [None]) == held
    time.sleep(0.4)
    collect(place, Rules(max_bytes=0, grace=0.3))
    assert engine.digest not in everything(place), "it goes once nobody holds it"


class _Holding:
    """An index that holds nothing."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def hold_blobs(self, blobs: Any, seconds: float) -> set[str]:
        return set()


def test_an_engine_is_built_again_from_a_program_that_is_condemned(place: Place, age: Callable[[], None]) -> None:
    """Its bytes are still there; the build that is queued keeps them."""
    some(place, 1)
    (engine,) = place.index.engines()
    age()
    index = index_of(place)
    things = index.weighed(Kind.PROGRAM)
    assert index.condemn(things, 0.0)
    (again,) = remake(place.index, place.store, [engine], "me")
    assert again is not None
    collect(place, Rules(grace=0.0))
    assert things[0].blobs[0] in everything(place)


# -- killed ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Nobody catches this, as nobody catches SIGKILL."""


class Mortal:
    """Whatever it stands for, until its time has come: at a call, before anything of it was done."""

    def __init__(self, real: Any, life: list[int]) -> None:
        self._real, self._life = real, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._life[0] -= 1
            if self._life[0] == 0:
                raise Killed
            return found(*args, **kwargs)

        return call


def test_a_run_that_is_killed_anywhere_is_made_good_by_the_next(tmp_path: Path, place: Place) -> None:
    """Between any two calls of the database or the store."""
    program = stock_program(place, "m")
    stock_form(place, program)
    stock_engines(place, [stock_request(place, n, program) for n in range(3)])
    kept = pin(index_of(place), [pinned_of(place.index.engines()[0])], "kept").engines[0]
    place.index.close()
    home = Path(shutil.copytree(tmp_path / "home", tmp_path / "killed"))
    mortal = open_place(home)
    for step in itertools.count(1):
        if not killed_at(step, mortal, kept.digest):
            break
        mortal.index.close()  # its statements stay made, which is most of what a new one would take
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "home", home)
    mortal.index.close()
    assert step > 30


def killed_at(step: int, place: Place, kept: str) -> bool:
    """Whether a run dies at its ``step``-th call; it and the next leave what should be there, and nothing else."""
    rules, life = Rules(max_bytes=25, grace=0.0), [step]
    try:
        Collect(Mortal(place.index, life), Mortal(place.store, life), rules, history=0.0).run()  # type: ignore[arg-type]
        died = False
    except Killed:
        died = True
    assert named(place) <= everything(place), f"at {step}: rows have lost their bytes"
    done = collect(place, rules, history=0.0)
    assert done.left <= 25 and done.waiting == 0
    assert kept in {engine.digest for engine in place.index.engines()}
    blobs = everything(place)
    assert place.index.named(sorted(blobs)) == blobs >= named(place), f"at {step}: something was left over"
    return died


# -- pins ------------------------------------------------------------------------------------------------------


def lock_entry(engine: Engine) -> LockEntry:
    model = str(engine.manifest["model"])
    blob = str(engine.manifest["manifest"])
    values = {"key": engine.recipe, "recipe": engine.recipe, "engine": engine.digest, "size": engine.size}
    one = {"model": model, "target": "sm_89", "toolchain": "tensorrt_rtx==1.7.1.116", "manifest": blob}
    return LockEntry(**(one | values))


def test_a_lock_file_keeps_what_it_names(place: Place, age: Callable[[], None]) -> None:
    made = some(place, 4)
    index = index_of(place)
    entries = [lock_entry(engine) for engine in made[:2]]
    first = pin(index, by_lock(index, entries), "repo/farm.lock")
    assert pin(index, by_lock(index, entries), "repo/farm.lock") == first, "repeating is harmless"
    age()
    collect(place)
    assert {engine.digest for engine in place.index.engines()} == {engine.digest for engine in made[:2]}
    pin(index, by_lock(index, entries[1:]), "repo/farm.lock")
    collect(place)
    assert [engine.digest for engine in place.index.engines()] == [made[1].digest]
    with pytest.raises(Missing, match=r"0.pt2 for sm_89: the engine that the lock file names is not there"):
        by_lock(index, entries)


def test_pins_by_key_and_by_name(place: Place) -> None:
    made = some(place, 3)
    index = index_of(place)
    wanted = by_prefix(index, [made[0].digest[:20], made[1].recipe])
    assert [one.digest for one in wanted] == [made[0].digest, made[1].digest]
    with pytest.raises(Missing, match="starts with 'sha256:ffff0000'"):
        by_prefix(index, ["sha256:ffff0000"])
    with pytest.raises(Missing):
        by_prefix(index, [""])
    for name in ("release/1", "release/2"):
        pin(index, wanted, name)
    with pytest.raises(NoSuchThing, match="short for several"):
        unpin(index, "release")
    for name in ("nothing", ""):
        with pytest.raises(NoSuchThing, match="no pin is called"):
            unpin(index, name)
    assert unpin(index, "release/1").name == "release/1" and [one.name for one in index.pins()] == ["release/2"]
    for name in ("", " ", "a\nb", "x" * 300):
        with pytest.raises(BadInput, match="cannot be a pin's name"):
            pin(index, wanted, name)
    with pytest.raises(BadInput, match="nothing to pin"):
        pin(index, [], "empty")
    gone = replace(wanted[0], digest="sha256:" + "0" * 64)
    with pytest.raises(Missing, match="nothing was pinned"):
        pin(index, [gone], "release/2")


# -- now and then ----------------------------------------------------------------------------------------------


def test_it_is_everybodys_turn_once_in_a_while(tmp_path: Path, place: Place, age: Callable[[], None]) -> None:
    some(place, 3)
    age()
    env = {"FARM_HOME": str(tmp_path / "home"), "FARM_MAX_BYTES": "25", "FARM_GC_GRACE": "0", "FARM_GC_SECONDS": "60"}
    config = load(env, cwd=tmp_path)
    assert collect_when_due(config) and place.index.stats()["engines"] == 2
    assert not collect_when_due(replace(config, max_bytes=1)) and place.index.stats()["engines"] == 2


def test_how_full_it_is_is_told(tmp_path: Path, place: Place) -> None:
    made = some(place, 3)
    index = index_of(place)
    pin(index, [pinned_of(made[0])], "kept")
    env = {
        "FARM_HOME": str(tmp_path),
        "FARM_MAX_BYTES": "35",
        "FARM_QUOTAS": "main=20,pr-*=1K,m*=25",
        "FARM_GC_GRACE": "0",
    }
    config = load(env, cwd=tmp_path)
    assert configured_rules(config).quotas == {"main": 20, "pr-*": 1024, "m*": 25}
    found = {one.name: (one.used, one.limit, one.safe) for one in standings(index, config)}
    assert found == {"all": (40, 35, 10), "main": (30, 20, 10), "m*": (30, 25, 10), "pr-*": (0, 1024, 0)}
    assert standings(index, replace(config, max_bytes=0, quotas=())) == []


def test_a_routine_runs_beside_whatever_is_done() -> None:
    begun, go_on, runs = threading.Event(), threading.Event(), []

    def work() -> None:
        runs.append(1)
        begun.set()
        go_on.wait(10)
        raise Unavailable("the store is away")

    routine = Routine(work, 0.0)
    routine.tick()
    assert begun.wait(10)
    routine.tick()
    assert len(runs) == 1, "one at a time"
    go_on.set()
    routine.join(10)
    routine.tick()
    routine.join(10)
    assert len(runs) == 2, "a failure is put off"
    hourly = Routine(lambda: runs.append(1), 3600.0)
    for _ in range(3):
        hourly.tick()
        hourly.join(10)
    assert len(runs) == 3


# -- whose it is -----------------------------------------------------------------------------------------------


def test_who_is_not_trusted_collects_and_pins_nothing_of_others(tmp_path: Path, place: Place) -> None:
    """Programs and history are everybody's; a pin would fill the farm, and an unpinned engine would go."""
    (made,) = some(place, 1)
    pin(index_of(place), [pinned_of(made)], "release")
    config = load({"FARM_HOME": str(tmp_path / "home"), "FARM_NAMESPACE": "pr/7", "FARM_GC_GRACE": "0"}, cwd=tmp_path)
    assert not collect_when_due(config)
    with pytest.raises(NotAllowed, match="collects nothing"):
        collect_configured(config, ALL)
    theirs = open_upkeep(config)
    try:
        with pytest.raises(NotAllowed):
            pin(theirs, [pinned_of(made)], "mine")
        with pytest.raises(NotAllowed):
            unpin(theirs, "release")
        assert theirs.condemn(theirs.weighed(Kind.ENGINE), -1.0) == []
    finally:
        theirs.close()
    assert [one.name for one in index_of(place).pins()] == ["release"]
