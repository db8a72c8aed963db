"""The index on SQLite or PostgreSQL: one class, put together from its parts."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from farm.db.adopting import Adopting
from farm.db.asking import Asking
from farm.db.engines import Engines
from farm.db.holding import HoldingRows
from farm.db.keeping import Keeping
from farm.db.leasing import Leasing
from farm.db.making import Making
from farm.db.measuring import Measuring
from farm.db.migrate import behind, needs_wal, upgrade
from farm.db.moving import MovingRows
from farm.db.nodes import Nodes
from farm.db.pinning import PinningRows
from farm.db.rows import Requests
from farm.db.serving import Serving
from farm.db.session import Database, parse_url
from farm.db.tokens import TokenRows
from farm.db.trimming import TrimmingRows
from farm.db.usage import UsageRows
from farm.errors import Unavailable
from farm.namespaces import Realm

if TYPE_CHECKING:
    from farm.leaving import Leaving
    from farm.tokens import Tokens


class SqlIndex(
    PinningRows,
    TrimmingRows,
    HoldingRows,
    MovingRows,
    UsageRows,
    Engines,
    Serving,
    Asking,
    Leasing,
    Making,
    Adopting,
    Nodes,
    Keeping,
    Measuring,
    TokenRows,
):
    """``farm.index.Index`` and ``farm.leaving.Leaving`` in SQL. ``url``: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``.
    ``realm``: whose it is, and so what it may write; everything, without one (``fence``).

    An SQLite database is made, or migrated, when it is opened; a PostgreSQL one must have been by
    ``farm db upgrade``. Opening one that is up to date takes one SELECT and does not import Alembic.

    Raises ``BadConfig`` for a URL that cannot be, ``Unavailable`` for a database that cannot be reached, is not
    farm's, is damaged, or was made by a newer farm. Threads may share it; a forked child must open its own.
    """

    def __init__(self, url: str, realm: Realm | None = None) -> None:
        self.realm = realm
        self.db = Database(parse_url(url))
        self.requests = Requests()
        try:
            self._open(url)
        except BaseException:
            self.db.close()
            raise

    def _open(self, url: str) -> None:
        if self.db.run(lambda connection: behind(connection, self.db.url) or needs_wal(connection)):
            if not self.db.sqlite:
                raise Unavailable("the fleet's database lacks tables of this farm's", "run 'farm db upgrade' once")
            upgrade(url)
        self.db.opened = True

    def under(self, realm: Realm) -> SqlIndex:
        """The same index in the hands of somebody of another realm. It shares the connections: whoever opened this one
        closes it."""
        other = copy.copy(self)
        other.realm = realm
        return other

    def close(self) -> None:
        """Let go of the database; nothing may be asked of the index afterwards."""
        self.db.close()


if TYPE_CHECKING:
    _conforms: type[Leaving] = SqlIndex
    _keeps_tokens: type[Tokens] = SqlIndex
