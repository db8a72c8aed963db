"""What a sweep answers: for each model and target what to ship with and why, what comes next, what each setting does.

Everything is worked out from the results as they stand, so an answer that lacked latencies has them as soon as a node
has measured some (``farm measure``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from farm.asks import GivenProfile
from farm.measurements import Measurement
from farm.sweeping.results import INACTIVE, Place, SweepResults, TrialResult
from farm.sweeping.rows import ANY, Row, cell, rows_of, telling
from farm.sweeping.searching import candidates_of
from farm.sweeps.grid import PROFILE, Dimension
from farm.sweeps.objectives import Constraint, Metric, Objective, constraints_from_json, objectives_from_json
from farm.sweeps.ranking import Candidate, Ranking, Sensitivity, advantage, rank, sensitivities
from farm.sweeps.spec import spec_of


@dataclass(frozen=True)
class PlaceAnswer:
    """The answer for one model and target. ``results`` are its distinct ones by number, ``words`` their settings."""

    place: Place
    ranking: Ranking
    sensitivity: tuple[Sensitivity, ...]
    results: Mapping[int, TrialResult]
    words: Mapping[int, str]
    baselines: tuple[Measurement, ...] = ()

    @property
    def best(self) -> TrialResult | None:
        return self.results[self.ranking.best.number] if self.ranking.best else None

    @property
    def name(self) -> str:
        """``resnet.pt2 on sm_89, profile small``."""
        model, target, profile = self.place
        return f"{PurePath(model).name} on {target}{f', profile {profile}' if profile else ''}"

    def settings(self, number: int) -> str:
        """The configuration in words: its value in each dimension that tells the engines apart."""
        return self.words.get(number, "")

    def sentences(self) -> list[str]:
        """The recommendation, its reason, the second choice, and what is not known."""
        if self.best is None:
            return [*self._nothing(), *self._unknown()]
        return [self._recommended(), *self._second(), *self._beside(), *self._unknown()]

    def _recommended(self) -> str:
        (first, _), *_ = self.ranking.ranked
        return f"recommended: {self.settings(first.number)}, because {self._because(first)}"

    def _because(self, first: Candidate) -> str:
        used = self.ranking.used
        values = " and ".join(said_value(one.metric, first.values) for one in used)
        among = f"of {len(self.ranking.ranked)} engines"
        if self.ranking.broken:
            among += f" within the constraints ({len(self.ranking.broken)} are not)"
        if self.ranking.waiting:
            among += f" ({self._waiting()})"
        if len(self.ranking.ranked) == 1:
            within = " within the constraints" if self.ranking.broken else ""
            waits = f" so far ({self._waiting()})" if self.ranking.waiting else ""
            return f"it is the only engine{within}{waits}: {values}"
        if len(used) > 1:
            weights = " : ".join(f"{one.weight or 1:g}" for one in used)
            return f"{among} it is the best compromise ({weights}): {values}"
        metric = used[0].metric
        if self.ranking.equals == 1:
            return f"{among} it has the {'most' if metric.most else 'least'} {metric.words}: {values}"
        others = [one for one, _ in self.ranking.ranked[1 : self.ranking.equals]]
        best = " all are" if self.ranking.equals == len(self.ranking.ranked) else f" {self.ranking.equals} are"
        return f"{among}{best} as good as equal in {metric.words}, and it is {advantage(first, others[0])}: {values}"

    def _waiting(self) -> str:
        more = len(self.ranking.waiting)
        return f"{more} more {'is' if more == 1 else 'are'} not measured yet"

    def _second(self) -> list[str]:
        if len(self.ranking.ranked) < 2:
            return []
        (first, _), (second, _), *_ = self.ranking.ranked
        differences = [one for one in self.ranking.axes if one.name in second.values]
        values = ", ".join(f"{said_value(one, second.values)} ({relative(one, first, second)})" for one in differences)
        return [f"second: {self.settings(second.number)}: {values}"]

    def _beside(self) -> list[str]:
        best = self.best
        if best is None or best.measured is None or not self.baselines:
            return []
        p50 = best.measured.latency.p50
        words = [f"{one.latency.p50 / p50:.2f}× as fast as {one.runner}" for one in self.baselines]
        return [f"it is {' and '.join(words)} on {best.measured.device}"]

    def _unknown(self) -> list[str]:
        unknown = self.ranking.unknown
        if not unknown:
            return []
        names = ", ".join(metric.name for metric in unknown)
        by = " and ".join(one.metric.name for one in self.ranking.used)
        ranked = f"; ranked by {by} until then" if by else ""
        return [f"not known: {names}: no node with a GPU for {self.place[1]} has measured these engines yet{ranked}"]

    def _nothing(self) -> list[str]:
        if self.ranking.broken:
            one, constraint = min(
                self.ranking.broken, key=lambda item: item[1].excess(item[0].values[item[1].metric.name])
            )
            value = said_value(constraint.metric, one.values)
            return [
                f"nothing to recommend: none of {len(self.ranking.broken)} engines keeps the constraints; nearest is "
                f"{self.settings(one.number)}, with {value} where {constraint.said()} is asked",
                *([self._waiting()] if self.ranking.waiting else []),
            ]
        return ["nothing to recommend: there is no engine yet"]

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.place[0],
            "target": self.place[1],
            "profile": self.place[2] or None,
            "ranked_by": [one.as_json() for one in self.ranking.used],
            "unknown": [metric.name for metric in self.ranking.unknown],
            "recommended": self._entry(0),
            "second": self._entry(1),
            "why": self.sentences(),
            "front": {
                "axes": [metric.name for metric in self.ranking.axes],
                "trials": [one.number for one in self.ranking.front],
            },
            "not_measured": [one.number for one in self.ranking.waiting],
            "out_of_bounds": [{"trial": one.number, "constraint": c.said()} for one, c in self.ranking.broken],
            "sensitivity": [
                {
                    "dimension": one.dimension,
                    "metric": one.metric.name,
                    "effect": round(one.effect, 6),
                    "means": [{"value": v, "mean": round(mean, 6), "trials": n} for v, mean, n in one.means],
                }
                for one in self.sensitivity
            ],
            "baselines": {
                str(one.runner): {"latency_p50": one.latency.p50, "device": one.device} for one in self.baselines
            },
        }

    def _entry(self, at: int) -> dict[str, Any] | None:
        if len(self.ranking.ranked) <= at:
            return None
        one, score = self.ranking.ranked[at]
        result = self.results[one.number]
        settings = {name: value for name, value in result.trial.settings.items() if name != PROFILE}
        return {
            "trial": one.number,
            "settings": settings,
            "profile": result.trial.settings.get(PROFILE),
            "key": result.trial.key,
            "recipe": result.trial.recipe,
            "engine": result.engine.digest if result.engine else None,
            "score": round(score, 6),
            "values": {name: round(value, 6) for name, value in one.values.items()},
        }


def answers(found: SweepResults) -> list[PlaceAnswer]:
    """One answer for each model, target and profile, in the order that they were asked for."""
    objectives, constraints = asked(found)
    places: dict[Place, list[TrialResult]] = {}
    for result in found.trials:
        places.setdefault(result.place, []).append(result)
    rows = rows_of(found)
    words = _words(found, rows) if any(result.engine for result in found.trials) else {}
    firsts = {row.result.trial.number for row in rows}
    return [_answer(found, mine, firsts, words, objectives, constraints) for mine in places.values()]


def asked(found: SweepResults) -> tuple[tuple[Objective, ...], tuple[Constraint, ...]]:
    """The sweep's objectives and constraints."""
    spec = found.sweep.spec
    return objectives_from_json(spec.get("objectives", ())), constraints_from_json(spec.get("constraints", ()))


