"""``farm stats``: the index's numbers, named for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farm.cli.output import human_seconds, human_size


def stats_facts(numbers: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titles, each with its named facts: what the cache holds, how it is used, how builds end."""
    counters = numbers.get("counters", {})
    hits = counters.get("hit", {}).get("n", 0)
    misses = counters.get("miss", {}).get("n", 0)
    asked = hits + misses
    held = [
        ("engines", f"{numbers.get('engines', 0):,}"),
        ("distinct plans", f"{numbers.get('blobs', 0):,}"),
        ("bytes", human_size(numbers.get("bytes", 0))),
        ("programs", f"{numbers.get('programs', 0):,}"),
    ]
    used = [
        ("asked", f"{asked:,.0f}"),
        ("hits", f"{hits:,.0f}" + (f" ({hits / asked:.0%})" if asked else "")),
        ("misses", f"{misses:,.0f}"),
        ("build time saved", human_seconds(counters.get("hit", {}).get("seconds", 0.0))),
    ]
    ended = [(str(state), f"{count:,}") for state, count in numbers.get("builds", {}).items()]
    return [("cache", held), ("use", used), ("builds", ended or [("none", "yet")])]
