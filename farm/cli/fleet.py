"""``farm worker`` and ``farm db``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as opt
from farm.cli.output import emit, human_seconds, say
from farm.cli.session import configured

if TYPE_CHECKING:
    pass


# -- worker --------------------------------------------------------------------------------------------------


def worker(
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", metavar="N", min=1, help="Builds at once (default: as many as cores)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="This node's name (default: its host name).")
    ] = None,
    gpu: Annotated[
        int | None,
        typer.Option("--gpu", metavar="N", min=0, help="The GPU to build on, as nvidia-smi counts; one worker each."),
    ] = None,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", metavar="", help="End when nothing waits or runs here any more.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Build what is queued, until interrupted or told to stop.

    On SIGTERM it takes no more builds, waits for those in hand, and hands back what is unfinished after
    FARM_DRAIN_SECONDS; a second signal hands it back at once.
    """
    from farm.cli.working import work
    from farm.wiring.backends import beside_database

    config = configured(concurrency=concurrency, host=name)
    beside_database(config)
    document = work(config, until_idle, gpu)
    if as_json:
        emit(document)
    else:
        say(f"{document['reason']} after {human_seconds(document['seconds'])}")


# -- db ------------------------------------------------------------------------------------------------------

database = typer.Typer(help="Migrate or check the database.", no_args_is_help=True)


@database.command("upgrade")
def upgrade(as_json: opt.Json = False) -> None:
    """Bring the database to this release's schema. An embedded farm does it by itself."""
    from farm.config import load
    from farm.db.migrate import upgrade as migrate
    from farm.wiring.backends import beside_database, make_home

    config = load()
    beside_database(config)
    if not config.database_url:
        make_home(config)
    needed = migrate(config.database)
    if as_json:
        emit({"upgraded": needed})
    else:
        say("the database has been upgraded" if needed else "the database is up to date")


@database.command("check")
def check(as_json: opt.Json = False) -> None:
    """Say whether the database has this release's schema; exit 1 when it has not."""
    from farm.config import load
    from farm.db.migrate import needs_upgrade
    from farm.wiring.backends import beside_database

    config = load()
    beside_database(config)
    needed = needs_upgrade(config.database)
    if as_json:
        emit({"up_to_date": not needed})
    else:
        say("the database needs 'farm db upgrade'" if needed else "the database is up to date")
    raise typer.Exit(1 if needed else 0)