def _answer(
    found: SweepResults,
    mine: Sequence[TrialResult],
    firsts: Collection[int],
    words: Mapping[int, str],
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> PlaceAnswer:
    place = mine[0].place
    first = [result for result in mine if result.trial.number in firsts]
    ranking = rank(candidates_of(first), objectives, constraints)
    metric = ranking.used[0].metric if ranking.used else None
    return PlaceAnswer(
        place=place,
        ranking=ranking,
        sensitivity=tuple(sensitivities(candidates_of(mine), found.grid, metric)) if metric else (),
        results={result.trial.number: result for result in first},
        words=words,
        baselines=tuple(found.baselines.get(place, ())),
    )


def _words(found: SweepResults, every: Sequence[Row]) -> dict[int, str]:
    """``disable_tf32=true optimization_level=3``: what tells the engines of one place apart, and nothing else."""
    places: dict[Place, list[Row]] = {}
    for row in every:
        places.setdefault(row.result.place, []).append(row)
    words: dict[int, str] = {}
    for rows in places.values():
        named = [one for one in telling(rows, found.grid) if one.name != PROFILE]
        words |= {row.result.trial.number: _row_words(row, named) for row in rows}
    return words


def _row_words(row: Row, named: Sequence[Dimension]) -> str:
    if isinstance(row.cells, str):
        return row.cells
    words = [f"{one.name}={cell(row, one.name)}" for one in named if cell(row, one.name) not in (ANY, INACTIVE)]
    return " ".join(words) or "the settings as given"


def said_value(metric: Metric, values: Mapping[str, float]) -> str:
    return f"{metric.name} {metric.said(values[metric.name])}"


def relative(metric: Metric, first: Candidate, second: Candidate) -> str:
    """``+2.1 %``: how the second differs from the first."""
    base = first.values[metric.name]
    change = (second.values[metric.name] - base) / abs(base) if base else 0.0
    return "the same" if abs(change) < 0.0005 else f"{change:+.1%}".replace("%", " %")


# -- the winner as a manifest ------------------------------------------------------------------------------------


def manifest(found: SweepResults) -> str:
    """A ``farm.yaml`` that prebuilds the recommended engines: one entry for each model and profile, or for each
    target of them where those differ. Empty where nothing can be recommended."""
    winners = [(answer, answer.best) for answer in answers(found) if answer.best is not None]
    if not winners:
        return ""
    entries: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for answer, best in winners:
        if best is not None:
            model, _, profile = answer.place
            entries.setdefault((model, profile), []).append((_target(best), _entry(found, best)))
    models: dict[str, Any] = {}
    for (path, profile), mine in entries.items():
        groups: list[tuple[list[str], dict[str, Any]]] = []
        for target, entry in mine:
            same = next((targets for targets, other in groups if other == entry), None)
            same.append(target) if same else groups.append(([target], entry))
        for targets, entry in groups:
            target = targets[0].partition("@")[0].partition("/")[0] if len(groups) > 1 else ""
            name = "-".join(word for word in (PurePath(path).stem, profile, target) if word)
            models[_free(_plain(name), models)] = {**entry, "targets": targets}
    text = yaml.safe_dump({"models": models}, sort_keys=False, allow_unicode=True, width=110)
    return f"# What sweep {found.sweep.id} recommends; 'farm prebuild' builds and locks it.\n{text}"


def _target(result: TrialResult) -> str:
    toolchain = str(result.engine.manifest.get("toolchain", "")) if result.engine else ""
    place, slash, rest = result.trial.target.partition("/")
    return f"{place}{slash}{rest}@{toolchain}" if toolchain else result.trial.target


def _entry(found: SweepResults, best: TrialResult) -> dict[str, Any]:
    settings = {name: value for name, value in best.trial.settings.items() if name != PROFILE}
    entry: dict[str, Any] = {"path": best.trial.model}
    if settings:
        entry["settings"] = settings
    shapes, custom_ops = _given(found, best)
    if shapes:
        entry["shapes"] = [_shapes(one) for one in shapes]
    if custom_ops:
        entry["custom_ops"] = custom_ops
    return entry


def _given(found: SweepResults, best: TrialResult) -> tuple[Sequence[GivenProfile], dict[str, str]]:
    """The profile's shapes and the declared operators; an older sweep did not store them."""
    if "asked" not in found.sweep.spec:
        return (), {}
    spec = spec_of(found.sweep.spec)
    model = next((one for one in spec.models if one.path == best.trial.model), None)
    if model is None:
        return (), {}
    name = best.trial.settings.get(PROFILE)
    shapes = model.profiles.get(name, spec.profiles.get(name, ())) if name else model.fixed
    return shapes, dict(model.custom_ops)


def _shapes(one: GivenProfile) -> dict[str, str]:
    return {
        end: ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in getattr(one, end).items())
        for end in ("min", "opt", "max")
        if getattr(one, end)
    }


def _plain(name: str) -> str:
    """A name that a manifest allows."""
    text = "".join(c if c.isascii() and (c.isalnum() or c in "_.+-") else "_" for c in name)
    return text if text[:1].isalnum() or text[:1] == "_" else f"_{text}"


def _free(name: str, taken: Mapping[str, Any]) -> str:
    return next(one for n in range(len(taken) + 2) if (one := f"{name}-{n}" if n else name) not in taken)
