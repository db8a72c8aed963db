"""``farm sweep ls``, ``show``, ``status``, ``resume``, ``retry``, ``cancel`` and ``export``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.output import Column, Table, card, count_of, cut, emit, human_ago, human_time, note, say
from farm.cli.session import opened
from farm.cli.sweep import app, check_place, finished, tell
from farm.errors import Unavailable

if TYPE_CHECKING:
    from farm.index import Sweep
    from farm.service import Farm
    from farm.sweeping.results import SweepResults

sweeps = app
"""``farm sweep``, with the commands below."""

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
    from farm.sweeping.results import find_sweep, results

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
    from farm.sweeping.results import find_sweep, results

    if report is not None:
        check_place(report)
    with opened() as farm:
        found = results(farm, find_sweep(farm, sweep))
    if not as_json:
        describe(found)
    tell(found, None, report, every, as_json)


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
def status(
    sweep: Id,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", metavar="", help="Follow its builds until they have ended.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Say how far a sweep is. Exit 1 when some of it failed."""
    from farm.sweeping.results import find_sweep, results

    with opened() as farm:
        found = _watched(farm, find_sweep(farm, sweep)) if watch else results(farm, find_sweep(farm, sweep))
    if as_json:
        emit({name: value for name, value in found.as_json().items() if name != "trials"})
    else:
        from farm.cli.sweep_table import summary

        say(f"{found.sweep.id} {found.state}: {summary(found)}")
        if found.state == "unfinished":
            note(f"farm: it has not come to its end: 'farm sweep resume {found.sweep.id}' goes on")
    raise typer.Exit(1 if found.failed else 0)


def _watched(farm: Farm, sweep: Sweep) -> SweepResults:
    """Follow whatever builds; a search that another process runs asks for more meanwhile."""
    from farm.cli.progress import watching
    from farm.sweeping import resuming
    from farm.sweeping.results import find_sweep, results

    found = results(farm, sweep)
    with watching(len(found.distinct) if found.active else 0) as shown:
        while found.active:
            resuming.watch(farm, found.sweep, shown)
            found = results(farm, find_sweep(farm, sweep.id))
    return found


@app.command("resume")
def resume(
    sweep: Id,
    report: Annotated[Path | None, typer.Option("--report", metavar="F.html", help="Write a report.")] = None,
    as_json: opt.Json = False,
) -> None:
    """Go on with a sweep whose client was killed: wait for what builds, and ask for what it still lacks."""
    from farm.cli.progress import watching
    from farm.sweeping import resuming
    from farm.sweeping.results import find_sweep, results

    if report is not None:
        check_place(report)
    with opened(building=True) as farm:
        mine = find_sweep(farm, sweep)
        now = results(farm, mine)
        with watching(len(now.distinct) if now.active or now.unfinished else 0) as shown:
            found = resuming.resume(farm, mine, shown)
    tell(found, None, report, False, as_json)
    raise typer.Exit(1 if found.failed else 0)


@app.command("export")
def export(
    sweep: Id,
    format: Annotated[
        str, typer.Option("--format", metavar="csv|json|parquet|yaml", help="yaml: a farm.yaml for the winner.")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="A file in place of standard output.")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Write a sweep's trials for other tools, or its winner as a manifest for 'farm prebuild'."""
    from farm.sweeping.export import exported
    from farm.sweeping.results import find_sweep, results

    with opened() as farm:
        content = exported(results(farm, find_sweep(farm, sweep)), format)
    if out is None:
        if as_json and format != "json":
            emit({"sweep": sweep, "format": format, "bytes": len(content)})
            return
        sys.stdout.buffer.write(content)
        return
    try:
        out.write_bytes(content)
    except OSError as error:
        raise Unavailable(f"{out} cannot be written: {error.strerror or error}", "name another file with -o") from error
    if as_json:
        emit({"sweep": sweep, "format": format, "bytes": len(content), "file": str(out)})
    else:
        say(str(out))


@app.command("retry")
def retry(sweep: Id, no_wait: opt.NoWait = False, as_json: opt.Json = False) -> None:
    """Build again what failed or was cancelled."""
    from farm.sweeping.results import find_sweep

    with opened(building=not no_wait) as farm:
        code = retry_sweep(farm, find_sweep(farm, sweep), no_wait, as_json)
    raise typer.Exit(code)


def retry_sweep(farm: Farm, sweep: Sweep, no_wait: bool, as_json: bool) -> int:
    """Queue again what failed, wait unless told not to, and show how the whole sweep stands then."""
    from farm.sweeping import planning as sweeping

    started = sweeping.retry(farm, sweep, keep=no_wait)
    note(f"farm: {count_of(len(started.answers), 'build')} to make again")
    found = finished(farm, started, no_wait)
    tell(found, None, None, False, as_json)
    return 1 if found.failed else 0


@app.command("cancel")
def cancel(sweep: Id, as_json: opt.Json = False) -> None:
    """Cancel what a sweep still builds, except what others wait for too."""
    from farm.sweeping.results import find_sweep

    with opened() as farm:
        cancel_sweep(farm, find_sweep(farm, sweep), as_json)


def cancel_sweep(farm: Farm, sweep: Sweep, as_json: bool) -> None:
    """Cancel, and say what was and what was not."""
    from farm.sweeping import planning as sweeping

    cancelled, left = sweeping.cancel(farm, sweep)
    if as_json:
        emit({"sweep": sweep.id, "cancelled": [b.id for b in cancelled], "left": [b.id for b in left]})
        return
    others = f"; {count_of(len(left), 'build')} left, because others wait" if left else ""
    say(f"{sweep.id}: cancelled {count_of(len(cancelled), 'build')}{others}")
