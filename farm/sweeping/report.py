"""The report of a sweep: one HTML file that stands alone (styles, charts and script inside, no network).

Everything that came from users (model names, settings, failure messages) is escaped, by Jinja's autoescape in the
template and by the charts themselves; a content policy in the page forbids whatever might slip through.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from farm.errors import Unavailable
from farm.human import count_of, human_seconds, human_size, human_time, listed, short
from farm.sweeping.answer import PlaceAnswer, answers, asked, manifest
from farm.sweeping.charts import BUILD, SIZE, Axis, Bar, Dot, Lane, bars, cost_bar, lanes, scatter, swatch
from farm.sweeping.results import SweepResults, TrialResult
from farm.sweeping.rows import Row, cell, label, rows_of, said, telling
from farm.sweeps.grid import Dimension
from farm.sweeps.objectives import Metric
from farm.sweeps.ranking import Sensitivity
from farm.sweeps.spec import search_of
from farm.version import __version__

LABEL = 52
"""Characters that fit into a line of a chart."""

MOST_TRIALS = 2000
"""Configurations that are listed one by one; a larger grid is listed by its distinct builds alone."""


def write_report(path: Path, found: SweepResults) -> None:
    """Write the report, whole or not at all. ``Unavailable`` when ``path`` cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(render(found), "utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Unavailable(
            f"the report {path} cannot be written: {error.strerror or error}", "name another file with --report"
        ) from error


