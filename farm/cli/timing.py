"""``farm timing``: the kernel timings that builds start from, by TensorRT version and kind of GPU."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.output import (
    Column,
    Table,
    card,
    count_of,
    emit,
    human_ago,
    human_seconds,
    human_size,
    note,
    say,
)
from farm.errors import BadInput, NoSuchThing

if TYPE_CHECKING:
    from farm.builders import Merged
    from farm.config import Config
    from farm.timing import Combine, TimingCaches
    from farm.timing_history import Author, History, Scope, Statistics, Version

HERE = "here"
NO_OP = "TensorRT-RTX times no kernels: builds with it neither start from timings nor leave any"

app = typer.Typer(
    help="Kernel timings that builds share: look at them, carry them, take a bad version back.", no_args_is_help=True
)
ScopeName = Annotated[
    str, typer.Argument(metavar="SCOPE", help="The beginning of a scope's id or name, as 'farm timing ls' shows them.")
]
Number = Annotated[int | None, typer.Option("--version", metavar="N", min=1, help="Not the newest, but version N.")]


@app.command("ls")
def ls(
    scope: Annotated[str, typer.Argument(metavar="[SCOPE]", show_default=False, help="List this one's versions.")] = "",
    as_json: opt.Json = False,
) -> None:
    """List timing caches, or the versions of one, and what they were good for."""
    caches, _ = _opened()
    if scope:
        history = caches.history(_find(caches, scope))
        emit(_whole(history)) if as_json else _show_one(history)
        return
    histories = [caches.history(one) for one in caches.scopes()]
    if as_json:
        emit([scope_document(history) for history in histories])
        return
    _show_all(histories)
    _say_no_op()


@app.command("pull")
def pull(
    scope: ScopeName,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Where it goes.")],
    version: Number = None,
    as_json: opt.Json = False,
) -> None:
    """Write a timing cache into a file, for TensorRT or trtexec to start from."""
    caches, _ = _opened()
    found = _find(caches, scope)
    held, data = caches.read(found, version)
    _write(out, data)
    if as_json:
        emit({"scope": found.id, "path": str(out), **asdict(held)})
    else:
        say(f"{out}: version {held.number} of {found}, {human_size(held.size)}")


@app.command("push")
def push(
    scope: Annotated[
        str,
        typer.Argument(metavar="SCOPE", help="The beginning of a scope's id or name; 'here' for this machine's GPU."),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A timing cache that TensorRT wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", metavar="", help="Put it in place of what is there, instead of merging both.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Share a timing cache: merge it with the newest, once TensorRT has read it.

    Where the scope's TensorRT and GPU are not on this machine it cannot be tried or merged: then --replace is needed.
    """
    from farm.timing import Lesson, check_bounds

    caches, config = _opened()
    data = _read(file)
    check_bounds(data)
    found, combine = _target(caches, config, scope)
    lesson = Lesson(data, _author(config), why="pushed", entries=_tried(combine, data, found))
    if combine is None and not replace and caches.history(found).usable:
        raise BadInput(
            f"this machine lacks the TensorRT or the GPU of {found}: it cannot merge timings of it",
            "push from one that has them, or say --replace",
        )
    learned = caches.replace(found, lesson) if replace or combine is None else caches.learn(found, lesson, combine)
    if learned.version is None:
        raise BadInput(f"{file}: {learned.why}", "nothing was changed")
    if as_json:
        emit({"scope": found.id, "tried": combine is not None, "written": learned.written, **asdict(learned.version)})
    else:
        told = f"is version {learned.version.number} now" if learned.written else "had all of it"
        say(f"{found} {told}")


@app.command("rollback")
def rollback(
    scope: ScopeName,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="The version to go back to.")],
    as_json: opt.Json = False,
) -> None:
    """Make an older version the newest again. What builds learn from those in between is turned away."""
    caches, config = _opened()
    found = _find(caches, scope)
    version = caches.rollback(found, number, _author(config))
    if as_json:
        emit({"scope": found.id, **asdict(version)})
    else:
        say(f"{found}: version {number} is the newest again, as version {version.number}")


# -- what is where -------------------------------------------------------------------------------------------


def _opened() -> tuple[TimingCaches, Config]:
    from farm.config import load
    from farm.wiring.backends import open_timing

    config = load()
    return open_timing(config), config


def _find(caches: TimingCaches, prefix: str) -> Scope:
    from farm.timing_history import find_scope

    return find_scope(caches.scopes(), prefix)


def _author(config: Config) -> Author:
    from farm.timing_history import Author

    return Author(f"{config.tenant} on {config.host}")


