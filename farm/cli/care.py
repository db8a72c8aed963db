"""``farm doctor`` and ``farm demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from farm.cli import options as opt
from farm.cli.output import Column, Table, emit, say


def doctor(as_json: opt.Json = False) -> None:
    """Say what this machine can build, and why not the rest."""
    from farm.config import load
    from farm.doctor import examine
    from farm.wiring.backends import open_store, open_upkeep

    findings = examine(load(), open_upkeep, open_store)
    if as_json:
        emit([finding.as_json() for finding in findings])
    else:
        table = Table([Column("check"), Column("state"), Column("found", cut="fold")])
        for finding in findings:
            table.add(finding.name, finding.state, finding.found + (f"\n→ {finding.advice}" if finding.advice else ""))
        table.show()
        broken = [finding.name for finding in findings if finding.state == "fail"]
        say(f"not in order: {', '.join(broken)}" if broken else "in order")
    raise typer.Exit(1 if any(finding.state == "fail" for finding in findings) else 0)


def demo(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", show_default=False, help="Where programs and the report are put (default: demo-out)."
        ),
    ] = Path("demo-out"),
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Build engines of two example programs, then ask again.

    A sweep over settings for three GPU generations; the second time every one is a hit.
    """
    from farm.cli.demonstration import run

    raise typer.Exit(run(folder, force, as_json))