def render(found: SweepResults) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("farm", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("sweep.html.j2").render(_page(found)) + "\n"


def _page(found: SweepResults) -> dict[str, Any]:
    """All that the template needs, in words."""
    rows = rows_of(found)
    named = telling(rows, found.grid)
    targets = list(dict.fromkeys(result.trial.target for result in found.trials))
    shown = answers(found)
    metric = next((one for answer in shown if (one := _measured_metric(answer))), None)
    return {
        "sweep": found.sweep.id,
        "state": found.state,
        "created": human_time(found.sweep.created),
        "version": __version__,
        "toolchains": _toolchains(found),
        "models": [PurePath(path).name for path in found.sweep.spec.get("models", ())],
        "figures": _figures(found),
        "answers": [_answer(answer) for answer in shown],
        "findings": _findings(rows, named, found),
        "cost": Markup(cost_bar(found.spent, found.saved)),
        "spent": human_seconds(found.spent),
        "saved": human_seconds(found.saved),
        "legend": [(name, Markup(swatch(n))) for n, name in enumerate(targets)],
        "charts": _charts(rows, named, targets, shown),
        "metric": metric.name if metric else "",
        "ended": found.ended,
        "manifest": manifest(found),
        "dimensions": [dimension.name for dimension in named],
        "rows": [_row(row, named, metric) for row in rows],
        "failures": _failures(rows, named),
        "judged": _judged(found),
        "fixed": {name: said(name, value) for name, value in found.sweep.spec.get("settings", {}).items()},
        "grid": [(d.name, ", ".join(said(d.name, value) for value in d.values)) for d in found.grid],
        "trials": [_trial(result, found.grid) for result in found.trials] if len(found.trials) <= MOST_TRIALS else [],
        "asked": len(found.trials),
    }


def _toolchains(found: SweepResults) -> list[str]:
    """Of the engines: a trial does not know which toolchain its target came to."""
    every = (str(result.engine.manifest.get("toolchain", "")) for result in found.trials if result.engine)
    return sorted({name for name in every if name})


def _figures(found: SweepResults) -> list[tuple[str, str]]:
    counts = dict(found.counts)
    figures = [(f"{counts.pop('asked'):,}", "configurations"), (f"{counts.pop('distinct'):,}", "distinct builds")]
    figures.append((f"{counts.pop('engines'):,}", "distinct engines"))
    return figures + [(f"{number:,}", name) for name, number in counts.items()]


def _findings(rows: Sequence[Row], named: Sequence[Dimension], found: SweepResults) -> list[str]:
    """What the results come to, in sentences that are true of them."""
    told = []
    idle = [d.name for d in found.grid if len(d.values) > 1 and d.name not in {n.name for n in named}]
    if idle:
        told.append(
            f"{listed(idle)} made no difference: {count_of(len(found.trials), 'configuration')} "
            f"came to {count_of(len(found.distinct), 'distinct build')}."
        )
    for model, mine in _by_model(rows).items():
        told += _extremes(model, mine, named)
    return told


def _extremes(model: str, rows: Sequence[Row], named: Sequence[Dimension]) -> list[str]:
    """How far sizes and build times of one model lie apart, with the settings at the small end."""
    built = [row for row in rows if row.result.engine]
    if len(built) < 2:
        return []
    told = []
    for what, measure, words in (("Engines", _size, human_size), ("Builds", _seconds, human_seconds)):
        low, high = min(built, key=measure), max(built, key=measure)
        if measure(high) > measure(low) * 1.02:
            told.append(
                f"{what} of {PurePath(model).name}: from {words(measure(low))} ({label(low, named)}, "
                f"{low.result.trial.target}) to {words(measure(high))} ({label(high, named)}, "
                f"{high.result.trial.target})."
            )
        else:
            told.append(f"{what} of {PurePath(model).name}: all about {words(measure(high))}.")
    return told


def _size(row: Row) -> float:
    return float(row.result.engine.size) if row.result.engine else 0.0


def _seconds(row: Row) -> float:
    return row.result.build_seconds


def _by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    models: dict[str, list[Row]] = {}
    for row in rows:
        models.setdefault(row.result.trial.model, []).append(row)
    return models


def _judged(found: SweepResults) -> list[tuple[str, str]]:
    """What was looked for, and how."""
    objectives, constraints = asked(found)
    search = search_of(found.sweep.spec)
    told = []
    if objectives:
        words = [f"{one.metric.name}{f' (weight {one.weight:g})' if one.weight else ''}" for one in objectives]
        told.append(("objectives", ", ".join(words)))
    if constraints:
        told.append(("constraints", ", ".join(one.said() for one in constraints)))
    if search.stepwise:
        limits = {name: value for name, value in search.as_json().items() if value is not None and name != "kind"}
        told.append(("search", ", ".join([search.kind, *(f"{name} {value:g}" for name, value in limits.items())])))
    return told


def _answer(answer: PlaceAnswer) -> dict[str, Any]:
    """One place's answer in words, and what each setting does as bars."""
    bars_of = [Bar(one.dimension, one.effect, _ends_of(one)) for one in answer.sensitivity if not one.none]
    idle = [one.dimension for one in answer.sensitivity if one.none]
    metric = answer.sensitivity[0].metric.name if answer.sensitivity else ""
    return {
        "name": answer.name,
        "sentences": answer.sentences(),
        "metric": metric,
        "sensitivity": Markup(bars(bars_of, f"{answer.name}: what each setting does to {metric}")) if bars_of else "",
        "idle": listed(idle) if idle else "",
    }


def _ends_of(one: Sensitivity) -> str:
    """``best at 4: 4.3 ms; worst at 0: 8.9 ms (+106 %)``."""
    (best, low, _), *_, (worst, high, _) = one.means
    ends = f"best at {said(one.dimension, best)}: {one.metric.said(low)}; worst at {said(one.dimension, worst)}: "
    return f"{ends}{one.metric.said(high)} (+{one.effect:.0%})".replace("%", " %")


def _measured_metric(answer: PlaceAnswer) -> Metric | None:
    """The measured metric that the place is ranked by."""
    return next((one.metric for one in answer.ranking.used if one.metric.measured), None)


def _charts(
    rows: Sequence[Row], named: Sequence[Dimension], targets: Sequence[str], shown: Sequence[PlaceAnswer]
) -> list[dict[str, Any]]:
    charts = []
    for model, mine in _by_model(rows).items():
        places = [answer for answer in shown if answer.place[0] == model]
        metric = next((one for answer in places if (one := _measured_metric(answer))), None)
        built = [row for row in mine if row.result.engine and (metric is None or metric.name in row.result.values)]
        if not built:
            continue
        fronts = {one.number for answer in places for one in answer.ranking.front}
        dots = [_dot(row, named, targets, metric, fronts) for row in built]
        by_label: dict[str, list[Dot]] = {}
        for row, dot in zip(built, dots, strict=True):
            by_label.setdefault(brief(label(row, named), [one.name for one in named]), []).append(dot)
        name = PurePath(model).name
        up, right = axes_of(metric)
        by_settings = [Lane(words, tuple(some)) for words, some in by_label.items()]
        charts.append(
            {
                "model": name,
                "scatter": Markup(scatter(dots, f"{name}: {up.name} against {right.name}", right, up)),
                "lanes": Markup(lanes(by_settings, f"{name}: by settings", up, right)),
            }
        )
    return charts


def brief(text: str, names: Sequence[str]) -> str:
    """A row's label with each long name cut to as many of its words as tell it from the others, where it would not fit
    into a chart: ``optimization 5, tiling fast``."""
    if len(text) <= LABEL:
        return text
    for name in sorted(names, key=len, reverse=True):
        words = name.split("_")
        starts = ("_".join(words[:n]) for n in range(1, len(words) + 1))
        short_name = next(one for one in starts if (len(one) > 3 and not any(
            other != name and (other == one or other.startswith(f"{one}_")) for other in names
        )) or one == name)  # fmt: skip
        text = re.sub(rf"\b{re.escape(name)}\b", short_name, text)
    return text


def axes_of(metric: Metric | None) -> tuple[Axis, Axis]:
    """What is shown: a measured metric against the size that it costs, else size against build time."""
    if metric is None:
        return SIZE, BUILD
    return Axis(metric.name, lambda dot: dot.measured, metric.said), SIZE


def _dot(
    row: Row, named: Sequence[Dimension], targets: Sequence[str], metric: Metric | None, fronts: Collection[int]
) -> Dot:
    target, number = row.result.trial.target, row.result.trial.number
    measured = row.result.values[metric.name] if metric else 0.0
    told = [human_size(_size(row)), human_seconds(_seconds(row))]
    told += [f"{metric.name} {metric.said(measured)}"] if metric else []
    told += ["on the front"] if number in fronts else []
    words = f"{target}: {label(row, named)}: {', '.join(told)}"
    return Dot(targets.index(target), _size(row), _seconds(row), words, measured, number in fronts, row.result.place[2])


def _row(row: Row, named: Sequence[Dimension], metric: Metric | None) -> dict[str, Any]:
    result = row.result
    value = result.values.get(metric.name) if metric else None
    return {
        "measured": metric.said(value) if metric and value is not None else "",
        "value": round(value, 6) if value is not None else "",
        "shared": row.shared,
        "model": PurePath(result.trial.model).name,
        "target": result.trial.target,
        "cells": [cell(row, dimension.name) for dimension in named],
        "outcome": result.outcome,
        **_engine(result),
    }


def _engine(result: TrialResult) -> dict[str, Any]:
    """Words for people, and the numbers that the columns are sorted by."""
    engine = result.engine
    return {
        "size": human_size(engine.size) if engine else "",
        "bytes": engine.size if engine else 0,
        "took": human_seconds(result.build_seconds) if engine else "",
        "seconds": round(result.build_seconds, 4),
        "engine": short(engine.digest) if engine else "",
        "digest": engine.digest if engine else "",
    }


def _trial(result: TrialResult, grid: Sequence[Dimension]) -> dict[str, Any]:
    trial = result.trial
    return {
        "number": trial.number,
        "model": PurePath(trial.model).name,
        "target": trial.target,
        "settings": _settings(trial.settings, grid),
        "outcome": result.outcome,
        "same_as": result.same_as,
        "engine": short(result.engine.digest) if result.engine else "",
    }


def _settings(settings: Mapping[str, Any], grid: Sequence[Dimension]) -> str:
    return ", ".join(f"{d.name} {said(d.name, settings.get(d.name))}" for d in grid) or "as given"


def _failures(rows: Sequence[Row], named: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Each reason once, with the builds that it ended."""
    reasons: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        result = row.result
        if result.error:
            told = {"outcome": result.outcome, "why": result.error, "hint": result.hint, "what": []}
            item = reasons.setdefault((result.outcome, result.error, result.hint), told)
            trial = result.trial
            item["what"].append(f"{PurePath(trial.model).name} for {trial.target} ({label(row, named)})")
    return list(reasons.values())
