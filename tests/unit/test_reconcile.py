"""Orphans both ways, on a real database and real folders: what is forgotten, what is removed, what is never touched."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from farm.blobs.folder import FolderStore
from farm.blobs.folder_objects import FolderObjects
from farm.config import load
from farm.db.models import condemned
from farm.errors import BadInput, Unavailable
from farm.reconcile import GRACE_SECONDS, STORE, Reconcile, Tally
from farm.repair import Repair
from farm.store import LABEL
from farm.timing import Lesson, TimingCaches
from farm.timing_history import KEPT_VERSIONS, Author
from farm.upkeep import Holder
from farm.wiring.upkeep import reconcile_when_due, tidy_when_due
from tests.contract.index_things import offer
from tests.support.stock import Place, open_place, put, stock, stock_engines, stock_form, stock_program, stock_request
from tests.support.timing_model import SCOPE, cache, combine


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database to copy: to make one takes longer than most tests."""
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
                os.utime(path, (time.time() - 86_400,) * 2)

    return age


def reconcile(place: Place, dry_run: bool = False, sure: bool = False, grace: float = GRACE_SECONDS) -> Tally:
    repair = Repair(place.index, lambda counts: None, lambda: ())
    return Reconcile(place.index, place.store, repair, grace=grace, dry_run=dry_run, sure=sure).run()


def everything(place: Place) -> set[str]:
    return {blob.digest for blob in place.store.blobs()}


def test_a_farm_in_order_is_left_as_it_is(place: Place, age: Callable[[], None]) -> None:
    stock(place, 20)
    age()
    before = everything(place)
    for _ in range(2):
        tally = reconcile(place)
        assert tally.looked == {"engines": 20, "forms": 1, "programs": 1}
        assert set(tally.forgotten.values()) == {0} and tally.removed == 0 and not tally.programs_gone
        assert tally.blobs == len(before) and tally.young == 0
    assert everything(place) == before
    assert place.index.stats()["engines"] == 20


def test_blobs_that_nothing_names_go_once_they_are_old(place: Place, age: Callable[[], None]) -> None:
    stock(place, 20)
    orphans = {put(place.store, "orphan", n) for n in range(7)}
    tally = reconcile(place)
    assert (tally.removed, tally.young) == (0, tally.blobs), "somebody may be about to name them"
    age()
    young = put(place.store, "young")
    told = reconcile(place, dry_run=True)
    assert told.removed == 7 and orphans < everything(place)
    tally = reconcile(place)
    assert (tally.removed, tally.bytes_removed) == (told.removed, told.bytes_removed)
    assert not orphans & everything(place) and young in everything(place)
    assert reconcile(place).removed == 0


def test_it_is_done_by_itself_once_a_day(tmp_path: Path, place: Place, age: Callable[[], None]) -> None:
    """By whichever worker's or beat's turn it is: orphans go though nobody asks (issue 4, Repair)."""
    stock(place, 1)
    kept = everything(place)
    orphan = put(place.store, "nobody names me")
    age()
    config = load({"FARM_HOME": str(tmp_path / "home")}, cwd=tmp_path)
    assert not reconcile_when_due(replace(config, reconcile_seconds=0.0)) and orphan in everything(place)
    tidy_when_due(config)
    assert everything(place) == kept
    assert not reconcile_when_due(config)


def test_timings_are_named_by_their_history_alone(place: Place, age: Callable[[], None]) -> None:
    caches = TimingCaches(FolderObjects(place.store.root), place.store)
    for number in range(KEPT_VERSIONS + 3):
        caches.learn(SCOPE, Lesson(cache({f"op {number}": "1"}), Author("me")), combine)
    age()
    repair = Repair(place.index, lambda counts: None, lambda: ())
    assert Reconcile(place.index, place.store, repair, sure=True, named=caches.named).run().removed == 3
    assert everything(place) == caches.named() and len(caches.named()) == KEPT_VERSIONS
    assert caches.latest(SCOPE)


