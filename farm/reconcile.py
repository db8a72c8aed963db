"""Orphans both ways: rows whose blobs are gone are forgotten, and blobs that no row names are removed.

Safe to run anywhere, any number of times, at once, beside builders and readers:

* Whoever makes an engine, a form or a program puts its blobs first and writes their row second. So a blob without a
  row may be one whose row is yet to come. What is removed is therefore older than a grace period, by the store's own
  clock; a put of a blob that is there already makes it new again (``farm.store``).
* The look goes blobs, then rows: a blob is read off the store's list, then asked for in the database, just before it
  is removed. A row that was committed before that question is seen; one that is committed after it relies on a put
  within the grace period, which the removal sees by the blob's age as it removes it (``BlobStore.delete``), unless the
  writer stood still for all of the grace period between its put and its row. A build's worker that does so has lost
  its lease by then, since ``Repair`` runs first, and commits nothing.
* A row is forgotten only if it still is what it was when its blobs were looked for (``Holding.version``): one that was
  written anew meanwhile names blobs that were put anew.

A look into the wrong store, or with the wrong database, forgets nothing: the two bear one label.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from farm.errors import BadInput
from farm.repair import Repair
from farm.store import LABEL, Blob, BlobStore, lost
from farm.upkeep import PAGE, Holder, Holding, Upkeep, batched

GRACE_SECONDS = 3600.0
TURN = "reconciled"
"""What is taken turns at, where nobody asks for it (``Upkeep.take_turn``)."""
STORE = "store"
"""The note in which the database keeps its store's label."""
INTENDED = "store to be"
"""The note of a label that is about to be put on the store: a binding that was broken off between the two is known."""
FEW = 10
"""So few rows or blobs prove nothing."""
REMOVED_AT_ONCE = 100
"""Blobs that are removed on one answer of the database: the fewer, the fresher."""
SHOWN = 100


@dataclass
class Tally:
    """What a run found and did; with ``dry_run``, what it would have done."""

    dry_run: bool
    looked: dict[str, int] = field(default_factory=dict)
    """Rows by table."""
    forgotten: dict[str, int] = field(default_factory=dict)
    programs_gone: list[str] = field(default_factory=list)
    """Programs whose bytes are gone, the first hundred of them; their rows stay."""
    builds_waiting: list[str] = field(default_factory=list)
    """Active builds that are to be made of them."""
    blobs: int = 0
    bytes: int = 0
    young: int = 0
    """Blobs within the grace period, which were not asked about."""
    removed: int = 0
    bytes_removed: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "dry_run": self.dry_run,
            "rows": self.looked,
            "forgotten": self.forgotten,
            "programs_gone": self.programs_gone,
            "builds_waiting": self.builds_waiting,
            "blobs": {"looked": self.blobs, "bytes": self.bytes, "young": self.young},
            "removed": {"blobs": self.removed, "bytes": self.bytes_removed},
        }


