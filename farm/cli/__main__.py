"""``python -m farm.cli`` is ``farm``."""

from farm.cli import main

main()