def _target(caches: TimingCaches, config: Config, prefix: str) -> tuple[Scope, Combine | None]:
    """The scope, and how its caches are merged here; ``None`` where this machine has not what it takes."""
    from farm.builders import Watch
    from farm.timing_history import Scope
    from farm.wiring.workers import open_merger, timed_here

    timed, environment = timed_here()
    editable = config.timing in ("editable", "strict")
    mine = [Scope.of(toolchain, gpu, editable) for toolchain, gpu in timed]
    if prefix == HERE and not mine:
        raise NoSuchThing("this machine has no GPU with a TensorRT that times kernels", "'farm doctor' says why")
    scope = mine[0] if prefix == HERE else _find(caches, prefix)
    if not any((scope.toolchain, scope.device) == (one.toolchain, one.device) for one in mine):
        return scope, None
    merger = open_merger(config, environment)

    def combine(theirs: bytes, data: bytes) -> Merged:
        return merger.merge(scope.toolchain, theirs, data, Watch())

    return scope, combine


def _tried(combine: Combine | None, data: bytes, scope: Scope) -> int | None:
    """Have TensorRT read it; how many entries it has, where that can be told."""
    if combine is None:
        note(f"farm: it is not tried: this machine lacks the TensorRT or the GPU of {scope}")
        return None
    merged = combine(b"", data)
    if merged.unfit:
        raise BadInput(f"TensorRT does not take this timing cache: {merged.why}", "push one that was made for it")
    return merged.entries


def _read(path: Path) -> bytes:
    from farm.timing import MOST_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", "name a file that TensorRT wrote") from error


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}", "choose another place with -o") from error
    finally:
        part.unlink(missing_ok=True)


# -- what is shown -------------------------------------------------------------------------------------------


def scope_document(history: History) -> dict[str, Any]:
    """One scope: what it is for, its newest version, what it was good for."""
    scope, newest = history.scope, history.newest
    statistics = asdict(history.statistics)
    statistics["baselines"] = len(history.statistics.baselines)
    return {
        "scope": scope.id,
        "name": scope.name,
        "toolchain": str(scope.toolchain),
        "device": asdict(scope.device),
        "editable": scope.editable,
        "newest": asdict(newest) if newest else None,
        "versions": len(history.versions),
        "statistics": statistics,
    }


def _whole(history: History) -> dict[str, Any]:
    versions = [{**asdict(version), "state": state_of(history, version)} for version in history.versions]
    return {**scope_document(history), "versions": versions}


def state_of(history: History, version: Version) -> str:
    if version.aside:
        return "set aside"
    if history.is_revoked(version.number):
        return "rolled back"
    return "newest" if version == history.newest else "kept"


def _show_all(histories: list[History]) -> None:
    if not histories:
        say("no timings are shared yet: a GPU's worker leaves some with its first build by TensorRT")
    table = Table(
        [
            Column("scope"),
            Column("of", cut="fold"),
            Column("no", right=True),
            Column("size", right=True),
            Column("entries", right=True),
            Column("written"),
        ]
    )
    for history in histories:
        scope, newest = history.scope, history.newest
        kind = f"{scope.toolchain}{' editable' if scope.editable else ''}\n{scope.device}"
        if newest is None:
            table.add(scope.id, kind, "-", "-", "-", "-")
        else:
            told = (str(newest.number), human_size(newest.size), _entries(newest), human_ago(newest.when))
            table.add(scope.id, kind, *told)
    table.show()


def _show_one(history: History) -> None:
    scope = history.scope
    facts = [("toolchain", str(scope.toolchain)), ("device", str(scope.device)), *use_facts(history.statistics)]
    card(f"timings {scope.id}" + (" (editable)" if scope.editable else ""), facts)
    table = Table(
        [
            Column("no", right=True),
            Column("state"),
            Column("size", right=True),
            Column("entries", right=True),
            Column("written"),
            Column("by", cut="tail"),
            Column("why", cut="fold"),
        ]
    )
    for one in reversed(history.versions):
        why = one.aside or one.why
        size = human_size(one.size)
        table.add(str(one.number), state_of(history, one), size, _entries(one), human_ago(one.when), one.who, why)
    table.show()


def use_facts(statistics: Statistics) -> list[tuple[str, str]]:
    """What a cache was good for; nothing is claimed where there was nothing to compare with."""
    started = f"{count_of(statistics.from_cache, 'build')} from it, {statistics.without} without"
    if statistics.from_cache and statistics.compared:
        sign = "" if statistics.saved >= 0 else "less than nothing: -"
        saved = f"{sign}{human_seconds(abs(statistics.saved))} in {count_of(statistics.compared, 'build')}"
        saved += " that had been made without it once"
    else:
        saved = "unknown: no build was made both without and from it"
    return [
        ("builds", started),
        ("nothing new", f"{statistics.nothing_new} found all their timings there" if statistics.nothing_new else ""),
        ("saved", saved),
    ]


def _entries(version: Version) -> str:
    return "-" if version.entries is None else f"{version.entries:,}"


def _say_no_op() -> None:
    from farm.wiring.backends import installed_toolchains

    if not all(toolchain.device_bound for toolchain in installed_toolchains()):
        note(f"farm: {NO_OP}")