class Reconcile:
    """One run. ``sure``: go on where what is found looks like the wrong store (never where labels differ). ``named``:
    the blobs that something besides rows names now, which are put before they are named as rows' are."""

    def __init__(
        self,
        index: Upkeep,
        store: BlobStore,
        repair: Repair,
        *,
        grace: float = GRACE_SECONDS,
        dry_run: bool = False,
        sure: bool = False,
        tell: Callable[[str], None] = lambda text: None,
        named: Callable[[], set[str]] = set,
    ) -> None:
        self._index, self._store, self._repair, self._tell = index, store, repair, tell
        self._grace, self._dry_run, self._sure = grace, dry_run, sure
        self._named = named
        self._tally = Tally(dry_run)

    def run(self) -> Tally:
        """``BadInput``, before anything was done, where database and store do not look as if they belonged together."""
        if not self._dry_run:
            self._repair.now()
        self.guard()
        if not self._dry_run:
            bind(self._index, self._store)
        self._rows()
        self._blobs()
        return self._tally

    def guard(self) -> None:
        """Look whether this is the right store; ``BadInput`` where it looks like another."""
        labelled = belong_together(self._index, self._store, self._sure)
        if not self._sure:
            self._check_rows()
            if not labelled:
                self._check_blobs()

    # -- is this the right store? ------------------------------------------------------------------------------

    def _check_rows(self) -> None:
        """Digests are spread evenly, so the first page of each kind of row stands for all of them."""
        pages = {holder: self._index.holdings(holder) for holder in Holder}
        gone = {holder: len(self._gone(page)) for holder, page in pages.items()}
        for holder, page in pages.items():
            if len(page) >= FEW and 2 * gone[holder] > len(page):
                raise BadInput(
                    f"of {len(page)} {holder} that were looked for in this store, {gone[holder]} are not there: "
                    "it looks like the wrong one, and nothing was changed",
                    "correct FARM_STORE_URL or FARM_DATABASE_URL; if the bytes are truly gone, say --yes",
                )

    def _check_blobs(self) -> None:
        """Nothing says yet that the two belong together, so a database that knows few of the store's blobs must not
        have them removed."""
        some = list(itertools.islice(self._store.blobs(), PAGE))
        known = self._index.named([blob.digest for blob in some])
        if len(some) >= FEW and 2 * len(known) < len(some):
            raise BadInput(
                f"of {len(some)} blobs in this store, the database knows {len(known)}: it looks like the wrong one, "
                "and nothing was changed",
                "correct FARM_DATABASE_URL or FARM_STORE_URL; if the rest is to go, say --yes",
            )

    def _gone(self, page: Sequence[Holding]) -> list[Holding]:
        missing = lost(self._store, {blob for row in page for blob in row.blobs})
        return [row for row in page if missing.intersection(row.blobs)]

    # -- rows whose blobs are gone -----------------------------------------------------------------------------

    def _rows(self) -> None:
        for holder in Holder:
            looked = forgotten = 0
            for page in pages_of(self._index, holder):
                looked += len(page)
                gone = self._gone(page)
                forgotten += self._note_programs(gone) if holder is Holder.PROGRAM else self._forget(gone)
            self._tally.looked[holder.value] = looked
            self._tally.forgotten[holder.value] = forgotten
            self._tell(f"looked for the blobs of {looked} {holder}")

    def _forget(self, gone: Sequence[Holding]) -> int:
        if self._dry_run:
            return len(gone)
        return sum(self._index.drop(row, "blob missing") for row in gone if lost(self._store, row.blobs))

    def _note_programs(self, gone: Sequence[Holding]) -> int:
        """A program's row stays: whoever asks for the model again puts its bytes there again. A build of it that is
        leased before that fails in words, three times, and is not remembered."""
        lost = [str(row.place[0]) for row in gone]
        self._tally.programs_gone = (self._tally.programs_gone + lost)[:SHOWN]
        if lost:
            self._tally.builds_waiting = (self._tally.builds_waiting + self._index.needing(set(lost)))[:SHOWN]
        return 0

    # -- blobs that no row names -------------------------------------------------------------------------------

    def _blobs(self) -> None:
        before = None
        for some in batched(self._store.blobs(), PAGE):
            before = self._store.clock() - self._grace if before is None else before
            old = [blob for blob in some if blob.modified < before]
            self._tally.blobs += len(some)
            self._tally.bytes += sum(blob.size for blob in some)
            self._tally.young += len(some) - len(old)
            self._remove(self._unnamed(old), before)
        self._tell(f"asked for the rows of {self._tally.blobs} blobs")

    def _unnamed(self, some: Sequence[Blob]) -> list[Blob]:
        if not some:
            return []
        named = self._index.named([blob.digest for blob in some]) | self._named()
        return [blob for blob in some if blob.digest not in named]

    def _remove(self, orphans: Sequence[Blob], before: float) -> None:
        for few in batched(orphans, REMOVED_AT_ONCE):
            for blob in few if self._dry_run else self._unnamed(few):
                if self._dry_run or self._store.delete(blob.digest, before=before):
                    self._tally.removed += 1
                    self._tally.bytes_removed += blob.size


def pages_of(index: Upkeep, holder: Holder) -> Iterator[list[Holding]]:
    """Every row of one kind, by the page."""
    page = index.holdings(holder)
    while page:
        yield page
        page = index.holdings(holder, page[-1].place)


def belong_together(index: Upkeep, store: BlobStore, sure: bool = False) -> bool:
    """Whether database and store bear the same label; False when neither has one yet. ``BadInput`` when they do not
    belong together, or only one is labelled and the caller is not ``sure``."""
    noted, label = index.note(STORE), store.label()
    if label and not noted and index.note(INTENDED) == label:
        noted = label
    if noted and label and noted != label:
        raise BadInput(
            "this database and this store do not belong together: each is labelled for another; nothing was changed",
            f"correct FARM_STORE_URL or FARM_DATABASE_URL ({LABEL} in the store is what the database must have noted)",
        )
    if bool(noted) != bool(label) and not sure:
        lacking = "store" if noted else "database"
        raise BadInput(
            f"this {lacking} is not labelled as the farm's, and its counterpart is: it looks like the wrong one, and "
            "nothing was changed",
            "correct FARM_STORE_URL or FARM_DATABASE_URL; if the two do belong together, say --yes",
        )
    return bool(noted)


def bind(index: Upkeep, store: BlobStore) -> str:
    """Label database and store as belonging together; the label. Whoever else does so at the same time gets the same
    one, and whoever comes after one that was broken off carries it on."""
    label = store.label() or index.note(STORE) or index.put_note(INTENDED, uuid.uuid4().hex)
    label = store.set_label(label)
    if index.put_note(STORE, label) != label:
        raise BadInput("this database was just labelled for another store", "look at FARM_STORE_URL, and run it again")
    return label
