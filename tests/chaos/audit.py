"""Whether all is as it must be, after the faults are over and the fleet has come to rest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row

from farm.asks import Identity
from farm.builds import MAX_ATTEMPTS, FailureKind
from tests.chaos.fleet import ENDED_WELL, Member, entries
from tests.chaos.work import Fate, Piece, Work, plan_for

Row = Mapping[str, Any]
NEVER = ("WRONG BYTES", "WRONG ANSWER", "NO REASON", "UNANSWERED", "DEFECT", "given up")
"""What no client may ever write into its diary."""
NEVER_LOGGED = ("Traceback", "Exception in thread", "Fatal Python error", "defect")
KILLED = -9


@dataclass
class Tables:
    """The database's rows, as they are at rest."""

    builds: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)
    engines: list[Row] = field(default_factory=list)
    waiters: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, url: str) -> Tables:
        with psycopg.connect(url, row_factory=dict_row) as connection:
            return cls(*([*connection.execute(f"SELECT * FROM {name}")] for name in vars(cls())))


@dataclass(frozen=True)
class Case:
    """What an auditor has before it."""

    work: Work
    identities: Sequence[Identity]
    tables: Tables
    diaries: Sequence[Mapping[str, Any]]

    @cached_property
    def pieces(self) -> dict[str, Piece]:
        """By recipe."""
        return {identity.recipe: piece for identity, piece in zip(self.identities, self.work.pieces, strict=True)}

    @cached_property
    def digests(self) -> dict[str, str]:
        """The engine that each recipe must have."""
        return {
            identity.recipe: "sha256:" + hashlib.sha256(plan_for(identity)).hexdigest() for identity in self.identities
        }

    def said(self, kind: str) -> list[Mapping[str, Any]]:
        return [entry for entry in self.diaries if entry["kind"] == kind]


def all_wrong(case: Case) -> list[str]:
    """Everything that is not as it must be, in words."""
    checks = (accepted, ends, cancelled, attempts, engines, fenced, single_flight, said)
    return [wrong for check in checks for wrong in check(case)]


def accepted(case: Case) -> Iterator[str]:
    """Nothing that was accepted is lost, and all of it has ended."""
    known = {row["id"] for row in case.tables.builds}
    for entry in case.said("accepted"):
        if entry["build"] and entry["build"] not in known:
            yield f"build {entry['build']} was accepted and is gone"
    for row in case.tables.builds:
        if row["state"] in ("queued", "running"):
            yield f"build {row['id']} is still {row['state']}"
        elif row["lease_expires"] is not None:
            yield f"build {row['id']} has ended and still holds a lease"


def ends(case: Case) -> Iterator[str]:
    """Each build ended for the right reason."""
    pieces, digests = case.pieces, case.digests
    for row in case.tables.builds:
        poison = pieces[row["recipe"]].fate is Fate.POISON
        if row["state"] == "succeeded" and (poison or row["engine"] != digests[row["recipe"]]):
            yield f"build {row['id']} succeeded with {row['engine']}, which is not its engine"
        if row["state"] == "failed":
            yield from _failure(row, poison)


def _failure(row: Row, poison: bool) -> Iterator[str]:
    kind = FailureKind(row["failure_kind"])
    why = f"build {row['id']} failed ({kind}, attempt {row['attempts']}): {row['failure_message']}"
    if kind is FailureKind.PERMANENT and not poison:
        yield f"{why}; it can be built"
    if kind is not FailureKind.PERMANENT and row["attempts"] < MAX_ATTEMPTS[kind]:
        yield f"{why}; it had attempts left"
    if kind is FailureKind.NODE:
        yield f"{why}; no node was at fault"


def cancelled(case: Case) -> Iterator[str]:
    """Only what somebody cancelled for everybody, or what nobody waited for any more."""
    for_all = {entry["build"] for entry in case.said("cancelling")}
    waited = defaultdict(list)
    for row in case.tables.waiters:
        waited[row["build"]].append(row["waiter"])
    for row in case.tables.builds:
        if row["state"] == "cancelled" and row["id"] not in for_all and waited[row["id"]]:
            yield f"build {row['id']} was cancelled while {waited[row['id']]} waited for it"


def attempts(case: Case) -> Iterator[str]:
    """Tokens rise, every attempt has ended, and none but the last holder of a build made it succeed."""
    by_build = defaultdict(list)
    for row in case.tables.attempts:
        by_build[row["build"]].append(row)
    for build in case.tables.builds:
        mine = sorted(by_build[build["id"]], key=lambda row: row["token"])
        yield from _attempts_of(build, mine)


def _attempts_of(build: Row, mine: Sequence[Row]) -> Iterator[str]:
    open_ones = [row["token"] for row in mine if row["finished"] is None or not row["outcome"]]
    if open_ones:
        yield f"build {build['id']}: attempts {open_ones} never ended"
    if build["token"] != (mine[-1]["token"] if mine else 0):
        yield f"build {build['id']} is at token {build['token']}, its attempts at {[row['token'] for row in mine]}"
    won = [row["token"] for row in mine if row["outcome"] == "succeeded"]
    if won != ([build["token"]] if build["state"] == "succeeded" else []):
        yield f"build {build['id']} is {build['state']} at token {build['token']}; attempts {won} say they succeeded"
    if any(row["finished"] is not None and row["finished"] < row["started"] for row in mine):
        yield f"build {build['id']}: an attempt ended before it began"
    for row in mine:
        if "defect" in row["message"]:
            yield f"build {build['id']}: {row['message']}"


