"""The command line. ``main`` is the console script; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import gc
import sys

COLLECT_AFTER = 50_000
"""New objects, less those that went, before garbage is looked for. Imports alone make twice as many, which stay: to
look through them after every 700, and through all again at the end, takes a sixth of a short command's time."""


def collect_seldom() -> None:
    """Look for garbage as ``farm``'s own processes do. A library leaves that to its caller."""
    gc.set_threshold(COLLECT_AFTER)


def main() -> None:
    """Run ``farm`` with this process's arguments and exit with its code."""
    collect_seldom()
    from farm.cli.run import run

    code = run(sys.argv[1:])
    gc.freeze()
    raise SystemExit(code)
