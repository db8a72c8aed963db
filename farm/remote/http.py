"""``httpx`` without its command line, which brings rich and pygments along: half of what the import takes."""

from __future__ import annotations

import sys

_COMMAND_LINE = "httpx._main"

if "httpx" not in sys.modules and _COMMAND_LINE not in sys.modules:
    # What is None there cannot be imported, which httpx bears: its command line may be missing.
    sys.modules[_COMMAND_LINE] = None  # type: ignore[assignment]
    import httpx

    del sys.modules[_COMMAND_LINE]
else:
    import httpx

__all__ = ["httpx"]
