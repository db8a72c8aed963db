"""``python -m tests.chaos.client``: somebody who asks a tortured fleet for engines, and reads them back.

Its steps come as JSON on standard input, its diary says what it asked, what it was answered and in what words it was
turned away. Killed and started again, it goes on with the step at which it was killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from farm.asks import Answer, Ask, Outcome
from farm.builds import FailureKind
from farm.config import load
from farm.errors import CorruptBlob, FarmError, Missing
from farm.index import Found
from farm.service import Farm
from tests.chaos.spoken import Diary, read
from tests.chaos.twice import send_twice
from tests.chaos.work import Fate, Piece, Step, plan_for

T = TypeVar("T")

ROUNDS = 25
PAUSE_S = 0.5
WAIT_S = 150.0
READ_AT_ONCE = 4


class Lane:
    """One thread's work, with a farm of its own."""

    def __init__(self, name: str, pieces: Sequence[Piece], programs: Path, diary: Diary) -> None:
        self.name, self.pieces, self.programs, self.diary = name, pieces, programs, diary
        self.farm = Farm.open(load())

    def run(self, steps: Sequence[Step], done: int) -> None:
        """The steps from number ``done`` on."""
        for number, step in enumerate(steps[done:], done):
            time.sleep(step.pause)
            getattr(self, f"_{step.kind}")(step.numbers)
            self.diary.write("step", lane=self.name, number=number)

    def _asks(self, numbers: Sequence[int]) -> list[Ask]:
        return [self.pieces[number].ask(self.programs) for number in numbers]

    # -- kinds of steps ----------------------------------------------------------------------------------------

    def _want(self, numbers: Sequence[int]) -> None:
        """Ask again until each has its engine, or can have none."""
        left = list(numbers)
        for _ in range(ROUNDS):
            answers = self._said("want", partial(self._ask_and_wait, left))
            if answers is None:
                time.sleep(PAUSE_S)
                continue
            left = [number for number, answer in zip(left, answers, strict=True) if not self._settled(answer)]
            if not left:
                return
        self.diary.write("given up", numbers=left)

    def _ask_and_wait(self, numbers: Sequence[int]) -> list[Answer]:
        answers = self._accepted(numbers, self.farm.submit(self._asks(numbers)))
        answers = self.farm.wait(answers, timeout=WAIT_S)
        for number, answer in zip(numbers, answers, strict=True):
            self._check(number, answer)
        return answers

    def _settled(self, answer: Answer) -> bool:
        """Whether there is nothing more to ask. What failed for a reason that may pass is asked for again, as
        ``farm retry`` does where its failure is remembered."""
        if answer.outcome is not Outcome.FAILED:
            return answer.outcome.has_engine
        build = self._said("look", lambda: self.farm.index.build(answer.build or ""))
        if build is None or build.failure is None:
            return False
        if build.failure.kind is FailureKind.LOST:
            self.diary.write("retry", build=build.id)
            self._said("retry", lambda: self.farm.retry(build.id))
        return build.failure.kind is FailureKind.PERMANENT

    def _keep(self, numbers: Sequence[int]) -> None:
        for _ in range(ROUNDS):
            answers = self._said("keep", lambda: self.farm.submit(self._asks(numbers), keep=True))
            if answers is not None:
                self._accepted(numbers, answers)
                return
            time.sleep(PAUSE_S)
        self.diary.write("given up", numbers=list(numbers))

    def _leave(self, numbers: Sequence[int]) -> None:
        """As somebody who presses Ctrl-C: a farm of its own, whose waiter is nobody else."""
        opened = self._said("leave", lambda: Farm.open(load()))
        if opened is None:
            return
        with opened as farm:
            self.diary.write("leaving", waiter=farm.waiter, numbers=list(numbers))
            answers = self._said("leave", lambda: farm.submit(self._asks(numbers)))
            if answers is None:
                return
            self._accepted(numbers, answers)
            time.sleep(random.uniform(0.0, 1.5))
            for _ in range(ROUNDS):
                if self._said("leave", farm.abandon) is not None:
                    return
                time.sleep(PAUSE_S)

    def _cancel(self, numbers: Sequence[int]) -> None:
        answers = self._said("cancel", lambda: self.farm.submit(self._asks(numbers)))
        if answers is None:
            return
        self._accepted(numbers, answers)
        time.sleep(random.uniform(0.0, 0.8))
        for answer in answers:
            if answer.build:
                self.diary.write("cancelling", build=answer.build)
                self._said("cancel", partial(self.farm.cancel, answer.build))

    # -- reading -----------------------------------------------------------------------------------------------

    def read_until(self, over: threading.Event, folder: Path) -> None:
        """Look engines up and read them, whatever they may be, and compare each byte."""
        draws = random.Random()
        dest = folder / f"{self.name}.plan"
        while not over.wait(draws.uniform(0.05, 0.6)):
            numbers = draws.sample(range(len(self.pieces)), min(READ_AT_ONCE, len(self.pieces)))
            found = self._said("read", partial(self.farm.look, self._asks(numbers)))
            for number, (identity, hit) in zip(numbers, found or (), strict=False):
                if isinstance(hit, Found):
                    self._fetch(number, plan_for(identity), hit, dest)

    def _fetch(self, number: int, expected: bytes, hit: Found, dest: Path) -> None:
        try:
            self.farm.cache.fetch(hit.engine, dest)
        except (CorruptBlob, Missing) as error:
            self.diary.write("refused", number=number, type=type(error).__name__)
        except FarmError as error:
            self.diary.write("error", doing="fetch", type=type(error).__name__, message=error.message)
        else:
            right = dest.read_bytes() == expected
            self.diary.write("served" if right else "WRONG BYTES", number=number, digest=hit.engine.digest)

    # -- saying ------------------------------------------------------------------------------------------------

    def _accepted(self, numbers: Sequence[int], answers: list[Answer]) -> list[Answer]:
        """Write down what was accepted: from now on it must not get lost."""
        for number, answer in zip(numbers, answers, strict=True):
            self.diary.write(
                "accepted",
                number=number,
                build=answer.build,
                outcome=str(answer.outcome),
                recipe=answer.identity.recipe,
            )
        return answers

    def _check(self, number: int, answer: Answer) -> None:
        """Hold an answer to what its piece must be."""
        expected = "sha256:" + hashlib.sha256(plan_for(answer.identity)).hexdigest()
        wrong = answer.engine is not None and answer.outcome.has_engine and answer.engine.digest != expected
        if wrong or (answer.outcome.has_engine and self.pieces[number].fate is Fate.POISON):
            self.diary.write("WRONG ANSWER", number=number, build=answer.build, outcome=str(answer.outcome))
        if answer.outcome is Outcome.FAILED and not answer.error:
            self.diary.write("NO REASON", number=number, build=answer.build)
        unanswered = answer.outcome in (Outcome.QUEUED, Outcome.JOINED) and answer.engine is None
        kind = "UNANSWERED" if unanswered else "answer"
        self.diary.write(kind, number=number, build=answer.build, outcome=str(answer.outcome), error=answer.error)

    def _said(self, doing: str, act: Callable[[], T]) -> T | None:
        """What ``act`` gives; ``None`` where it was turned away in words, which are written down."""
        try:
            return act()
        except FarmError as error:
            self.diary.write("error", doing=doing, type=type(error).__name__, message=error.message)
            return None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("diary", type=Path)
    parser.add_argument("programs", type=Path)
    parser.add_argument("--twice", action="store_true")
    given = parser.parse_args()
    if given.twice:
        send_twice()
    told = json.load(sys.stdin)
    pieces = [Piece(number, Fate(fate)) for number, fate in told["pieces"]]
    lanes = [[Step(kind, tuple(numbers), pause) for kind, numbers, pause in steps] for steps in told["lanes"]]
    done = {str(entry["lane"]): int(entry["number"]) + 1 for entry in read(given.diary) if entry["kind"] == "step"}
    diary = Diary(given.diary)
    return run(lanes, done, diary, lambda name: Lane(name, pieces, given.programs, diary))


def run(lanes: Sequence[Sequence[Step]], done: dict[str, int], diary: Diary, make: Callable[[str], Lane]) -> int:
    """All lanes at once, and a reader beside them. 0 when every one got to its end."""
    over, broken = threading.Event(), threading.Event()

    def guarded(name: str, act: Callable[[Lane], None]) -> None:
        try:
            while True:
                try:
                    lane = make(name)
                    break
                except FarmError as error:
                    diary.write("error", doing="open", type=type(error).__name__, message=error.message)
                    time.sleep(PAUSE_S)
            act(lane)
            lane.farm.close()
        except BaseException as error:
            diary.write("DEFECT", type=type(error).__name__, message=str(error))
            broken.set()
            raise

    folder = Path.cwd()
    reader = threading.Thread(target=guarded, args=("reader", lambda lane: lane.read_until(over, folder)))
    threads = [
        threading.Thread(target=guarded, args=(str(n), lambda lane, n=n: lane.run(lanes[n], done.get(str(n), 0))))
        for n in range(len(lanes))
    ]
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    reader.join()
    if not broken.is_set():
        diary.write("done")
    return int(broken.is_set())


if __name__ == "__main__":
    sys.exit(main())
