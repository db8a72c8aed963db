"""``farm worker``, ``farm nodes`` and ``farm db``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.output import Column, Table, emit, human_ago, human_seconds, say
from farm.cli.session import configured, opened

if TYPE_CHECKING:
    from farm.service import Farm


# -- nodes ---------------------------------------------------------------------------------------------------


def nodes(as_json: opt.Json = False) -> None:
    """List the machines that build now."""
    with opened() as farm:
        documents = node_documents(farm)
    if as_json:
        emit(documents)
    elif documents:
        show_nodes(documents)
    else:
        say("no process builds now; 'farm worker' is one")


def node_documents(farm: Farm) -> list[dict[str, Any]]:
    """One document for each host, with its workers: they say what they can build."""
    from farm.cli.documents import worker_document

    hosts: dict[str, list[dict[str, Any]]] = {}
    for worker in farm.index.workers():
        hosts.setdefault(worker.host, []).append(worker_document(worker))
    return [
        {
            "node": host,
            "workers": workers,
            "capabilities": sorted({name for worker in workers for name in worker["capabilities"]}),
            "seen": max(worker["seen"] for worker in workers),
        }
        for host, workers in hosts.items()
    ]


def show_nodes(documents: Sequence[dict[str, Any]]) -> None:
    """Nodes as a table."""
    table = Table(
        [Column("node", cut="tail"), Column("workers", right=True), Column("builds", cut="fold"), Column("seen")]
    )
    for item in documents:
        table.add(item["node"], str(len(item["workers"])), " ".join(item["capabilities"]), human_ago(item["seen"]))
    table.show()


# -- worker --------------------------------------------------------------------------------------------------


def worker(
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", metavar="N", min=1, help="Builds at once (default: as many as cores)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="This node's name (default: its host name).")
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

    config = configured(concurrency=concurrency, host=name)
    document = work(config, until_idle)
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
    from farm.wiring import make_home

    config = load()
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

    needed = needs_upgrade(load().database)
    if as_json:
        emit({"up_to_date": not needed})
    else:
        say("the database needs 'farm db upgrade'" if needed else "the database is up to date")
    raise typer.Exit(1 if needed else 0)
