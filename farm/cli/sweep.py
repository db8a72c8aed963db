"""``farm sweep MODEL …``; ``sweep_life`` has what is done with a sweep that is there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from farm.cli import options as opt
from farm.cli.output import emit, note, say
from farm.cli.session import opened
from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.service import Farm
    from farm.sweeping.planning import Plan, Started
    from farm.sweeping.results import SweepResults
    from farm.sweeps.grid import SweepSpec, SweptModel

RUN = "run"
SEARCHING = "What is looked for"


class _Sweep(TyperGroup):
    """``farm sweep MODEL …`` is ``farm sweep run MODEL …``: whatever is no subcommand's name belongs to ``run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [RUN, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return ("" if name == RUN else name), command, rest


app = typer.Typer(cls=_Sweep, help="Build a grid of settings, each distinct engine once.")

OTHERS = "Also: farm sweep ls · show ID · status ID -w · resume ID · retry ID · cancel ID · export ID"


@app.command(RUN, epilog=OTHERS, hidden=True)
def run(
    models: Annotated[
        list[str],
        typer.Argument(default_factory=list, show_default=False, metavar="MODEL", help="Paths of .pt2 or .onnx files."),
    ],
    targets: opt.Targets,
    settings: opt.Settings,
    grid: Annotated[
        list[str],
        typer.Option(
            "-g",
            "--grid",
            default_factory=list,
            show_default=False,
            metavar="NAME=V,V|a..b",
            help="A dimension: a setting and its values; a..b has both ends. Repeats.",
            rich_help_panel=opt.ASKING,
        ),
    ],
    min_shapes: opt.MinShapes,
    opt_shapes: opt.OptShapes,
    max_shapes: opt.MaxShapes,
    custom_ops: opt.CustomOps,
    file: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            metavar="SWEEP.yaml",
            help="A file with models, targets, settings, grid and profiles; flags go over it.",
            rich_help_panel=opt.ASKING,
        ),
    ] = None,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            metavar="METRIC[=W]",
            help="What to do well in: latency_p99, engine_size, …; with a weight for one score. Repeats.",
            rich_help_panel=SEARCHING,
        ),
    ] = None,
    constraints: Annotated[
        list[str] | None,
        typer.Option(
            "--constraint",
            metavar="'METRIC<=V'",
            help="What a recommended engine keeps: 'latency_p99<=10', 'engine_size<=200MB'. Repeats.",
            rich_help_panel=SEARCHING,
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            metavar="grid|random|tpe",
            help="All of the grid, some of it at random, or by Optuna's TPE.",
            show_default=False,
            rich_help_panel=SEARCHING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, help="Makes a search repeatable.", rich_help_panel=SEARCHING),
    ] = None,
    max_trials: Annotated[
        int | None,
        typer.Option(
            "--max-trials", metavar="N", min=1, help="Try no more; refuse a larger grid.", rich_help_panel=SEARCHING
        ),
    ] = None,
    max_builds: Annotated[
        int | None,
        typer.Option("--max-builds", metavar="N", min=1, help="Begin no more builds.", rich_help_panel=SEARCHING),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            "--max-minutes", metavar="M", help="Minutes of building, over all nodes.", rich_help_panel=SEARCHING
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience", metavar="N", min=1, help="Stop when N builds improved nothing.", rich_help_panel=SEARCHING
        ),
    ] = None,
    no_wait: opt.NoWait = False,
    force: opt.Force = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", metavar="", help="Say what would be built, and stop.", rich_help_panel=opt.DOING)
    ] = False,
    priority: opt.Priority = 0,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="F.html", help="Write a report.", rich_help_panel=opt.DOING),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", metavar="", help="A row for every configuration, equal ones too.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Build a grid of settings, each distinct engine once.

    Configurations that are equal in effect are built together; what is there already is a hit.
    """
    profiles = opt.profiles_of(min_shapes, opt_shapes, max_shapes)
    spec = _spec(file, models, targets, settings, grid)
    spec = replace(spec, models=_with_profiles(spec, profiles, opt.pairs(custom_ops, "--custom-op NAME=sha256:…")))
    wanted = Wanted(search, seed, max_trials, max_builds, max_minutes, patience)
    spec = wanted.over(_judged(spec, objectives or (), constraints or ()))
    spec = replace(spec, priority=priority or spec.priority)
    if report is not None:
        check_place(report)
    if spec.search.stepwise and no_wait:
        raise BadInput(
            "a search chooses as results come in, so somebody has to wait", "leave --no-wait out, or --search grid"
        )
    with opened(building=True) as farm:
        plan = planned(farm, spec, force)
        if plan_only:
            if as_json:
                emit({"plan": plan.counts(), "notes": plan.notes()})
            return
        found = _ran(farm, plan, force, no_wait)
    tell(found, plan, report, every, as_json)
    raise typer.Exit(1 if found.failed else 0)


@dataclass(frozen=True)
class Wanted:
    """The search as flags say it; what they leave out is the file's."""

    kind: str | None = None
    seed: int | None = None
    trials: int | None = None
    builds: int | None = None
    minutes: float | None = None
    patience: int | None = None

    def over(self, spec: SweepSpec) -> SweepSpec:
        """The spec with these in place of its own."""
        from farm.sweeps.searches import GRID, Search

        kind = self.kind or spec.search.kind
        given = {name: value for name, value in vars(self).items() if value is not None}
        search = Search(**{**spec.search.as_json(), **given})
        if kind == GRID:
            # A grid is asked for whole or not at all.
            return replace(spec, search=replace(search, trials=None), max_trials=self.trials or spec.max_trials)
        return replace(spec, search=search)


