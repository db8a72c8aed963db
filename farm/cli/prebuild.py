"""``farm prebuild``: what a manifest asks for, built before it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from farm.cli import options as opt
from farm.cli.output import Column, Table, emit, human_size, note, say, short
from farm.cli.session import opened
from farm.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from farm.prebuilding.planning import Sources
    from farm.prebuilding.standing import Item, Prebuild
    from farm.prebuilds.entries import PrebuildSpec
    from farm.prebuilds.lock import LockEntry
    from farm.service import Farm

MISSING, FAILED = 3, 1


@dataclass(frozen=True)
class Wish:
    """What the command line asks for, beyond the manifest."""

    lock: Path
    plan: bool
    check: bool
    locked: bool
    junit: Path | None
    summary: Path | None
    since: str
    timeout: float | None
    pins: tuple[str, ...]
    as_json: bool

    @property
    def builds(self) -> bool:
        return not (self.plan or self.check)

    @property
    def writes(self) -> bool:
        return self.builds and not self.locked


def prebuild(
    file: Annotated[
        Path, typer.Argument(metavar="farm.yaml", show_default=False, help="The manifest; farm.yaml here by default.")
    ] = Path("farm.yaml"),
    plan: Annotated[
        bool, typer.Option("--plan", metavar="", help="Say what would be built, and stop.", rich_help_panel=opt.DOING)
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", metavar="", help="Only look: exit 3 when one is missing.", rich_help_panel=opt.DOING),
    ] = False,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock",
            metavar="farm.lock",
            help="The lock file; farm.lock beside the manifest by default.",
            rich_help_panel=opt.DOING,
        ),
    ] = None,
    locked: Annotated[
        bool,
        typer.Option(
            "--locked",
            metavar="",
            help="Fail when the lock file would change, and leave it.",
            rich_help_panel=opt.DOING,
        ),
    ] = False,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="F.xml", help="Write a JUnit report.")] = None,
    summary: Annotated[Path | None, typer.Option("--summary", metavar="F.md", help="Write a summary.")] = None,
    changed_since: Annotated[
        str,
        typer.Option(
            "--changed-since",
            metavar="REV",
            show_default=False,
            rich_help_panel=opt.DOING,
            help="Leave models alone that have not changed since this git revision.",
        ),
    ] = "",
    timeout: Annotated[
        str,
        typer.Option(
            "--timeout",
            metavar="D",
            show_default=False,
            rich_help_panel=opt.DOING,
            help="What is not finished after this (90s, 30m, 2h) has failed.",
        ),
    ] = "",
    pin: Annotated[
        list[str],
        typer.Option(
            "--pin",
            metavar="NAME",
            show_default=False,
            help="Keep all that is locked from collection, under this name. Repeats.",
            rich_help_panel=opt.DOING,
        ),
    ] = [],  # noqa: B006
    schema: Annotated[
        bool, typer.Option("--schema", metavar="", help="Print the manifest's JSON Schema, for editors.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Build what a manifest asks for, and lock it.

    Every model for every target; what is there already is not built again. Writes farm.lock.
    """
    from farm.prebuilds.manifest import read_manifest
    from farm.prebuilds.manifest import schema as manifest_schema

    if schema:
        emit(manifest_schema())
        return
    if plan and check:
        raise BadInput("--plan and --check both only look", "leave one of them out")
    wish = Wish(
        lock=lock or file.parent / "farm.lock",
        plan=plan,
        check=check,
        locked=locked,
        junit=junit,
        summary=summary,
        since=changed_since,
        timeout=seconds_of(timeout) if timeout else None,
        pins=tuple(pin),
        as_json=as_json,
    )
    for path in (junit, summary, wish.lock):
        if path is not None and not path.parent.is_dir():
            raise BadInput(f"{path}: there is no folder {path.parent}", "make it first")
    raise typer.Exit(_run(read_manifest(file), wish))


def seconds_of(text: str) -> float:
    """``90s``, ``30m``, ``2h``; ``BadInput`` for anything else."""
    from farm.config import parse_duration

    try:
        return parse_duration(text, "s")
    except (ValueError, OverflowError) as error:
        raise BadInput(f"--timeout is '{text}', which is no length of time", "write 90s, 30m or 2h") from error


def _run(spec: PrebuildSpec, wish: Wish) -> int:
    from farm.prebuilding.sources import model_sources
    from farm.prebuilds.lock_file import write_lock

    left = _clock(wish.timeout)
    old = _old_lock(wish)
    unchanged = _unchanged(spec, wish.since)
    # What a script made must last until it is in the store, which it is before its build is waited for.
    with (
        opened(building=wish.builds) as farm,
        model_sources(farm.config.scratch / "models", left, farm.notify) as sources,
    ):
        found = _planned(farm, spec, sources, old, unchanged)
        changes = found.changes(looking=True, engines=wish.check) if not wish.writes else []
        if wish.builds and not changes:
            found = _built(farm, found, left)
            changes = found.changes()
        written = wish.writes and write_lock(wish.lock, found.lock)
        code = _exit_code(found, changes, wish)
        # A run that failed lacks something; what its pins kept so far is what still runs.
        pinned = _pinned(farm, found, wish) if wish.builds and code == 0 else []
    _tell(found, changes, written, wish, pinned)
    return code


def _pinned(farm: Farm, found: Prebuild, wish: Wish) -> list[str]:
    """Pin all that is locked, under the manifest's names and the command line's; the names."""
    from farm.leaving import Leaving
    from farm.pinning import by_lock

    names = opt.distinct([*found.spec.pins, *wish.pins])
    if names and not farm.config.realm.is_trusted:
        # A pull request has the manifest that main has: it must not take the place of what main's pins keep.
        note(f"farm: note: '{farm.config.namespace}' is not trusted, and pins nothing")
        return []
    if names:
        wanted = by_lock(cast(Leaving, farm.index), found.lock, farm.cache.namespaces)
        for name in names:
            farm.pin(wanted, name)
    return names


