"""The scrub: every blob is read and hashed, every row compared with its blobs and its manifest, at a bounded rate.

What is found is said in words, whatever becomes of it. A bad blob is put aside at once, so that no reader meets it
again. With ``repair`` what can be healed is: an engine is built again from its stored program, a manifest's blob is
written again from its row, a form is forgotten and exported when it is next needed, strays go aside, and what nothing
names is removed. Only a program cannot be made again here: whoever has the model must ask for it.

Blobs are read in the order of their digests, and how far is noted in the database: a run that is cut short is taken up
by the next. Rows are compared in every run, since that costs no reading. Safe beside builders and readers, for the
reasons that ``reconcile`` gives: what is young is let be, and what is removed is asked about again.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from farm.builds import Engine
from farm.errors import CorruptBlob, Missing, Unavailable
from farm.findings import Finding, Kind, Verified
from farm.forms import said_of
from farm.human import human_size, short
from farm.manifests import alteration, body
from farm.namespaces import UNTRUSTED
from farm.reconcile import GRACE_SECONDS, Reconcile, belong_together, bind
from farm.repair import Repair
from farm.service import Farm
from farm.store import Blob, is_name, lost
from farm.upkeep import PAGE, Holder, Holding, Upkeep, batched

CURSOR = "verify"
"""The note that says up to which digest blobs have been read."""
TELL_SECONDS = 2.0
NOTE_SECONDS = 5.0
HEALED_AT_ONCE = 200
FOLDERS = [f"{n:02x}" for n in range(256)]


class Pace:
    """Holds reading to so many bytes a second (0: as fast as it goes)."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = 0.0

    def __call__(self, count: int) -> None:
        if self._rate <= 0:
            return
        now = time.monotonic()
        self._free = max(self._free, now) + count / self._rate
        time.sleep(max(0.0, self._free - now))


