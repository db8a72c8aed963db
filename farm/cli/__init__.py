"""The command line. ``main`` is the console script; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import gc
import sys

COLLECT_AFTER = 50_000
"""New objects, less those that went, before garbage is looked for. Imports alone make twice as many, which stay: to
look through them after every 700, and through all again at the end, takes a sixth of a short command's time."""


def main() -> None:
    """Run ``farm`` with this process's arguments and exit with its code."""
    gc.set_threshold(COLLECT_AFTER)
    from farm.cli.run import run

    code = run(sys.argv[1:])
    gc.freeze()
    raise SystemExit(code)
