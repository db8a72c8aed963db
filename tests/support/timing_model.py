"""A pure model of ``ITimingCache``: a mapping of operations to tactics. In ``combine`` what is there stays."""

from __future__ import annotations

import json
from collections.abc import Mapping

from farm.builders import Merged
from farm.devices import Device
from farm.timing_history import Scope

SCOPE = Scope("tensorrt", "10.14.1.48", 13, Device("NVIDIA L4", 89, 23, 58))


def cache(entries: Mapping[str, str]) -> bytes:
    return json.dumps(dict(entries), sort_keys=True).encode()


def entries(data: bytes) -> dict[str, str]:
    return dict(json.loads(data))


def combine(theirs: bytes, mine: bytes) -> Merged:
    """As TensorRT's, with which it shares that a cache which cannot be read is refused."""
    for name, data in (("theirs", theirs), ("mine", mine)):
        if not data.startswith(b"{"):
            return Merged(unfit=name, why="it is of another version or device, or damaged")
    held = {**entries(mine), **entries(theirs)}
    return Merged(cache(held), len(held))
