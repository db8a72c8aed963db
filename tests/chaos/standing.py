"""A fleet that stays, so that one fault after another can be tried on it by itself, each in seconds."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from farm.asks import Answer
from farm.errors import FarmError
from tests.chaos import audit
from tests.chaos.faults import Chaos
from tests.chaos.plan import LASTS, Fault, Kind
from tests.chaos.run import ACTIVE, START_S, heal
from tests.chaos.stage import TICK_S, Servers, Stage, Torture
from tests.chaos.work import Fate, Piece, Step, Work

AT_S = 0.5
"""When the fault comes, in seconds after builds were asked for."""
ANSWER_S = 60.0
PIECES = 14
SLOW_PIECES = 4
CLIENTS = frozenset({Kind.KILL_CLIENT, Kind.STOP_CLIENT})
FATES = {Kind.KILL_CHILD: Fate.CHILD, Kind.STOP_CHILD: Fate.CHILD, Kind.STOP_WORKER: Fate.SLOW}
NOBODY = Work((), ())


@dataclass(frozen=True)
class Suffered:
    """``struck``: how often the fault was carried out; ``wrong``: what was not as it must be."""

    struck: int
    wrong: tuple[str, ...]


class Standing:
    """``suffer`` one kind of fault after another."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._pieces: tuple[Piece, ...] = ()
        self._over: Callable[[], object] = lambda: None
        stage.wait(stage.at_work, START_S, lambda: "nothing begins")

    def suffer(self, kind: Kind) -> Suffered:
        """Ask for a few builds, do this to the fleet meanwhile, and audit all that it has done so far."""
        fate = FATES.get(kind, Fate.PLAIN)
        count = SLOW_PIECES if fate is Fate.SLOW else PIECES
        numbers = tuple(range(len(self._pieces), len(self._pieces) + count))
        self._pieces += tuple(Piece(number, fate) for number in numbers)
        everything = tuple(range(len(self._pieces)))
        asked = self._asked(numbers)
        self.stage.wrong.clear()
        done = self._by_client(asked) if kind in CLIENTS else self._by_thread(numbers)
        struck = self._strike(kind, done)
        return Suffered(struck, self._audit(everything if kind is Kind.DAMAGE_ENGINE else numbers))

    def _by_client(self, asked: Work) -> threading.Event:
        """Builds asked for by a process, which may be killed."""
        self.stage.add_clients(asked)
        done = threading.Event()
        self._over = lambda: done.set() if self.stage.fleet.done() else None
        self.stage.wait(self.stage.at_work, START_S, lambda: "the client does not begin")
        return done

    def _by_thread(self, numbers: tuple[int, ...]) -> threading.Event:
        done = threading.Event()
        self._over = lambda: None
        threading.Thread(target=self._ask, args=(numbers, done), daemon=True).start()
        return done

    def _ask(self, numbers: tuple[int, ...], done: threading.Event) -> None:
        try:
            with self.stage.farm() as farm:
                asks = [self._pieces[number].ask(self.stage.scene.programs) for number in numbers]
                for answer in farm.wait(farm.submit(asks), timeout=ANSWER_S):
                    self._answered(answer)
        except FarmError as error:
            self.stage.wrong.append(f"the client was turned away: {error}")
        finally:
            done.set()

    def _answered(self, answer: Answer) -> None:
        if not answer.outcome.has_engine or answer.engine is None:
            self.stage.wrong.append(f"{answer.outcome} after {ANSWER_S:.0f} s at most: {answer.error}")

    def _strike(self, kind: Kind, done: threading.Event) -> int:
        least, most = LASTS.get(kind, (0.0, 0.0))
        fault = Fault(AT_S, kind, (least + most) / 2, 0.4)
        chaos = Chaos(self.stage.ground, self.stage.fleet, [fault], self.stage.begin_reconcile, self.stage.diary)
        began, deadline = time.monotonic(), time.monotonic() + ANSWER_S + fault.lasts
        while not (done.is_set() and chaos.over) and time.monotonic() < deadline:
            chaos.tick(time.monotonic() - began)
            self.stage.fleet.look()
            self._over()
            time.sleep(TICK_S)
        chaos.heal()
        self.stage.end_reconcile()
        if not done.is_set():
            self.stage.wrong.append("nobody was answered")
        return chaos.done[kind]

    def _asked(self, numbers: tuple[int, ...]) -> Work:
        return Work(self._pieces, (((Step("want", numbers, 0.0),),),))

    def _audit(self, suspect: tuple[int, ...]) -> tuple[str, ...]:
        """Look over all that there is; read back, byte by byte, what may be damaged."""
        with self.stage.farm() as farm:
            identities = farm.identify([piece.ask(self.stage.scene.programs) for piece in self._pieces])
            heal(farm, self.stage, self._asked(suspect), suspect)
            self.stage.wait(lambda: not farm.index.builds(states=ACTIVE, limit=1), ANSWER_S, lambda: "builds go on")
        everything = self._asked(tuple(range(len(self._pieces))))
        case = audit.case_of(everything, identities, self.stage.ground.url, self.stage.fleet.clients)
        return (*self.stage.wrong, *audit.all_wrong(case))


@contextlib.contextmanager
def standing(on: Servers, torture: Torture) -> Iterator[Standing]:
    """A fleet without clients of its own, until the end of the block; asserts that it ends well."""
    with contextlib.ExitStack() as stack:
        stage = Stage(replace(torture, clients=0), NOBODY, on, stack)
        yield Standing(stage)
        stage.wrong.clear()
        stage.end()
        stage.reconcile()
        assert not stage.wrong, stage.wrong
