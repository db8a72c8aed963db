"""What the cache was worth: for one key and overall, as documents. Numbers as ``farm.usage`` counts them. Pure.

*Avoided* are builds that were not made since an engine was there (hits), or since one was being made (joined). The
*net* saving is the build time of the engines that were hit, less what it took to hand them out: the download, which
farm measures; deserialising and refitting happen where engines are used, and are known only as far as somebody told of
them (``Farm.spent``). What nothing is known of is ``None``, never nought.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farm.usage import MISSES

Numbers = Mapping[str, float]
SPENT = ("download", "deserialise", "refit")


def overall(counters: Mapping[str, Numbers]) -> dict[str, Any]:
    """The farm's use, from its counters."""
    hit, miss, served = (counters.get(name, {}) for name in ("hit", "miss", "served"))
    reasons = {name: value for name, value in miss.items() if name != "n"}
    spent = {"download": served.get("seconds"), **{name: counters.get("spent", {}).get(name) for name in SPENT[1:]}}
    joined = counters.get("joined", {}).get("n", 0.0)
    return _use(hit.get("n", 0.0), joined, hit.get("seconds", 0.0), miss.get("n", 0.0), reasons, spent) | {
        "forced": int(counters.get("forced", {}).get("n", 0.0)),
        "served": {"engines": int(served.get("n", 0.0)), "bytes": int(served.get("bytes", 0.0))},
    }


def of_key(numbers: Numbers) -> dict[str, Any]:
    """One key's use, from its numbers."""
    reasons = {name.partition(":")[2]: value for name, value in numbers.items() if name.startswith("miss:")}
    spent = {name: numbers.get(name) for name in SPENT}
    hits, seconds = numbers.get("hits", 0.0), numbers.get("seconds", 0.0)
    return _use(hits, numbers.get("joined", 0.0), seconds, sum(reasons.values()), reasons, spent) | {
        "served": {"engines": int(numbers.get("served", 0.0)), "bytes": int(numbers.get("bytes", 0.0))},
    }


def _use(
    hits: float, joined: float, seconds: float, misses: float, reasons: Numbers, spent: Mapping[str, float | None]
) -> dict[str, Any]:
    asked = hits + misses
    known = {name: value for name, value in spent.items() if value is not None}
    return {
        "asked": int(asked),
        "hits": int(hits),
        "hit_rate": round(hits / asked, 4) if asked else None,
        "misses": int(misses),
        "miss_reasons": {
            name: {"n": int(value), "rate": round(value / asked, 4), "why": MISSES.get(name, name)}
            for name, value in sorted(reasons.items(), key=lambda one: (-one[1], one[0]))
        },
        "joined": int(joined),
        "builds_avoided": int(hits + joined),
        "seconds": {
            "build_time_spared": round(seconds, 3),
            **{name: None if (value := spent[name]) is None else round(value, 6) for name in SPENT},
            "net_saved": round(seconds - sum(known.values()), 3),
        },
    }
