"""``python -m tests.bench [--quick] [--only NAME]…``: measure, print a table, write ``bench.json``.

Exits with 1 when a figure misses its limit, so that a pipeline may hold the line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from farm.cli import collect_seldom
from farm.errors import FarmError
from tests.bench import building, commands, fleet, graphs, lookup, pulling, sweeping, transfers, weights
from tests.bench.measure import Row, Unavailable, skipped

BENCHES: Mapping[str, Callable[[bool], Iterator[Row]]] = {
    "graph-digest": graphs.graph_digest,
    "get-hash": graphs.beside_get_hash,
    "looking": commands.looking,
    "key-without-torch": commands.key_without_torch,
    "build-overhead": building.overhead,
    "lookup": lookup.in_sqlite,
    "lookup-postgresql": lookup.in_postgresql,
    "weights": weights.weights_digest,
    "transfers": transfers.beside_boto3,
    "pull": pulling.beside_boto3,
    "fleet": fleet.overhead,
    "fleet-on-disk": fleet.on_disk,
    "embedded": fleet.embedded,
    "submit": fleet.submitting,
    "sweep": sweeping.forty_eight,
}


def main(arguments: list[str]) -> int:
    collect_seldom()  # what is measured in this process stands for a process of farm's
    given = _parser().parse_args(arguments)
    console = Console(stderr=True)
    rows: list[Row] = []
    started = machine()
    for name in given.only or BENCHES:
        with console.status(f"measuring {name}: {(BENCHES[name].__doc__ or '').splitlines()[0]}"):
            rows += _measured(name, given.quick)
    ended = {"load_at_end": _load()}
    document = {"machine": started | ended, "quick": given.quick, "rows": [row.as_json() for row in rows]}
    Path(given.out).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    _show(rows)
    return 1 if any(row.ok is False for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure farm against peers and limits.")
    parser.add_argument("--quick", action="store_true", help="smaller files and fewer repeats")
    parser.add_argument("--only", action="append", metavar="NAME", choices=BENCHES, help=", ".join(BENCHES))
    parser.add_argument("--out", default="bench.json", metavar="FILE", help="where the figures go (bench.json)")
    return parser


def _measured(name: str, quick: bool) -> Iterable[Row]:
    """A bench's rows; those that it had before something was missing are kept."""
    rows: list[Row] = []
    try:
        # One by one: those before an error stay.
        for row in BENCHES[name](quick):
            rows.append(row)
    except (Unavailable, FarmError) as error:
        rows.append(skipped(name, str(error)))
    return rows


def machine() -> dict[str, Any]:
    """What the figures were measured on, without its name."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_at_start": _load(),
    }


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _show(rows: Iterable[Row]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(title="farm's benchmarks", title_justify="left")
    for name in ("name", "value", "limit", "ratio", "against"):
        table.add_column(name, justify="left" if name in ("name", "against") else "right", no_wrap=name != "against")
    for row in rows:
        value = "" if row.value is None else f"{row.value:.4g} {row.unit}"
        limit = "" if row.limit is None else f"{row.limit:.4g} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}×"
        colour = {True: "green", False: "red", None: "default"}[row.ok]
        table.add_row(row.name, f"[{colour}]{value}[/]", limit, ratio, row.against)
    console.print(table)
    for row in rows:
        console.print(f"{row.name}: {row.note}", style="dim", highlight=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
