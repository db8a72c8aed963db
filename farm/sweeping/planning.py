"""Running sweeps over a farm: plan, start, wait, read back, retry, cancel.

A sweep owns nothing: its trials name recipes and builds, and how each stands is read from those whenever it is
asked for. So a sweep whose client was killed can be looked at, and asking for the same again picks it up: what was
built is a hit, what still builds is joined.
"""

from __future__ import annotations

import base64
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from farm.asks import Answer, Identity, Outcome
from farm.builds import Build
from farm.cache import Miss, key_parts
from farm.errors import BadInput, BadSettings, BadTarget
from farm.human import listed
from farm.identify import Common
from farm.index import Found, Sweep, Trial
from farm.remaking import answer_of
from farm.service import Farm
from farm.sweeping.costs import Estimate, estimate
from farm.sweeping.measuring import Measures
from farm.sweeping.results import INVALID, SAME, SweepResults, find_sweep, results
from farm.sweeping.stops import Referee, waiter_of
from farm.sweeps.grid import PROFILE, Configuration, SweepSpec, configurations, effort
from farm.sweeps.searches import TPE
from farm.sweeps.spec import spec_json
from farm.targets import parse_target
from farm.toolchains import exact_toolchain

FLAVOUR_NAMES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX", "torch_tensorrt": "Torch-TensorRT"}


@dataclass(frozen=True)
class Planned:
    """One configuration and what is known of it before anything is built.

    ``invalid`` says why it cannot be asked at all (its settings contradict each other, or its target). ``same_as``
    is the number of the first configuration of the same recipe, when that is another one.
    """

    configuration: Configuration
    identity: Identity | None = None
    found: Found | None = None
    invalid: str = ""
    same_as: int | None = None

    @property
    def cached(self) -> bool:
        """Whether its very recipe has an engine: in a sweep, another recipe's engine of the same key is no answer."""
        return self.found is not None and self.found.exact

    @property
    def refused(self) -> str:
        return self.identity.refused[0] if self.identity and self.identity.refused else ""


@dataclass(frozen=True)
class Plan:
    """What a sweep comes to: every configuration, which are equal in effect, which are there already."""

    spec: SweepSpec
    planned: tuple[Planned, ...]
    estimate: Estimate | None = None

    @property
    def distinct(self) -> list[Planned]:
        """The first configuration of each recipe."""
        return [item for item in self.planned if item.identity is not None and item.same_as is None]

    @property
    def to_build(self) -> list[Planned]:
        return [item for item in self.distinct if not item.cached and not item.refused]

    def counts(self) -> dict[str, int]:
        return {
            "asked": len(self.planned),
            "distinct": len(self.distinct),
            "cached": sum(item.cached for item in self.distinct),
            "to_build": len(self.to_build),
            "refused": sum(not item.cached and bool(item.refused) for item in self.distinct),
            "invalid": sum(bool(item.invalid) for item in self.planned),
        }

    def line(self) -> str:
        """The plan in one line: ``48 asked, 31 distinct, 12 cached, 19 to build, about 22 min on 3 nodes``."""
        counts = self.counts()
        words = [f"{counts[name]:,} {name.replace('_', ' ')}" for name in ("asked", "distinct", "cached", "to_build")]
        words += [f"{counts[name]} {text}" for name, text in _RARE.items() if counts[name]]
        most = self.most_builds
        if most < len(self.to_build):
            words.append(f"of which {self.spec.search.kind} tries at most {most:,}")
        said = self.estimate.said() if self.estimate else ""
        return ", ".join([*words, *([said] if said else [])])

    @property
    def most_builds(self) -> int:
        """How many builds there may be: all that are missing, or as many as the search's budgets allow."""
        search = self.spec.search
        most = min(len(self.to_build), search.most_trials(len(self.distinct)))
        return most if search.builds is None else min(most, search.builds)

    def notes(self) -> list[str]:
        """What the user ought to know before the builds start: inert dimensions, warnings, contradictions."""
        return [*_inert_notes(self), *_warnings(self), *_invalid_notes(self)]


_RARE = {"refused": "refused by the builder", "invalid": "contradictory, left out"}


