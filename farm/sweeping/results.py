"""How a sweep stands: read from the engines and builds that its trials name, whenever it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from farm.builds import Build, BuildState, Engine
from farm.index import Sweep, Trial, Wanted
from farm.measurements import Measurement
from farm.service import Farm, one_of
from farm.sweeps.grid import PROFILE, Dimension
from farm.sweeps.spec import ENDED, search_of
from farm.sweeps.values import Values, baselines, chosen, values_of

INVALID = "invalid"
"""A trial whose settings or target contradict themselves; nothing was asked for it."""

SAME = "same"
"""A trial that is equal in effect to an earlier one."""

STOPPED = "stopped"
"""A trial whose build was given up, because it could not win or the budget was used up."""

PLANNED = "planned"
"""A trial that has not been submitted yet; whoever runs the sweep was killed meanwhile, or is just about to."""

UNASKED = (PLANNED, "cancelled", "missing")
"""Outcomes of trials that somebody who goes on with the sweep asks for again."""

INACTIVE = "–"
"""The value of a dimension in a trial that does not vary it."""


Place = tuple[str, str, str]
"""A model, a target and a profile's name (empty where none is varied): one question, with an answer of its own."""


@dataclass(frozen=True)
class TrialResult:
    """How one trial stands. ``outcome``: ``hit built joined failed cancelled stopped queued running planned missing
    invalid``.

    ``seconds`` is what the build took in this sweep (0 for a hit), ``build_seconds`` what the engine once cost,
    ``finished`` when the build ended, by the database's clock;
    ``same_as`` is the first trial of the same recipe, when that is another one.
    """

    trial: Trial
    outcome: str
    engine: Engine | None = None
    seconds: float = 0.0
    error: str = ""
    hint: str = ""
    same_as: int | None = None
    measured: Measurement | None = None
    finished: float = 0.0

    @property
    def build_seconds(self) -> float:
        return self.engine.build_seconds if self.engine else 0.0

    @property
    def values(self) -> Values:
        """Every metric that is known of its engine; none where there is no engine."""
        return values_of(self.engine.size, self.build_seconds, self.measured) if self.engine else {}

    @property
    def place(self) -> Place:
        """What it is compared within: an engine for small inputs is no answer to which is fastest for large ones."""
        return self.trial.model, self.trial.target, str(self.trial.settings.get(PROFILE) or "")

    def as_json(self) -> dict[str, Any]:
        trial = self.trial
        return {
            "number": trial.number,
            "model": trial.model,
            "target": trial.target,
            "settings": {name: value for name, value in trial.settings.items() if name != PROFILE},
            "profile": trial.settings.get(PROFILE),
            "key": trial.key or None,
            "recipe": trial.recipe or None,
            "outcome": self.outcome,
            "same_as": self.same_as,
            "engine": {"digest": self.engine.digest, "size": self.engine.size} if self.engine else None,
            "seconds": round(self.seconds, 3),
            "build_seconds": round(self.build_seconds, 3),
            "build": trial.build,
            "error": self.error or None,
            "values": {name: round(value, 6) for name, value in self.values.items()} or None,
            "device": self.measured.device if self.measured else None,
        }


@dataclass(frozen=True)
class SweepResults:
    """A sweep's trials as they stand. ``baselines`` are by place."""

    sweep: Sweep
    trials: tuple[TrialResult, ...]
    baselines: Mapping[Place, Sequence[Measurement]] = field(default_factory=dict)

    @property
    def distinct(self) -> list[TrialResult]:
        """One result for each recipe."""
        return [result for result in self.trials if result.same_as is None and result.outcome != INVALID]

    @property
    def counts(self) -> dict[str, int]:
        """How many distinct builds ended in each outcome; ``asked``, ``distinct`` and ``engines`` besides."""
        told = Counter(result.outcome for result in self.distinct)
        engines = {result.engine.digest for result in self.trials if result.engine}
        invalid = sum(result.outcome == INVALID for result in self.trials)
        totals = {"asked": len(self.trials), "distinct": len(self.distinct), "engines": len(engines)}
        return totals | dict(sorted(told.items())) | ({INVALID: invalid} if invalid else {})

    @property
    def active(self) -> bool:
        return any(result.outcome in ("queued", "running") for result in self.distinct)

    @property
    def failed(self) -> list[TrialResult]:
        return [result for result in self.distinct if result.outcome in ("failed", "cancelled", "missing")]

    @property
    def ended(self) -> str:
        """Why no more is tried; empty while a search has not come to its end."""
        return str(self.sweep.spec.get(ENDED) or "")

    @property
    def unfinished(self) -> bool:
        """Whether there is more to ask for: by whoever runs the sweep, or by ``farm sweep resume``."""
        if self.sweep.cancelled:
            return False
        if not self.trials:
            return True
        planned = any(result.outcome == PLANNED for result in self.distinct)
        return planned or (search_of(self.sweep.spec).stepwise and not self.ended)

    @property
    def state(self) -> str:
        """``running``, ``unfinished``, ``cancelled``, ``failed`` (some trials did) or ``done``."""
        if self.active:
            return "running"
        if self.unfinished:
            return "unfinished"
        if any(result.outcome == "cancelled" for result in self.distinct):
            return "cancelled"
        return "failed" if self.failed else "done"

    @property
    def spent(self) -> float:
        """Build seconds that this sweep cost."""
        return sum(result.seconds for result in self.distinct)

    @property
    def saved(self) -> float:
        """Build seconds that building every configuration on its own would have cost beyond that."""
        return sum(
            result.build_seconds
            for result in self.trials
            if result.engine and (result.same_as is not None or result.outcome == "hit")
        )

    @property
    def grid(self) -> list[Dimension]:
        """The dimensions, as they were stored with the sweep; one that some trials do not vary has a value for them."""
        found = [Dimension.from_json(item) for item in self.sweep.spec.get("grid", ())]
        return [replace(one, values=(*one.values, INACTIVE)) if self._skips(one) else one for one in found]

    def _skips(self, one: Dimension) -> bool:
        return bool(one.when) and any(one.name not in result.trial.settings for result in self.trials)

    def as_json(self) -> dict[str, Any]:
        return {
            "sweep": self.sweep.id,
            "state": self.state,
            "ended": self.ended or None,
            "created": self.sweep.created or None,
            "spec": dict(self.sweep.spec),
            "counts": self.counts,
            "seconds_spent": round(self.spent, 3),
            "seconds_saved": round(self.saved, 3),
            "trials": [result.as_json() for result in self.trials],
        }


