"""``python -m tests.vectors.regenerate``: write ``vectors.json`` anew, once a change of format has been decided.

Refuses while a vector that was there before changes and no version of ``cases.versions`` has risen: keys that have been
handed out under a version must mean the same for ever. ``--unreleased`` waives that while nobody has such keys yet.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.vectors.cases import FILE, computed, versions, written


def changed(old: Any, new: Any, path: str = "") -> list[str]:
    """Paths of what is other in ``new`` than it was in ``old``; what is only in ``new`` is no change."""
    if isinstance(old, dict) and isinstance(new, dict):
        gone = [f"{path}.{name}".lstrip(".") for name in old if name not in new]
        return gone + [
            found for name in old if name in new for found in changed(old[name], new[name], f"{path}.{name}")
        ]
    return [] if old == new else [path.lstrip(".")]


def main(arguments: list[str]) -> int:
    found = {"versions": versions(), **computed()}
    if FILE.exists():
        before = written()
        other = [path for path in changed(before, found) if not path.startswith("versions")]
        if other and before["versions"] == versions() and "--unreleased" not in arguments:
            print(f"{len(other)} vectors change, and no version has risen: {', '.join(other[:5])} …", file=sys.stderr)
            print(
                "raise the schema version that covers them first (see cases.versions), or --unreleased", file=sys.stderr
            )
            return 1
        print(f"{len(other)} vectors changed{': ' if other else ''}{', '.join(other[:10])}")
    FILE.write_text(json.dumps(found, indent=1, ensure_ascii=True, sort_keys=True) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
