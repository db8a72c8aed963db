"""``farm promote``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as opt
from farm.cli.output import Column, Table, emit, short
from farm.cli.session import configured, opened
from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.promoting import Promoted


def promote(
    names: Annotated[
        list[str],
        typer.Argument(
            default_factory=list,
            show_default=False,
            metavar="ID...",
            help="Keys, recipes, digests or builds; the first characters will do.",
        ),
    ],
    lock: Annotated[
        Path | None, typer.Option("--lock", metavar="farm.lock", help="Every engine that this lock file names.")
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="NS", help="The trusted namespace (default: FARM_NAMESPACE).")
    ] = "",
    source: Annotated[str, typer.Option("--from", metavar="NS", help="Only what is in this namespace.")] = "",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", metavar="", help="Have a trusted worker build it again (the default).")
    ] = False,
    vouch: Annotated[
        bool, typer.Option("--vouch", metavar="", help="Take over the very plan, on somebody's word.")
    ] = False,
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help="Who vouches (default: the user who runs this).")
    ] = "",
    no_wait: opt.NoWait = False,
    as_json: opt.Json = False,
) -> None:
    """Raise engines of untrusted namespaces into a trusted one.

    A trusted worker builds each again from its stored program; or, with --vouch, the plan is taken over as it is, and
    whoever vouches is named in its manifest.
    """
    if vouch and rebuild:
        raise BadInput("--rebuild and --vouch are two ways to promote", "give one of them")
    if by and not vouch:
        raise BadInput("--by says who vouches", "give it with --vouch")
    if lock is not None:
        from farm.prebuilds.lock_file import read_lock

        names = [*names, *opt.distinct([line.engine for line in read_lock(lock)])]
    if not names:
        raise BadInput("nothing to promote is named", "give keys, recipes, digests or builds, or --lock farm.lock")
    from farm.cli.asking import exit_code, wait_for
    from farm.promoting import promote as do
    from farm.wiring.backends import open_signer

    config = configured()
    who = (by or config.tenant) if vouch else ""
    with opened(config, building=not (no_wait or vouch)) as farm:
        signer = open_signer(config) if vouch else None
        done = do(farm, names, to=to, source=source, vouch_by=who, signer=signer, keep=no_wait)
        if not no_wait:
            ended = wait_for(farm, [one.answer for one in done])
            done = [replace(one, answer=answer) for one, answer in zip(done, ended, strict=True)]
    if as_json:
        emit([one.as_json() for one in done])
    else:
        _show(done)
    raise typer.Exit(exit_code([one.answer for one in done]))


def _show(done: Sequence[Promoted]) -> None:
    table = Table(
        [
            Column("engine"),
            Column("model", cut="head"),
            Column("target"),
            Column("from"),
            Column("to"),
            Column("how", cut="fold"),
        ]
    )
    for one in done:
        answer = one.answer
        how = f"vouched for by {one.by}" if one.by else one.how
        told = how if answer.outcome.has_engine else f"{answer.outcome}{': ' + answer.error if answer.error else ''}"
        engine = short(answer.engine.digest) if answer.engine else answer.build or ""
        table.add(engine, answer.identity.model, answer.identity.target, one.source, one.to, told)
    table.show()
