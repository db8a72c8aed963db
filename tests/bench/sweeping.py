"""A sweep of configurations that really differ, beside the pure work in it and beside a loop over a converter."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.measure import Row, Unavailable, beside, folder, limited, output
from tests.bench.programs import CACHE, ROOT

MOST_OF_IDEAL = 1.15
LEAST_FASTER = 1.5
AGAIN_LIMIT_S = 2.0
TARGETS = {"sm_86": "SM86", "sm_89": "SM89", "sm_120": "SM120"}
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
MODELS = ("narrow", "wide")
PROFILES = {"short": ((1, 1), (1, 16), (1, 32)), "long": ((1, 1), (1, 128), (1, 256))}
WORK = ("parse", "build", "serialise")


def forty_eight(quick: bool) -> Iterator[Row]:
    """48 configurations of two programs that all differ for TensorRT-RTX, from ``.pt2`` to engines in the store."""
    for name in ("tensorrt_rtx", "torch"):
        if importlib.util.find_spec(name) is None:
            raise Unavailable(f"there is no {name} here")
    CACHE.mkdir(parents=True, exist_ok=True)
    with folder(CACHE) as place:
        output([sys.executable, "-m", "tests.bench.export_gpts", place, 4 if quick else 12], ENVIRONMENT)
        (place / "sweep.yaml").write_text(json.dumps(_asked()), "utf-8")
        # One half of the loop before the sweep, the other after it: what else a machine does seldom stays the same.
        loops = [_loop(place, MODELS[0])]
        first = _sweep(place)
        again = _sweep(place)
        work, exports = _pure(first["trials"], place / "home")
        loops.append(_loop(place, MODELS[1]))
    cores = len(os.sched_getaffinity(0))
    wall, ideal = first["wall"], (work + exports) / cores
    loop, busy = (sum(half[name] for half in loops) for name in ("seconds", "processor"))
    note = f"{work:.1f} s of TensorRT's own work and {exports:.1f} s of two exports, on {cores} cores"
    yield limited("sweep-48", wall, "s", MOST_OF_IDEAL * ideal, note, f"{MOST_OF_IDEAL} × pure work ÷ cores")
    yield beside(
        "sweep-48-loop", wall, "s", "ten lines over TensorRT-RTX", loop, 1 / LEAST_FASTER, "exports once a program"
    )
    yield limited(
        "sweep-48-again", again["wall"], "s", AGAIN_LIMIT_S, "the same asked again by a new process: all hits"
    )
    note = f"processor time of all processes, shared evenly by {cores} cores, where the loop keeps one busy"
    yield beside("sweep-48-processor", first["processor"] / cores, "s", "the loop's processor time", busy, None, note)


def _asked() -> dict[str, Any]:
    profiles = {
        name: {end: {"tokens": list(shape)} for end, shape in zip(("min", "opt", "max"), shapes, strict=True)}
        for name, shapes in PROFILES.items()
    }
    grid = {"profile": list(PROFILES), "disable_tf32": [False, True], "enable_weight_streaming": [False, True]}
    models = {name: {"path": f"{name}.pt2"} for name in MODELS}
    return {"models": models, "profiles": profiles, "targets": list(TARGETS), "grid": grid}


def _sweep(place: Path) -> dict[str, Any]:
    """``farm sweep`` as a process of its own, timed from its start to its end; nothing may have failed."""
    environment = {**ENVIRONMENT, "FARM_HOME": str(place / "home")}
    started, busy = time.perf_counter(), _processor()
    said = output([sys.executable, "-m", "farm", "sweep", "-c", place / "sweep.yaml", "--json"], environment)
    wall, busy = time.perf_counter() - started, _processor() - busy
    found: dict[str, Any] = json.loads(said)
    assert len(found["trials"]) == 48 and found["counts"]["distinct"] == 48, found["counts"]
    assert {trial["outcome"] for trial in found["trials"]} <= {"built", "hit"}, found["counts"]
    return {**found, "wall": wall, "processor": busy}


def _pure(trials: list[dict[str, Any]], home: Path) -> tuple[float, float]:
    """Seconds of TensorRT's parsing, building and serialising in all engines, and of one export a program, by their
    manifests. Builds that waited for an export count it as well, so the longest of a program's is its own."""
    from farm.config import load
    from farm.wiring import open_farm

    with open_farm(load({"FARM_HOME": str(home)}, cwd=home)) as farm:
        engines = {engine.recipe: engine.manifest for engine in farm.index.engines(limit=1000)}
    made = [(trial["model"], engines[trial["recipe"]]["seconds"]) for trial in trials]
    work = sum(seconds.get(name, 0.0) for _, seconds in made for name in WORK)
    exports = {model: max(seconds["form"] for other, seconds in made if other == model) for model, _ in made}
    return work, sum(exports.values())


def _processor() -> float:
    """Seconds of processor time of all processes that were started here and have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _loop(place: Path, model: str) -> dict[str, Any]:
    """The converter's loop over one program's configurations."""
    asked = [
        {
            "model": str(place / f"{model}.pt2"),
            "folder": str(place),
            "tf32": tf32,
            "streaming": streaming,
            "target": target,
            "profile": shapes,
        }
        for tf32, streaming, target, shapes in itertools.product(
            (True, False), (False, True), TARGETS.values(), PROFILES.values()
        )
    ]
    (place / "asked.json").write_text(json.dumps(asked), "utf-8")
    busy = _processor()
    said = output([sys.executable, "-m", "tests.bench.sweep_loop", place / "asked.json"], ENVIRONMENT)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    assert found["built"] == 48 // len(MODELS)
    return {**found, "processor": _processor() - busy}
