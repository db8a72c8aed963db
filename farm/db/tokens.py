"""The tokens of a server's clients, by their ids; never a secret."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, delete, select, update
from sqlalchemy.exc import IntegrityError

from farm.db.models import tokens
from farm.db.rows import clean
from farm.db.session import Database, reads, writes
from farm.errors import BadInput
from farm.tokens import Scope, Token


class TokenRows:
    """``farm.tokens.Tokens``; the contract is written there."""

    db: Database

    def add_token(self, token: Token, lasts: float | None) -> Token:
        try:
            return self._add_token(token, lasts)
        except IntegrityError as error:
            raise BadInput(
                f"there is a token called '{token.name}' already",
                "revoke it first ('farm token revoke'), or name another",
            ) from error

    @writes
    def _add_token(self, connection: Connection, token: Token, lasts: float | None) -> Token:
        now = self.db.time(connection)
        row = {
            "id": token.id,
            "name": token.name,
            "digest": token.digest,
            "scope": token.scope.value,
            "namespace": token.namespace,
            "created": now,
            "expires": None if lasts is None else now + lasts,
        }
        connection.execute(tokens.insert().values(**row))
        return _token(connection.execute(_of(self.db).where(tokens.c.id == token.id)).one())

    @reads
    def token(self, connection: Connection, id: str) -> Token | None:
        row = connection.execute(_of(self.db).where(tokens.c.id == clean(id))).first()
        return _token(row) if row else None

    @reads
    def tokens(self, connection: Connection) -> list[Token]:
        return [_token(row) for row in connection.execute(_of(self.db).order_by(tokens.c.name))]

    @writes
    def use_token(self, connection: Connection, id: str) -> None:
        connection.execute(update(tokens).where(tokens.c.id == clean(id)).values(used=self.db.time(connection)))

    @writes
    def revoke_token(self, connection: Connection, name: str) -> Token | None:
        named = (tokens.c.name == clean(name)) | (tokens.c.id == clean(name))
        row = connection.execute(_of(self.db).where(named)).first()
        if row is None:
            return None
        connection.execute(delete(tokens).where(tokens.c.id == row.id))
        return _token(row)


def _of(db: Database) -> Select[Any]:
    return select(tokens, (tokens.c.expires <= db.now).label("expired"))


def _token(row: Row[Any]) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        digest=row.digest,
        scope=Scope(row.scope),
        namespace=row.namespace,
        created=row.created,
        expires=row.expires,
        used=row.used,
        expired=bool(row.expired),
    )
