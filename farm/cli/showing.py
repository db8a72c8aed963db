"""``farm show ID``: one thing, whatever kind it is, by the start of its id, key, recipe or digest."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from farm.cli.documents import (
    attempt_document,
    build_document,
    engine_document,
    event_document,
    program_document,
    said_of,
)
from farm.cli.measuring import measured_facts, show_measurements
from farm.cli.nodes import reasons
from farm.cli.output import (
    card,
    count_of,
    human_seconds,
    human_size,
    human_time,
    note,
    say,
    settings_text,
    short,
)
from farm.cli.partition import partition_text
from farm.errors import BadInput, NoSuchThing

if TYPE_CHECKING:
    from farm.builds import Build, Engine
    from farm.index import StoredProgram, Sweep
    from farm.service import Farm

FEW = 8
"""Candidates looked at, and named, when an id is too short."""


@dataclass(frozen=True)
class Shown:
    """One thing that was found: how to make its document, and how to show that to people."""

    kind: str
    name: str
    document: Callable[[], dict[str, Any]]
    show: Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Work:
    """A build or a sweep: what can be cancelled and retried."""

    build: Build | None = None
    sweep: Sweep | None = None


def find_one(farm: Farm, ident: str) -> Shown:
    """The one thing that ``ident`` names. ``NoSuchThing`` names the candidates, or the nearest ids there are."""
    if not ident.strip():
        raise BadInput("give an id", "'farm ls builds' and 'farm ls engines' list them")
    found = [*_builds(farm, ident), *_sweeps(farm, ident), *_engines(farm, ident), *_programs(farm, ident)]
    exact = [thing for thing in found if thing.name == ident]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise NoSuchThing(f"nothing starts with '{ident}'{_nearest(farm, ident)}", "'farm ls' lists what there is")
    names = ", ".join(f"{thing.kind} {thing.name}" for thing in found[:FEW])
    raise NoSuchThing(f"'{ident}' is short for several things: {names}", "write a few more characters")


def _builds(farm: Farm, ident: str) -> list[Shown]:
    return [
        Shown("build", build.id, lambda build=build: _build_document(farm, build), _show_build)  # type: ignore[misc]
        for build in farm.index.builds(prefix=ident, limit=FEW)
    ]


def _sweeps(farm: Farm, ident: str) -> list[Shown]:
    return [
        Shown("sweep", sweep.id, lambda sweep=sweep: _sweep_document(farm, sweep), _show_sweep(farm, sweep))  # type: ignore[misc]
        for sweep in farm.index.sweeps(prefix=ident, limit=FEW)
    ]


def _engines(farm: Farm, ident: str) -> list[Shown]:
    """Engines of equal bytes are one; the newest stands for them. Those of other namespaces only where there is none in
    those that are read."""
    engines: dict[str, Engine] = {}
    readable = farm.index.engines(prefix=ident, limit=FEW * 4, namespaces=farm.cache.namespaces)
    for engine in readable or farm.index.engines(prefix=ident, limit=FEW * 4):
        engines.setdefault(engine.digest, engine)
    return [
        Shown("engine", short(engine.digest), lambda engine=engine: _engine_document(farm, engine), _show_engine)  # type: ignore[misc]
        for engine in engines.values()
    ]


def _programs(farm: Farm, ident: str) -> list[Shown]:
    return [
        Shown("program", short(program.digest), lambda program=program: _program_document(farm, program), _show_program)  # type: ignore[misc]
        for program in farm.index.programs(prefix=ident, limit=FEW)
    ]


def find_sweep_or_build(farm: Farm, ident: str) -> Work:
    """What can be cancelled or retried under ``ident``; ``NoSuchThing`` otherwise."""
    from farm.sweeping.results import find_sweep

    sweeps = farm.index.sweeps(prefix=ident, limit=2)
    builds = farm.index.builds(prefix=ident, limit=2)
    if ident and len(sweeps) == 1 and not builds:
        return Work(sweep=find_sweep(farm, sweeps[0].id))
    if ident and not sweeps and not builds:
        raise NoSuchThing(
            f"no build or sweep starts with '{ident}'{_nearest(farm, ident)}", "'farm ls builds' lists them"
        )
    return Work(build=farm.find_build(ident))


def _nearest(farm: Farm, ident: str) -> str:
    known = [build.id for build in farm.index.builds(limit=200)]
    known += [sweep.id for sweep in farm.index.sweeps(limit=50)]
    known += [short(engine.digest) for engine in farm.index.engines(limit=200, namespaces=farm.cache.namespaces)]
    near = difflib.get_close_matches(ident, known, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(near)}?" if near else ""


# -- builds --------------------------------------------------------------------------------------------------


def _build_document(farm: Farm, build: Build) -> dict[str, Any]:
    return {
        "kind": "build",
        **build_document(build),
        "told": dict(build.request.told),
        "attempt_list": [attempt_document(attempt) for attempt in farm.index.attempts(build.id)],
        "events": [event_document(event) for event in farm.index.events(build.id)],
        "waiting": reasons(farm, build) if str(build.state) == "queued" else [],
    }


def _show_build(item: dict[str, Any]) -> None:
    failure = item["failure"] or {}
    where = f"{item['phase']} {item['progress'] * 100:.0f} %" if item["progress"] is not None else item["phase"]
    took = item["finished"] - item["started"] if item["finished"] and item["started"] else None
    card(
        f"build {item['build']}",
        [
            ("state", item["state"]),
            ("model", item["model"]),
            ("target", item["target"]),
            ("settings", settings_text(item["settings"]) or "defaults"),
            ("toolchain", item["toolchain"]),
            ("asked", human_time(item["created"])),
            ("took", human_seconds(took)),
            ("doing", where or "" if item["state"] == "running" else ""),
            ("worker", item["worker"] or ""),
            ("failed", failure.get("message", "")),
            ("do next", failure.get("hint") or ""),
            ("kind", failure.get("kind", "")),
            ("engine", short(item["engine"])),
            ("key", short(item["key"])),
            ("recipe", short(item["recipe"])),
            ("needs", _needs(item) if item["state"] == "queued" else ""),
            ("waited for by", count_of(item["waiters"], "client") if item["state"] in ("queued", "running") else ""),
        ],
    )
    for attempt in item["attempt_list"]:
        ended = attempt["finished"] - attempt["started"] if attempt["finished"] else None
        why = f": {attempt['message']}" if attempt["message"] else ""
        say(f"  attempt {attempt['attempt']}  {attempt['outcome'] or 'running'} {human_seconds(ended)}{why}")
    if item["state"] == "queued":
        for reason in item["waiting"]:
            say(f"  {reason['node']}  {'can take it, when its turn comes' if reason['can'] else reason['reason']}")
        if not item["waiting"]:
            say("  no process builds now; 'farm worker' is one")
    note(f"farm: 'farm logs {item['build']}' prints its log")


def _needs(item: dict[str, Any]) -> str:
    memory = f", {human_size(item['memory'])} of memory" if item["memory"] else ""
    return f"{item['capability']}{memory}"


# -- engines, programs, sweeps -------------------------------------------------------------------------------


def _engine_document(farm: Farm, engine: Engine) -> dict[str, Any]:
    program = str(engine.manifest.get("program") or "")
    return {
        "kind": "engine",
        **engine_document(engine),
        "manifest": dict(engine.manifest),
        "measurements": measured_facts(farm, engine.digest, program),
    }


def _show_engine(item: dict[str, Any]) -> None:
    manifest = item["manifest"]
    seconds = _table(manifest, "seconds")
    phases = ", ".join(f"{name} {human_seconds(took)}" for name, took in seconds.items() if took)
    card(
        f"engine {short(item['engine'])}",
        [
            ("size", human_size(item["size"])),
            ("model", item["model"] or ""),
            ("target", item["target"] or ""),
            ("toolchain", item["toolchain"] or ""),
            ("settings", settings_text(item["settings"]) or "defaults"),
            ("inputs", _bindings(manifest, "inputs")),
            ("outputs", _bindings(manifest, "outputs")),
            ("profiles", _profiles(manifest)),
            ("made", human_time(item["created"])),
            ("build", human_seconds(item["build_seconds"]) + (f" ({phases})" if phases else "")),
            ("peak memory", human_size(manifest.get("peak_memory"))),
            ("namespace", item["namespace"]),
            ("provenance", said_of(item["provenance"])),
            ("by build", manifest.get("build") or ""),
            ("on node", manifest.get("node") or ""),
            ("partition", partition_text(_table(_table(manifest, "detail"), "report"))),
            ("signed by", str(_table(manifest, "signature").get("key", ""))),
            ("key", short(item["key"])),
            ("recipe", short(item["recipe"])),
            ("sha256", item["engine"].partition(":")[2]),
        ],
    )
    show_measurements(item["measurements"])


def _table(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a manifest that is a table of its own: rows can be edited, and must be shown all the same."""
    found = manifest.get(name)
    return found if isinstance(found, dict) else {}