def engines(case: Case) -> Iterator[str]:
    """Exactly one for each recipe that should have one, made by a build that succeeded."""
    there = Counter(row["recipe"] for row in case.tables.engines)
    made = {row["id"]: row for row in case.tables.builds if row["state"] == "succeeded"}
    for recipe, piece in case.pieces.items():
        must = int(piece.fate is not Fate.POISON)
        if (piece.number in case.work.wanted and there[recipe] != must) or there[recipe] > must:
            yield f"piece {piece.number} ({piece.fate.name}) has {there[recipe]} engines"
    for row in case.tables.engines:
        build = made.get(row["build"])
        if row["digest"] != case.digests[row["recipe"]]:
            yield f"engine {row['digest']} is not that of recipe {row['recipe']}"
        if build is None or (build["recipe"], build["engine"]) != (row["recipe"], row["digest"]):
            yield f"engine {row['digest']} names build {row['build']}, which did not make it"


def fenced(case: Case) -> Iterator[str]:
    """Each engine's manifest names its maker: whoever held the build's last lease, and nobody who had lost it."""
    holders = {(row["build"], row["token"]): row["worker"] for row in case.tables.attempts}
    tokens = {row["id"]: row["token"] for row in case.tables.builds}
    for row in case.tables.engines:
        manifest = json.loads(row["manifest_json"])
        holder = holders.get((row["build"], tokens.get(row["build"])))
        if (manifest["build"], manifest["worker"]) != (row["build"], holder):
            yield f"engine {row['digest']} was made by {manifest['worker']}, while {holder} held build {row['build']}"


def single_flight(case: Case) -> Iterator[str]:
    """A recipe is built once; again only where its engine was dropped, or somebody asked for that."""
    recipe_of = {row["id"]: row["recipe"] for row in case.tables.builds}
    built = Counter(row["recipe"] for row in case.tables.builds if row["state"] == "succeeded")
    dropped = Counter(recipe_of[row["build"]] for row in case.tables.events if row["kind"] == "engine dropped")
    asked = Counter(recipe_of.get(entry["build"]) for entry in case.said("retry"))
    for recipe, count in built.items():
        if count > 1 + dropped[recipe] + asked[recipe]:
            yield f"recipe {recipe} was built {count} times, and dropped {dropped[recipe]} times"


def said(case: Case) -> Iterator[str]:
    """What clients met."""
    for kind in NEVER:
        for entry in case.said(kind):
            yield f"a client: {dict(entry)}"


# -- processes -----------------------------------------------------------------------------------------------------


def processes(members: Iterable[Member], folder: Path) -> Iterator[str]:
    """How the processes ended, what they logged, and what is left of them."""
    for member in members:
        for code, count in member.codes.items():
            if code not in (*ENDED_WELL, KILLED):
                yield f"{member.name} ended with {code}, {count} times"
        text = member.log.read_text("utf-8", "replace") if member.log.exists() else ""
        for sign in NEVER_LOGGED:
            if sign in text:
                at = text.index(sign)
                yield f"{member.name} logged: {text[max(0, at - 300) : at + 1500]}"
    for process in strays(folder):
        yield f"process {process.pid} is left: {process.cmdline()}"


def strays(folder: Path) -> list[psutil.Process]:
    """Processes that work in ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue
        if inside:
            found.append(process)
    return found


def left_in_scratch(members: Iterable[Member]) -> Iterator[str]:
    """Folders of builds that nobody makes any more."""
    for member in members:
        for path in (member.folder / "home" / "cache").glob("build-*"):
            yield f"{member.name} left {path.name} in its scratch folder"


def figures(case: Case) -> dict[str, int]:
    """What the run met, in numbers."""
    outcomes = Counter(row["outcome"] for row in case.tables.attempts)
    states = Counter(row["state"] for row in case.tables.builds)
    kinds = Counter(str(entry["kind"]) for entry in case.diaries)
    return {
        "builds": len(case.tables.builds),
        **{state: states[state] for state in ("succeeded", "failed", "cancelled")},
        "engines": len(case.tables.engines),
        "attempts": len(case.tables.attempts),
        "lost leases": outcomes["lost"],
        "transient failures": outcomes["transient"],
        "engines dropped": sum(row["kind"] == "engine dropped" for row in case.tables.events),
        "joined": sum(row["kind"] == "joined" for row in case.tables.events),
        "asked": kinds["accepted"],
        "engines read": kinds["served"],
        "reads refused": kinds["refused"],
        "turned away in words": kinds["error"],
    }


def case_of(work: Work, identities: Sequence[Identity], url: str, clients: Sequence[Member]) -> Case:
    return Case(work, identities, Tables.read(url), list(entries(clients)))
