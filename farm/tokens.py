"""Tokens: what a client shows to a server. 256 random bits, of which the database keeps only the SHA-256. Pure.

A token is written ``farm_ID_SECRET``. The id finds its row and names it in logs and lists; the secret is compared in
constant time and is nowhere written down. A random secret of that length needs no slow hash: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

SECRET_BYTES = 32
ID_LETTERS = 10
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_TOKEN = re.compile(rf"farm_([{_LETTERS}]{{{ID_LETTERS}}})_([A-Za-z0-9_-]{{43}})")


class Scope(StrEnum):
    """What a token allows; each allows what those before it do. ``read``: look and pull. ``build``: ask for builds,
    cancel them, store programs. ``admin``: look into every namespace, and trust nodes again."""

    READ = "read"
    BUILD = "build"
    ADMIN = "admin"

    def covers(self, needed: Scope) -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Token:
    """A token as the database keeps it. Times are seconds since the epoch by its clock; ``expired`` is by it too."""

    id: str
    name: str
    digest: str = field(repr=False)
    scope: Scope = Scope.BUILD
    namespace: str = "main"
    created: float = 0.0
    expires: float | None = None
    used: float | None = None
    expired: bool = False


@dataclass(frozen=True)
class Shown:
    """What a client showed: an id, and a secret that may be the id's."""

    id: str
    secret: str = field(repr=False)

    def is_of(self, token: Token) -> bool:
        """Whether the secret is the token's, compared in constant time."""
        return hmac.compare_digest(_digest(self.secret), token.digest)


class Tokens(Protocol):
    """Where tokens are kept. Each method is one transaction; ``Unavailable`` when the database is away."""

    def add_token(self, token: Token, lasts: float | None) -> Token:
        """Keep a new token, which expires ``lasts`` seconds from now. ``BadInput`` when its name is taken."""
        ...

    def token(self, id: str) -> Token | None: ...

    def tokens(self) -> list[Token]:
        """Every token, by name."""
        ...

    def use_token(self, id: str) -> None:
        """Note that it was used just now."""
        ...

    def revoke_token(self, name: str) -> Token | None:
        """Forget the token of that name or id, at once and for good."""
        ...


def make_token(name: str, scope: Scope, namespace: str) -> tuple[str, Token]:
    """A new token: its text, to be shown once, and what is kept of it."""
    id = "".join(secrets.choice(_LETTERS) for _ in range(ID_LETTERS))
    secret = secrets.token_urlsafe(SECRET_BYTES)
    return f"farm_{id}_{secret}", Token(id, name, _digest(secret), scope, namespace)


def read_token(text: str) -> Shown | None:
    """A token's text taken apart; ``None`` for what is none."""
    found = _TOKEN.fullmatch(text)
    return Shown(found[1], found[2]) if found else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
