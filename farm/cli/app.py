"""The Typer app: every command by its name. A command's module is imported with the app, its work when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.cli import (
    asking,
    care,
    collecting,
    fleet,
    looking,
    measuring,
    nodes,
    prebuild,
    promotion,
    refitting,
    serving,
    statistics,
    sweep_life,
    timing,
    upkeep,
    verifying,
)
from farm.version import __version__

ASK, LOOK, FLEET, CARE = "Ask for engines", "Look and act", "Fleet", "Care"

app = typer.Typer(
    name="farm",
    help="A TensorRT engine cache and build farm: ask for engines, and each is built once.",
    epilog="'farm demo' shows it at work. An error is one or two lines; --debug shows where it came from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", help="Say which farm this is.", is_eager=True, callback=lambda v: _version(v)
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Show tracebacks. May be given after a command, too.")
    ] = False,
) -> None:
    """A TensorRT engine cache and build farm: ask for engines, and each is built once."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"farm {__version__}")
        raise typer.Exit(0)


app.command("build", rich_help_panel=ASK)(asking.build)
app.add_typer(sweep_life.sweeps, name="sweep", rich_help_panel=ASK)
app.command("prebuild", rich_help_panel=ASK)(prebuild.prebuild)
app.command("pull", rich_help_panel=ASK)(asking.pull)
app.command("key", rich_help_panel=ASK)(asking.key)
app.command("explain", rich_help_panel=ASK)(asking.explain)
app.command("measure", rich_help_panel=ASK)(measuring.measure)
app.command("ls", rich_help_panel=LOOK)(looking.ls)
app.command("show", rich_help_panel=LOOK)(looking.show)
app.command("logs", rich_help_panel=LOOK)(looking.logs)
app.command("cancel", rich_help_panel=LOOK)(looking.cancel)
app.command("retry", rich_help_panel=LOOK)(looking.retry)
app.command("stats", rich_help_panel=LOOK)(statistics.stats)
app.command("settings", rich_help_panel=LOOK)(looking.settings)
app.command("nodes", rich_help_panel=FLEET)(nodes.nodes)
app.command("worker", rich_help_panel=FLEET)(fleet.worker)
app.command("serve", rich_help_panel=FLEET)(serving.serve)
app.add_typer(serving.tokens, name="token", rich_help_panel=FLEET)
app.add_typer(fleet.database, name="db", rich_help_panel=FLEET)
app.command("reconcile", rich_help_panel=FLEET)(upkeep.reconcile)
app.command("migrate", rich_help_panel=FLEET)(upkeep.migrate)
app.add_typer(timing.app, name="timing", rich_help_panel=CARE)
app.command("verify", rich_help_panel=CARE)(verifying.verify)
app.command("promote", rich_help_panel=CARE)(promotion.promote)
app.command("keygen", rich_help_panel=CARE)(verifying.keygen)
app.command("refit", rich_help_panel=CARE)(refitting.refit)
app.command("gc", rich_help_panel=CARE)(collecting.gc)
app.command("pin", rich_help_panel=CARE)(collecting.pin)
app.command("unpin", rich_help_panel=CARE)(collecting.unpin)
app.command("doctor", rich_help_panel=CARE)(care.doctor)
app.command("demo", rich_help_panel=CARE)(care.demo)
