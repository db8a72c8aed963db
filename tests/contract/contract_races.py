"""Many threads and processes at one index: what must hold whoever comes first, and whoever dies."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from index_things import ABLE, EXPIRED, TTL, claim, engine_of, kinds, lease, queued, request, state, take

from farm.builds import BuildState
from farm.errors import LeaseLost
from farm.index import Claimed, Index

THREADS = 8
PROCESSES = 4


def together(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Run ``work(n)`` in ``count`` threads that start at one instant; their results, or the first error."""
    gate = threading.Barrier(count)
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            gate.wait(30)
            results[number] = work(number)
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    return results


PREAMBLE = """
import sys, time, random
sys.path.insert(0, sys.argv[2])
from index_things import *
from farm.db.index import SqlIndex
index = SqlIndex(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""


class Child:
    """A process with an index of its own; it starts to work when told ``go``."""

    def __init__(self, url: str, body: str) -> None:
        here = str(Path(__file__).parent)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + body, url, here],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.expect("open")

    def expect(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == line

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def answer(self) -> list[str]:
        out, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0
        return out.split()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=30)


class RacesContract:
    """Inherit, and give the fixtures ``index`` and ``url``."""

    def test_many_threads_asking_for_one_recipe_get_one_build(self, index: Index) -> None:
        claims = together(lambda n: claim(index, waiter=f"w{n}"))
        assert Counter(one.outcome for one in claims) == {Claimed.NEW: 1, Claimed.JOINED: THREADS - 1}
        (build,) = index.builds()
        assert {one.build.id for one in claims} == {build.id} and build.waiters == THREADS

    def test_many_processes_asking_for_the_same_recipes_get_one_build_each(self, index: Index, url: str) -> None:
        body = """
names = list(range(25))
random.shuffle(names)
for at in range(0, 25, 5):
    for one in index.claim_or_join([request(name) for name in names[at:at + 5]], f"w{random.random()}"):
        print(one.build.id)
"""
        children = [Child(url, body) for _ in range(PROCESSES)]
        for child in children:
            child.go()
        answers = [set(child.answer()) for child in children]
        assert len(index.builds()) == 25
        assert all(answer == {build.id for build in index.builds()} for answer in answers)
        assert {build.waiters for build in index.builds()} >= {PROCESSES}

    def test_no_build_is_leased_twice(self, index: Index) -> None:
        index.claim_or_join([request(n) for n in range(40)], "me")

        def work(number: int) -> list[str]:
            taken = []
            while given := take(index, f"w{number}", ABLE, TTL):
                taken.append(given.build.id)
            return taken

        taken = [build for builds in together(work) for build in builds]
        assert len(taken) == len(set(taken)) == 40

    def test_every_build_is_leased_though_others_join_it_meanwhile(self, index: Index) -> None:
        """A row that a joiner holds for a moment must not look like nothing to do."""
        index.claim_or_join([request(n) for n in range(20)], "me")
        done = threading.Event()

        def work(number: int) -> int:
            if number:
                while not done.is_set():
                    index.claim_or_join([request(n) for n in range(20)], f"w{number}")
                return 0
            try:
                return sum(take(index, "w", ABLE, TTL) is not None for _ in range(20))
            finally:
                done.set()

        assert sum(together(work, 3)) == 20

    def test_asking_while_it_succeeds_never_builds_twice(self, index: Index) -> None:
        """Between a look that finds no engine and the insert of a build, the engine may appear."""
        rounds = 25

        def work(number: int) -> None:
            for n in range(rounds):
                if number:
                    claim(index, request(n), f"w{number}")
                    continue
                build = None
                while build is None:
                    build = take(index, "w", ABLE, TTL)
                index.succeed(build, engine_of(build))

        together(work, 3)
        assert Counter(build.request.recipe for build in index.builds()) == {
            request(n).recipe: 1 for n in range(rounds)
        }
        assert {build.state for build in index.builds()} == {BuildState.SUCCEEDED}

    def test_who_joins_as_the_last_one_leaves_still_gets_it(self, index: Index) -> None:
        for round_ in range(15):
            queued(index, request(round_), waiter="leaver")

            def work(number: int, round_: int = round_) -> Any:
                return claim(index, request(round_), "joiner") if number else index.leave("leaver")

            _, joined = together(work, 2)
            assert state(index, joined.build.id) == "queued"
            assert index.build(joined.build.id).waiters == 1
            index.leave("joiner")

    def test_joining_and_leaving_at_random_cancels_nothing_that_is_waited_for(self, index: Index) -> None:
        def work(number: int) -> list[str]:
            dice = random.Random(number)
            kept = []
            for _ in range(12):
                names = dice.sample(range(6), 3)
                claims = index.claim_or_join([request(name) for name in names], f"w{number}")
                if dice.random() < 0.5:
                    index.leave(f"w{number}")
                    kept = []
                else:
                    kept += [one.build.id for one in claims]
            return kept

        kept = {build for builds in together(work, 4) for build in builds}
        assert {build.state for build in index.builds(ids=kept)} <= {BuildState.QUEUED}
        assert all(build.waiters > 0 for build in index.builds(states=[BuildState.QUEUED]))

    def test_one_finisher_wins(self, index: Index) -> None:
        queued(index)
        given = lease(index)

        def work(number: int) -> bool:
            try:
                index.succeed(given, engine_of(given, number))
            except LeaseLost:
                return False
            return True

        assert sum(together(work)) == 1
        (engine,) = index.engines()
        (build,) = index.builds()
        assert build.engine == engine.digest

    def test_reapers_and_late_workers_agree(self, index: Index) -> None:
        """A build whose lease is over is finished by its worker or made again, never both."""
        for round_ in range(10):
            build = queued(index, request(round_))
            late = lease(index, ttl=EXPIRED)

            def work(number: int, late: Any = late) -> Any:
                if number:
                    return len(index.reap())
                try:
                    index.succeed(late, engine_of(late))
                except LeaseLost:
                    return "lost"
                return "done"

            said, *reaped = together(work, 3)
            assert (said, sum(reaped)) in (("done", 0), ("lost", 1))
            assert state(index, build.id) == ("succeeded" if said == "done" else "queued")
            index.leave("me")

    def test_counters_lose_nothing(self, index: Index) -> None:
        together(lambda n: [index.count("hit", {"n": 1, "seconds": 0.5}) for _ in range(10)])
        assert index.stats()["counters"]["hit"] == {"n": THREADS * 10, "seconds": THREADS * 5.0}

    def test_logs_of_one_build_keep_every_piece(self, index: Index) -> None:
        build = queued(index)
        given = lease(index)
        together(lambda n: [index.append_log(given, f"{n}-{line}\n") for line in range(10)])
        text, position = index.log(build.id)
        assert position == len(text) and len(set(text.split())) == THREADS * 10

    # -- deaths ------------------------------------------------------------------------------------------------

    @pytest.mark.chaos
    def test_killed_inside_a_transaction_it_leaves_nothing(self, index: Index, url: str) -> None:
        body = """
