"""``farm gc``, ``pin`` and ``unpin``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.output import (
    Column,
    Table,
    count_of,
    emit,
    human_ago,
    human_seconds,
    human_size,
    human_time,
    note,
    say,
    short,
)
from farm.errors import BadInput

if TYPE_CHECKING:
    from farm.collecting import Collected
    from farm.collection import Rules
    from farm.config import Config
    from farm.leaving import Pin, Pinned
    from farm.prebuilds.lock import LockEntry

SHOWN = 50

# -- gc ------------------------------------------------------------------------------------------------------


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Say what would go, why and how much; change nothing.")
    ] = False,
    max_bytes: Annotated[
        str,
        typer.Option(
            "--max-bytes",
            metavar="SIZE",
            help="Bring engines, programs and ONNX forms down to this (50G), least lately used first.",
        ),
    ] = "",
    max_age: Annotated[
        str, typer.Option("--max-age", metavar="D", help="What was not used for so long goes: 30d, 12h; 30 is days.")
    ] = "",
    retired: Annotated[
        list[str],
        typer.Option(
            "--toolchain-retired",
            show_default=False,
            metavar="SPEC",
            help="Engines of these toolchains go: tensorrt==10.14.1.48, tensorrt==10.*, 'tensorrt<10.14'. Repeats.",
        ),
    ] = [],  # noqa: B006 - typer makes a list of its own
    namespaces: Annotated[
        list[str],
        typer.Option(
            "--namespace",
            show_default=False,
            metavar="NS",
            help="Look at, and count, engines of this namespace alone. Repeats.",
        ),
    ] = [],  # noqa: B006
    grace: Annotated[
        str,
        typer.Option(
            "--grace",
            metavar="D",
            help="What was made or used within this stays, and the bytes of what goes stay for so long "
            "(default: FARM_GC_GRACE, 1h; a plain number is seconds).",
        ),
    ] = "",
    history: Annotated[
        str,
        typer.Option(
            "--history",
            metavar="D",
            help="Forget finished builds and sweeps that are older (default: FARM_HISTORY, 90d).",
        ),
    ] = "",
    sure: Annotated[
        bool, typer.Option("--yes", "-y", metavar="", help="Go on though database or store lacks the other's label.")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Collect what is too much, too old or retired.

    What is pinned, in use or young stays. Rows go at once, their bytes a grace period later, by the next run. Without
    options, the budget and quotas of the configuration. Safe at any time, beside builders and readers.
    """
    from farm.config import load
    from farm.wiring.upkeep import collect

    config = load()
    rules = _rules(config, max_bytes, max_age, retired, namespaces, grace)
    old = duration("--history", history, "d") if history else config.history
    done = collect(config, rules, old or None, dry_run, sure, lambda text: note(f"farm: {text}"))
    if as_json:
        emit(done.as_json())
    else:
        _say(done)


def _rules(
    config: Config, max_bytes: str, max_age: str, retired: list[str], namespaces: list[str], grace: str
) -> Rules:
    """What was said here, over what is configured."""
    from dataclasses import replace

    from farm.collecting import configured_rules
    from farm.collection import Rules, parse_retired

    given = Rules(
        max_bytes=_size("--max-bytes", max_bytes) if max_bytes else None,
        max_age=duration("--max-age", max_age, "d") if max_age else None,
        retired=tuple(parse_retired(text) for text in retired),
    )
    rules = given if given.limits else configured_rules(config)
    period = duration("--grace", grace, "s") if grace else config.gc_grace
    return replace(rules, namespaces=tuple(namespaces), grace=period)


def _size(option: str, text: str) -> int:
    from farm.config import parse_size

    try:
        size = parse_size(text)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{option} is '{text}', which is no number of bytes", "write 50G, say") from error
    if size < 0:
        raise BadInput(f"{option} is '{text}'", "write 50G, say; 0 lets everything go that may")
    return size


def duration(option: str, text: str, unit: str) -> float:
    """A length of time in seconds, as an option gives it."""
    from farm.config import parse_duration

    try:
        return parse_duration(text, unit)
    except ValueError as error:
        raise BadInput(f"{option} is '{text}', which is no length of time", "write 30d, 12h, 45m or 10s") from error


def _say(done: Collected) -> None:
    _show_going(done)
    would = "would go" if done.dry_run else "went"
    for why, (count, freed) in done.by_reason().items():
        say(f"{count_of(count, 'thing')} ({human_size(freed)}) {would}: {why}")
    say(_balance(done))
    if done.removed:
        say(f"{count_of(done.removed, 'blob')} ({human_size(done.bytes_removed)}) removed, whose time had come")
    if done.waiting:
        blobs, grace = count_of(done.waiting, "blob"), human_seconds(done.rules.grace)
        size = human_size(done.bytes_waiting)
        say(f"{blobs} ({size}) to be removed by a run {grace} after their rows went")
    trimmed = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in done.trimmed.items() if count)
    if trimmed:
        say(f"history: {trimmed} {'would be ' if done.dry_run else ''}forgotten")


def _balance(done: Collected) -> str:
    if not done.rules.limits:
        return "no budget: give --max-bytes, --max-age or --toolchain-retired, or configure FARM_MAX_BYTES"
    left = f"{human_size(done.left)} {'would be ' if done.dry_run else ''}left"
    kept = f", of which {human_size(done.kept)} may not go (pinned, in use or young)" if done.kept else ""
    over = done.rules.max_bytes is not None and done.left > done.rules.max_bytes
    return f"{human_size(done.bytes)} looked at; {left}{kept}" + (": more than the budget" if over else "")


