"""Upkeep of the configured farm: what is repaired, collected, moved."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from farm.config import Config, load
from farm.errors import NotAllowed
from farm.logging import get_logger
from farm.wiring.backends import gone_workers, open_store, open_timing, open_upkeep
from farm.wiring.dispatches import open_dispatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from farm.collecting import Collected
    from farm.collection import Rules
    from farm.index import Worker
    from farm.migrating import Moved
    from farm.reconcile import Tally

log = get_logger(__name__)


def reconcile(
    config: Config, grace: float, dry_run: bool = False, sure: bool = False, tell: Callable[[str], None] = print
) -> Tally:
    """``farm reconcile`` on the configured farm."""
    from farm.reconcile import Reconcile
    from farm.repair import Repair

    index, store = open_upkeep(config), open_store(replace(config, store_cache=0))
    dispatch = open_dispatch(config, index, store)
    try:
        repair = Repair(index, dispatch.wake, lambda: gone_workers(index))
        named = open_timing(config, store).named
        return Reconcile(index, store, repair, grace=grace, dry_run=dry_run, sure=sure, tell=tell, named=named).run()
    finally:
        dispatch.stop()
        index.close()


def collect(
    config: Config,
    rules: Rules,
    history: float | None = None,
    dry_run: bool = False,
    sure: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Collected:
    """``farm gc`` on the configured farm. ``NotAllowed`` where its namespace is not trusted: programs and history are
    everybody's."""
    from farm.collecting import Collect

    if not config.realm.is_trusted and not dry_run:
        raise NotAllowed(
            f"'{config.namespace}' is not trusted, and collects nothing",
            "have it done from a trusted namespace ('farm gc --namespace' looks at one alone)",
        )

    index, store = open_upkeep(config), open_store(replace(config, store_cache=0))
    try:
        named = open_timing(config, store).named
        run = Collect(index, store, rules, history=history, dry_run=dry_run, sure=sure, named=named, tell=tell)
        return run.run()
    finally:
        index.close()


def collect_when_due(config: Config) -> bool:
    """Collect what the configuration wants collected, unless somebody of this farm did so lately; whether it was
    done."""
    from farm.collecting import TURN, configured_rules

    mine = _takes_turn(config, TURN, config.gc_seconds)
    if mine:
        collect(config, configured_rules(config), config.history or None)
    return mine


def reconcile_when_due(config: Config) -> bool:
    """Compare rows with blobs unless somebody of this farm did so lately; whether it was done. What is doubtful (most
    blobs gone, another farm's store) is refused, as it is to whoever asks without ``--yes``."""
    from farm.reconcile import GRACE_SECONDS, TURN

    mine = config.reconcile_seconds > 0 and _takes_turn(config, TURN, config.reconcile_seconds)
    if mine:
        reconcile(config, GRACE_SECONDS, tell=log.info)
    return mine


def _takes_turn(config: Config, turn: str, seconds: float) -> bool:
    """Whether it is this process's turn; never anybody's whose namespace is not trusted, since upkeep is of all."""
    if not config.realm.is_trusted:
        return False
    index = open_upkeep(config)
    try:
        return index.take_turn(turn, seconds)
    finally:
        index.close()


def tidy_when_due(config: Config) -> None:
    """What a farm needs now and then, asked for by beat and by every worker."""
    collect_when_due(config)
    reconcile_when_due(config)


def migrate(config: Config, home: Path, dry_run: bool = False, tell: Callable[[str], None] = print) -> Moved:
    """``farm migrate``: the embedded farm at ``home``, into the configured one."""
    import tempfile

    from farm.db.snapshot import snapshot
    from farm.migrating import Migration, Site, database_of

    theirs = load({"FARM_HOME": str(home)}, cwd=home)
    database = database_of(theirs, config)
    with tempfile.TemporaryDirectory(prefix="farm-migrate-") as folder, contextlib.ExitStack() as stack:
        name = snapshot(database, Path(folder) / "farm.db") or f"{config.host}:{database.resolve()}"
        source = open_upkeep(replace(theirs, database_url=f"sqlite:///{quote(folder)}/farm.db"))
        stack.callback(source.close)
        dest = open_upkeep(config)
        stack.callback(dest.close)
        store = open_store(replace(config, store_cache=0))  # what passes through is not asked for here again
        sites = Site(source, open_store(theirs), name), Site(dest, store)
        moved = Migration(*sites, Path(folder), lives, dry_run=dry_run, tell=tell).run()
        if not dry_run:
            dispatch = open_dispatch(config, dest, store)
            stack.callback(dispatch.stop)
            dispatch.wake(dest.wakes(0.0))
        return moved


def lives(worker: Worker) -> bool:
    """Whether a listed worker is at work, as far as can be told from here."""
    from farm.hosts.processes import alive, vantage

    here = vantage()
    if here and worker.detail.get("vantage") == here:
        return alive(worker.pid, worker.born)
    return worker.fresh
