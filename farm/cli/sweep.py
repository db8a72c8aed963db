"""``farm sweep`` and its ``ls``, ``show``, ``status``, ``retry`` and ``cancel``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from farm.cli import options as opt
from farm.cli.output import Column, Table, card, count_of, cut, emit, human_ago, human_time, note, say
from farm.cli.session import opened
from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.index import Sweep
    from farm.service import Farm
    from farm.sweep_results import SweepResults
    from farm.sweeping import Plan, Started
    from farm.sweeps import SweepSpec, SweptModel

RUN = "run"


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

OTHERS = "Also: farm sweep ls · show ID · status ID · retry ID · cancel ID"


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
    search: Annotated[
        str,
        typer.Option(
            "--search", metavar="grid", help="How the grid is searched.", show_default=False, rich_help_panel=opt.DOING
        ),
    ] = "grid",
    max_trials: Annotated[
        int | None,
        typer.Option("--max-trials", metavar="N", help="Refuse a larger grid.", rich_help_panel=opt.DOING),
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
    if search != "grid":
        raise BadInput(
            f"--search {search}: this version searches grids only", "leave --search out, or write --search grid"
        )
    profiles = opt.profiles_of(min_shapes, opt_shapes, max_shapes)
    spec = _spec(file, models, targets, settings, grid)
    spec = replace(spec, models=_with_profiles(spec, profiles, opt.pairs(custom_ops, "--custom-op NAME=sha256:…")))
    spec = replace(spec, priority=priority or spec.priority, max_trials=max_trials or spec.max_trials)
    if report is not None:
        _check_place(report)
    with opened(building=True) as farm:
        plan = planned(farm, spec, force)
        if plan_only:
            if as_json:
                emit({"plan": plan.counts(), "notes": plan.notes()})
            return
        started = _started(farm, plan, force, no_wait)
        found = _finished(farm, started, no_wait)
    _tell(found, plan, report, every, as_json)
    raise typer.Exit(1 if found.failed else 0)


def _spec(
    file: Path | None, models: Sequence[str], targets: Sequence[str], settings: Sequence[str], grid: Sequence[str]
) -> SweepSpec:
    """The file's sweep with what the flags say instead: models and targets replace the file's, settings and
    dimensions replace those of the same name."""
    from farm.compilation import CompilationSettings
    from farm.sweeps import SweepSpec, SweptModel, parse_dimension

    given = CompilationSettings.from_pairs(settings).given()
    dimensions = [parse_dimension(text) for text in grid]
    spec = SweepSpec(())
    if file is not None:
        from farm.sweep_file import read_sweep

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
    from farm.sweeps import PROFILE

    if profiles and any(item.name == PROFILE for item in spec.grid):
        raise BadInput("profiles are both given by shapes and varied by the grid", "leave one of them out")
    return tuple(
        replace(model, fixed=tuple(profiles) or model.fixed, custom_ops={**model.custom_ops, **custom_ops})
        for model in spec.models
    )


def _check_place(report: Path) -> None:
    """Found out before the builds rather than after them."""
    if not report.parent.is_dir():
        raise BadInput(f"--report {report}: there is no folder {report.parent}", "make it first")


def planned(farm: Farm, spec: SweepSpec, force: bool = False) -> Plan:
    """The plan, said in one line and a few notes before anything is built."""
    from farm import sweeping

    plan = sweeping.plan(farm, spec)
    note(f"farm: {plan.line()}" + (", all built again" if force else ""))
    for text in plan.notes():
        note(f"farm: note: {text}")
    return plan


def _started(farm: Farm, plan: Plan, force: bool, keep: bool) -> Started:
    from farm import sweeping

    return sweeping.start(farm, plan, force=force, keep=keep)


def _finished(farm: Farm, started: Started, no_wait: bool) -> SweepResults:
    from farm import sweeping
    from farm.cli.progress import watching
    from farm.sweep_results import results

    pending = {answer.build for answer in started.answers if str(answer.outcome) in ("queued", "joined")}
    with nullcontext() if no_wait else watching(len(pending)) as shown:
        if shown is None or not pending:
            return results(farm, started.sweep)
        return sweeping.wait(farm, started, on_change=shown)


def _tell(found: SweepResults, plan: Plan | None, report: Path | None, every: bool, as_json: bool) -> None:
    """The results as JSON, or as a table with a summary; and the report's place."""
    if report is not None:
        from farm.report import write_report

        write_report(report, found)
    if as_json:
        more: dict[str, Any] = {"plan": plan.counts(), "notes": plan.notes()} if plan else {}
        emit(found.as_json() | more | {"report": str(report) if report else None})
        return
    from farm.cli.sweep_table import show_results

    show_results(found, every)
    if report is not None:
        say(f"report: {report}")


# -- looking and acting --------------------------------------------------------------------------------------

Id = Annotated[str, typer.Argument(metavar="ID", help="A sweep's id; the first few characters will do.")]


