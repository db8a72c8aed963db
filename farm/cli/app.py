"""The Typer app: every command by its name, and where it lies in ``farm.cli``.

A command line that begins with a command's name gets an app of that command alone: to import the others' modules, and
to read their options, takes longer than most commands do.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from farm.version import __version__

ASK, LOOK, FLEET, CARE = "Ask for engines", "Look and act", "Fleet", "Care"

COMMANDS = {
    "build": (ASK, "asking.build"),
    "sweep": (ASK, "sweep_life.sweeps"),
    "prebuild": (ASK, "prebuild.prebuild"),
    "pull": (ASK, "asking.pull"),
    "key": (ASK, "asking.key"),
    "explain": (ASK, "asking.explain"),
    "measure": (ASK, "measuring.measure"),
    "ls": (LOOK, "looking.ls"),
    "show": (LOOK, "looking.show"),
    "logs": (LOOK, "looking.logs"),
    "cancel": (LOOK, "looking.cancel"),
    "retry": (LOOK, "looking.retry"),
    "stats": (LOOK, "statistics.stats"),
    "settings": (LOOK, "looking.settings"),
    "nodes": (FLEET, "nodes.nodes"),
    "worker": (FLEET, "fleet.worker"),
    "serve": (FLEET, "serving.serve"),
    "token": (FLEET, "serving.tokens"),
    "db": (FLEET, "fleet.database"),
    "reconcile": (FLEET, "upkeep.reconcile"),
    "migrate": (FLEET, "upkeep.migrate"),
    "timing": (CARE, "timing.app"),
    "verify": (CARE, "verifying.verify"),
    "promote": (CARE, "promotion.promote"),
    "keygen": (CARE, "verifying.keygen"),
    "refit": (CARE, "refitting.refit"),
    "gc": (CARE, "collecting.gc"),
    "pin": (CARE, "collecting.pin"),
    "unpin": (CARE, "collecting.unpin"),
    "doctor": (CARE, "care.doctor"),
    "demo": (CARE, "care.demo"),
}
"""Each command's panel in the help, and its module and name there: a function, or an app of commands."""


def app_for(arguments: Sequence[str] = ()) -> typer.Typer:
    """The app of the one command that ``arguments`` begin with; of all where they begin otherwise."""
    app = typer.Typer(
        name="farm",
        help="A TensorRT engine cache and build farm: ask for engines, and each is built once.",
        epilog="'farm demo' shows it at work. An error is one or two lines; --debug shows where it came from.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in [name for name in arguments[:1] if name in COMMANDS] or COMMANDS:
        _add(app, name)
    return app


def _add(app: typer.Typer, name: str) -> None:
    panel, place = COMMANDS[name]
    module, _, attribute = place.partition(".")
    command = getattr(import_module(f"farm.cli.{module}"), attribute)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, rich_help_panel=panel)
    else:
        app.command(name, rich_help_panel=panel)(command)


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
