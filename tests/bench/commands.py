"""Commands as processes: what a user waits for, interpreter and imports included."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

from tests.bench.measure import Process, Row, clean, folder, limited, output, processes
from tests.bench.programs import CACHE, kept, python_without_torch

KEY_LIMIT_S = 0.7
LOOK_LIMIT_S = 0.5
HEAVY = ("torch", "tensorrt", "tensorrt_rtx", "torch_tensorrt", "pynvml", "onnx")


def key_without_torch(quick: bool) -> Iterator[Row]:
    """``farm key`` of the 5,000-node program, never seen before, in a base install."""
    python, path = python_without_torch(), kept("long")
    repeats = 4 if quick else 10
    with folder(CACHE) as place:
        home = place / "home"
        env = {"FARM_HOME": str(home)}
        command = [python, "-m", "farm", "key", path, "-t", "sm_89", "--json"]

        def forget() -> None:
            shutil.rmtree(home / "cache", ignore_errors=True)

        unseen = processes(command, repeats, env, before=forget)
        yield _row("key-without-torch", unseen, KEY_LIMIT_S, "the program not seen before")
        fresh = processes(command, repeats, env, before=lambda: shutil.rmtree(home, ignore_errors=True))
        yield _row("key-in-a-fresh-home", fresh, KEY_LIMIT_S, "FARM_HOME made by this very command")


def looking(quick: bool) -> Iterator[Row]:
    """``--help`` and ``ls``, and that neither imports torch or TensorRT although both are installed."""
    repeats = 5 if quick else 12
    python = processes([sys.executable, "-c", "pass"], repeats)
    with folder(CACHE) as home:
        env = {"FARM_HOME": str(home)}
        for name in ("--help", "ls"):
            command = [sys.executable, "-m", "farm", name]
            output(command, env)
            heavy = _heavy_imports(name, env)
            row = _row(name.strip("-"), processes(command, repeats, env), LOOK_LIMIT_S, _imports(heavy), python)
            yield row if not heavy else Row(**{**vars(row), "ok": False})


def _row(name: str, found: Process, limit: float, what: str, python: Process | None = None) -> Row:
    note = f"{what}; {found.said()}"
    against = "" if python is None else f"the limit of {limit:g} s ('python -c pass' takes {python.wall.least:.3f} s)"
    return limited(f"farm-{name}", found.wall.least, "s", limit, note, against)


def _heavy_imports(name: str, env: dict[str, str]) -> list[str]:
    """Which of the heavy packages ``farm NAME`` imports, by the interpreter's own account."""
    command = [sys.executable, "-X", "importtime", "-m", "farm", name]
    said = subprocess.run(command, env=clean(env), capture_output=True, text=True).stderr
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.splitlines() if "|" in line}
    assert "farm" in modules, "the interpreter told nothing of its imports"
    return sorted(modules & set(HEAVY))


def _imports(heavy: list[str]) -> str:
    return f"imports {', '.join(heavy)}" if heavy else "imports neither torch nor TensorRT"