def find_sweep(farm: Farm, prefix: str) -> Sweep:
    """The one sweep that ``prefix`` names, with its trials."""
    found = one_of(farm.index.sweeps(prefix=prefix, limit=10), prefix, "sweep", lambda sweep: sweep.id)
    return found if found.trials else one_of(farm.index.sweeps(prefix=found.id), found.id, "sweep", lambda s: s.id)


def results(farm: Farm, sweep: Sweep) -> SweepResults:
    """How every trial stands now: from the engines and builds that the index has, and nothing else."""
    asked = [trial for trial in sweep.trials if trial.recipe]
    wanted = {trial.recipe: Wanted(trial.key, trial.recipe) for trial in asked}
    found = farm.index.find(list(wanted.values()), farm.cache.namespaces)
    engines = {recipe: hit.engine for recipe, hit in zip(wanted, found, strict=True) if hit is not None and hit.exact}
    ids = {trial.build for trial in asked if trial.build}
    builds = {build.id: build for build in farm.index.builds(ids=ids, limit=len(ids))} if ids else {}
    first: dict[str, int] = {}
    made = []
    for trial in sweep.trials:
        known = first.setdefault(trial.recipe, trial.number) if trial.recipe else trial.number
        build = builds.get(trial.build or "")
        result = _result(trial, build, engines.get(trial.recipe))
        same_as = None if known == trial.number else known
        made.append(replace(result, same_as=same_as, finished=(build.finished or 0.0) if build else 0.0))
    return _measured(farm, sweep, _with_first(made))


def _measured(farm: Farm, sweep: Sweep, made: Sequence[TrialResult]) -> SweepResults:
    """The same with what was measured: engines of one place on one kind of device, and the baselines there."""
    digests = {result.engine.digest for result in made if result.engine}
    programs = {str(result.engine.manifest.get("program", "")) for result in made if result.engine}
    measurements = farm.index.measurements_of(digests | programs) if digests else []
    if not measurements:
        return SweepResults(sweep, tuple(made))
    places: dict[Place, list[Engine]] = {}
    for result in made:
        if result.engine:
            places.setdefault(result.place, []).append(result.engine)
    known = {place: chosen({one.digest for one in engines}, measurements) for place, engines in places.items()}
    with_values = tuple(
        replace(result, measured=known[result.place].get(result.engine.digest)) if result.engine else result
        for result in made
    )
    beside = {
        place: baselines(
            {str(engine.manifest.get("program", "")) for engine in engines},
            measurements,
            next(iter(known[place].values())).device,
        )
        for place, engines in places.items()
        if known[place]
    }
    return SweepResults(sweep, with_values, beside)


def _with_first(made: Sequence[TrialResult]) -> list[TrialResult]:
    """Trials of one recipe share its outcome: what the first one was asked for decides hit, built or joined."""
    by_number = {result.trial.number: result for result in made}
    return [
        result if result.same_as is None else replace(result, outcome=by_number[result.same_as].outcome)
        for result in made
    ]


def _result(trial: Trial, build: Build | None, engine: Engine | None) -> TrialResult:
    if trial.asked == INVALID:
        return TrialResult(trial, INVALID, error=trial.error)
    if build is not None and build.state.active:
        return TrialResult(trial, str(build.state), seconds=0.0)
    if build is not None and build.state is BuildState.SUCCEEDED and engine is not None:
        outcome = "joined" if trial.asked == "joined" else "built"
        return TrialResult(trial, outcome, engine, seconds=_seconds(build))
    if engine is not None:
        return TrialResult(trial, "hit", engine)
    if not trial.asked:
        return TrialResult(trial, PLANNED)
    return _without_engine(trial, build)


def _without_engine(trial: Trial, build: Build | None) -> TrialResult:
    if trial.asked == STOPPED:
        return TrialResult(trial, STOPPED, error=trial.error, seconds=_seconds(build) if build else 0.0)
    if build is not None and build.state is BuildState.CANCELLED:
        return TrialResult(trial, "cancelled", error="the build was cancelled", seconds=_seconds(build))
    if build is not None and build.failure is not None:
        failure = build.failure
        return TrialResult(trial, "failed", error=failure.message, hint=failure.hint, seconds=_seconds(build))
    if trial.error:
        return TrialResult(trial, "failed", error=trial.error)
    return TrialResult(trial, "missing", error="its engine has been removed since", hint="ask for the sweep again")


def _seconds(build: Build) -> float:
    return build.finished - build.started if build.finished and build.started else 0.0