def test_what_an_engine_was_replaced_by_takes_its_blobs_along(place: Place, age: Callable[[], None]) -> None:
    stock(place, 12)
    reconcile(place)
    program = stock_program(place, "m")
    asked = stock_request(place, 0, program)
    (before,) = [row for row in place.index.holdings(Holder.ENGINE) if row.place[0] == asked.recipe]
    place.index.claim_or_join([asked], "me", force=True)
    place.index.cancel(next(b.id for b in place.index.builds() if b.request.model == "queued.pt2"))
    stock_engines(place, [asked], note="again")
    age()
    assert reconcile(place).removed == 0, "somebody may have been promised it"
    past = update(condemned).values(until=0.0)
    place.index.db.run(lambda connection: connection.execute(past), writes=True)  # type: ignore[attr-defined]
    assert reconcile(place).removed == 2
    assert everything(place).isdisjoint(before.blobs)


@pytest.mark.parametrize("which", [0, 1], ids=["plan", "manifest"])
def test_an_engine_without_its_bytes_is_forgotten(place: Place, which: int) -> None:
    stock(place, 20)
    rows = place.index.holdings(Holder.ENGINE)
    place.store.delete(rows[3].blobs[which])
    assert reconcile(place, dry_run=True).forgotten["engines"] == 1 and place.index.stats()["engines"] == 20
    assert reconcile(place).forgotten == {"engines": 1, "forms": 0, "programs": 0}
    assert {row.place for row in place.index.holdings(Holder.ENGINE)} == {row.place for row in rows} - {rows[3].place}


@pytest.mark.parametrize("which", range(3))
def test_a_form_without_its_bytes_is_forgotten(place: Place, which: int) -> None:
    stock(place, 3)
    (row,) = place.index.holdings(Holder.FORM)
    place.store.delete(row.blobs[which])
    assert reconcile(place).forgotten["forms"] == 1
    assert place.index.holdings(Holder.FORM) == []


def test_a_program_without_its_bytes_is_told_of_with_the_builds_that_need_it(place: Place) -> None:
    stock(place, 3)
    (row,) = place.index.holdings(Holder.PROGRAM)
    place.store.delete(row.blobs[0])
    tally = reconcile(place)
    assert tally.programs_gone == [row.blobs[0]] and place.index.holdings(Holder.PROGRAM) == [row]
    waiting = {build.id for build in place.index.builds() if build.state.active}
    assert set(tally.builds_waiting) == waiting and len(waiting) == 2


def test_what_vanished_workers_held_is_queued_again(place: Place) -> None:
    program = stock_program(place, "m")
    place.index.claim_or_join([stock_request(place, "a", program)], "me")
    (lease,) = place.index.lease(offer("w1"), -1.0)
    reconcile(place, dry_run=True)
    assert place.index.builds()[0].worker == "w1"
    reconcile(place)
    assert place.index.builds()[0].worker is None
    assert place.index.signs([lease])[0] == "lost"


# -- the wrong store, the wrong database -----------------------------------------------------------------------


def test_the_wrong_store_forgets_nothing(place: Place, tmp_path: Path) -> None:
    stock(place, 12)
    wrong = Place(place.index, FolderStore(tmp_path / "wrong"))
    for labelled in (False, True):
        if labelled:
            reconcile(place)
        with pytest.raises(BadInput, match="looks like the wrong one") as caught:
            reconcile(wrong)
        assert "--yes" in caught.value.hint
        assert place.index.stats()["engines"] == 12 and wrong.store.label() is None
    assert not (tmp_path / "wrong").exists()


def test_half_of_the_store_gone_is_asked_about(place: Place) -> None:
    stock(place, 12)
    reconcile(place)
    for row in place.index.holdings(Holder.ENGINE)[:7]:
        place.store.delete(row.blobs[0])
    with pytest.raises(BadInput, match="7 are not there"):
        reconcile(place)
    assert place.index.stats()["engines"] == 12
    assert reconcile(place, sure=True).forgotten["engines"] == 7