def work(connection):
    from farm.db.claims import Claiming
    Claiming(index, connection, "victim", False).settle([request(n) for n in range(5)])
    print("inside", flush=True)
    time.sleep(600)
index.db.run(work, writes=True)
"""
        child = Child(url, body)
        child.go()
        child.expect("inside")
        child.kill()
        assert index.builds() == []
        claims = index.claim_or_join([request(n) for n in range(5)], "me")
        assert {one.outcome for one in claims} == {Claimed.NEW}

    @pytest.mark.chaos
    def test_killed_with_a_lease_its_build_is_made_again(self, index: Index, url: str) -> None:
        build = queued(index)
        child = Child(url, 'print(lease(index, "victim").build.id, flush=True); time.sleep(600)')
        child.go()
        child.expect(build.id)
        child.kill()
        assert take(index, "w2", ABLE, TTL) is None
        assert [one.id for one in index.reap(["victim"])] == [build.id]
        again = lease(index, "w2")
        index.succeed(again, engine_of(again))
        assert kinds(index, build.id) == ["queued", "leased", "requeued", "leased", "succeeded"]

    @pytest.mark.chaos
    def test_killed_at_random_points_the_rest_stays_whole(self, index: Index, url: str) -> None:
        """Processes that claim, lease and finish, killed anywhere: what is left obeys every rule."""
        body = """
seed = random.random()
for n in range(100000):
    index.claim_or_join([request(random.randrange(30))], f"w{seed}")
    given = take(index, f"w{seed}", ABLE, 3600.0)
    if given:
        index.append_log(given, "line\\n")
        index.succeed(given, engine_of(given))
    if n == 3:
        print("busy", flush=True)
"""
        children = [Child(url, body) for _ in range(2)]
        for child in children:
            child.go()
        for child in children:
            child.expect("busy")
            child.kill()
        for build in index.builds():
            events = kinds(index, build.id)
            assert events[0] == "queued"
            assert (build.state is BuildState.SUCCEEDED) == (events[-1] == "succeeded")
        recipes = Counter(build.request.recipe for build in index.builds() if build.state is BuildState.SUCCEEDED)
        assert set(recipes.values()) == {1}
        assert {engine.recipe for engine in index.engines()} == set(recipes)
        index.claim_or_join([request(n) for n in range(30)], "me")
        while given := take(index, "w", ABLE, TTL):
            index.succeed(given, engine_of(given))
        assert len(index.engines()) + len(index.builds(states=[BuildState.RUNNING])) == 30
