"""What the cache was worth: numbers that are gathered in memory and added up in SQL now and then. Pure.

Nothing waits for these: whoever looks up, hands out or asks adds to a ``Usage``, which ``recorder`` writes in
batches. A process that is killed loses the last few seconds' numbers, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Place = tuple[str, str]
"""An engine's recipe and namespace."""


@dataclass
class Usage:
    """Numbers to be added: to the farm's ``counters`` by name and field; to each key's (``keys``) by field; and to the
    ``engines``' that were handed out, how often."""

    counters: dict[str, dict[str, float]] = field(default_factory=dict)
    keys: dict[str, dict[str, float]] = field(default_factory=dict)
    engines: dict[Place, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.counters or self.keys or self.engines)

    def count(self, name: str, by: Mapping[str, float]) -> None:
        _add(self.counters.setdefault(name, {}), by)

    def of_key(self, key: str, by: Mapping[str, float]) -> None:
        _add(self.keys.setdefault(key, {}), by)

    def used(self, recipe: str, namespace: str) -> None:
        place = (recipe, namespace)
        self.engines[place] = self.engines.get(place, 0) + 1


def _add(to: dict[str, float], by: Mapping[str, float]) -> None:
    for name, value in by.items():
        to[name] = to.get(name, 0.0) + value
