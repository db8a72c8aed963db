"""Runs a search over a sweep's grid: asks for configurations one after another, by what the earlier ones came to.

The sweep's rows are the truth. A process that runs a sweep keeps nothing that it could not read back, so another may go
on where it was killed, or even beside it: trials are appended under their numbers, and of two processes that append the
same one, one is told to look again.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from farm.builds import Build
from farm.errors import BadInput
from farm.index import Sweep
from farm.service import POLL_SECONDS, Farm
from farm.sweeping.measuring import POLL_SECONDS as MEASURING_SECONDS
from farm.sweeping.measuring import Measures
from farm.sweeping.planning import Plan, Planned, builds_of, record_others, submit, trial_of
from farm.sweeping.results import PLANNED, UNASKED, Place, SweepResults, TrialResult, find_sweep, results
from farm.sweeping.stops import Referee, withdraw
from farm.sweeps.grid import PROFILE, effort
from farm.sweeps.objectives import Objective
from farm.sweeps.ranking import Candidate, complete, first_broken, log_score, used_objectives
from farm.sweeps.searches import ALL_TRIED, GRID, TPE, Progress, room, stop_reason

if TYPE_CHECKING:
    from farm.sweeps.tpe import Observation

Watcher = Callable[[Sequence[Build]], None]


@dataclass
class Runner:
    """One process's hold on a searching sweep. ``force`` builds everything again; with ``keep`` the builds stay wanted
    when this process is interrupted."""

    farm: Farm
    plan: Plan
    sweep: str
    force: bool = False
    keep: bool = False
    on_change: Watcher = lambda builds: None
    _studies: dict[tuple[Place, tuple[str, ...]], object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_number = {item.configuration.number: item for item in self.plan.planned}
        self._alike: dict[int, list[Planned]] = {}
        for item in self.plan.planned:
            if item.identity is not None:
                self._alike.setdefault(item.same_as or item.configuration.number, []).append(item)
        self._ended: dict[str, Build] = {}
        self._worth = [item for item in self.plan.distinct if not item.refused]

    def run(self) -> SweepResults:
        """Search until there is a reason to stop and nothing builds any more; the results. May be called again."""
        sweep = find_sweep(self.farm, self.sweep)
        referee, measures = Referee(self.farm, sweep), Measures(self.farm, sweep)
        if not sweep.cancelled:
            self._ask_what_was_planned(sweep)
        while True:
            found = results(self.farm, find_sweep(self.farm, self.sweep))
            active = {r.trial.build for r in found.distinct if r.outcome in ("queued", "running") and r.trial.build}
            underway = measures.ask(found)
            if not self._go_on(found, len(active)):
                if not active and not underway:
                    return results(self.farm, find_sweep(self.farm, self.sweep))
                self._wait_for_one(active, referee, underway)
            elif not self._ask_for_more(found, len(active) + underway):
                if active or underway:
                    self._wait_for_one(active, referee, underway)
                else:
                    self.farm.index.end_sweep(self.sweep, ALL_TRIED)

    def _go_on(self, found: SweepResults, active: int) -> bool:
        """Whether more may be tried; where not, that is written down, and what still builds in vain is given up."""
        if found.sweep.cancelled or found.ended:
            return False
        why = stop_reason(self.plan.spec.search, self._progress(found))
        if not why:
            return True
        self.farm.index.end_sweep(self.sweep, why)
        if active and ("improved nothing" in why or "minutes" in why):
            builds = [r.trial.build for r in found.distinct if r.outcome in ("queued", "running") and r.trial.build]
            withdraw(self.farm, self.sweep, builds, f"given up: {why}")
        return False

    def _progress(self, found: SweepResults) -> Progress:
        tried = {result.trial.number: result for result in found.distinct}
        free = [item for item in self._worth if self._is_free(item)]
        # What is there already costs nothing, and counts for nothing.
        mine = [result for number, result in tried.items() if result.outcome != "hit"]
        running = sum(time.time() - b.started for b in self._running(mine) if b.started)
        return Progress(
            tried=len(mine),
            size=len(self._worth) - len(free),
            builds=sum(result.trial.build is not None for result in mine),
            seconds=found.spent + max(0.0, running),
            stale=stale(found, self.plan.spec.objectives, self._excluded),
        )

    def _is_free(self, item: Planned) -> bool:
        return item.cached and not self.force

    def _running(self, some: Sequence[TrialResult]) -> list[Build]:
        if self.plan.spec.search.minutes is None:
            return []
        return builds_of(self.farm, {r.trial.build for r in some if r.outcome == "running" and r.trial.build})

    def _excluded(self, result: TrialResult) -> bool:
        return first_broken(result.values, self.plan.spec.constraints) is not None

    # -- asking --------------------------------------------------------------------------------------------------

    def _ask_what_was_planned(self, sweep: Sweep) -> None:
        """Submit trials that were appended and never submitted, or were withdrawn: whoever did so is gone."""
        found = results(self.farm, sweep)
        numbers = {result.trial.number for result in found.distinct if result.outcome in UNASKED}
        self._submit([self._by_number[number] for number in sorted(numbers)])

    def _ask_for_more(self, found: SweepResults, active: int) -> bool:
        """Append and submit as many trials as there are hands free; False when there was nothing to ask for."""
        tried = {result.trial.number for result in found.trials}
        first = [item for item in self._worth if self._is_free(item) and item.configuration.number not in tried]
        count = room(self.plan.spec.search, self._progress(found), self._hands(), active)
        chosen = [*first, *self._choose(found, tried | {item.configuration.number for item in first}, count)]
        if not chosen:
            return False
        if self._append(chosen):
            self._submit([item for item in chosen if item not in first])
        return True

    def _append(self, chosen: Sequence[Planned]) -> bool:
        """Write down the chosen configurations, with those that are equal to them in effect."""
        alike = [item for one in chosen for item in self._alike[one.configuration.number]]
        free = {item.configuration.number for item in chosen if self._is_free(item)}
        trials = [trial_of(one, self.plan, {}, (one.same_as or one.configuration.number) not in free) for one in alike]
        return self.farm.index.add_trials(self.sweep, sorted(trials, key=lambda trial: trial.number))

    def _submit(self, chosen: Sequence[Planned]) -> None:
        if not chosen:
            return
        answers = submit(self.farm, self.sweep, chosen, force=self.force, keep=self.keep)
        alike = [item for one in chosen for item in self._alike[one.configuration.number]]
        record_others(self.farm, alike, answers)
        self.farm.index.change_trials(self.sweep, [trial_of(item, self.plan, answers) for item in alike])

    def _hands(self) -> int:
        """Builds that may run at once: by this process where it builds itself, else by the workers that are there."""
        if self.farm.config.embedded:
            return self.farm.config.workers
        queues = {item.identity.capability for item in self._worth if item.identity}
        seats = [seat for seat in self.farm.index.seats() if seat.fresh and not seat.aside]
        return max(1, sum(seat.slots for seat in seats if queues & set(seat.capabilities)))

    def _wait_for_one(self, active: Collection[str], referee: Referee, underway: int) -> None:
        """Wait until one of these builds has ended, or for a moment where something is being measured."""
        self.farm.dispatch.start()
        while True:
            builds = self.farm.glance(active)
            referee(builds)
            self._ended |= {build.id: build for build in builds if not build.state.active}
            self.on_change([*(build for build in builds if build.state.active), *self._ended.values()])
            if len(builds) < len(active) or any(not build.state.active for build in builds):
                return
            time.sleep(MEASURING_SECONDS if underway else POLL_SECONDS)
            if underway:
                return

    # -- choosing ------------------------------------------------------------------------------------------------

    def _choose(self, found: SweepResults, tried: Collection[int], count: int) -> list[Planned]:
        """The configurations to try next; the places take turns."""
        untried: dict[Place, list[int]] = {}
        for item in self._worth:
            number = item.configuration.number
            if number not in tried and not self._is_free(item):
                untried.setdefault(self._place(number), []).append(number)
        turns = Counter(dict.fromkeys(untried, 0))
        turns.update(p for r in found.distinct if (p := self._place(r.trial.number)) in untried)
        chosen: list[Planned] = []
        while untried and len(chosen) < count:
            place = min(untried, key=lambda place: turns[place])
            number = self._pick(place, found, untried[place])
            untried[place].remove(number)
            turns[place] += 1
            if not untried[place]:
                del untried[place]
            chosen.append(self._by_number[number])
        return chosen

    def _place(self, number: int) -> Place:
        """As ``TrialResult.place``, by the target as it was asked for."""
        configuration = self._by_number[number].configuration
        return configuration.model.path, configuration.target, str(configuration.varied.get(PROFILE) or "")

    def _pick(self, place: Place, found: SweepResults, untried: Sequence[int]) -> int:
        search = self.plan.spec.search
        if search.kind == GRID:
            return min(untried, key=lambda number: (effort(self._by_number[number].configuration), number))
        if search.kind == TPE:
            return self._by_tpe(place, found, untried)
        everything = sorted(self._by_number)
        random.Random(search.seed).shuffle(everything)
        places = {number: at for at, number in enumerate(everything)}
        return min(untried, key=lambda number: places[number])

    def _by_tpe(self, place: Place, found: SweepResults, untried: Sequence[int]) -> int:
        from farm.sweeps.tpe import Study

        mine = [result for result in found.distinct if self._place(result.trial.number) == place]
        used = used_objectives(candidates_of(mine), self.plan.spec.objectives)
        names = tuple(one.metric.name for one in used)
        study = self._studies.get((place, names))
        if not isinstance(study, Study):
            points = {
                number: item.configuration.varied
                for number, item in self._by_number.items()
                if self._place(number) == place
            }
            axes = len(self._axes(used)) or 1
            study = Study(self.plan.spec.dimensions, points, axes, self.plan.spec.search.seed + len(found.trials))
            self._studies = {key: value for key, value in self._studies.items() if key[0] != place}
            self._studies[place, names] = study
        study.learn([self._observed(result, used) for result in mine])
        return study.propose(set(untried))

    def _axes(self, used: Sequence[Objective]) -> Sequence[Sequence[Objective]]:
        """What TPE makes small: one score where there are weights, else each objective on its own."""
        return [used] if any(one.weight is not None for one in used) else [[one] for one in used]

    def _observed(self, result: TrialResult, used: Sequence[Objective]) -> Observation:
        from farm.sweeps.tpe import Observation

        point = self._by_number[result.trial.number].configuration.varied
        values = result.values
        if not result.engine or not used or not complete(values, used):
            failed = result.outcome in ("failed", "cancelled", "stopped", "missing")
            return Observation(result.trial.number, point, failed=failed)
        costs = tuple(log_score(values, axis) for axis in self._axes(used))
        excess = tuple(one.excess(values[one.metric.name]) if one.metric.name in values else 0.0
                       for one in self.plan.spec.constraints)  # fmt: skip
        return Observation(result.trial.number, point, costs, excess)


def candidates_of(some: Sequence[TrialResult]) -> list[Candidate]:
    """What has an engine, to be ranked."""
    return [
        Candidate(one.trial.number, one.values, one.trial.settings, one.measured.spread if one.measured else 0.0)
        for one in some
        if one.engine
    ]


def stale(found: SweepResults, objectives: Sequence[Objective], excluded: Callable[[TrialResult], bool]) -> int:
    """How many builds have ended since the last that improved its place's best score."""
    used: Mapping[Place, Sequence[Objective]] = {
        place: used_objectives(candidates_of([r for r in found.distinct if r.place == place]), objectives)
        for place in {result.place for result in found.distinct}
    }
    best: dict[Place, float] = {}
    count = 0
    for result in sorted(found.distinct, key=lambda one: (one.finished, one.trial.number)):
        if result.outcome in ("queued", "running", PLANNED):
            continue
        mine = used[result.place]
        good = result.engine and mine and complete(result.values, mine) and not excluded(result)
        score = log_score(result.values, mine) if good else None
        if score is not None and score < best.get(result.place, float("inf")) - 1e-9:
            best[result.place] = score
            count = 0
        elif result.outcome != "hit":
            count += 1
    return count


def check_same(plan: Plan, sweep: Sweep) -> None:
    """``BadInput`` when a model has changed since the sweep began: its new trials would be of another program."""
    recipes = {item.configuration.number: item.identity.recipe for item in plan.planned if item.identity}
    for trial in sweep.trials:
        if trial.recipe and recipes.get(trial.number) not in (None, trial.recipe):
            raise BadInput(
                f"{trial.model} for {trial.target} is not what it was when sweep {sweep.id} began",
                "put the old file back, or ask for a new sweep",
            )