def _show_going(done: Collected) -> None:
    if not done.dry_run:
        return
    table = Table(
        [
            Column("kind"),
            Column("digest"),
            Column("what", cut="head"),
            Column("namespace"),
            Column("size", right=True),
            Column("last used"),
            Column("why"),
        ]
    )
    for one in done.going[:SHOWN]:
        thing = one.thing
        row = (thing.kind.value, short(thing.blobs[0]), thing.name, thing.namespace, human_size(thing.size))
        table.add(*row, human_ago(thing.last), one.why.value)
    table.show()
    if len(done.going) > SHOWN:
        say(f"… and {len(done.going) - SHOWN:,} more (--json has all)")


# -- pins ----------------------------------------------------------------------------------------------------


def pin(
    what: Annotated[
        list[str],
        typer.Argument(show_default=False, metavar="ENGINE|KEY", help="Engines by digest, recipe or key."),
    ] = [],  # noqa: B006
    lock: Annotated[
        Path | None, typer.Option("--lock", metavar="FILE", help="Every engine that this lock file names.")
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            "--name", metavar="NAME", help="The pin's name (default: the engine's digest, or the file's path)."
        ),
    ] = "",
    expires: Annotated[
        str,
        typer.Option("--expires", metavar="D", help="Keep them for so long: 30d, 12h; 30 is days (default: for ever)."),
    ] = "",
    as_json: opt.Json = False,
) -> None:
    """Keep engines from collection, under a name.

    A name that is pinned again keeps the new set in place of the old one.
    """
    from farm.config import load
    from farm.pinning import by_lock, by_prefix
    from farm.pinning import pin as put
    from farm.wiring.backends import open_upkeep

    if bool(what) == (lock is not None):
        raise BadInput("give engines or keys, or a lock file", "write 'farm pin KEY' or 'farm pin --lock farm.lock'")
    seconds = duration("--expires", expires, "d") if expires else None
    entries = _read_lock(lock) if lock is not None else ()
    config = load()
    index = open_upkeep(config)
    try:
        wanted = by_lock(index, entries) if lock is not None else by_prefix(index, what)
        made = put(index, wanted, name or _name(wanted, lock), seconds=seconds, grace=config.gc_grace)
    finally:
        index.close()
    if as_json:
        emit(pin_document(made))
    else:
        until = f" until {human_time(made.expires)}" if made.expires else ""
        say(f"{count_of(len(made.engines), 'engine')} pinned as {made.name}{until}")


def _read_lock(path: Path) -> tuple[LockEntry, ...]:
    from farm.prebuilds.lock import parse_lock

    try:
        return parse_lock(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", "name a farm.lock"
        ) from error


def _name(wanted: list[Pinned], lock: Path | None) -> str:
    """A lock file's folder and its own name, which tell repositories apart; or the first engine's digest."""
    if lock is not None:
        return f"{lock.absolute().parent.name}/{lock.name}"
    return short(wanted[0].digest)


def unpin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A pin's name, or the start of it.")],
    as_json: opt.Json = False,
) -> None:
    """Forget a pin: what it kept may be collected."""
    from farm.config import load
    from farm.pinning import unpin as drop
    from farm.wiring.backends import open_upkeep

    config = load()
    index = open_upkeep(config)
    try:
        gone = drop(index, name, config.gc_grace)
    finally:
        index.close()
    if as_json:
        emit(pin_document(gone))
    else:
        say(f"{gone.name} is unpinned: {count_of(len(gone.engines), 'engine')} may be collected")


def budget_documents(config: Config) -> list[dict[str, Any]]:
    """The whole and each namespace against its budget, where one is configured."""
    from dataclasses import asdict

    from farm.collecting import standings
    from farm.wiring.backends import open_upkeep

    index = open_upkeep(config)
    try:
        return [asdict(one) for one in standings(index, config)]
    finally:
        index.close()


def budget_facts(documents: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """For the card of ``farm stats``."""
    return [
        (
            item["name"],
            f"{human_size(item['used'])} of {human_size(item['limit'])}"
            + (f", {human_size(item['safe'])} of it pinned, in use or young" if item["safe"] else ""),
        )
        for item in documents
    ]


def pin_documents(config: Config) -> list[dict[str, Any]]:
    from farm.wiring.backends import open_upkeep

    index = open_upkeep(config)
    try:
        return [pin_document(one) for one in index.pins()]
    finally:
        index.close()


def pin_document(one: Pin) -> dict[str, Any]:
    return {
        "name": one.name,
        "engines": [
            {"engine": each.digest, "recipe": each.recipe, "namespace": each.namespace, "size": each.size}
            for each in one.engines
        ],
        "size": sum({each.digest: each.size for each in one.engines}.values()),
        "created": one.created,
        "expires": one.expires,
    }


def show_pins(documents: Any) -> None:
    table = Table(
        [Column("pin"), Column("engines", right=True), Column("size", right=True), Column("made"), Column("expires")]
    )
    for item in documents:
        until = human_time(item["expires"]) if item["expires"] else "never"
        table.add(
            item["name"], f"{len(item['engines']):,}", human_size(item["size"]), human_ago(item["created"]), until
        )
    table.show()
