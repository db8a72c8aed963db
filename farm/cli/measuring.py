"""``farm measure``, and measurements as ``farm show`` shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.output import Column, Table, emit, human_seconds, human_size, note, short
from farm.cli.session import opened
from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.asks import Ask
    from farm.measuring import Asked, Wish
    from farm.service import Farm

DEVICES = ("gpu", "cpu")
ANY_TARGET = "sm_89"
"""A program is the same for every target; to open one, some target must be named."""


def measure(
    what: Annotated[
        list[str], typer.Argument(metavar="KEY|MODEL", help="Keys (or recipes, or digests), or paths of models.")
    ],
    targets: opt.Targets,
    settings: opt.Settings,
    min_shapes: opt.MinShapes,
    opt_shapes: opt.OptShapes,
    max_shapes: opt.MaxShapes,
    custom_ops: opt.CustomOps,
    baseline: Annotated[
        str, typer.Option("--baseline", metavar="NAMES", help="What it is compared with: eager, compile, or none.")
    ] = "eager,compile",
    runs: Annotated[int, typer.Option("--runs", metavar="N", min=0, show_default=False, help="Repeated runs.")] = 0,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", metavar="", help="Record each inference once, and replay it.")
    ] = False,
    device: Annotated[
        str, typer.Option("--device", metavar="gpu|cpu", help="cpu: the baselines alone, on processors.")
    ] = "gpu",
    no_engine: Annotated[
        bool, typer.Option("--no-engine", metavar="", help="Measure the baselines alone, on the target's GPU.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", metavar="", help="Ask for it and return; a node with the GPU measures it.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Measure engines beside eager PyTorch and torch.compile.

    On a node that has the target's GPU; what none has now awaits one (exit 3).
    """
    from farm.measurements import parse_baselines
    from farm.measuring import Wish

    if device not in DEVICES:
        raise BadInput(f"'{device}' is no device", f"write one of {', '.join(DEVICES)}")
    wish = Wish(parse_baselines(baseline), cuda_graphs, runs)
    alone = no_engine or device == "cpu"
    models = [text for text in what if opt.program_path(text) is not None]
    keys = [text for text in what if opt.program_path(text) is None]
    if alone and (keys or not wish.baselines):
        raise BadInput("baselines are a model's, and an engine was named, or none", "give models, and a --baseline")
    profiles = opt.profiles_of(min_shapes, opt_shapes, max_shapes)
    with opened() as farm:
        asks = opt.asks(models, [ANY_TARGET] if device == "cpu" else targets, settings, profiles, custom_ops)
        if alone:
            rows = _baselines(farm, asks, wish, device == "cpu", not no_wait)
        else:
            rows = _engines(farm, keys, targets, asks, wish, not no_wait)
    if as_json:
        emit([row.as_json() for row in rows])
    else:
        show_rows(rows)
    raise typer.Exit(exit_code(rows, not no_wait))


def exit_code(rows: Sequence[Asked], waited: bool) -> int:
    """1 when something failed, 3 when an engine is missing or nobody could measure it, else 0."""
    outcomes = {str(row.outcome) for row in rows}
    if "failed" in outcomes:
        return 1
    return 3 if "missing" in outcomes or (waited and "awaiting" in outcomes) else 0


def _baselines(farm: Farm, asks: Sequence[Ask], wish: Wish, cpu: bool, wait: bool) -> list[Asked]:
    from farm.hosts.gpu import machine
    from farm.measuring import baseline_asks, baseline_places
    from farm.placement import cpu_place

    wanted = []
    for identity in farm.identify(asks):
        places = (cpu_place(machine()),) if cpu else baseline_places(identity)
        wanted += baseline_asks(identity, farm.store_program(identity), places, wish)
    return farm.measure(wanted, wait=wait)


