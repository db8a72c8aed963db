"""Timing caches over memory: what is merged, set aside, turned away, rolled back, and what the statistics claim."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from farm.blobs.memory import MemoryStore
from farm.blobs.objects import MemoryObjects
from farm.builders import Merged
from farm.devices import Device
from farm.errors import BadInput, FarmError, Missing, NoSuchThing, Unavailable
from farm.timing import MOST_BYTES, SCOPES, Lesson, TimingCaches
from farm.timing_history import KEPT_VERSIONS, Author, History, Ran, Scope, Statistics, Version, find_scope
from farm.toolchains import Toolchain
from tests.support.timing_model import SCOPE, cache, combine, entries

ME = Author("node-a", "580.1")


class Things:
    def __init__(self) -> None:
        self.objects, self.store = MemoryObjects(), MemoryStore()
        self.caches = TimingCaches(self.objects, self.store, pause=0.0, clock=lambda: 7.0)

    def learn(self, taken: int | None = None, scope: Scope = SCOPE, **more: str) -> Any:
        base = entries(self.caches.read(scope, taken)[1]) if taken else {}
        return self.caches.learn(scope, Lesson(cache({**more, **base}), ME, taken), combine)

    def held(self, scope: Scope = SCOPE) -> dict[str, str]:
        found = self.caches.latest(scope)
        return entries(found[1]) if found else {}

    def spoil(self, number: int) -> None:
        self.store._held[self.caches.history(SCOPE).find(number).digest] = b"rotten"


@pytest.fixture
def things() -> Things:
    return Things()


def no_combine(theirs: bytes, mine: bytes) -> Merged:
    raise AssertionError("there is nothing to combine")


# -- scopes --------------------------------------------------------------------------------------------------

GPU = {"name": "NVIDIA L4", "capability": 89, "memory": 23 * 2**30, "multiprocessors": 58, "mig": "", "index": 0}
PLAIN = Toolchain("tensorrt", "10.14.1.48")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "NVIDIA L40"},
        {"capability": 90},
        {"memory": 46 * 2**30},
        {"multiprocessors": 60},
        {"mig": "1g.5gb"},
    ],
)
def test_another_kind_of_gpu_is_another_scope(change: dict[str, Any]) -> None:
    one, other = Scope.of(PLAIN, GPU), Scope.of(PLAIN, {**GPU, **change})
    assert one.id != other.id and one.name != other.name


def test_another_tensorrt_is_another_scope() -> None:
    others = [Toolchain("tensorrt", "10.14.1.49"), Toolchain("tensorrt", "10.14.1.48", 12)]
    scopes = {Scope.of(chain, GPU).id for chain in (PLAIN, *others)} | {Scope.of(PLAIN, GPU, editable=True).id}
    assert len(scopes) == 4


def test_equal_gpus_share_timings_whatever_their_number_and_a_drivers_reserve() -> None:
    other = {**GPU, "index": 3, "uuid": "GPU-2", "bus": "00:02", "memory": GPU["memory"] - 300 * 2**20}
    assert Scope.of(PLAIN, GPU) == Scope.of(PLAIN, other)
    orin = {**GPU, "name": "Orin", "shares_memory": True}
    assert Scope.of(PLAIN, orin) == Scope.of(PLAIN, {**orin, "memory": 2**30}), "a container's limit is no GPU"


def test_a_scopes_name_is_a_name_of_objects() -> None:
    odd = Scope.of(PLAIN, {**GPU, "name": "NVIDIA RTX 6000 Ada/Generation — ü " + "x" * 300, "mig": "1c.3g.20gb"}, True)
    assert MemoryObjects().read_versioned(odd.name) is None
    assert Scope.from_json(odd.as_json()) == odd


def test_a_scope_is_found_by_the_beginning_of_its_id_or_name() -> None:
    other = replace(SCOPE, version="10.15.0.1")
    assert find_scope([SCOPE, other], SCOPE.id[:6]) == SCOPE
    assert find_scope([SCOPE, other], "tensorrt-10.15") == other
    for prefix, said in (("nonesuch", "no timing cache"), ("tensorrt-10.1", "2 timing caches")):
        with pytest.raises(NoSuchThing, match=said):
            find_scope([SCOPE, other], prefix)


# -- learning ------------------------------------------------------------------------------------------------


def test_there_is_nothing_at_first(things: Things) -> None:
    assert things.caches.latest(SCOPE) is None and things.caches.scopes() == [] and things.caches.named() == set()
    with pytest.raises(Missing):
        things.caches.read(SCOPE)


def test_what_is_learned_is_there_with_what_was(things: Things) -> None:
    assert things.learn(a="1").version.number == 1
    assert things.learn(a="2", b="3").version.number == 2
    assert things.held() == {"a": "1", "b": "3"}, "what conflicts is skipped"
    version = things.caches.history(SCOPE).newest
    assert version and (version.who, version.driver, version.when, version.entries) == ("node-a", "580.1", 7.0, 2)
    assert things.caches.scopes() == [SCOPE]


def test_what_was_learned_on_top_of_the_newest_needs_no_merge(things: Things) -> None:
    things.learn(a="1")
    lesson = Lesson(cache({"a": "1", "b": "2"}), ME, taken=1, entries=2)
    assert things.caches.learn(SCOPE, lesson, no_combine).version == things.caches.history(SCOPE).newest
    assert things.held() == {"a": "1", "b": "2"}


def test_what_shrank_is_not_taken_for_the_whole(things: Things) -> None:
    things.learn(a="1", b="2")
    things.caches.learn(SCOPE, Lesson(cache({"c": "3"}), ME, taken=1), combine)
    assert things.held() == {"a": "1", "b": "2", "c": "3"}


def test_nothing_new_is_no_new_version(things: Things) -> None:
    things.learn(a="1", b="2")
    learned = things.learn(b="2")
    assert (learned.version.number, learned.written) == (1, False)
    assert len(things.caches.history(SCOPE).versions) == 1


def test_scopes_keep_to_themselves(things: Things) -> None:
    other = replace(SCOPE, version="10.15.0.1")
    things.learn(a="1")
    things.learn(scope=other, b="1")
    assert (things.held(), things.held(other)) == ({"a": "1"}, {"b": "1"})
    assert things.caches.scopes() == [SCOPE, other] and len(things.caches.named()) == 2


@pytest.mark.parametrize("data", [b"", b"x" * (MOST_BYTES + 1)], ids=["empty", "huge"])
def test_what_is_no_cache_by_its_size_is_refused(things: Things, data: bytes) -> None:
    with pytest.raises(BadInput, match="no timing cache"):
        things.caches.learn(SCOPE, Lesson(data, ME), combine)


def test_threads_lose_nothing_of_each_others(things: Things) -> None:
    def work(number: int) -> None:
        for count in range(5):
            things.learn(**{f"{number} {count}": "1"})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(things.held()) == {f"{number} {count}" for number in range(4) for count in range(5)}


class Contended(MemoryObjects):
    """Somebody else is always first."""

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        return super().write_if(name, data, version) if name == SCOPES else None


def test_it_does_not_try_for_ever() -> None:
    caches = TimingCaches(Contended(), MemoryStore(), tries=5, pause=0.0)
    with pytest.raises(Unavailable, match="5 times in a row"):
        caches.learn(SCOPE, Lesson(b"{}", ME), combine)


# -- what cannot be used -------------------------------------------------------------------------------------


def test_an_unusable_cache_is_set_aside_and_a_fresh_one_begun(things: Things) -> None:
    things.caches.replace(SCOPE, Lesson(b"of another version", ME))
    assert things.learn(a="1").version.number == 2
    assert things.held() == {"a": "1"}
    assert things.caches.history(SCOPE).find(1).aside


def test_below_it_is_what_was_there_before(things: Things) -> None:
    things.learn(a="1")
    things.caches.replace(SCOPE, Lesson(b"of another version", ME))
    things.learn(b="2")
    assert things.held() == {"a": "1", "b": "2"}


def test_a_build_that_could_not_use_it_says_so(things: Things) -> None:
    things.learn(a="1")
    things.caches.learn(SCOPE, Lesson(cache({"b": "2"}), ME, taken=1, aside="another device"), no_combine)
    assert things.held() == {"b": "2"} and things.caches.history(SCOPE).find(1).aside == "another device"


def test_what_was_learned_and_cannot_be_merged_changes_nothing(things: Things) -> None:
    things.learn(a="1")
    learned = things.caches.learn(SCOPE, Lesson(b"rubbish", ME), combine)
    assert learned.version is None and "cannot be merged" in learned.why
    assert things.held() == {"a": "1"}


@pytest.mark.parametrize("harm", ["rotten", "gone"])
def test_bytes_that_are_damaged_or_gone_fall_back_to_the_version_before(things: Things, harm: str) -> None:
    things.learn(a="1")
    things.learn(b="2")
    if harm == "rotten":
        things.spoil(2)
    else:
        things.store.delete(things.caches.history(SCOPE).find(2).digest)
    assert things.held() == {"a": "1"}
    things.learn(c="3")
    assert things.held() == {"a": "1", "c": "3"} and things.caches.history(SCOPE).find(2).aside


def test_a_damaged_history_is_begun_anew_and_a_newer_farms_is_left_alone(things: Things) -> None:
    things.learn(a="1")
    now = things.objects.read_versioned(SCOPE.name)
    assert now
    newer = things.objects.write_if(SCOPE.name, now.data.replace(b'"schema":1', b'"schema":9'), now.version)
    with pytest.raises(FarmError, match="newer farm"):
        things.learn(b="2")
    things.objects.write_if(SCOPE.name, b"{}", newer)
    assert things.learn(b="2").version.number == 1 and things.held() == {"b": "2"}


def test_a_damaged_list_is_never_taken_for_empty(things: Things) -> None:
    things.learn(a="1")
    now = things.objects.read_versioned(SCOPES)
    things.objects.write_if(SCOPES, b"[{}]", now and now.version)
    for call in (things.caches.named, things.caches.scopes):
        with pytest.raises(FarmError, match="damaged"):
            call()


# -- history -------------------------------------------------------------------------------------------------


def test_a_rollback_and_what_was_learned_on_top_of_what_it_revoked(things: Things) -> None:
    things.learn(a="1")
    things.learn(1, bad="0")
    late = Lesson(cache({"a": "1", "bad": "0", "late": "1"}), ME, taken=2)
    assert things.caches.rollback(SCOPE, 1, Author("me")).number == 3
    assert things.held() == {"a": "1"}
    turned = things.caches.learn(SCOPE, late, combine)
    assert turned.version is None and "rolled back" in turned.why
    things.learn(3, good="1")
    assert things.held() == {"a": "1", "good": "1"}
    with pytest.raises(NoSuchThing, match="has no version 9"):
        things.caches.rollback(SCOPE, 9, ME)
    assert things.caches.rollback(SCOPE, 2, ME).number == 5
    assert things.held() == {"a": "1", "bad": "0"}, "one may change one's mind"


def test_a_version_whose_bytes_are_gone_is_not_gone_back_to(things: Things) -> None:
    things.learn(a="1")
    things.learn(b="2")
    things.spoil(1)
    with pytest.raises(Missing):
        things.caches.rollback(SCOPE, 1, ME)
    assert things.held() == {"a": "1", "b": "2"}


def test_the_oldest_versions_go_and_are_named_no_more(things: Things) -> None:
    for count in range(KEPT_VERSIONS + 5):
        things.learn(**{f"op {count}": "1"})
    history = things.caches.history(SCOPE)
    assert len(history.versions) == KEPT_VERSIONS == len(things.caches.named())
    assert len(things.held()) == KEPT_VERSIONS + 5


def test_the_one_to_start_from_stays_however_old() -> None:
    history = History(SCOPE).with_version(Version(1, "good", 1, 0.0, "me"))
    for number in range(2, 40):
        history = history.with_version(Version(number, "bad", 1, 0.0, "me", aside="bad"))
    assert history.newest and history.newest.number == 1 and len(history.versions) == KEPT_VERSIONS + 1


def test_a_history_survives_its_bytes() -> None:
    history = History(SCOPE).with_version(Version(1, "x", 1, 0.0, "me")).rolled_back(1, 1.0, ME)
    history = replace(history, revoked=((2, 3),), statistics=Statistics().after(Ran("g", 2.0)))
    assert History.from_bytes(history.to_bytes()) == history
    for bad in (b"", b"null", b"[]", b"{}", history.to_bytes()[:-5]):
        with pytest.raises(ValueError):
            History.from_bytes(bad)


# -- blob first, pointer second ------------------------------------------------------------------------------


class Dying(MemoryObjects):
    """Its process dies as the pointer is to be written."""

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        if name != SCOPES:
            raise SystemExit("killed")
        return super().write_if(name, data, version)


def test_a_death_between_blob_and_pointer_leaves_a_blob_that_nobody_names() -> None:
    objects, store = Dying(), MemoryStore()
    with pytest.raises(SystemExit):
        TimingCaches(objects, store).learn(SCOPE, Lesson(b"{}", ME), combine)
    assert len(list(store.blobs())) == 1
    caches = TimingCaches(objects, store)
    assert caches.named() == set() and caches.latest(SCOPE) is None and caches.scopes() == [SCOPE]


# -- statistics ----------------------------------------------------------------------------------------------


def after(*runs: Ran) -> Statistics:
    statistics = Statistics()
    for run in runs:
        statistics = statistics.after(run)
    return statistics


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([Ran("g", 10.0)], (0, 1, 0, 0, 0.0)),
        ([Ran("g", 10.0), Ran("g", 4.0, 1)], (1, 1, 0, 1, 6.0)),
        ([Ran("g", 10.0), Ran("other", 4.0, 1, 5, 9)], (1, 1, 0, 0, 0.0)),
        ([Ran("g", 4.0), Ran("g", 5.0, 1, 5, 5)], (1, 1, 1, 1, -1.0)),
    ],
    ids=["without", "compared", "nothing to compare with", "slower"],
)
def test_what_is_claimed(runs: list[Ran], expected: tuple[int, int, int, int, float]) -> None:
    told = after(*runs)
    assert (told.from_cache, told.without, told.nothing_new, told.compared, told.saved) == expected


def test_a_build_counts_also_where_it_learned_nothing_new(things: Things) -> None:
    things.learn(a="1")
    lesson = Lesson(cache({"a": "1"}), ME, 1, ran=Ran("g", 1.0, 1, 1, 1))
    assert not things.caches.learn(SCOPE, lesson, no_combine).written
    assert things.caches.history(SCOPE).statistics.nothing_new == 1


def test_statistics_stay_small() -> None:
    assert len(after(*(Ran(f"g{number}", 1.0) for number in range(300))).baselines) == 200


def test_devices_are_told_in_one_word() -> None:
    told = str(Device("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 80, 5, 14, "1g.5gb"))
    assert told == "a100-sm80-14mp-5g-mig.1g.5gb"
