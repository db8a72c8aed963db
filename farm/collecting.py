"""Collection: ``farm gc``. Rows first, so that nobody is promised what they named any more; bytes a grace period later.

Safe to run anywhere, any number of times, at once, beside builders and readers, and to be killed anywhere:

* **A reader keeps what it was promised.** A look-up promises an engine by reading its row. *Condemning* removes the row
  and, in the same transaction, notes its blobs with a time that is a grace period away (``GRACE_SECONDS``). So whoever
  was promised an engine was promised it before that transaction, and its bytes stay for a grace period after it: a
  fetch that begins within one after the look-up finds them, though the look-up wrote nothing. A fetch first *holds*
  the blob (``Index.hold_blobs``), and again while it lasts (``EngineCache.holding``): a blob that is condemned stays
  as long as it is held, and one that is not yet could not go sooner than a grace period after it is. Holding and
  taking are changes of one row: whoever is first has it. What was made or handed out within the grace period is not
  condemned.
* **A builder keeps what it stores.** It puts its blobs first and writes the row that names them second (as
  ``reconcile`` says). A blob that is taken is asked for in all other rows then, and removed only if it was not put
  since a grace period ago, as the removal itself sees (``BlobStore.delete``). One that is named again is spared, one
  that is young is looked at again later. A put makes a blob young, so its row has a grace period to come.
* **What is needed stays.** Pins lock the rows of what they pin, and condemning locks what it judges before it judges: a
  pin is seen, or finds nothing to pin. An engine that is being built anew, and the program of a build that is active,
  are not condemned; a program that came to be needed afterwards is not removed while it is (clients put a program's
  bytes and row anew from time to time while they ask, ``service.STORED_SECONDS``).
* **What another build took the place of** is condemned as well, for ``GRACE_SECONDS``: it was promised, too.
* **A run that is killed loses nothing and leaves nothing.** Condemned blobs are rows: the next run takes them up, also
  those that were being removed. Until their time has come they count as named, and ``reconcile`` lets them be.

A look into the wrong store removes nothing: the two bear one label (``reconcile.belong_together``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from farm.collection import Choice, Going, Kind, Rules, Thing, Why, bytes_of, choose, is_under, oldest
from farm.config import Config
from farm.errors import FarmError
from farm.leaving import Condemned, Leaving, Protected
from farm.logging import get_logger
from farm.reconcile import belong_together, bind
from farm.store import BlobStore, is_name
from farm.upkeep import Place, batched

log = get_logger(__name__)

TURN = "collected"
"""The note that says when collection was last everybody's turn."""
AT_ONCE = 100
"""Rows that are condemned, and blobs that are removed, on one answer of the database: the fewer, the fresher."""
ROUNDS = 3
"""So often is chosen anew when something that was to go came to be of use meanwhile."""
FEWEST_SECONDS = 1.0
ALL = "all"
"""What the standing of the whole is called."""


@dataclass
class Collected:
    """What a run did; with ``dry_run``, what it would have done. ``bytes`` of what was looked at (engines, programs and
    forms), of which ``kept`` may not go and ``left`` stay; ``removed`` are blobs whose time had come, ``waiting`` those
    whose time is still to come."""

    dry_run: bool
    rules: Rules
    bytes: int = 0
    kept: int = 0
    left: int = 0
    going: list[Going] = field(default_factory=list)
    removed: int = 0
    bytes_removed: int = 0
    waiting: int = 0
    bytes_waiting: int = 0
    pins_expired: int = 0
    trimmed: dict[str, int] = field(default_factory=dict)

    def by_reason(self) -> dict[Why, tuple[int, int]]:
        """How many things go for each reason, and their bytes."""
        found = {why: [one.thing for one in self.going if one.why is why] for why in Why}
        return {why: (len(things), bytes_of(things)) for why, things in found.items() if things}

    def as_json(self) -> dict[str, Any]:
        return {
            "dry_run": self.dry_run,
            "max_bytes": self.rules.max_bytes,
            "max_age": self.rules.max_age,
            "quotas": dict(self.rules.quotas),
            "grace": self.rules.grace,
            "bytes": {"looked": self.bytes, "kept": self.kept, "left": self.left},
            "collected": [going_json(one) for one in self.going],
            "reasons": {why.value: {"n": n, "bytes": size} for why, (n, size) in self.by_reason().items()},
            "removed": {"blobs": self.removed, "bytes": self.bytes_removed},
            "waiting": {"blobs": self.waiting, "bytes": self.bytes_waiting},
            "pins_expired": self.pins_expired,
            "trimmed": self.trimmed,
        }