def plan(farm: Farm, spec: SweepSpec) -> Plan:
    """Identify every configuration and look each up. ``BadInput`` when a model or target cannot be read, or when no
    configuration at all can be asked for."""
    spec = replace(spec, targets=_targets(farm, spec))
    common = Common()
    planned = [_identified(farm, configuration, common) for configuration in configurations(spec)]
    _refuse_hopeless(planned)
    identities = [item.identity for item in planned if item.identity is not None]
    found = dict(zip(map(id, identities), farm.cache.lookup(identities), strict=True))
    made = Plan(spec, tuple(_same(_looked_up(item, found) for item in planned)))
    return replace(made, estimate=_estimate(farm, made))


def _estimate(farm: Farm, made: Plan) -> Estimate | None:
    builds = [(item.identity.capability, item.identity.graph) for item in made.to_build if item.identity]
    if not builds:
        return None
    hands = farm.config.workers if farm.config.embedded else 0
    return estimate(builds, farm.index.past(set(builds)), farm.index.seats(), hands, made.most_builds)


def _targets(farm: Farm, spec: SweepSpec) -> tuple[str, ...]:
    """Each place once, however it was written: ``sm_89,sm89`` are one target."""
    texts = spec.targets or farm.config.targets or ("local",)
    found: dict[object, str] = {}
    for text in texts:
        request = parse_target(text) if text != "local" else text
        found.setdefault(request if isinstance(request, str) else (request.target, request.toolchain), text)
    return tuple(found.values())


def _identified(farm: Farm, configuration: Configuration, common: Common) -> Planned:
    try:
        return Planned(configuration, farm.identify([configuration.ask()], common)[0])
    except (BadSettings, BadTarget) as error:
        # Other configurations of the same grid may well be sound: this one is a result with a reason.
        return Planned(configuration, invalid=error.message)


def _refuse_hopeless(planned: Sequence[Planned]) -> None:
    """A model and target of which no configuration can be asked for is bad input, found before anything starts."""
    places: dict[tuple[str, str], list[Planned]] = {}
    for item in planned:
        places.setdefault((item.configuration.model.path, item.configuration.target), []).append(item)
    for (model, target), items in places.items():
        if all(item.invalid for item in items):
            hint = "change the settings, the grid or the target"
            raise BadInput(f"{model} for {target}: no configuration can be asked for: {items[0].invalid}", hint)


def _looked_up(item: Planned, found: Mapping[int, Found | Miss]) -> Planned:
    hit = found.get(id(item.identity)) if item.identity is not None else None
    return replace(item, found=hit) if isinstance(hit, Found) else item


def _same(planned: Iterable[Planned]) -> list[Planned]:
    first: dict[str, int] = {}
    marked: list[Planned] = []
    for item in planned:
        number = item.configuration.number
        if item.identity is not None:
            known = first.setdefault(item.identity.recipe, number)
            item = item if known == number else replace(item, same_as=known)
        marked.append(item)
    return marked


def _inert_notes(plan: Plan) -> list[str]:
    """``a and b have no effect on TensorRT-RTX 1.7: 24 configurations are 4 distinct builds``, for each toolchain."""
    notes = []
    for toolchain in _distinct(item.identity.toolchain for item in plan.planned if item.identity):
        mine = [item for item in plan.planned if item.identity and item.identity.toolchain == toolchain]
        told = {name for item in mine if item.identity for name in item.identity.inert}
        names = [dimension.name for dimension in plan.spec.grid if dimension.name in told]
        if names and len(mine) > 1:
            recipes = len({item.identity.recipe for item in mine if item.identity})
            verb = "has" if len(names) == 1 else "have"
            notes.append(
                f"{listed(names)} {verb} no effect on {_spoken(toolchain)}: "
                f"{len(mine):,} configurations are {recipes:,} distinct build{'' if recipes == 1 else 's'}"
            )
    return notes


def _warnings(plan: Plan) -> list[str]:
    """Warnings about settings that are not grid dimensions (those are summed up), and of dimensions otherwise moot."""
    inert = {name for item in plan.planned if item.identity for name in item.identity.inert}
    varied = {dimension.name for dimension in plan.spec.grid}
    every = (text for item in plan.planned if item.identity for text in item.identity.warnings)
    return [text for text in _distinct(every) if not any(name in text for name in inert & varied)]


