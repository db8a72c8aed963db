"""``farm migrate``: an embedded farm's engines, programs, builds and sweeps, into the configured farm.

Page by page, the blobs that rows name go first, then the rows and all that belongs to them, in one transaction that
inserts what is not there yet. So a run that was killed anywhere is made good by the next, two at once do no more than
one, and a second run finds nothing to do. The source is only read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from farm.builds import Build, BuildState
from farm.config import Config
from farm.errors import BadInput, CorruptBlob
from farm.human import count_of, human_size
from farm.index import Claim, Worker
from farm.reconcile import belong_together, bind
from farm.store import BlobStore
from farm.upkeep import PAGE, Place, Row, Upkeep

MOVED = "moved "
"""The note under which the destination keeps what became of a build that was still to be made."""
TELL_SECONDS = 2.0
ACTIVE = frozenset({BuildState.QUEUED.value, BuildState.RUNNING.value})
NAMED: Mapping[str, tuple[str, ...]] = {
    "programs": ("digest",),
    "forms": ("graph", "data", "side"),
    "key_parts": ("outline",),
    "engines": ("digest", "manifest"),
}
"""The columns of each table that name blobs."""
OPTIONAL = frozenset({"key_parts"})
"""Rows that are worth something without their blobs."""
OWNED: Mapping[str, tuple[str, ...]] = {
    "engines": ("serving", "uses"),
    "builds": ("events", "attempts", "log_chunks", "tried"),
    "sweeps": ("trials",),
}
PAGES = {"programs": 10, "forms": 10, "engines": 100, "builds": 100, "sweeps": 5}
"""What brings many bytes or rows along goes in smaller pages: each takes far less time than the grace period of
``reconcile``."""


@dataclass(frozen=True)
class Site:
    """One of the two farms: its rows and its blobs. ``name`` is its own, for ever."""

    index: Upkeep
    store: BlobStore
    name: str = ""


@dataclass
class Moved:
    """What was moved; with ``dry_run``, what would have been."""

    dry_run: bool
    blobs: int = 0
    bytes: int = 0
    there: int = 0
    """Blobs that the destination had already."""
    rows: dict[str, int] = field(default_factory=dict)
    claimed: int = 0
    """Builds that were still to be made, and are to be made there now."""
    left: dict[str, int] = field(default_factory=dict)
    """Rows that stay behind, since the source has lost their bytes."""
    counters: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "dry_run": self.dry_run,
            "blobs": {"copied": self.blobs, "bytes": self.bytes, "there": self.there},
            "rows": self.rows,
            "claimed": self.claimed,
            "left": {table: count for table, count in self.left.items() if count},
            "counters": self.counters,
        }


class Migration:
    """One run. ``folder``: where blobs lie on their way; ``lives``: whether a listed worker is at work."""

    def __init__(
        self,
        source: Site,
        dest: Site,
        folder: Path,
        lives: Callable[[Worker], bool],
        *,
        dry_run: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._source, self._dest, self._folder = source, dest, folder
        self._lives, self._dry_run, self._tell = lives, dry_run, tell
        self._moved = Moved(dry_run)
        self._told = time.monotonic()

    def run(self) -> Moved:
        """``BadInput`` where somebody builds for the source, or one of the farms looks like a wrong pair."""
        self._check()
        for table in ("programs", "forms", "key_parts", "engines", "builds", "sweeps"):
            self._move(table)
        counters = self._source.index.stats()["counters"]
        self._moved.counters = not self._dry_run and self._dest.index.add_counters(self._source.name, counters)
        return self._moved

    def _check(self) -> None:
        working = [worker for worker in self._source.index.workers() if self._lives(worker)]
        if working:
            who = ", ".join(f"{worker.id}" for worker in working[:3])
            raise BadInput(
                f"{count_of(len(working), 'process')} build for that farm now ({who})",
                "let it finish, or stop it ('farm worker' and 'farm build' end on Ctrl-C), then migrate",
            )
        belong_together(self._source.index, self._source.store, sure=True)
        belong_together(self._dest.index, self._dest.store)
        if not self._dry_run:
            bind(self._dest.index, self._dest.store)

    # -- rows --------------------------------------------------------------------------------------------------

    def _move(self, table: str) -> None:
        source, after = self._source.index, Place()
        self._moved.rows[table] = self._moved.left[table] = 0
        while page := source.rows(table, after, PAGES.get(table, PAGE)):
            after = source.place(table, page[-1])
            if table == "builds":
                self._claim([row for row in page if row["state"] in ACTIVE and not row["cancel_requested"]])
                page = [row for row in page if row["state"] not in ACTIVE]
            self._moved.rows[table] += self._take_over(table, self._dest.index.unknown(table, page))
            self._tell_now_and_then(table)
        self._tell(f"{table}: {self._moved.rows[table]:,}{self._brought()}")

    def _tell_now_and_then(self, table: str) -> None:
        if time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            self._tell(f"{table}: {self._moved.rows[table]:,} so far{self._brought()}")

    def _brought(self) -> str:
        return f"; {count_of(self._moved.blobs, 'blob')} in all ({human_size(self._moved.bytes)})"

    def _take_over(self, table: str, rows: Sequence[Row]) -> int:
        whole = self._with_blobs(table, rows)
        if self._dry_run or not whole:
            return len(whole)
        source = self._source.index
        owners = [str(source.place(table, row)[0]) for row in whole]
        owned = {name: source.rows_of(name, owners) for name in OWNED.get(table, ())}
        if "trials" in owned:
            owned["trials"] = self._renamed(owned["trials"])
        return self._dest.index.take_over(table, whole, owned)

    # -- blobs -------------------------------------------------------------------------------------------------

    def _with_blobs(self, table: str, rows: Sequence[Row]) -> Sequence[Row]:
        """Bring the blobs of ``rows`` along; the rows that have all that they need then."""
        blobs = [{row[column] for column in NAMED.get(table, ()) if row[column]} for row in rows]
        gone = self._bring(set().union(*blobs))
        if table in OPTIONAL:
            return rows
        whole = [row for row, needed in zip(rows, blobs, strict=True) if not needed & gone]
        self._moved.left[table] += len(rows) - len(whole)
        return whole

    def _bring(self, blobs: Collection[str]) -> set[str]:
        """Copy what the destination lacks; what it has and does not name is put again, since that may be removed for
        its age before the row comes (``reconcile``). Returns what cannot be brought."""
        dest = self._dest
        there = set(blobs) - dest.store.missing(blobs)
        safe = dest.index.named(there)
        self._moved.there += len(safe)
        return {blob for blob in sorted(set(blobs) - safe) if not self._copied(blob) and blob not in there}

    def _copied(self, blob: str) -> bool:
        """Verified on its way out, and hashed again on its way in."""
        size, path = self._source.store.size(blob), self._folder / "blob"
        if size is None:
            return False
        try:
            if not self._dry_run:
                self._source.store.fetch(blob, path, link=True)
                self._dest.store.put_file(path)
        except CorruptBlob as error:
            self._tell(f"{error.message}: it stays behind")
            return False
        finally:
            path.unlink(missing_ok=True)
        self._moved.blobs += 1
        self._moved.bytes += size
        return True

    # -- builds that are still to be made ----------------------------------------------------------------------

    def _claim(self, rows: Sequence[Row]) -> None:
        """Have them built there, for nobody in particular. What was claimed by an earlier run is left to itself: it
        may have been cancelled there since."""
        known = self._dest.index.notes([MOVED + row["id"] for row in rows])
        news = [row["id"] for row in rows if MOVED + row["id"] not in known]
        builds = self._makeable(self._source.index.builds(ids=news, limit=len(news)) if news else [])
        self._moved.claimed += len(builds)
        if self._dry_run or not builds:
            return
        claims = self._dest.index.claim_or_join([build.request for build in builds], "")
        became = {MOVED + build.id: _made_by(claim) for build, claim in zip(builds, claims, strict=True)}
        self._dest.index.put_notes(became)

    def _makeable(self, builds: Collection[Build]) -> list[Build]:
        store = self._source.store if self._dry_run else self._dest.store
        missing = store.missing({build.request.program for build in builds})
        able = [build for build in builds if build.request.program not in missing]
        self._moved.left["builds"] += len(builds) - len(able)
        return able

    def _renamed(self, trials: Sequence[Row]) -> list[Row]:
        """A sweep's trials, with the builds that took their builds' place."""
        became = self._dest.index.notes([MOVED + row["build"] for row in trials if row["build"]])
        return [{**row, "build": became.get(f"{MOVED}{row['build']}", row["build"]) or None} for row in trials]


def database_of(source: Config, dest: Config) -> Path:
    """The file in which an embedded farm keeps its rows. ``BadInput`` where ``source`` is none, or is ``dest``."""
    scheme, _, path = source.database.partition(":///")
    if scheme != "sqlite":
        raise BadInput(
            f"the farm at {source.home} is not embedded: its farm.toml names a database server",
            "give the FARM_HOME of an embedded farm; a fleet is moved by its database's own backup",
        )
    database = Path(unquote(path))
    if not database.is_file():
        raise BadInput(f"there is no farm at {source.home}: {database} is not there", "give the farm's FARM_HOME")
    to, _, there = dest.database.partition(":///")
    if to == "sqlite" and Path(unquote(there)).exists() and database.samefile(unquote(there)):
        raise BadInput(
            f"the farm at {source.home} is the configured one: it cannot be moved into itself",
            "set FARM_DATABASE_URL and FARM_STORE_URL to where it is to go",
        )
    return database


def _made_by(claim: Claim) -> str:
    """The build that answers a claim: its own, or the one that made the engine which is there."""
    if claim.build is not None:
        return claim.build.id
    return str(claim.engine.manifest.get("build") or "") if claim.engine else ""
