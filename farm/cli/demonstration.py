"""``farm demo``: a sweep over two example programs and three GPU generations; then the same once more."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farm.cli.output import count_of, emit, human_seconds, note, say
from farm.cli.session import opened
from farm.errors import BuildFailed

if TYPE_CHECKING:
    from farm.sweeping.results import SweepResults

AGAIN_TIMEOUT_S = 120.0


def run(folder: Path, force: bool, as_json: bool) -> int:
    """The whole demonstration; the exit code is 0 when everything was built, and was all there the second time."""
    from farm.demo import REPORT, prepare

    began = time.monotonic()
    if not as_json:
        say("Two example programs, a ResNet-like and a GPT-like, with random weights;")
        say("a grid of settings; TensorRT-RTX engines for three GPU generations, without a GPU.")
        say()
    sweep = prepare(folder)
    note(f"farm: programs and sweep in {folder} ({human_seconds(time.monotonic() - began)})")
    found = _first(sweep, folder / REPORT, force, as_json)
    again = ask_again(sweep)
    if as_json:
        emit({"first": _short(found.as_json()), "again": again, "report": str(folder / REPORT)})
    else:
        _say_end(sweep, folder / REPORT, again)
    return 1 if found.failed or not again["all_hit"] else 0


def _first(sweep: Path, report: Path, force: bool, as_json: bool) -> SweepResults:
    from farm.cli.progress import watching
    from farm.cli.sweep import planned
    from farm.cli.sweep_table import show_results
    from farm.sweeping import planning as sweeping
    from farm.sweeping.report import write_report
    from farm.sweeps.file import read_sweep

    with opened(building=True) as farm:
        plan = planned(farm, read_sweep(sweep), force)
        began = time.monotonic()
        started = sweeping.start(farm, plan, force=force)
        with watching(len({answer.build for answer in started.answers if answer.build})) as shown:
            found = sweeping.wait(farm, started, on_change=shown)
        elapsed = time.monotonic() - began
    write_report(report, found)
    if not as_json:
        say()
        show_results(found)
        counts = found.counts
        built = counts.get("built", 0)
        say(
            f"{count_of(built, 'distinct build')} in {human_seconds(elapsed)} answered {counts['asked']} configurations"
        )
    return found


def ask_again(sweep: Path) -> dict[str, Any]:
    """Ask for the same from a fresh process, as a colleague or a CI job would; timed from its start to its end."""
    command = [sys.executable, "-m", "farm", "sweep", "-c", str(sweep), "--json"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=AGAIN_TIMEOUT_S, check=False)
    elapsed = time.monotonic() - began
    try:
        document = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise BuildFailed(f"asking again ended with code {done.returncode}: {done.stderr.strip()[-300:]}") from error
    if "error" in document:
        raise BuildFailed(f"asking again failed: {document['error']['message']}", document["error"]["hint"] or "")
    outcomes = [trial["outcome"] for trial in document.get("trials", ())]
    hits = outcomes.count("hit")
    return {"seconds": round(elapsed, 3), "asked": len(outcomes), "hits": hits, "all_hit": hits == len(outcomes) > 0}


def _short(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("trials", "spec")}


def _say_end(sweep: Path, report: Path, again: dict[str, Any]) -> None:
    took = human_seconds(again["seconds"])
    say()
    if again["all_hit"]:
        say(f"Asked again, in a new process: all {again['asked']} were hits, in {took} of wall time.")
    else:
        say(f"Asked again, in a new process: {again['hits']} of {again['asked']} were hits, in {took}.")
    say(f"Report: {report}")
    say(f"Change {sweep} and run 'farm sweep -c {sweep}'; 'farm ls' lists the engines.")
