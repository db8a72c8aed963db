"""What the cache was worth: numbers that are gathered in memory and added up in SQL now and then. Pure.

Nothing waits for these: whoever looks up or hands out adds to a ``Usage``, which ``recorder`` writes in batches. A
process that is killed loses the last few seconds' numbers, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from farm.asks import Answer, Outcome
from farm.builds import Engine
from farm.namespaces import MAIN

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

    def __len__(self) -> int:
        return len(self.engines) + sum(map(len, (*self.counters.values(), *self.keys.values())))

    def merge(self, other: Usage) -> None:
        for name, by in other.counters.items():
            self.count(name, by)
        for key, by in other.keys.items():
            self.of_key(key, by)
        for place, hits in other.engines.items():
            self.engines[place] = self.engines.get(place, 0) + hits

    def count(self, name: str, by: Mapping[str, float]) -> None:
        _add(self.counters.setdefault(name, {}), by)

    def of_key(self, key: str, by: Mapping[str, float]) -> None:
        _add(self.keys.setdefault(key, {}), by)

    def used(self, recipe: str, namespace: str) -> None:
        place = (recipe, namespace)
        self.engines[place] = self.engines.get(place, 0) + 1


MISSES: Mapping[str, str] = {
    "never_built": "no engine of the key had been built",
    "other_recipe": "only another recipe's engine of the key was there",
    "bytes_lost": "its bytes were gone from the store",
    "altered": "its row or manifest had been altered",
    "untrusted": "nobody who is trusted vouched for it",
}
"""Why an ask was a miss: the word that is counted, and what it means."""


def tally(more: Usage, answers: Sequence[Answer], reasons: Sequence[str], force: bool) -> None:
    """Add what became of asks at their look-up. ``reasons`` says why each was a miss (a word of ``MISSES``). What is
    built all the same (``force``) is neither a hit nor a miss."""
    for answer, reason in zip(answers, reasons, strict=True):
        key = answer.identity.key
        if force:
            more.count("forced", {"n": 1.0})
        elif answer.outcome is Outcome.HIT:
            tally_hit(more, key, answer.saved)
            _used(more, answer.manifest)
        else:
            tally_miss(more, key, reason)


def tally_hit(more: Usage, key: str, seconds: float) -> None:
    """Add a hit that spared a build of so many seconds."""
    more.count("hit", {"n": 1.0, "seconds": seconds})
    more.of_key(key, {"hits": 1.0, "seconds": seconds})


def tally_miss(more: Usage, key: str, reason: str) -> None:
    more.count("miss", {"n": 1.0, reason: 1.0})
    more.of_key(key, {f"miss:{reason}": 1.0})


def tally_joined(more: Usage, answers: Sequence[Answer]) -> None:
    """Add those that joined a build which was being made already."""
    for answer in answers:
        if answer.outcome is Outcome.JOINED:
            more.count("joined", {"n": 1.0})
            more.of_key(answer.identity.key, {"joined": 1.0})


def tally_served(more: Usage, engine: Engine, seconds: float) -> None:
    """Add an engine's plan that was placed, in so many seconds."""
    more.count("served", {"n": 1.0, "bytes": float(engine.size), "seconds": seconds})
    key = str(engine.manifest.get("key") or "")
    if key:
        more.of_key(key, {"served": 1.0, "bytes": float(engine.size), "download": seconds})
    more.used(engine.recipe, engine.namespace)


def tally_spent(more: Usage, key: str, seconds: Mapping[str, float]) -> None:
    """Add what it took to use an engine. ``ValueError`` for anything but ``deserialise`` and ``refit``."""
    strange = sorted(set(seconds) - {"deserialise", "refit"})
    if strange:
        raise ValueError(f"{strange[0]} is none of deserialise and refit")
    more.count("spent", seconds)
    more.of_key(key, seconds)


def _used(more: Usage, manifest: Mapping[str, Any]) -> None:
    """By the manifest, which agrees with its row wherever it was a hit."""
    if manifest.get("recipe"):
        more.used(str(manifest["recipe"]), str(manifest.get("namespace", MAIN)))


def _add(to: dict[str, float], by: Mapping[str, float]) -> None:
    for name, value in by.items():
        to[name] = to.get(name, 0.0) + value