def going_json(one: Going) -> dict[str, Any]:
    thing = one.thing
    return {
        "kind": thing.kind.value,
        "digest": thing.blobs[0],
        "recipe": thing.place[0] if thing.kind is Kind.ENGINE else None,
        "namespace": thing.namespace or None,
        "name": thing.name,
        "size": thing.size,
        "last_used": thing.last,
        "why": one.why.value,
    }


class Collect:
    """One run. ``history``: how old sweeps, builds and key parts may become, in seconds (``None``: any age). ``sure``:
    go on where database or store lacks its label. ``named``: the blobs that something besides rows names now."""

    def __init__(
        self,
        index: Leaving,
        store: BlobStore,
        rules: Rules,
        *,
        history: float | None = None,
        dry_run: bool = False,
        sure: bool = False,
        named: Callable[[], set[str]] = set,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._index, self._store, self._rules = index, store, rules
        self._history, self._dry_run, self._sure, self._named, self._tell = history, dry_run, sure, named, tell
        self._done = Collected(dry_run, rules)

    def run(self) -> Collected:
        """``BadInput``, before anything was done, where database and store do not belong together."""
        belong_together(self._index, self._store, self._sure)
        if self._dry_run:
            self._look()
        else:
            self._collect()
        self._done.going.sort(key=lambda one: oldest(one.thing))
        self._done.waiting, self._done.bytes_waiting, _ = self._index.condemned()
        return self._done

    def _look(self) -> None:
        self._choose()
        if self._history is not None:
            self._done.trimmed = self._index.history(self._index.protected().now - self._history)

    def _collect(self) -> None:
        """What is due goes first, since it gives room at once; and last, where the grace period is none."""
        bind(self._index, self._store)
        self._index.reap()  # who stood still for so long that a lease ran out may not rely on what was put before
        self._done.pins_expired = self._index.expire_pins(self._rules.grace)
        self._remove()
        for _ in range(ROUNDS):
            if self._condemn(self._choose().going):
                break
        if self._history is not None:
            self._trim(self._index.protected().now - self._history)
        self._remove()

    # -- rows ----------------------------------------------------------------------------------------------------

    def _choose(self) -> Choice:
        """What goes now; what went in an earlier round is among the done."""
        safe = self._index.protected()
        choice = choose(self._things(safe), self._rules, safe.now)
        before = bytes_of(one.thing for one in self._done.going)
        self._done.bytes, self._done.kept, self._done.left = choice.bytes + before, choice.kept, choice.left
        if self._dry_run:
            self._done.going = list(choice.going)
        self._tell(f"looked at {choice.bytes:,} bytes, of which {choice.bytes - choice.left:,} go")
        return choice

    def _things(self, safe: Protected) -> Iterator[Thing]:
        if self._rules.limits:
            for thing in things_of(self._index, (Kind.ENGINE,) if self._rules.namespaces else tuple(Kind), safe):
                yield thing if thing.size else replace(thing, size=self._size(thing))

    def _size(self, thing: Thing) -> int:
        """Of a form that an older farm stored, which did not add its blobs up."""
        return sum(self._store.size(blob) or 0 for blob in thing.blobs if is_name(blob))

    def _condemn(self, going: Sequence[Going]) -> bool:
        """Whether all went that was to."""
        whole = True
        for kind in Kind:
            for some in batched([one for one in going if one.thing.kind is kind], AT_ONCE):
                gone = {thing.place for thing in self._index.condemn([one.thing for one in some], self._rules.grace)}
                self._done.going += [one for one in some if one.thing.place in gone]
                whole = whole and len(gone) == len(some)
        return whole

    # -- bytes ---------------------------------------------------------------------------------------------------

    def _remove(self) -> None:
        while page := self._index.take_condemned(AT_ONCE):
            before = self._store.clock() - self._rules.grace
            blobs = {one.blob for one in page}
            named = self._index.named_elsewhere(blobs) | self._named()
            named |= {blob for blob in blobs if not is_name(blob)}
            needed = self._index.protected().needed
            later = {one.blob for one in page if not self._gone(one, named, needed, before)}
            self._index.spare(blobs - later)
            if later:
                self._index.postpone(later, max(self._rules.grace, FEWEST_SECONDS))

    def _gone(self, one: Condemned, named: set[str], needed: frozenset[str], before: float) -> bool:
        """Whether a blob is dealt with: it is removed now, it was gone, or something names it."""
        if one.blob in named:
            return True
        if one.blob in needed:
            return False
        size = self._store.size(one.blob)
        if size is None:
            return True
        if not self._store.delete(one.blob, before=before):
            return self._store.size(one.blob) is None
        self._done.removed += 1
        self._done.bytes_removed += size
        return True

    # -- history -------------------------------------------------------------------------------------------------

    def _trim(self, before: float) -> None:
        done = dict.fromkeys(("sweeps", "builds", "logs", "key_parts"), 0)
        while count := self._index.trim_sweeps(before):
            done["sweeps"] += count
        place: Place = ()
        while (page := self._index.trim_builds(before, place)).place:
            done["builds"] += page.builds
            done["logs"] += page.logs
            place = page.place
        while count := self._index.trim_parts(before, self._rules.grace):
            done["key_parts"] += count
        self._done.trimmed = done


def things_of(index: Leaving, kinds: Sequence[Kind], safe: Protected) -> Iterator[Thing]:
    """All of some kinds, and why they may not go; by the page."""
    for kind in kinds:
        page = index.weighed(kind)
        while page:
            for thing in page:
                yield replace(thing, kept=why_safe(thing, safe))
            page = index.weighed(kind, page[-1].place)


def why_safe(thing: Thing, safe: Protected) -> str:
    """Why a thing may not go whatever its age, in words; empty where it may."""
    if thing.kind is Kind.ENGINE:
        place = (thing.place[0], thing.place[1])
        pin = safe.pinned.get(place) or safe.pins.get(thing.blobs[0])
        return f"pinned as {pin}" if pin else "it is being built again" if place in safe.building else ""
    program = thing.place[0]
    if program in safe.needed:
        return "a build of it is active"
    pin = safe.pins.get(program) if thing.kind is Kind.PROGRAM else None
    return f"an engine that is pinned as {pin} is built from it" if pin else ""


def configured_rules(config: Config) -> Rules:
    """What the configuration wants collected."""
    return Rules(
        max_bytes=config.max_bytes or None,
        max_age=config.max_age or None,
        quotas=config.quotas_by_namespace,
        grace=config.gc_grace,
    )


@dataclass(frozen=True)
class Standing:
    """How full something is that has a limit, in bytes. ``safe``: of them, what collection may not take."""

    name: str
    used: int
    limit: int
    safe: int


def standings(index: Leaving, config: Config) -> list[Standing]:
    """The whole and each namespace against its budget, where one is configured; without forms of which no row tells the
    size."""
    rules = configured_rules(config)
    if rules.max_bytes is None and not rules.quotas:
        return []
    safe = index.protected()
    things = list(things_of(index, tuple(Kind), safe))
    found = []
    if rules.max_bytes is not None:
        found.append(_standing(ALL, things, rules, rules.max_bytes, safe.now))
    for namespace, limit in sorted(rules.quotas.items()):
        mine = [thing for thing in things if is_under(thing, namespace)]
        found.append(_standing(namespace, mine, rules, limit, safe.now))
    return found


def _standing(name: str, things: Sequence[Thing], rules: Rules, limit: int, now: float) -> Standing:
    whole = choose(things, Rules(grace=rules.grace), now)
    return Standing(name, whole.bytes, limit, whole.kept)


class Routine:
    """Collection now and then, in a thread of its own, beside whatever this process does."""

    def __init__(self, collect: Callable[[], object], every: float) -> None:
        self._collect, self._every = collect, every
        self._due = 0.0
        self._thread: threading.Thread | None = None

    def tick(self) -> None:
        """Begin, if it is time and the last time is over; returns at once."""
        now = time.monotonic()
        if now < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._due = now + self._every
        self._thread = threading.Thread(target=self._run, name="farm-collect", daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for what runs."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._collect()
        except FarmError as error:
            log.warning("collection is put off", reason=error.message)