class Verify:
    """One run over ``farm`` and ``index``, its database. ``sure``: repair where it looks like the wrong store, too.
    ``named``: the blobs that something besides rows names now, as timing caches' histories do."""

    def __init__(
        self,
        farm: Farm,
        index: Upkeep,
        *,
        repair: bool = False,
        rate: float = 0.0,
        grace: float = GRACE_SECONDS,
        sure: bool = False,
        anew: bool = False,
        named: Callable[[], set[str]] = set,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._farm, self._index, self._store = farm, index, farm.store
        self._repair, self._grace, self._sure, self._anew, self._tell = repair, grace, sure, anew, tell
        self._besides = named
        self._pace = Pace(rate)
        self._bad: dict[str, Finding] = {}
        self._told = self._noted = time.monotonic()
        self._done = Verified()

    def everything(self) -> Verified:
        """The whole store and every row. ``BadInput`` where store and database do not belong together."""
        if self._repair:
            gone = Repair(self._index, lambda counts: None, lambda: ())
            Reconcile(self._index, self._store, gone, sure=self._sure).guard()
            bind(self._index, self._store)
        else:
            belong_together(self._index, self._store, self._sure)
        self._strays()
        self._blobs()
        self._rows()
        self._orphans()
        return self._end()

    def these(self, prefixes: Sequence[str]) -> Verified:
        """Only the engines whose digest, recipe or key starts so, and their blobs. ``Missing`` when there are none."""
        for prefix in prefixes:
            found = self._index.engines(prefix=prefix)
            if not prefix or not found:
                what = f"no engine's key, recipe or digest starts with '{prefix}'"
                raise Missing(what, "'farm ls engines' lists them")
            for blob in sorted({blob for engine in found for blob in blobs_of(engine) if is_name(blob)}):
                self._scrub(Blob(blob, 0))
            self._engines(found)
        return self._end()

    def _end(self) -> Verified:
        for finding in self._bad.values():
            if not finding.waiting and not finding.healed and finding.kind is Kind.CORRUPT:
                finding.healed, finding.how = True, "put aside; nothing that is needed names it"
        return self._done

    def _find(self, kind: Kind, place: str, what: str) -> Finding:
        finding = Finding(kind, place, what)
        self._done.findings.append(finding)
        self._tell(what)
        return finding

    # -- what is no blob ---------------------------------------------------------------------------------------

    def _strays(self) -> None:
        for stray in list(self._store.strays()):
            finding = self._find(Kind.STRAY, stray.place, f"{stray.place}: {stray.what}")
            if self._repair:
                self._store.set_aside(stray.place)
                finding.healed, finding.how = True, "put aside"

    # -- blobs -------------------------------------------------------------------------------------------------

    def _blobs(self) -> None:
        """In the order of their digests, from where the last run stopped."""
        at = "" if self._anew else self._index.note(CURSOR) or ""
        self._done.resumed = at
        try:
            for number, folder in enumerate(FOLDERS):
                if folder < digits_of(at)[:2]:
                    continue
                there = sorted((b for b in self._store.blobs(folder) if b.digest > at), key=lambda blob: blob.digest)
                for blob in there:
                    self._scrub(blob)
                    at = blob.digest
                    self._say(number, at)
            at = ""
        finally:
            self._index.set_note(CURSOR, at)

    def _say(self, number: int, at: str) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            read = f"{self._done.blobs:,} blobs ({human_size(self._done.bytes)})"
            self._tell(f"read {read}, about {100 * number // len(FOLDERS)} % of the way")
        if now - self._noted >= NOTE_SECONDS:
            self._noted = now
            self._index.set_note(CURSOR, at)

    def _scrub(self, blob: Blob) -> None:
        """Read one blob. A bad one is put aside."""
        digest = blob.digest
        try:
            size = self._store.check(digest, self._pace)
        except CorruptBlob:
            what = f"blob {digest}: its bytes are not what its name says"
            self._bad[digest] = self._find(Kind.CORRUPT, digest, what)
            self._store.quarantine(digest)
            return
        except Unavailable as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            self._unreadable(digest)
            return
        if size is not None:
            self._done.blobs += 1
            self._done.bytes += size

    def _unreadable(self, digest: str) -> None:
        """Whether its bytes are right, nobody knows. It goes aside only where it can be made again."""
        self._bad[digest] = self._find(Kind.UNREADABLE, digest, f"blob {digest}: this user may not read it")
        if self._repair:
            digits = digits_of(digest)
            self._store.set_aside(f"sha256/{digits[:2]}/{digits}")

    def _orphans(self) -> None:
        """A writer's blob comes before its row, so only what is old is told of. Last, since what takes a bad engine's
        place leaves some."""
        young = self._store.clock() - self._grace
        for some in batched((blob for blob in self._store.blobs() if blob.modified < young), PAGE):
            named = self._named(some)
            for blob in some:
                if blob.digest not in named and blob.digest not in self._bad:
                    what = f"blob {blob.digest} ({human_size(blob.size)}): no row names it"
                    self._remove(blob, self._find(Kind.ORPHAN, blob.digest, what))

    def _named(self, some: Sequence[Blob]) -> set[str]:
        return self._index.named([blob.digest for blob in some]) | self._besides()

    def _remove(self, blob: Blob, finding: Finding) -> None:
        if self._repair and blob.digest not in self._named([blob]):
            self._store.delete(blob.digest, before=self._store.clock() - self._grace)
            finding.healed, finding.how = True, "removed"

    # -- rows --------------------------------------------------------------------------------------------------

    def _rows(self) -> None:
        """Forms first: engines are built again from those that are left."""
        self._forms()
        page = self._index.engines_after()
        while page:
            self._engines(page)
            last = page[-1]
            page = self._index.engines_after((last.recipe, last.namespace))
        self._programs()

    def _engines(self, page: Sequence[Engine]) -> None:
        self._done.engines += len(page)
        gone = lost(self._store, {blob for engine in page for blob in blobs_of(engine)})
        sick = [(engine, found) for engine in page if (found := self._diagnose(engine, gone))]
        for finding in itertools.chain.from_iterable(found for _, found in sick):
            finding.waiting += 1
        if self._repair:
            for some in batched(sick, HEALED_AT_ONCE):
                self._heal([(e, found) for e, found in some if not self._restored(e, found, gone)])

    def _diagnose(self, engine: Engine, gone: set[str]) -> list[Finding]:
        """What is wrong with an engine. Its manifest's blob need not be read for it: the row's manifest is compared
        with that blob's name, and the blob's bytes were."""
        name = f"engine {short(engine.digest)} ({engine.manifest.get('model')} for {engine.manifest.get('target')})"
        altered = alteration(engine)
        if altered:
            return [self._find(Kind.ALTERED, engine.digest, f"{name}: {altered}"), *self._bad_of([engine.digest])]
        missing = [blob for blob in blobs_of(engine) if blob in gone]
        if missing:
            what = {engine.digest: "its plan", engine.manifest["manifest"]: "its manifest"}
            known = self._bad_of(missing)
            told = [blob for blob in missing if blob not in self._bad]
            return known + [self._find(Kind.MISSING, blob, f"{name}: {what[blob]} is not there") for blob in told]
        size = self._store.size(engine.digest)
        if size not in (None, engine.size):
            return [self._find(Kind.SIZE, engine.digest, f"{name}: {size} bytes, and its row says {engine.size}")]
        refused = self._farm.cache.distrusts(engine)
        return [self._find(Kind.UNTRUSTED, engine.digest, f"{name}: {refused}")] if refused else []

    def _bad_of(self, blobs: Sequence[str]) -> list[Finding]:
        return [self._bad[blob] for blob in blobs if blob in self._bad]

    def _restored(self, engine: Engine, found: Sequence[Finding], gone: set[str]) -> bool:
        """Whether all that lacked was the manifest's blob, which its row holds word for word."""
        if engine.digest in gone or alteration(engine) or engine.manifest["manifest"] not in gone:
            return False
        self._store.put(io.BytesIO(body(engine.manifest)))
        _healed(found, "written again from its row")
        return True

    def _heal(self, sick: Sequence[tuple[Engine, list[Finding]]]) -> None:
        """Build again; where that cannot be, forget, so that the next ask builds."""
        if not sick:
            return
        self._tell(f"{len(sick)} engines are built again")
        queued = self._farm.remake([engine for engine, _ in sick])
        ended = iter(self._farm.wait([answer for answer in queued if answer is not None]))
        for (engine, found), asked in zip(sick, queued, strict=True):
            answer = next(ended) if asked is not None else None
            if answer is not None and answer.outcome.has_engine and not self._still_sick(engine):
                _healed(found, "built again")
            else:
                why = (answer.error or f"the build ended as {answer.outcome}") if answer is not None else NO_PROGRAM
                self._forget(engine, found, why)

    def _still_sick(self, engine: Engine) -> bool:
        """Whether the engine that took its place is any better."""
        found = self._index.engines(prefix=engine.recipe)
        made = [one for one in found if (one.recipe, one.namespace) == (engine.recipe, engine.namespace)]
        return not made or bool(self._farm.cache.distrusts(made[0])) or bool(lost(self._store, blobs_of(made[0])))

    def _forget(self, engine: Engine, found: Sequence[Finding], why: str) -> None:
        """An engine that is merely not trusted here stays: others may trust it."""
        if all(finding.kind is Kind.UNTRUSTED for finding in found):
            for finding in found:
                finding.how = f"it could not be built again: {why}"
            return
        self._index.drop_engine(engine.recipe, engine.digest, "found bad by 'farm verify'")
        _healed(found, f"forgotten, and built when it is next asked for (not now: {why})")

    def _forms(self) -> None:
        for page in self._holdings(Holder.FORM):
            self._done.forms += len(page)
            gone = lost(self._store, {blob for row in page for blob in row.blobs})
            for row in page:
                name = f"the ONNX form of program {short(str(row.place[0]))}"
                missing = [blob for blob in row.blobs if blob in gone]
                found = self._row_lacks(name, missing) if missing else self._distrusted_form(name, row)
                if found and self._repair and self._index.drop(row, "blob missing"):
                    _healed(found, "forgotten, and exported again when it is next needed")

    def _distrusted_form(self, name: str, row: Holding) -> list[Finding]:
        trust, form = self._farm.cache.trust, self._index.form(str(row.place[0]), str(row.place[1]))
        refused = ""
        if trust and form:
            vouchers = () if form.exporter.endswith(UNTRUSTED) else self._farm.cache.realm.trusted
            refused = trust.refuses_statement(form.detail.get("signature"), said_of(form), vouchers)
        if not refused:
            return []
        finding = self._find(Kind.UNTRUSTED, str(row.place[0]), f"{name}: {refused}")
        finding.waiting = 1
        return [finding]

    def _programs(self) -> None:
        for page in self._holdings(Holder.PROGRAM):
            self._done.programs += len(page)
            gone = lost(self._store, {blob for row in page for blob in row.blobs})
            for row in page:
                for finding in self._row_lacks(f"program {row.place[0]}", [b for b in row.blobs if b in gone]):
                    finding.how = "ask for its model again, with --force, to store it anew"

    def _row_lacks(self, name: str, missing: Sequence[str]) -> list[Finding]:
        found = self._bad_of(missing)
        for blob in missing:
            if blob not in self._bad:
                found.append(self._find(Kind.MISSING, blob, f"{name}: its bytes are not there"))
        for finding in found:
            finding.waiting += 1
        return found

    def _holdings(self, holder: Holder) -> Iterator[list[Holding]]:
        page = self._index.holdings(holder)
        while page:
            yield page
            page = self._index.holdings(holder, page[-1].place)


NO_PROGRAM = "its program, or how it was asked for, is gone"


def blobs_of(engine: Engine) -> list[str]:
    """The names that an engine's row gives for its plan and its manifest; they may be no names at all."""
    named: Mapping[str, Any] = engine.manifest
    return [engine.digest, str(named.get("manifest") or "")]


def digits_of(digest: str) -> str:
    return digest.partition(":")[2]


def _healed(found: Sequence[Finding], how: str) -> None:
    """One row of each finding is in order again; the last one heals it."""
    for finding in found:
        finding.waiting -= 1
        finding.healed, finding.how = finding.waiting == 0, how