def test_the_wrong_database_removes_nothing(place: Place, tmp_path: Path, age: Callable[[], None]) -> None:
    stock(place, 12)
    age()
    before = everything(place)
    other = open_place(tmp_path / "other")
    for labelled in (False, True):
        if labelled:
            reconcile(place)
        with pytest.raises(BadInput, match="looks like the wrong one"):
            reconcile(Place(other.index, place.store))
        assert everything(place) == before
    other.index.close()


def test_a_store_that_is_anothers_is_never_touched(place: Place, tmp_path: Path, age: Callable[[], None]) -> None:
    stock(place, 2)
    other = open_place(tmp_path / "other")
    for one in (place, other):
        reconcile(one)
    age()
    before = everything(place)
    for sure in (False, True):
        with pytest.raises(BadInput, match="do not belong together") as caught:
            reconcile(Place(other.index, place.store), sure=sure)
    assert LABEL in caught.value.hint and everything(place) == before
    other.index.close()


def test_a_lost_label_is_made_good_by_who_is_sure(place: Place, tmp_path: Path) -> None:
    stock(place, 2)
    reconcile(place)
    label = tmp_path / "home" / "store" / LABEL
    text = label.read_text()
    label.unlink()
    with pytest.raises(BadInput, match="this store is not labelled"):
        reconcile(place)
    reconcile(place, sure=True)
    assert label.read_text() == text


def test_a_binding_that_was_broken_off_is_carried_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database goes away when the store has its label, and the database not yet."""
    stock(place, 20)
    put_note = place.index.put_note

    def away(name: str, value: str) -> str:
        if name == STORE:
            raise Unavailable("the database is away")
        return put_note(name, value)

    with monkeypatch.context() as patched, pytest.raises(Unavailable):
        patched.setattr(place.index, "put_note", away)
        reconcile(place)
    assert place.store.label() is not None and place.index.note(STORE) is None
    reconcile(place)
    assert place.index.note(STORE) == place.store.label()


# -- at once ---------------------------------------------------------------------------------------------------


def test_many_at_once_beside_builders_lose_nothing(place: Place, tmp_path: Path, age: Callable[[], None]) -> None:
    """Builders put blobs that are there already, old and named by nobody, and rely on them: the closest race."""
    stock(place, 12)
    program = stock_program(place, "m")
    place.index.cancel(next(b.id for b in place.index.builds() if b.request.model == "queued.pt2"))
    errors: list[BaseException] = []
    stop = threading.Event()

    def clean() -> None:
        mine = Place(place.index, FolderStore(tmp_path / "home" / "store"))
        try:
            while not stop.is_set():
                reconcile(mine, grace=600.0)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=clean) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(15):
            asked = stock_request(place, f"r{round_}", program)
            put(place.store, "plan", asked.recipe, "")
            age()
            stock_engines(place, [asked])
            stock_form(place, program)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert errors == []
    tally = reconcile(place)
    assert set(tally.forgotten.values()) == {0} and tally.looked["engines"] == 27
    named = {blob for holder in Holder for row in place.index.holdings(holder) for blob in row.blobs}
    assert named <= everything(place)


def test_a_worker_that_stood_still_commits_nothing(place: Place, age: Callable[[], None]) -> None:
    program = stock_program(place, "m")
    asked = stock_request(place, "a", program)
    place.index.claim_or_join([asked], "me")
    (lease,) = place.index.lease(offer("w1"), -1.0)
    plan = put(place.store, "plan", asked.recipe, "")
    age()
    reconcile(place)
    assert plan not in everything(place)
    engine = stock_engines(place, [replace(asked, recipe="sha256:" + "0" * 64)])[0]
    assert place.index.succeed_all([(lease, replace(engine, recipe=asked.recipe))]) == [False]
