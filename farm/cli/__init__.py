"""The command line. ``main`` is the console script; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``farm`` with this process's arguments and exit with its code."""
    from farm.cli.run import run

    raise SystemExit(run(sys.argv[1:]))
