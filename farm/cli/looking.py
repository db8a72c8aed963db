"""``farm ls``, ``show``, ``logs``, ``cancel``, ``retry`` and ``settings``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.output import (
    Column,
    Table,
    count_of,
    emit,
    emit_line,
    human_ago,
    human_seconds,
    human_size,
    note,
    say,
    short,
)
from farm.cli.session import opened
from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.builds import Build
    from farm.service import Farm


class Thing(StrEnum):
    """What ``farm ls`` lists."""

    ENGINES = "engines"
    BUILDS = "builds"
    PROGRAMS = "programs"
    NODES = "nodes"
    SWEEPS = "sweeps"
    PINS = "pins"


# -- ls ------------------------------------------------------------------------------------------------------


def ls(
    thing: Annotated[
        Thing, typer.Argument(metavar="engines|builds|programs|nodes|sweeps|pins", show_default=False)
    ] = Thing.ENGINES,
    limit: Annotated[
        int, typer.Option("-n", "--limit", metavar="N", min=1, max=1_000_000, help="At most so many.")
    ] = 50,
    state: Annotated[
        str, typer.Option("--state", metavar="STATE", help="Builds in this state: queued, running, failed …")
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="NS", help="Engines of this namespace; '*': of every one.")
    ] = "",
    as_json: opt.Json = False,
) -> None:
    """List engines, builds, programs, nodes, sweeps or pins."""
    if namespace and thing is not Thing.ENGINES:
        raise BadInput("--namespace goes with engines", "write 'farm ls engines --namespace NS'")
    if state and thing is not Thing.BUILDS:
        raise BadInput("--state goes with builds", "write 'farm ls builds --state …'")
    with opened() as farm:
        documents = _LISTS[thing](farm, limit, namespace if thing is Thing.ENGINES else state)
    if as_json:
        emit(documents)
    elif documents:
        _SHOWN[thing](documents)
    else:
        say(_NOTHING[thing])


def _engines(farm: Farm, limit: int, namespace: str) -> list[dict[str, Any]]:
    from farm.cli.documents import engine_document

    places = (namespace,) if namespace else farm.cache.namespaces
    found = farm.index.engines(limit=limit, namespaces=() if namespace == "*" else places)
    return [engine_document(engine) for engine in found]


def _builds(farm: Farm, limit: int, state: str) -> list[dict[str, Any]]:
    from farm.builds import BuildState
    from farm.cli.documents import build_document

    if state and state not in list(BuildState):
        raise BadInput(f"'{state}' is no state of a build", f"it is one of {', '.join(BuildState)}")
    states = [BuildState(state)] if state else []
    return [build_document(build) for build in farm.index.builds(states=states, limit=limit)]


def _programs(farm: Farm, limit: int, state: str) -> list[dict[str, Any]]:
    from farm.cli.documents import program_document

    return [program_document(program) for program in farm.index.programs(limit=limit)]


def _nodes(farm: Farm, limit: int, state: str) -> list[dict[str, Any]]:
    from farm.cli.nodes import node_documents

    return node_documents(farm)[:limit]


def _sweeps(farm: Farm, limit: int, state: str) -> list[dict[str, Any]]:
    from farm.cli.sweep_life import listed

    return [listed(farm, sweep) for sweep in farm.index.sweeps(limit=limit)]


def _pins(farm: Farm, limit: int, state: str) -> list[dict[str, Any]]:
    from farm.cli.collecting import pin_documents

    return pin_documents(farm.config)[:limit]


def _show_engines(documents: Sequence[dict[str, Any]]) -> None:
    from farm.cli.documents import said_of

    table = Table(
        [
            Column("engine"),
            Column("model", cut="head"),
            Column("target"),
            Column("size", right=True),
            Column("build", right=True),
            Column("made"),
            Column("namespace"),
            Column("provenance", cut="tail"),
        ]
    )
    for item in documents:
        table.add(
            short(item["engine"]),
            item["model"] or "",
            item["target"] or "",
            human_size(item["size"]),
            human_seconds(item["build_seconds"]),
            human_ago(item["created"]),
            item["namespace"],
            said_of(item["provenance"]),
        )
    table.show()


def _show_builds(documents: Sequence[dict[str, Any]]) -> None:
    table = Table(
        [
            Column("build"),
            Column("state"),
            Column("model", cut="head"),
            Column("target"),
            Column("took", right=True),
            Column("asked"),
        ]
    )
    for item in documents:
        took = (item["finished"] or 0) - (item["started"] or 0) if item["finished"] and item["started"] else None
        table.add(
            item["build"], item["state"], item["model"], item["target"], human_seconds(took), human_ago(item["created"])
        )
    table.show()


def _show_programs(documents: Sequence[dict[str, Any]]) -> None:
    table = Table(
        [Column("program"), Column("name", cut="head"), Column("format"), Column("size", right=True), Column("stored")]
    )
    for item in documents:
        table.add(
            short(item["program"]), item["name"], item["format"], human_size(item["size"]), human_ago(item["created"])
        )
    table.show()


def _show_nodes(documents: Sequence[dict[str, Any]]) -> None:
    from farm.cli.nodes import show_nodes

    show_nodes(documents)


def _show_sweeps(documents: Sequence[dict[str, Any]]) -> None:
    from farm.cli.sweep_life import show_sweeps

    show_sweeps(documents)


def _show_pins(documents: Sequence[dict[str, Any]]) -> None:
    from farm.cli.collecting import show_pins

    show_pins(documents)


_LISTS = {
    Thing.ENGINES: _engines,
    Thing.BUILDS: _builds,
    Thing.PROGRAMS: _programs,
    Thing.NODES: _nodes,
    Thing.SWEEPS: _sweeps,
    Thing.PINS: _pins,
}
_SHOWN = {
    Thing.ENGINES: _show_engines,
    Thing.BUILDS: _show_builds,
    Thing.PROGRAMS: _show_programs,
    Thing.NODES: _show_nodes,
    Thing.SWEEPS: _show_sweeps,
    Thing.PINS: _show_pins,
}
_NOTHING = {
    Thing.ENGINES: "no engines yet; 'farm build MODEL -t TARGET' makes one",
    Thing.BUILDS: "no builds",
    Thing.PROGRAMS: "no programs yet; they are stored when they are first built",
    Thing.NODES: "no process builds now; 'farm worker' is one",
    Thing.SWEEPS: "no sweeps yet; 'farm sweep MODEL -t TARGET -g NAME=V,V' makes one",
    Thing.PINS: "nothing is pinned; 'farm pin KEY' keeps an engine from 'farm gc'",
}


# -- show ----------------------------------------------------------------------------------------------------

Id = Annotated[str, typer.Argument(metavar="ID", help="An id, key or digest; the first few characters will do.")]


def show(ident: Id, as_json: opt.Json = False) -> None:
    """Show one build, engine, program or sweep."""
    from farm.cli.showing import find_one

    with opened() as farm:
        found = find_one(farm, ident)
        document = found.document()
        if as_json:
            emit(document)
        else:
            found.show(document)


# -- logs, cancel, retry -------------------------------------------------------------------------------------


def logs(
    ident: Annotated[str, typer.Argument(metavar="BUILD", help="A build's id, or the start of it.")],
    follow: Annotated[
        bool, typer.Option("-f", "--follow", metavar="", help="Go on until the build has ended.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Print a build's log."""
    with opened() as farm:
        build = farm.find_build(ident)
        if follow:
            for text in farm.follow_log(build.id):
                _print_log(build.id, text, as_json)
            return
        text, _ = farm.index.log(build.id)
    if as_json:
        emit({"build": build.id, "log": text})
    elif text:
        _print_log(build.id, text, as_json=False)
    else:
        note(f"farm: the log of {build.id} is empty")


