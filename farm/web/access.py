"""Who may come in: a token in ``Authorization: Bearer``, and what it allows."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from farm.errors import BadToken, NotAllowed
from farm.tokens import Scope, Token, read_token
from farm.web.desk import Caller, Desk, desk_of

NOTE_USE_SECONDS = 60.0
MAKE_ONE = "'farm token create NAME' on the server prints one"

bearer = HTTPBearer(auto_error=False, description="A token that 'farm token create' printed.")
Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def reader(request: Request, shown: Shown) -> Caller:
    """Whoever has a token. ``BadToken`` without one that is known and has not expired."""
    return _admitted(request, shown.credentials if shown else "")


def admit(request: Request) -> Caller:
    """As ``reader``, for what is only sometimes asked a token for."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    return _admitted(request, text.strip() if scheme.lower() == "bearer" else "")


def _admitted(request: Request, text: str) -> Caller:
    desk = desk_of(request)
    token = _token(desk, text)
    _note_use(request, desk, token)
    request.state.token = token.id
    return desk.caller(token)


def builder(caller: Annotated[Caller, Depends(reader)]) -> Caller:
    """Whoever may change something."""
    return _needs(caller, Scope.BUILD)


def admin(caller: Annotated[Caller, Depends(reader)]) -> Caller:
    return _needs(caller, Scope.ADMIN)


Reader = Annotated[Caller, Depends(reader)]
Builder = Annotated[Caller, Depends(builder)]
Admin = Annotated[Caller, Depends(admin)]


def _needs(caller: Caller, scope: Scope) -> Caller:
    if not caller.token.scope.covers(scope):
        raise NotAllowed(
            f"the token '{caller.token.name}' allows '{caller.token.scope}', and this needs '{scope}'",
            "ask whoever runs the server for another token",
        )
    return caller


def _token(desk: Desk, text: str) -> Token:
    """What is said of a wrong token never tells which part of it is wrong."""
    if not text:
        raise BadToken("no token was shown", MAKE_ONE)
    shown = read_token(text)
    token = desk.book.token(shown.id) if shown else None
    if shown is None or token is None or not shown.is_of(token):
        raise BadToken("the token is not known here, or was revoked", MAKE_ONE)
    if token.expired:
        raise BadToken(f"the token '{token.name}' has expired", MAKE_ONE)
    return token


def _note_use(request: Request, desk: Desk, token: Token) -> None:
    """Once a minute and token: a look-up must not wait for a write every time."""
    noted: dict[str, float] = request.app.state.noted
    now = time.monotonic()
    if now - noted.get(token.id, -NOTE_USE_SECONDS) >= NOTE_USE_SECONDS:
        noted[token.id] = now
        desk.book.use_token(token.id)