def _engines(
    farm: Farm, keys: Sequence[str], targets: Sequence[str], asks: Sequence[Ask], wish: Wish, wait: bool
) -> list[Asked]:
    """What each key and each model × target stands for, measured; what is missing stands in its place."""
    from farm.cache import Miss
    from farm.cli.pulling import wanted
    from farm.measuring import Asked, Measuring, engine_asks, unmeasurable

    engines = [item.engine for item in wanted(farm, keys, targets, [])]
    missing = []
    for identity, found in farm.look(asks):
        if isinstance(found, Miss):
            missing.append(Asked(identity.model, identity.target, Measuring.MISSING, error=found.why))
        else:
            engines.append(found.engine)
    missing += [
        Asked(str(one.manifest.get("model")), str(one.manifest["target"]), Measuring.FAILED, error=why)
        for one in engines
        if (why := unmeasurable(one))
    ]
    wishes = [ask for engine in engines for ask in engine_asks(engine, _format(farm, engine.manifest), wish)]
    return [*farm.measure(wishes, wait=wait), *missing]


def _format(farm: Farm, manifest: Mapping[str, Any]) -> str:
    """Of the program that an engine was made of; ``.pt2`` if its row is gone, and then its blob says so."""
    found = farm.index.programs(prefix=str(manifest["program"]), limit=1)
    return found[0].format if found else "pt2"


# -- showing -------------------------------------------------------------------------------------------------


def show_rows(rows: Sequence[Asked]) -> None:
    """What was measured, each thing once, as a table; the rest in words, on stderr."""
    found = {row["id"]: row for asked in rows for row in asked.as_json()["measurements"]}
    models = {m.program: asked.model for asked in rows for m in asked.found}
    show_measurements(list(found.values()), models)
    for asked in rows:
        if asked.error:
            note(f"farm: {asked.model} for {asked.target}: {asked.outcome}: {asked.error}")
            if str(asked.outcome) == "missing":
                note(f"      'farm build {asked.model} -t {asked.target}' builds it")


def show_measurements(found: Sequence[Mapping[str, Any]], models: Mapping[str, str] | None = None) -> None:
    """Measurements' documents as a table, and below it what must be known of them."""
    names = [
        Column("model", cut="head"),
        Column("what"),
        Column("device", cut="tail"),
        *(Column(name, right=True) for name in ("p50 ms", "p90 ms", "p99 ms", "per s", "memory", "load", "x eager")),
        Column("differs", right=True),
        Column("spread", right=True),
    ]
    table = Table(names if models else names[1:])
    for one in found:
        cells = _cells(one)
        table.add(*([models.get(one["program"], "")] if models else []), *cells)
    table.show()
    for one in found:
        for text in _remarks(one):
            note(f"farm: {_what(one)} on {one['device']}: {text}")


def _cells(one: Mapping[str, Any]) -> list[str]:
    latency = one["latency"]
    accuracy = one["accuracy"]
    return [
        _what(one),
        str(one["device"]),
        *(f"{latency[name]:.3f}" for name in ("p50", "p90", "p99")),
        f"{one['throughput']:.1f}",
        human_size(one["memory"]) if one["memory"] is not None else "",
        human_seconds(one["load_seconds"]),
        f"{one['speedup']:.2f}" if one["speedup"] else "",
        "" if accuracy is None else f"{accuracy['max_abs']:.1e}" if accuracy["finite"] else "not finite",
        f"{one['spread']:.1%}",
    ]


def _what(one: Mapping[str, Any]) -> str:
    engine = f" {short(one['engine'])}" if one["engine"] else ""
    return f"{one['runner']}{engine}" + (" graphs" if one["cuda_graphs"] else "")


def _remarks(one: Mapping[str, Any]) -> list[str]:
    throttled = [f"its clocks were held down by {', '.join(one['throttled'])}"] if one["throttled"] else []
    return [*throttled, *one["notes"]]


def measured_facts(farm: Farm, digest: str, program: str) -> list[dict[str, Any]]:
    """The measurements' documents of an engine and of the baselines that they stand beside; a program's baselines
    where ``digest`` is empty."""
    from farm.measuring import baselines_beside, documents

    found = farm.index.measurements_of([one for one in (digest, program) if one])
    mine = [one for one in found if one.subject == (digest or program)]
    return documents([*mine, *baselines_beside(mine, found)])