def _print_log(build: str, text: str, as_json: bool) -> None:
    """Streams: one JSON line for each piece as it comes."""
    if as_json:
        emit_line({"build": build, "log": text})
    else:
        sys.stdout.write(text)
        sys.stdout.flush()


def cancel(ident: Id, as_json: opt.Json = False) -> None:
    """Cancel a build, or what a sweep still builds.

    A build is cancelled for everybody who waits for it.
    """
    from farm.cli.showing import find_sweep_or_build
    from farm.cli.sweep_life import cancel_sweep

    with opened() as farm:
        found = find_sweep_or_build(farm, ident)
        if found.sweep is not None:
            cancel_sweep(farm, found.sweep, as_json)
            return
        before = found.build
        assert before is not None
        build = farm.cancel(before.id)
    _tell_cancelled(build, before, as_json)


def _tell_cancelled(build: Build, before: Build, as_json: bool) -> None:
    if as_json:
        from farm.cli.documents import build_document

        emit(build_document(build))
    elif not before.state.active:
        say(f"{build.id} had ended already: {build.state}")
    elif build.state.active:
        say(f"{build.id} is being cancelled; its worker stops within seconds")
    else:
        say(f"{build.id} cancelled")


def retry(
    ident: Id,
    no_wait: opt.NoWait = False,
    as_json: opt.Json = False,
) -> None:
    """Build again what failed or was cancelled.

    A remembered failure is forgotten.
    """
    from farm.cli.showing import find_sweep_or_build
    from farm.cli.sweep_life import retry_sweep

    with opened(building=not no_wait) as farm:
        found = find_sweep_or_build(farm, ident)
        if found.sweep is not None:
            code = retry_sweep(farm, found.sweep, no_wait, as_json)
        else:
            assert found.build is not None
            code = _retry_build(farm, found.build, no_wait, as_json)
    raise typer.Exit(code)


def _retry_build(farm: Farm, build: Build, no_wait: bool, as_json: bool) -> int:
    from farm.cli.asking import exit_code, show_answers, wait_for
    from farm.remaking import answer_of

    answers = [answer_of(farm.retry(build.id, keep=no_wait))]
    if not no_wait:
        answers = wait_for(farm, answers)
    if as_json:
        emit([answer.as_json() for answer in answers])
    else:
        show_answers(answers)
    return exit_code(answers)


# -- settings ------------------------------------------------------------------------------------------------


def settings(
    names: Annotated[
        list[str],
        typer.Argument(default_factory=list, show_default=False, metavar="NAME", help="All about these alone."),
    ],
    as_json: opt.Json = False,
) -> None:
    """List the compilation settings, and what each builder does with them."""
    from farm.cli import settings_table

    fields = settings_table.chosen(names)
    if as_json:
        emit([settings_table.document(field) for field in fields])
    elif names:
        for field in fields:
            settings_table.show_one(field)
    else:
        settings_table.show_all(fields)
        say(f"{count_of(len(fields), 'setting')}; 'farm settings NAME' says all about one")