@app.command("ls")
def ls(
    limit: Annotated[int, typer.Option("-n", "--limit", metavar="N", min=1, max=10**6, help="At most so many.")] = 20,
    as_json: opt.Json = False,
) -> None:
    """List sweeps, the newest first."""
    with opened() as farm:
        documents = [listed(farm, item) for item in farm.index.sweeps(limit=limit)]
    if as_json:
        emit(documents)
    elif documents:
        show_sweeps(documents)
    else:
        say("no sweeps yet; 'farm sweep MODEL -t TARGET -g NAME=V,V' makes one")


def listed(farm: Farm, sweep: Sweep) -> dict[str, Any]:
    """A sweep as lists show it: without its trials."""
    from farm.sweep_results import find_sweep, results

    document = results(farm, find_sweep(farm, sweep.id)).as_json()
    return {name: value for name, value in document.items() if name != "trials"}


def show_sweeps(documents: Sequence[dict[str, Any]]) -> None:
    """Listed sweeps as a table."""
    table = Table(
        [
            Column("sweep"),
            Column("state"),
            Column("asked", right=True),
            Column("distinct", right=True),
            Column("models", cut="tail"),
            Column("targets", cut="tail"),
            Column("started"),
        ]
    )
    for item in documents:
        spec, counts = item["spec"], item["counts"]
        table.add(
            item["sweep"],
            item["state"],
            f"{counts['asked']:,}",
            f"{counts['distinct']:,}",
            ", ".join(Path(path).name for path in spec.get("models", ())),
            ", ".join(spec.get("targets", ())),
            human_ago(item["created"]),
        )
    table.show()


@app.command("show")
def show(
    sweep: Id,
    report: Annotated[Path | None, typer.Option("--report", metavar="F.html", help="Write a report.")] = None,
    every: Annotated[
        bool, typer.Option("--all", metavar="", help="A row for every configuration, equal ones too.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Show a sweep's results as they stand, whoever ran it."""
    from farm.sweep_results import find_sweep, results

    if report is not None:
        _check_place(report)
    with opened() as farm:
        found = results(farm, find_sweep(farm, sweep))
    if not as_json:
        describe(found)
    _tell(found, None, report, every, as_json)


def describe(found: SweepResults) -> None:
    """What was asked, above the results."""
    spec = found.sweep.spec
    grid = "\n".join(f"{item['name']}={_values(item['values'])}" for item in spec.get("grid", ()))
    card(
        f"sweep {found.sweep.id}",
        [
            ("state", found.state),
            ("started", human_time(found.sweep.created)),
            ("models", ", ".join(spec.get("models", ()))),
            ("targets", ", ".join(spec.get("targets", ()))),
            ("settings", " ".join(f"{name}={_values([v])}" for name, v in spec.get("settings", {}).items())),
            ("grid", grid),
        ],
    )
    say()


def _values(values: Sequence[Any]) -> str:
    from farm.cli.output import value_text

    return cut(",".join(value_text(value) for value in values), 60, "tail")


@app.command("status")
def status(sweep: Id, as_json: opt.Json = False) -> None:
    """Say how far a sweep is. Exit 1 when some of it failed."""
    from farm.sweep_results import find_sweep, results

    with opened() as farm:
        found = results(farm, find_sweep(farm, sweep))
    if as_json:
        emit({name: value for name, value in found.as_json().items() if name != "trials"})
    else:
        from farm.cli.sweep_table import summary

        say(f"{found.sweep.id} {found.state}: {summary(found)}")
    raise typer.Exit(1 if found.failed else 0)


@app.command("retry")
def retry(sweep: Id, no_wait: opt.NoWait = False, as_json: opt.Json = False) -> None:
    """Build again what failed or was cancelled."""
    from farm.sweep_results import find_sweep

    with opened(building=not no_wait) as farm:
        code = retry_sweep(farm, find_sweep(farm, sweep), no_wait, as_json)
    raise typer.Exit(code)


def retry_sweep(farm: Farm, sweep: Sweep, no_wait: bool, as_json: bool) -> int:
    """Queue again what failed, wait unless told not to, and show how the whole sweep stands then."""
    from farm import sweeping

    started = sweeping.retry(farm, sweep, keep=no_wait)
    note(f"farm: {count_of(len(started.answers), 'build')} to make again")
    found = _finished(farm, started, no_wait)
    _tell(found, None, None, False, as_json)
    return 1 if found.failed else 0


@app.command("cancel")
def cancel(sweep: Id, as_json: opt.Json = False) -> None:
    """Cancel what a sweep still builds, except what others wait for too."""
    from farm.sweep_results import find_sweep

    with opened() as farm:
        cancel_sweep(farm, find_sweep(farm, sweep), as_json)


def cancel_sweep(farm: Farm, sweep: Sweep, as_json: bool) -> None:
    """Cancel, and say what was and what was not."""
    from farm import sweeping

    cancelled, left = sweeping.cancel(farm, sweep)
    if as_json:
        emit({"sweep": sweep.id, "cancelled": [b.id for b in cancelled], "left": [b.id for b in left]})
        return
    others = f"; {count_of(len(left), 'build')} left, because others wait" if left else ""
    say(f"{sweep.id}: cancelled {count_of(len(cancelled), 'build')}{others}")