def _judged(spec: SweepSpec, objectives: Sequence[str], constraints: Sequence[str]) -> SweepSpec:
    """Objectives given by flags replace the file's; constraints those on the same metrics."""
    from farm.sweeps.objectives import checked, parse_constraint, parse_objective

    wanted = checked([parse_objective(text) for text in objectives])
    kept = [parse_constraint(text) for text in constraints]
    named = {(one.metric, one.high is None) for one in kept}
    others = [one for one in spec.constraints if (one.metric, one.high is None) not in named]
    return replace(spec, objectives=wanted or spec.objectives, constraints=(*others, *kept))


def _spec(
    file: Path | None, models: Sequence[str], targets: Sequence[str], settings: Sequence[str], grid: Sequence[str]
) -> SweepSpec:
    """The file's sweep with what the flags say instead: models and targets replace the file's, settings and
    dimensions replace those of the same name."""
    from farm.compilation import CompilationSettings
    from farm.sweeps.grid import SweepSpec, SweptModel, parse_dimension

    given = CompilationSettings.from_pairs(settings).given()
    dimensions = [parse_dimension(text) for text in grid]
    spec = SweepSpec(())
    if file is not None:
        from farm.sweeps.file import read_sweep

        spec = read_sweep(file)
    elsewhere = {item.name for item in dimensions} | set(given)
    return replace(
        spec,
        models=tuple(SweptModel(path) for path in opt.distinct(models)) or spec.models,
        targets=tuple(opt.distinct(targets)) or spec.targets,
        settings={name: v for name, v in spec.settings.items() if name not in elsewhere} | dict(given),
        grid=(*(item for item in spec.grid if item.name not in elsewhere), *dimensions),
    )


def _with_profiles(spec: SweepSpec, profiles: Sequence[Any], custom_ops: dict[str, str]) -> tuple[SweptModel, ...]:
    from farm.sweeps.grid import PROFILE

    if profiles and any(item.name == PROFILE for item in spec.grid):
        raise BadInput("profiles are both given by shapes and varied by the grid", "leave one of them out")
    return tuple(
        replace(model, fixed=tuple(profiles) or model.fixed, custom_ops={**model.custom_ops, **custom_ops})
        for model in spec.models
    )


def check_place(report: Path) -> None:
    """Found out before the builds rather than after them."""
    if not report.parent.is_dir():
        raise BadInput(f"--report {report}: there is no folder {report.parent}", "make it first")


def planned(farm: Farm, spec: SweepSpec, force: bool = False) -> Plan:
    """The plan, said in one line and a few notes before anything is built."""
    from farm.sweeping import planning as sweeping

    plan = sweeping.plan(farm, spec)
    note(f"farm: {plan.line()}" + (", all built again" if force else ""))
    for text in plan.notes():
        note(f"farm: note: {text}")
    return plan


def _ran(farm: Farm, plan: Plan, force: bool, no_wait: bool) -> SweepResults:
    """Start the sweep and bring it to its end, or leave it to the workers."""
    from farm.cli.progress import watching
    from farm.sweeping import planning as sweeping
    from farm.sweeping.searching import Runner

    if not plan.spec.search.stepwise:
        return finished(farm, sweeping.start(farm, plan, force=force, keep=no_wait), no_wait)
    sweep = sweeping.start_search(farm, plan)
    note(f"farm: sweep {sweep.id}")
    with watching(plan.most_builds) as shown:
        return Runner(farm, plan, sweep.id, force, on_change=shown).run()


def finished(farm: Farm, started: Started, no_wait: bool) -> SweepResults:
    """Wait, with the progress shown, unless nobody is to wait."""
    from farm.cli.progress import watching
    from farm.sweeping import planning as sweeping
    from farm.sweeping.results import results

    pending = {answer.build for answer in started.answers if str(answer.outcome) in ("queued", "joined")}
    with nullcontext() if no_wait else watching(len(pending)) as shown:
        if shown is None:
            return results(farm, started.sweep)
        if pending:
            note(f"farm: sweep {started.sweep.id}")
        return sweeping.wait(farm, started, on_change=shown)


def tell(found: SweepResults, plan: Plan | None, report: Path | None, every: bool, as_json: bool) -> None:
    """The results as JSON, or as a table with a summary and the answer; and the report's place."""
    from farm.sweeping.answer import answers

    if report is not None:
        from farm.sweeping.report import write_report

        write_report(report, found)
    if as_json:
        more: dict[str, Any] = {"plan": plan.counts(), "notes": plan.notes()} if plan else {}
        more |= {"answers": [answer.as_json() for answer in answers(found)]}
        emit(found.as_json() | more | {"report": str(report) if report else None})
        return
    from farm.cli.sweep_table import show_answers, show_results

    show_results(found, every)
    show_answers(answers(found))
    if report is not None:
        say(f"report: {report}")
