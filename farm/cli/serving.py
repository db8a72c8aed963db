"""``farm serve`` and ``farm token``."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import options as opt
from farm.cli.collecting import duration
from farm.cli.output import Column, Table, emit, human_ago, human_time, note, say
from farm.errors import BadConfig, BadInput, NoSuchThing

if TYPE_CHECKING:
    from farm.db.index import SqlIndex
    from farm.tokens import Token

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="The address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="The port; 0 for any that is free.")
    ] = 8080,
    no_build: Annotated[
        bool,
        typer.Option("--no-build", metavar="", help="Leave builds to 'farm worker', also where the farm is embedded."),
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Answer clients over HTTP, until interrupted.

    They give FARM_URL and a FARM_TOKEN that 'farm token create' printed here, and need no database and no store.
    """
    import logging

    from farm.config import load
    from farm.logging import configure

    configure(logging.INFO, json=as_json)
    try:
        from farm.web.serving import serve as run
    except ModuleNotFoundError as error:
        raise BadConfig(f"a server needs {error.name}, which is missing", "pip install 'farm[server]'") from error
    config = load()

    def tell(address: str) -> None:
        if as_json:
            emit({"url": address})
        else:
            say(f"farm serves at {address}")
        sys.stdout.flush()  # whoever waits for it may read a file
        if host not in LOOPBACK:
            note("farm: note: tokens cross the network as they are: have a proxy speak HTTPS before this")

    run(config, host, port, config.embedded and not no_build, tell)


# -- tokens --------------------------------------------------------------------------------------------------

tokens = typer.Typer(help="Tokens for a server's clients.", no_args_is_help=True)


@tokens.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is: ci, deploy, alice.")],
    read_only: Annotated[
        bool, typer.Option("--read-only", metavar="", help="It may look and pull, and nothing else.")
    ] = False,
    admin: Annotated[
        bool, typer.Option("--admin", metavar="", help="It may look into every namespace, and trust nodes again.")
    ] = False,
    namespace: Annotated[
        str,
        typer.Option("--namespace", metavar="NS", help="Where its builds go (default: FARM_NAMESPACE)."),
    ] = "",
    expires: Annotated[
        str, typer.Option("--expires", metavar="D", help="It is good for so long: 30d, 12h (default: for ever).")
    ] = "",
    as_json: opt.Json = False,
) -> None:
    """Make a token, and print it once.

    The database keeps a digest of it, and nothing that it could be had from again.
    """
    from farm.config import load
    from farm.namespaces import client_namespace, is_name
    from farm.tokens import Scope, make_token

    if read_only and admin:
        raise BadInput("--read-only and --admin are two scopes", "give one of them")
    config = load()
    place = namespace or config.namespace
    try:
        client_namespace(name)
    except ValueError as error:
        raise BadInput(
            f"'{name}' cannot be a token's name", "write letters, digits and . _ - / +, such as 'ci'"
        ) from error
    if not is_name(place):
        raise BadInput(f"'{place}' cannot be a namespace", "write letters, digits and . _ - / +, such as 'pr/17'")
    scope = Scope.READ if read_only else Scope.ADMIN if admin else Scope.BUILD
    lasts = duration("--expires", expires, "d") if expires else None
    with _book() as book:
        text, token = make_token(name, scope, place)
        kept = book.add_token(token, lasts)
    if as_json:
        emit({"token": text, **document(kept)})
        return
    print(text)
    until = f", until {human_time(kept.expires)}" if kept.expires else ""
    note(f"farm: '{name}' may {scope} in '{place}'{until}; the token is not shown again")


@tokens.command("ls")
def ls(as_json: opt.Json = False) -> None:
    """List tokens: whose they are and what they allow, never what they are."""
    with _book() as book:
        found = book.tokens()
    if as_json:
        emit([document(token) for token in found])
    elif found:
        _show(found)
    else:
        say("no tokens yet; 'farm token create NAME' makes one")


@tokens.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A token's name or id.")], as_json: opt.Json = False
) -> None:
    """Revoke a token: from now on no request with it is answered."""
    with _book() as book:
        gone = book.revoke_token(name)
    if gone is None:
        raise NoSuchThing(f"no token is called '{name}'", "'farm token ls' lists them")
    if as_json:
        emit({"revoked": document(gone)})
    else:
        say(f"'{gone.name}' is revoked")


def document(token: Token) -> dict[str, object]:
    """One token, without what it could be had from."""
    return {
        "name": token.name,
        "id": token.id,
        "scope": str(token.scope),
        "namespace": token.namespace,
        "created": token.created,
        "expires": token.expires,
        "expired": token.expired,
        "used": token.used,
    }


def _show(found: list[Token]) -> None:
    columns = ("name", "id", "allows", "namespace", "made", "expires", "last used")
    table = Table([Column(name) for name in columns])
    for token in found:
        until = "expired" if token.expired else human_time(token.expires) if token.expires else "never"
        used = human_ago(token.used) if token.used else "never"
        table.add(token.name, token.id, str(token.scope), token.namespace, human_ago(token.created), until, used)
    table.show()


def _book() -> contextlib.closing[SqlIndex]:
    from farm.config import load
    from farm.wiring.backends import open_upkeep

    return contextlib.closing(open_upkeep(load()))
