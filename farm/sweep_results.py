"""How a sweep stands: read from the engines and builds that its trials name, whenever it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from farm.builds import Build, BuildState, Engine
from farm.index import Sweep, Trial, Wanted
from farm.service import Farm, one_of
from farm.sweeps import PROFILE, Dimension

INVALID = "invalid"
"""A trial whose settings or target contradict themselves; nothing was asked for it."""

SAME = "same"
"""A trial that is equal in effect to an earlier one."""


@dataclass(frozen=True)
class TrialResult:
    """How one trial stands. ``outcome``: ``hit built joined failed cancelled queued running missing invalid``.

    ``seconds`` is what the build took in this sweep (0 for a hit), ``build_seconds`` what the engine once cost;
    ``same_as`` is the first trial of the same recipe, when that is another one.
    """

    trial: Trial
    outcome: str
    engine: Engine | None = None
    seconds: float = 0.0
    error: str = ""
    hint: str = ""
    same_as: int | None = None

    @property
    def build_seconds(self) -> float:
        return self.engine.build_seconds if self.engine else 0.0

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
        }


@dataclass(frozen=True)
class SweepResults:
    """A sweep's trials as they stand."""

    sweep: Sweep
    trials: tuple[TrialResult, ...]

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
    def state(self) -> str:
        """``running``, ``cancelled``, ``failed`` (some trials did) or ``done``."""
        if self.active:
            return "running"
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
        """The dimensions, as they were stored with the sweep."""
        return [Dimension(item["name"], tuple(item["values"])) for item in self.sweep.spec.get("grid", ())]

    def as_json(self) -> dict[str, Any]:
        return {
            "sweep": self.sweep.id,
            "state": self.state,
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
    found = farm.index.find(list(wanted.values()), (farm.config.namespace,))
    engines = {recipe: hit.engine for recipe, hit in zip(wanted, found, strict=True) if hit is not None and hit.exact}
    ids = {trial.build for trial in asked if trial.build}
    builds = {build.id: build for build in farm.index.builds(ids=ids, limit=len(ids))} if ids else {}
    first: dict[str, int] = {}
    made = []
    for trial in sweep.trials:
        known = first.setdefault(trial.recipe, trial.number) if trial.recipe else trial.number
        result = _result(trial, builds.get(trial.build or ""), engines.get(trial.recipe))
        made.append(replace(result, same_as=None if known == trial.number else known))
    return SweepResults(sweep, tuple(_with_first(made)))


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
    return _without_engine(trial, build)


def _without_engine(trial: Trial, build: Build | None) -> TrialResult:
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
