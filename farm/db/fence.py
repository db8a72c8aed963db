"""The fence: what whoever opened the index may write, whatever they ask of it (``farm.namespaces``).

It keeps a client that goes by farm's own code inside its namespace. Who holds the database's password may write rows as
they like; against that there are signatures (``farm.trust``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_

from farm.db.rows import starts
from farm.errors import NotAllowed
from farm.namespaces import Realm

NOBODY = ("",)
"""What no namespace is called."""


class Fenced:
    """Whose index it is. ``realm``: ``None`` for one that may everything (``farm reconcile``, ``farm migrate``)."""

    realm: Realm | None = None

    @property
    def trusted(self) -> bool:
        """Whether trusted namespaces may be written."""
        return self.realm is None or self.realm.is_trusted

    def _check_writes(self, namespaces: Iterable[str]) -> None:
        """``NotAllowed`` where one of these must not be written."""
        if self.realm is None:
            return
        for name in sorted(set(namespaces)):
            if not self.realm.may_write(name):
                raise NotAllowed(
                    f"nothing of namespace '{name}' is written from '{self.realm.own}', which is not trusted",
                    "have somebody of a trusted namespace do it, or promote an engine ('farm promote')",
                )

    def _may_write(self, namespace: str) -> bool:
        return self.realm is None or self.realm.may_write(namespace)

    def _writable(self, column: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
        """Conditions on a namespace's column: only what may be written."""
        if self.trusted or self.realm is None:
            return ()
        return (one_of(column, self.realm.writes), column.not_in(self.realm.trusted))

    def _served(self, namespaces: Sequence[str]) -> tuple[str, ...]:
        """For which namespaces builds may be leased, of those that a worker says it builds for (none said: all)."""
        if self.trusted or self.realm is None:
            return tuple(namespaces)
        mine = [one for one in namespaces if one in self.realm.writes or self.realm.may_write(one)]
        return tuple(mine or NOBODY) if namespaces else self.realm.serves


def one_of(column: ColumnElement[Any], patterns: Sequence[str]) -> ColumnElement[bool]:
    """``namespaces.admits`` in SQL."""
    if not patterns:
        return false()
    return or_(*(_matches(column, one) for one in patterns))


def _matches(column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    return and_(starts(column, pattern[:-1])) if pattern.endswith("*") else column == pattern
