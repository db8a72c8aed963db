"""``farm reconcile`` and ``farm migrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as opt
from farm.cli.output import count_of, emit, human_size, note, say

if TYPE_CHECKING:
    from farm.migrating import Moved
    from farm.reconcile import Tally

DryRun = Annotated[bool, typer.Option("--dry-run", metavar="", help="Say what would be done, and change nothing.")]
GRACE = 3600.0


def reconcile(
    dry_run: DryRun = False,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            metavar="SECONDS",
            min=0.0,
            help="How old a blob must be to be removed: longer than anybody takes from storing it to its row.",
        ),
    ] = GRACE,
    sure: Annotated[
        bool, typer.Option("--yes", "-y", metavar="", help="Go on though it looks like the wrong store or database.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Bring builds, rows and blobs in line.

    Ends what vanished workers held, forgets engines and ONNX forms whose bytes are gone, and removes bytes that nothing
    names. Safe at any time, anywhere, beside builders and readers.
    """
    from farm.config import load
    from farm.wiring.upkeep import reconcile as run

    tally = run(load(), grace, dry_run, sure, lambda text: note(f"farm: {text}"))
    if as_json:
        emit(tally.as_json())
    else:
        _say_tally(tally)


def _say_tally(tally: Tally) -> None:
    would = "would be " if tally.dry_run else ""
    for table in ("engines", "forms"):
        lost = tally.forgotten.get(table, 0)
        say(f"{table}: {tally.looked.get(table, 0):,}, of which {lost:,} {would}forgotten: their bytes are gone")
    gone = len(tally.programs_gone)
    say(f"programs: {tally.looked.get('programs', 0):,}, of which {gone:,} have lost their bytes")
    size, removed = human_size(tally.bytes), human_size(tally.bytes_removed)
    say(f"blobs: {tally.blobs:,} ({size}), of which {tally.removed:,} ({removed}) {would}removed: nothing names them")
    for digest in tally.programs_gone:
        say(f"program {digest} is gone from the store: ask for its model again to store it anew")
    if tally.builds_waiting:
        say(f"these builds need such a program: {' '.join(tally.builds_waiting)}")


def migrate(
    home: Annotated[
        Path,
        typer.Argument(metavar="FROM", show_default=False, help="The embedded farm's FARM_HOME (default: ~/.farm)."),
    ] = Path("~/.farm"),
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Copy an embedded farm into the configured one.

    Engines, programs, sweeps and the history of builds; what is still to be built is queued there. FROM is not changed.
    May be repeated, and goes on where it was interrupted.
    """
    from farm.config import load
    from farm.wiring.upkeep import migrate as run

    moved = run(load(), home.expanduser().absolute(), dry_run, lambda text: note(f"farm: {text}"))
    if as_json:
        emit({"from": str(home), **moved.as_json()})
    else:
        _say_moved(moved)


def _say_moved(moved: Moved) -> None:
    would = "would be " if moved.dry_run else ""
    rows = ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in moved.rows.items())
    say(f"{would}copied: {rows}")
    say(f"{would}copied: {count_of(moved.blobs, 'blob')} ({human_size(moved.bytes)}); {moved.there:,} were there")
    if moved.claimed:
        say(f"{count_of(moved.claimed, 'build')} {would}queued anew")
    for table, count in moved.left.items():
        if count:
            say(f"{count:,} {table} stay behind: their bytes are gone")
