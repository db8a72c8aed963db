"""``farm verify`` and ``farm keygen``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as opt
from farm.cli.output import count_of, emit, human_size, note, say
from farm.cli.session import configured, opened
from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.findings import Verified

GRACE = 3600.0


def verify(
    keys: Annotated[
        list[str],
        typer.Argument(
            default_factory=list, show_default=False, metavar="KEY", help="Only these keys, recipes or digests."
        ),
    ],
    repair: Annotated[
        bool, typer.Option("--repair", metavar="", help="Heal what is found: build again, restore, put aside, remove.")
    ] = False,
    rate: Annotated[
        str, typer.Option("--rate", metavar="BYTES/S", help="Read no faster than this (50M); default: no limit.")
    ] = "",
    grace: Annotated[
        float,
        typer.Option("--grace", metavar="SECONDS", min=0.0, help="How old a blob that nothing names must be to count."),
    ] = GRACE,
    anew: Annotated[
        bool, typer.Option("--anew", metavar="", help="Begin at the first blob, not where the last run stopped.")
    ] = False,
    sure: Annotated[
        bool, typer.Option("--yes", "-y", metavar="", help="Go on though it looks like the wrong store or database.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Read every blob and compare every row with it.

    A bad blob is put aside at once. Exit 1 when something is wrong that was not healed. Safe at any time, beside
    builders and readers; goes on where it was interrupted.
    """
    from farm.verify import Verify
    from farm.wiring.backends import open_timing, open_upkeep

    config = configured(store_cache=0)  # the store's own bytes, not this machine's copies
    with opened(config, building=repair) as farm:
        index = open_upkeep(config)
        try:
            run = Verify(
                farm,
                index,
                repair=repair,
                rate=_rate(rate),
                grace=grace,
                sure=sure,
                anew=anew,
                named=open_timing(config, farm.store).named,
                tell=lambda text: note(f"farm: {text}"),
            )
            found = run.these(keys) if keys else run.everything()
        finally:
            index.close()
    if as_json:
        emit(found.as_json())
    else:
        _say(found)
    raise typer.Exit(0 if found.sound else 1)


def _rate(text: str) -> float:
    from farm.config import parse_size

    try:
        rate = parse_size(text.removesuffix("/s")) if text else 0
    except (ValueError, OverflowError) as error:
        raise BadInput(f"--rate is '{text}', which is no number of bytes", "write 50M, say") from error
    if rate < 0:
        raise BadInput(f"--rate is '{text}'", "leave it out for no limit")
    return rate


def _say(found: Verified) -> None:
    if found.resumed:
        say(f"went on after {found.resumed}, where the last run stopped ('--anew' begins at the first blob)")
    rows = ", ".join(
        count_of(count, what)
        for count, what in ((found.engines, "engine"), (found.forms, "form"), (found.programs, "program"))
    )
    say(f"{count_of(found.blobs, 'sound blob')} ({human_size(found.bytes)}) read; {rows} compared")
    for finding in found.findings:
        say(f"{finding.kind}: {finding.what}" + (f": {finding.how}" if finding.how else ""))
    left = sum(not finding.healed for finding in found.findings)
    healed = len(found.findings) - left
    if left:
        say(f"{count_of(left, 'finding')} to be healed{f', {healed:,} healed' if healed else ''}")
        note("farm: 'farm verify --repair' heals what can be healed")
    else:
        say(f"in order{f' again: {healed:,} healed' if healed else ''}")


def keygen(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes; FILE.pub is public.")],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The signer's name, for the trust file (default: FILE's).")
    ] = "",
    as_json: opt.Json = False,
) -> None:
    """Make a key with which workers sign engines.

    FARM_SIGNING_KEY=FILE makes a worker sign. The line that is printed goes into the file that FARM_TRUST names, on
    every machine that is to ask for signatures.
    """
    from farm.trust import make_key

    made = make_key(path, name or path.name)
    if as_json:
        emit({"path": str(path), "id": made.id, "line": made.line()})
    else:
        note(f"farm: {path} is the private key; the public key's id is {made.id}. For the trust file:")
        say(made.line())
