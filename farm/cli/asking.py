"""``farm key``, ``explain``, ``build`` and ``pull``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.output import Column, Table, count_of, emit, human_seconds, human_size, note, say, short
from farm.cli.session import opened
from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.asks import Answer, Identity
    from farm.cache import Miss
    from farm.index import Found
    from farm.service import Farm


# -- key -----------------------------------------------------------------------------------------------------


def key(
    models: opt.Models,
    targets: opt.Targets,
    settings: opt.Settings,
    min_shapes: opt.MinShapes,
    opt_shapes: opt.OptShapes,
    max_shapes: opt.MaxShapes,
    custom_ops: opt.CustomOps,
    as_json: opt.Json = False,
) -> None:
    """Say each engine's key, and build nothing.

    Works for any target and settings, whether or not a builder here could honour them.
    """
    profiles = opt.profiles_of(min_shapes, opt_shapes, max_shapes)
    with opened() as farm:
        looked = farm.look(opt.asks(models, targets, settings, profiles, custom_ops))
    if as_json:
        emit([_key_document(identity, found) for identity, found in looked])
        return
    table = Table([Column("model", cut="head"), Column("target"), Column("key"), Column("recipe"), Column("cached")])
    for identity, found in looked:
        told = "yes" if _is_found(found) else "no"
        table.add(identity.model, identity.target, short(identity.key), short(identity.recipe), told)
    table.show()
    _note_warnings([identity for identity, _ in looked], refused=True)


def _key_document(identity: Identity, found: Found | Miss) -> dict[str, Any]:
    return {
        "model": identity.model,
        "target": identity.target,
        "key": identity.key,
        "recipe": identity.recipe,
        "graph": identity.graph,
        "weights": identity.weights,
        "settings": dict(identity.settings),
        "toolchain": identity.toolchain,
        "cached": _is_found(found),
        "profiles": [dict(profile) for profile in identity.profiles],
        "warnings": list(identity.warnings),
        "refused": list(identity.refused),
    }


def _is_found(found: Found | Miss) -> bool:
    from farm.index import Found

    return isinstance(found, Found)


def _note_warnings(identities: Sequence[Identity], refused: bool = False) -> None:
    """Each warning once, however many engines it concerns."""
    told = [text for identity in identities for text in identity.warnings]
    if refused:
        told += [f"cannot be built: {text}" for identity in identities for text in identity.refused]
    for text in opt.distinct(told):
        note(f"farm: note: {text}")


# -- explain -------------------------------------------------------------------------------------------------


def explain(
    what: Annotated[list[str], typer.Argument(metavar="MODEL|KEY", help="Models, or two keys or recipes.")],
    targets: opt.Targets,
    settings: opt.Settings,
    min_shapes: opt.MinShapes,
    opt_shapes: opt.OptShapes,
    max_shapes: opt.MaxShapes,
    custom_ops: opt.CustomOps,
    as_json: opt.Json = False,
) -> None:
    """Say why an ask is a miss, or why two keys differ.

    A miss is compared with the nearest engines there are, part by part.
    """
    from farm.cli.explaining import explain_asks, explain_keys

    keys = [text for text in what if opt.program_path(text) is None]
    with opened() as farm:
        if keys:
            explain_keys(farm, what, keys, as_json)
            return
        profiles = opt.profiles_of(min_shapes, opt_shapes, max_shapes)
        explain_asks(farm, opt.asks(what, targets, settings, profiles, custom_ops), as_json)


# -- build ---------------------------------------------------------------------------------------------------


def build(
    models: opt.Models,
    targets: opt.Targets,
    settings: opt.Settings,
    min_shapes: opt.MinShapes,
    opt_shapes: opt.OptShapes,
    max_shapes: opt.MaxShapes,
    custom_ops: opt.CustomOps,
    no_wait: opt.NoWait = False,
    no_build: Annotated[
        bool,
        typer.Option(
            "--no-build", metavar="", help="Only look: exit 3 when one is missing.", rich_help_panel=opt.DOING
        ),
    ] = False,
    force: opt.Force = False,
    allow_portable: Annotated[
        bool,
        typer.Option(
            "--allow-portable",
            metavar="",
            help="Take an engine that was built to be portable where the very one is missing.",
            rich_help_panel=opt.DOING,
        ),
    ] = False,
    priority: opt.Priority = 0,
    as_json: opt.Json = False,
) -> None:
    """Get an engine for every model and target.

    From the cache where it is there; else built, once, however many ask.
    """
    if no_build and (force or no_wait):
        raise BadInput("--no-build goes with neither --force nor --no-wait", "leave one of them out")
    profiles = opt.profiles_of(min_shapes, opt_shapes, max_shapes)
    asks = opt.asks(models, targets, settings, profiles, custom_ops, priority)
    with opened(building=not no_build) as farm:
        answers = farm.submit(asks, build=not no_build, force=force, keep=no_wait, allow_portable=allow_portable)
        if not (no_wait or no_build):
            answers = wait_for(farm, answers)
    if as_json:
        emit([answer.as_json() for answer in answers])
    else:
        show_answers(answers)
    raise typer.Exit(exit_code(answers))


def wait_for(farm: Farm, answers: Sequence[Answer]) -> list[Answer]:
    """Wait with progress on stderr."""
    from farm.cli.progress import watching

    pending = {answer.build for answer in answers if answer.build and str(answer.outcome) in ("queued", "joined")}
    with watching(len(pending)) as shown:
        return farm.wait(answers, on_change=shown)


def exit_code(answers: Sequence[Answer]) -> int:
    """1 when something failed, 3 when something is missing, else 0."""
    outcomes = {str(answer.outcome) for answer in answers}
    if outcomes & {"failed", "cancelled"}:
        return 1
    return 3 if "missing" in outcomes else 0


def show_answers(answers: Sequence[Answer]) -> None:
    """The answers as a table, then what went wrong and what ought to be known, on stderr."""
    table = Table(
        [
            Column("model", cut="head"),
            Column("target"),
            Column("outcome"),
            Column("engine", right=True),
            Column("took", right=True),
            Column("key"),
        ]
    )
    for answer in answers:
        took = human_seconds(answer.seconds) if answer.seconds else ""
        size = human_size(answer.engine.size) if answer.engine else ""
        identity = answer.identity
        table.add(identity.model, identity.target, str(answer.outcome), size, took, short(identity.key))
    table.show()
    if len(answers) > 1:
        say(_summary(answers))
    for answer in answers:
        _note_trouble(answer)
    _note_warnings([answer.identity for answer in answers])


def _summary(answers: Sequence[Answer]) -> str:
    counts = Counter(str(answer.outcome) for answer in answers)
    saved = sum(answer.saved for answer in answers)
    words = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    return words + (f"; {human_seconds(saved)} of building saved" if saved >= 0.05 else "")


def _note_trouble(answer: Answer) -> None:
    identity = answer.identity
    if answer.error:
        note(f"farm: {identity.model} for {identity.target}: {answer.error}")
        if answer.hint:
            note(f"      {answer.hint}")
    elif answer.portable:
        note(f"farm: note: {identity.model} for {identity.target}: a portable engine, built for {answer.portable}")
    elif answer.needs_refit:
        note(f"farm: {identity.model} for {identity.target}: the engine holds other weights and needs a refit")
    elif str(answer.outcome) == "missing":
        note(f"farm: {identity.model} for {identity.target}: {answer.why or 'there is no such engine'}")
        note("      without --no-build it would be built; 'farm explain' says what is nearest")
    elif str(answer.outcome) == "queued":
        note(f"farm: {identity.model} for {identity.target}: queued as {answer.build}; 'farm worker' builds it")


# -- pull ----------------------------------------------------------------------------------------------------


def pull(
    what: Annotated[
        list[str],
        typer.Argument(
            default_factory=list,
            show_default=False,
            metavar="KEY|MODEL",
            help="Keys (or recipes, or digests), or paths of models; with a lock file, its models by name.",
        ),
    ],
    folder: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the plans are placed.")],
    targets: opt.Targets,
    settings: opt.Settings,
    min_shapes: opt.MinShapes,
    opt_shapes: opt.OptShapes,
    max_shapes: opt.MaxShapes,
    custom_ops: opt.CustomOps,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock", metavar="farm.lock", help="Pull what this file locks; farm.lock here when nothing is named."
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--layout", metavar="plain|triton", show_default=False, help="Plan files, or a Triton model repository."
        ),
    ] = "plain",
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, max=64, help="Engines fetched at once.")] = 4,
    allow_portable: Annotated[
        bool,
        typer.Option(
            "--allow-portable",
            metavar="",
            help="Take a locked engine that was built to be portable, where none is exact.",
        ),
    ] = False,
    build: Annotated[
        bool, typer.Option("--build", metavar="", help="Build what is missing, damaged or not to be trusted first.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Fetch engines' plans, verified.

    By lock file and target; by key, recipe or digest; or by model and target. Each has its manifest beside it. What was
    cut off goes on where it stopped. Exit 3 when one is missing.
    """
    from farm.cli.pulling import Given, pull_locked, pull_named

    given = Given(settings, min_shapes, opt_shapes, max_shapes, custom_ops)
    locked = lock is not None or not what
    if locked and (build or given.any):
        raise BadInput("a lock file says all of its engines", "leave out --build, settings and shapes, or --lock")
    if allow_portable and not locked:
        raise BadInput("--allow-portable goes with a lock file", "'farm build --allow-portable' asks the cache for one")
    if locked:
        documents = pull_locked(lock, what, targets, folder, layout, jobs, allow_portable)
    else:
        documents = pull_named(what, targets, given, folder, layout, build)
    if as_json:
        emit(documents)
        return
    table = Table(
        [Column("model", cut="head"), Column("target"), Column("size", right=True), Column("plan", cut="head")]
    )
    for item in documents:
        table.add(item["model"], item["target"], human_size(item["size"]), item["path"])
    table.show()
    say(f"{count_of(len(documents), 'plan')} in {folder}")
