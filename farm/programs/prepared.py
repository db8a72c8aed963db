"""Types that msgspec decodes into, worked out before any thread does so.

msgspec (0.22) works a type out at its first use and keeps what it has half done where other threads find it: two that
are first at once crash the process. A module is imported by one thread alone, so what it decodes into is used there.
"""

from __future__ import annotations

from typing import Any

import msgspec


def prepare(*kinds: Any) -> None:
    """Work these types out, and those that they are made of. For modules to call, once their types are there."""
    for kind in kinds:
        msgspec.json.Decoder(kind)
