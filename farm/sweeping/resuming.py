"""Goes on with a sweep whose client is gone: what builds is waited for, and what is missing asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from farm.builds import Build
from farm.errors import BadInput
from farm.index import Sweep
from farm.remaking import answer_of
from farm.service import Farm
from farm.sweeping.planning import Plan, Started, builds_of, plan, record_others, submit, trial_of, wait
from farm.sweeping.results import UNASKED, SweepResults, results
from farm.sweeping.searching import Runner, check_same
from farm.sweeps.grid import SweptModel
from farm.sweeps.spec import search_of, spec_of

Watcher = Callable[[Sequence[Build]], None]


def resume(farm: Farm, sweep: Sweep, on_change: Watcher = lambda builds: None) -> SweepResults:
    """Bring a sweep to its end, from any process and any folder; its results. Interrupted, it leaves it to others.

    ``BadInput`` for one that was cancelled, whose models have changed or gone, or that an older farm stored."""
    if sweep.cancelled:
        raise BadInput(f"sweep {sweep.id} was cancelled", f"'farm sweep retry {sweep.id}' builds what it lacks")
    found = results(farm, sweep)
    if search_of(sweep.spec).stepwise:
        return Runner(farm, _plan_again(farm, sweep), sweep.id, keep=True, on_change=on_change).run()
    if not found.trials or any(result.outcome in UNASKED for result in found.trials):
        sweep = _submit_rest(farm, sweep, found)
    return watch(farm, sweep, on_change)


def watch(farm: Farm, sweep: Sweep, on_change: Watcher = lambda builds: None) -> SweepResults:
    """Wait for the builds that a sweep has now, without asking for more; its results. Where this process builds itself,
    it builds them."""
    builds = builds_of(farm, {trial.build for trial in sweep.trials if trial.build})
    answers = tuple(answer_of(build) for build in builds if build.state.active)
    return wait(farm, Started(sweep, answers), on_change)


def _submit_rest(farm: Farm, sweep: Sweep, found: SweepResults) -> Sweep:
    """Submit the trials that were withdrawn; all of a sweep whose trials were never stored."""
    numbers = {result.trial.number for result in found.trials if result.outcome in UNASKED}
    again = _plan_again(farm, sweep)
    mine = [item for item in again.planned if not found.trials or item.configuration.number in numbers]
    firsts = {item.same_as or item.configuration.number for item in mine}
    wanted = [item for item in again.distinct if item.configuration.number in firsts and not item.cached]
    answers = submit(farm, sweep.id, wanted, keep=True)
    record_others(farm, mine, answers)
    made = {item.configuration.number: trial_of(item, again, answers) for item in mine}
    kept = {trial.number: trial for trial in sweep.trials}
    changed = replace(sweep, trials=tuple((kept | made).values()))
    farm.index.put_sweep(changed)
    return changed


def _plan_again(farm: Farm, sweep: Sweep) -> Plan:
    """The sweep's plan, from what it stored of itself."""
    spec = spec_of(sweep.spec)
    folder = Path(sweep.spec["asked"]["folder"])
    found = plan(farm, replace(spec, models=tuple(_found(model, folder) for model in spec.models)))
    check_same(found, sweep)
    return found


def _found(model: SweptModel, folder: Path) -> SweptModel:
    """The model where it was, whichever folder this process is in."""
    path = Path(model.path).expanduser()
    return model if path.is_absolute() else replace(model, at=str(folder / path))