def _bindings(manifest: dict[str, Any], side: str) -> str:
    bound = _table(manifest, "bindings").get(side) or []
    return "\n".join(f"{b.get('name')} {str(b.get('dtype')).lower()} {_shape(b.get('shape', ()))}" for b in bound)


def _shape(shape: Any) -> str:
    return "x".join("?" if size == -1 else str(size) for size in shape) or "scalar"


def _profiles(manifest: dict[str, Any]) -> str:
    lines = []
    names = [b.get("name") for b in _table(manifest, "bindings").get("inputs") or []]
    for profile in manifest.get("profiles") or []:
        for position, shapes in profile.items():
            low, best, high = (shapes[kind] for kind in ("min", "opt", "max")) if isinstance(shapes, dict) else shapes
            name = names[int(position)] if int(position) < len(names) else position
            lines.append(f"{name} {_shape(low)} .. {_shape(best)} .. {_shape(high)}")
    return "\n".join(lines)


def _program_document(farm: Farm, program: StoredProgram) -> dict[str, Any]:
    measured = measured_facts(farm, "", program.digest)
    return {"kind": "program", **program_document(program), "measurements": measured}


def _show_program(item: dict[str, Any]) -> None:
    card(
        f"program {short(item['program'])}",
        [
            ("name", item["name"]),
            ("format", item["format"]),
            ("size", human_size(item["size"])),
            ("graph", short(item["graph"])),
            ("weights", short(item["weights"])),
            ("stored", human_time(item["created"])),
            ("sha256", item["program"].partition(":")[2]),
        ],
    )
    show_measurements(item["measurements"])


def _sweep_document(farm: Farm, sweep: Sweep) -> dict[str, Any]:
    from farm.sweeping.results import find_sweep, results

    return {"kind": "sweep", **results(farm, find_sweep(farm, sweep.id)).as_json()}


def _show_sweep(farm: Farm, sweep: Sweep) -> Callable[[dict[str, Any]], None]:
    def show(item: dict[str, Any]) -> None:
        from farm.cli.sweep_life import describe
        from farm.cli.sweep_table import show_results
        from farm.sweeping.results import find_sweep, results

        found = results(farm, find_sweep(farm, sweep.id))
        describe(found)
        show_results(found)

    return show