def _invalid_notes(plan: Plan) -> list[str]:
    reasons = Counter(item.invalid for item in plan.planned if item.invalid)
    return [f"left out {count} of {len(plan.planned)}: {reason}" for reason, count in reasons.items()]


def _spoken(toolchain: str) -> str:
    exact = exact_toolchain(toolchain)
    version = ".".join(exact.version.split(".")[:2])
    return f"{FLAVOUR_NAMES.get(exact.flavour, exact.flavour)} {version}"


def _distinct(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


# -- starting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """A sweep that has been stored, and the answers to wait for: one for each recipe that is not there yet."""

    sweep: Sweep
    answers: tuple[Answer, ...] = ()


def start(farm: Farm, plan: Plan, *, force: bool = False, keep: bool = False) -> Started:
    """Store the sweep, queue or join a build for each recipe that lacks an engine, then store the trials.

    ``force`` builds everything again; ``keep`` leaves the builds wanted after this process has gone. Killed in between,
    the sweep is one without trials, which ``resume`` submits anew: its builds are its own, and are joined.
    """
    wanted = [item for item in plan.distinct if force or not item.cached]
    sweep = new_sweep(plan)
    if wanted:
        farm.index.put_sweep(sweep)
    answers = submit(farm, sweep.id, wanted, force=force, keep=keep)
    _count_hits(farm, plan, {item.configuration.number for item in wanted})
    record_others(farm, plan.planned, answers)
    trials = tuple(trial_of(item, plan, answers) for item in plan.planned)
    farm.index.put_sweep(replace(sweep, trials=trials))
    # Read back for its time, which is the database's.
    return Started(find_sweep(farm, sweep.id), tuple(answers.values()))


def new_sweep(plan: Plan) -> Sweep:
    """A sweep without trials yet."""
    return Sweep(id=_new_id(), created=0.0, spec=spec_json(plan.spec, str(Path.cwd())))


def submit(
    farm: Farm, sweep: str, wanted: Sequence[Planned], *, force: bool = False, keep: bool = False
) -> dict[int, Answer]:
    """The answer for each wanted configuration, by its number; the sweep waits for their builds.

    A sweep compares recipes, so none but the very recipe's engine will do. Of builds that should take equally long the
    first asked for comes first: those that search least, whose timings warm the caches for the others.
    """
    if not keep:
        farm.waiters.add(waiter_of(sweep))
    ordered = _in_turns(wanted)
    known = [item.identity for item in ordered if item.identity is not None]
    got = farm.submit_identified(known, force=force, exact=True, waiter=waiter_of(sweep)) if known else []
    return {item.configuration.number: answer for item, answer in zip(ordered, got, strict=True)}


def _in_turns(wanted: Sequence[Planned]) -> list[Planned]:
    """Each model's cheapest first, and the models by turns: several hands then begin with a program each, and export
    those side by side."""
    place: Counter[str] = Counter()
    turns: list[tuple[int, Planned]] = []
    for item in sorted(wanted, key=lambda item: effort(item.configuration)):
        if item.identity is not None:
            turns.append((place[item.configuration.model.path], item))
            place[item.configuration.model.path] += 1
    return [item for _, item in sorted(turns, key=lambda turn: turn[0])]


def record_others(farm: Farm, planned: Iterable[Planned], answers: Mapping[int, Answer]) -> None:
    """Remember what keys are made of for which nothing was submitted: equal in effect to others, or there already."""
    others = [item.identity for item in planned if item.identity and item.configuration.number not in answers]
    farm.index.record_parts([key_parts(identity) for identity in others])


def _count_hits(farm: Farm, plan: Plan, submitted: set[int]) -> None:
    """Hits that never went through ``submit``: whatever had its engine, and did not have to be asked for."""
    hits = [
        item.found
        for item in plan.planned
        if item.cached and (item.same_as or item.configuration.number) not in submitted
    ]
    if hits:
        seconds = sum(found.engine.build_seconds for found in hits if found)
        farm.index.count("hit", {"n": len(hits), "seconds": seconds})


def trial_of(item: Planned, plan: Plan, answers: Mapping[int, Answer], unasked: bool = False) -> Trial:
    """A configuration's trial; ``unasked``: it has not been submitted yet, unless nothing need be for it."""
    configuration = item.configuration
    given = dict(configuration.settings)
    if PROFILE in configuration.varied:
        given[PROFILE] = configuration.varied[PROFILE]
    asked, build, error = _how_asked(item, answers.get(item.same_as or configuration.number), unasked)
    return Trial(
        number=configuration.number,
        model=configuration.model.path,
        target=item.identity.target if item.identity else configuration.target,
        settings=given,
        key=item.identity.key if item.identity else "",
        recipe=item.identity.recipe if item.identity else "",
        asked=asked,
        build=build,
        error=error,
    )


def _how_asked(item: Planned, answer: Answer | None, unasked: bool) -> tuple[str, str | None, str]:
    """How a trial was asked for, which build that brought, and what is wrong with it."""
    if item.invalid:
        return INVALID, None, item.invalid
    if answer is None:
        return "" if unasked else "hit", None, ""
    return SAME if item.same_as else _ASKED.get(answer.outcome, str(answer.outcome)), answer.build, answer.error


_ASKED = {Outcome.QUEUED: "new"}


def _new_id() -> str:
    return "s" + base64.b32encode(secrets.token_bytes(8)).decode().lower().rstrip("=")[:12]


def start_search(farm: Farm, plan: Plan) -> Sweep:
    """Store a sweep whose trials are yet to be chosen, by ``searching.Runner``. ``BadConfig`` when what is to choose
    them is not installed."""
    if plan.spec.search.kind == TPE:
        from farm.sweeps.tpe import require

        require()
    sweep = new_sweep(plan)
    farm.index.put_sweep(sweep)
    return sweep


def wait(
    farm: Farm, started: Started, on_change: Callable[[Sequence[Build]], None] = lambda builds: None
) -> SweepResults:
    """Wait until every build of the sweep has ended, giving up what cannot win meanwhile, and until those are measured
    that somebody measures; its results."""
    watch = Referee(farm, started.sweep)

    def seen(builds: Sequence[Build]) -> None:
        watch(builds)
        on_change(builds)

    farm.wait(started.answers, on_change=seen)
    found = results(farm, find_sweep(farm, started.sweep.id))
    measured = Measures(farm, started.sweep).wait(found)
    return results(farm, found.sweep) if measured else found


# -- acting ------------------------------------------------------------------------------------------------------


def retry(farm: Farm, sweep: Sweep, *, keep: bool = False) -> Started:
    """Build again what failed, was cancelled or is missing; ``Started`` holds what to wait for."""
    if not keep:
        farm.waiters.add(waiter_of(sweep.id))
    again: dict[str, Build] = {}
    for result in results(farm, sweep).failed:
        if result.trial.build and result.trial.build not in again:
            again[result.trial.build] = farm.index.retry(result.trial.build, waiter_of(sweep.id))
    farm.dispatch.wake(farm.index.wakes(0.0))
    trials = tuple(
        replace(trial, build=again[trial.build].id, asked=trial.asked if trial.asked == SAME else "new", error="")
        if trial.build in again
        else trial
        for trial in sweep.trials
    )
    changed = replace(sweep, trials=trials, cancelled=False)
    farm.index.put_sweep(changed)
    return Started(changed, tuple(answer_of(build) for build in again.values()))


def cancel(farm: Farm, sweep: Sweep) -> tuple[list[Build], list[Build]]:
    """Cancel the sweep's unfinished builds; returns those cancelled, and those left because others wait for them."""
    farm.index.cancel_sweep(sweep.id)
    ids = {trial.build for trial in sweep.trials if trial.build}
    active = [build for build in builds_of(farm, ids) if build.state.active]
    gone = set(farm.index.leave(waiter_of(sweep.id)))
    return builds_of(farm, gone), [build for build in active if build.id not in gone]


def builds_of(farm: Farm, ids: Collection[str]) -> list[Build]:
    return farm.index.builds(ids=ids, limit=len(ids)) if ids else []