def _old_lock(wish: Wish) -> tuple[LockEntry, ...]:
    from farm.prebuilds.lock_file import read_lock, read_old_lock

    if not wish.writes:
        return read_lock(wish.lock, needed=wish.locked)
    lines, fault = read_old_lock(wish.lock)
    if fault:
        note(f"farm: note: {fault}; it is written anew")
    return lines


def _built(farm: Farm, found: Prebuild, left: Callable[[], float | None]) -> Prebuild:
    from farm.cli.progress import watching
    from farm.prebuilding.building import build

    with watching(found.counts().get("missing", 0)) as shown:
        return build(farm, found, timeout=left(), on_change=shown)


def _clock(timeout: float | None) -> Callable[[], float | None]:
    started = time.monotonic()
    return lambda: None if timeout is None else max(0.0, timeout - (time.monotonic() - started))


def _unchanged(spec: PrebuildSpec, since: str) -> set[str]:
    if not since:
        return set()
    from farm.prebuilding.changed import changes_since, unchanged

    return unchanged(spec, changes_since(Path(spec.file).resolve().parent, since))


def _planned(
    farm: Farm, spec: PrebuildSpec, sources: Sources, old: Sequence[LockEntry], unchanged: set[str]
) -> Prebuild:
    """The plan, said in one line, and its warnings, before anything is built."""
    from farm.prebuilding.planning import plan
    from farm.prebuilding.report import line

    found = plan(farm, spec, sources, old, unchanged)
    note(f"farm: {line(found)}")
    for text in opt.distinct([text for item in found.items if item.identity for text in item.identity.warnings]):
        note(f"farm: note: {text}")
    return found


def _exit_code(found: Prebuild, changes: Sequence[str], wish: Wish) -> int:
    if any(item.fails for item in found.items) or (wish.locked and changes):
        return FAILED
    return MISSING if not wish.plan and any(item.lacks for item in found.items) else 0


# -- telling -------------------------------------------------------------------------------------------------


def _tell(found: Prebuild, changes: Sequence[str], written: bool, wish: Wish, pinned: Sequence[str]) -> None:
    _report(found, changes, wish)
    if wish.as_json:
        emit(_document(found, changes, written, wish) | {"pins": list(pinned)})
        return
    _show(found)
    _note_trouble(found, wish)
    for text in changes:
        note(f"farm: {wish.lock.name}{'' if written else ' would change'}: {text}")
    if wish.writes:
        say(f"{wish.lock} {'written' if written else 'is as it was'}")
    if pinned:
        say(f"pinned as {', '.join(pinned)}")


def _report(found: Prebuild, changes: Sequence[str], wish: Wish) -> None:
    """The files that were asked for, and what GitHub reads where this runs there."""
    from farm.config import pipeline
    from farm.prebuilding.report import junit, markdown, workflow_commands

    site = pipeline()
    if wish.junit:
        _write(wish.junit, junit(found, changes if wish.locked else ()))
    if wish.summary:
        _write(wish.summary, markdown(found, changes))
    if site.summary:
        _write(site.summary, markdown(found, changes), add=True)
    if site.annotates:
        for text in workflow_commands(found, changes, wish.locked, wish.plan):
            note(text)


def _write(path: Path, text: str, add: bool = False) -> None:
    try:
        with path.open("a" if add else "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}", "choose another file") from error


def _show(found: Prebuild) -> None:
    """What is the same for two runs that find the same: no times, in the manifest's order."""
    from farm.prebuilding.report import line

    columns = [Column("model", cut="tail"), Column("target"), Column("variant", cut="tail"), Column("state")]
    table = Table([*columns, Column("engine", right=True), Column("key")])
    for item in found.items:
        key = item.identity.key if item.identity else item.line.key if item.line else ""
        size = human_size(item.line.size) if item.line else ""
        entry = item.entry
        table.add(entry.model.name, entry.target, entry.variant, str(item.state), size, short(key) if key else "")
    table.show()
    say(line(found))


def _note_trouble(found: Prebuild, wish: Wish) -> None:
    from farm.prebuilding.report import why

    for item in found.items:
        if item.state.there:
            continue
        best = "" if item.entry.required else " (best effort)"
        what = "to build" if wish.plan and str(item.state) == "missing" else str(item.state)
        note(f"farm: {item.entry}: {what}{best}: {why(item)}")
        if item.hint:
            note(f"      {item.hint}")


def _document(found: Prebuild, changes: Sequence[str], written: bool, wish: Wish) -> dict[str, Any]:
    return {
        "entries": [_entry(item) for item in found.items],
        "counts": found.counts(),
        "missing": [str(item.entry) for item in found.items if str(item.state) == "missing"],
        "failed": [str(item.entry) for item in found.items if str(item.state) == "failed"],
        "lock": {"path": str(wish.lock), "written": written, "changes": list(changes)},
    }


def _entry(item: Item) -> dict[str, Any]:
    entry, line, identity = item.entry, item.line, item.identity
    named = identity or line
    state = str(item.state)
    return {
        "model": entry.model.name,
        "target": entry.target,
        "variant": entry.variant or None,
        "key": named.key if named else None,
        "recipe": named.recipe if named else None,
        "toolchain": named.toolchain if named else None,
        "state": state,
        "outcome": "hit" if state in ("locked", "cached", "unchanged") else state,
        "required": entry.required,
        "engine": {"digest": line.engine, "size": line.size} if line else None,
        "why": list(item.why),
        "hint": item.hint or None,
        "seconds": round(item.seconds, 3),
    }
