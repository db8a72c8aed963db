"""One run: a fleet is set up, asked for engines, tortured, left in peace, asked once more, audited."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from farm.asks import Answer, Identity
from farm.builds import BuildState, FailureKind
from farm.errors import CorruptBlob, FarmError, Missing
from farm.index import Found
from farm.service import Farm
from tests.chaos import audit
from tests.chaos.faults import Chaos
from tests.chaos.plan import Kind, plan
from tests.chaos.stage import TICK_S, Servers, Stage, Torture
from tests.chaos.work import Fate, Work, plan_for, work

START_S = 60.0
REST_S = 180.0
"""Within so many seconds after the last fault everybody must have an answer."""
HEALING_ROUNDS = 6
HEAL_S = 60.0
ACTIVE = (BuildState.QUEUED, BuildState.RUNNING)


@dataclass(frozen=True)
class Verdict:
    """``wrong`` is empty when all is as it must be. ``phases``: seconds of start, torture, rest and audit."""

    wrong: tuple[str, ...]
    faults: Counter[Kind]
    figures: Mapping[str, int]
    phases: tuple[float, ...]


def run(torture: Torture, on: Servers, keep: Path | None = None) -> Verdict:
    """Set up, torture, audit. ``keep``: where the diaries and logs go when something is wrong."""
    asked = work(torture.seed, torture.builds, torture.clients, pause=torture.pause)
    with contextlib.ExitStack() as stack:
        stage = Stage(torture, asked, on, stack)
        verdict = _Run(torture, asked, stage).verdict()
        if verdict.wrong and keep is not None:
            what = shutil.ignore_patterns("store", "home", "*.so")
            shutil.copytree(stage.folder, keep / stage.folder.name, ignore=what)
        return verdict


class _Run:
    def __init__(self, torture: Torture, asked: Work, stage: Stage) -> None:
        self.torture, self.work, self.stage, self.fleet = torture, asked, stage, stage.fleet

    def verdict(self) -> Verdict:
        began = time.monotonic()
        self.stage.wait(self.stage.at_work, START_S, lambda: "nothing begins")
        tortured = time.monotonic()
        faults = self._torture()
        rested = time.monotonic()
        self.stage.wait(self.fleet.done, REST_S, lambda: f"clients are not done: {self._unfinished()}")
        with self.stage.farm() as farm:
            identities = farm.identify([piece.ask(self.stage.scene.programs) for piece in self.work.pieces])
            self._settle(farm)
            self.stage.wait(self.stage.staffed, START_S, lambda: "not every worker comes up again")
            quiet = time.monotonic()
            healed = heal(farm, self.stage, self.work, range(len(self.work.pieces)))
        self.stage.end()
        collected = self.stage.reconcile()
        case = audit.case_of(self.work, identities, self.stage.ground.url, self.fleet.clients)
        wrong = (*self.stage.wrong, *audit.all_wrong(case))
        figures = audit.figures(case) | {"healed": healed, "orphans collected": collected}
        phases = (tortured - began, rested - tortured, quiet - rested, time.monotonic() - quiet)
        return Verdict(wrong, faults, figures, phases)

    def _torture(self) -> Counter[Kind]:
        kinds = self.torture.kinds & self.stage.ground.possible()
        faults = plan(self.torture.seed, kinds, self.torture.seconds, self.torture.haste)
        chaos = Chaos(self.stage.ground, self.fleet, faults, self.stage.begin_reconcile, self.stage.diary)
        began = time.monotonic()
        try:
            # Faults that nobody meets are none.
            while (now := time.monotonic() - began) < self.torture.seconds and not self.fleet.done():
                chaos.tick(now)
                self.fleet.look()
                time.sleep(TICK_S)
        finally:
            chaos.heal()
        return chaos.done

    def _unfinished(self) -> list[str]:
        return [member.name for member in self.fleet.clients if not member.ended()]

    def _settle(self, farm: Farm) -> None:
        """Let the builds end that nobody waits for."""

        def nothing_left() -> bool:
            with contextlib.suppress(FarmError):
                return not farm.index.builds(states=ACTIVE, limit=1)
            return False

        self.stage.wait(nothing_left, REST_S, lambda: f"builds do not end: {farm.index.builds(states=ACTIVE, limit=5)}")


def heal(farm: Farm, stage: Stage, asked: Work, suspect: Collection[int]) -> int:
    """Look at the engines of ``suspect`` and ask once more for those that must be there, as a user would: what was
    damaged is found out, and made again. How many were."""
    programs = stage.scene.programs
    asks = {n: asked.pieces[n].ask(programs) for n in suspect if asked.pieces[n].fate is not Fate.POISON}
    healed = 0
    for _ in range(HEALING_ROUNDS):
        looks = dict(zip(asks, farm.look(list(asks.values())), strict=True))
        unsound = {n for n, (identity, found) in looks.items() if not sound(farm, stage, identity, found)}
        missing = sorted(unsound & asked.wanted)
        if not missing:
            return healed
        healed += len(missing)
        retry_lost(farm, farm.wait(farm.submit([asks[n] for n in missing]), timeout=HEAL_S))
    stage.wrong.append(f"pieces {missing} cannot be had")
    return healed


def retry_lost(farm: Farm, answers: Iterable[Answer]) -> None:
    """``farm retry`` for what is set aside because it took down every worker that tried: here faults did."""
    for answer in answers:
        build = farm.index.build(answer.build or "")
        if build is not None and build.failure is not None and build.failure.kind is FailureKind.LOST:
            farm.retry(build.id)


def sound(farm: Farm, stage: Stage, identity: Identity, found: object) -> bool:
    """Whether the engine is there, and right."""
    if not isinstance(found, Found):
        return False
    dest = stage.folder / "auditor.plan"
    try:
        farm.cache.fetch(found.engine, dest)
    except (CorruptBlob, Missing):
        return False
    if dest.read_bytes() != plan_for(identity):
        stage.wrong.append(f"the auditor was served wrong bytes for {identity.recipe}")
    return True
