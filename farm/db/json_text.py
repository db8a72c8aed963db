"""JSON in text columns, and as a parameter of statements."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any


def dump(value: Any) -> str:
    """JSON in ASCII, in which NUL and surrogates are escaped."""
    return _JSON.encode(value)


def dump_finite(value: Any) -> str:
    """The same of what holds no infinity and no NaN, for which msgspec would write ``null``; ten times as fast. Other
    letters than ASCII's stand as they are, but for surrogates."""
    try:
        return _encoder()(value).decode("utf-8")
    except UnicodeEncodeError:
        return dump(value)


def load(text: str) -> Any:
    return json.loads(text)


def _plain(value: Any) -> Any:
    """Mappings and sets that are no dict or list; ``TypeError`` for what JSON has no word for."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be kept as JSON")


_JSON = json.JSONEncoder(separators=(",", ":"), default=_plain)


@functools.cache
def _encoder() -> Callable[[Any], bytes]:
    import msgspec  # most commands write little

    return msgspec.json.Encoder(enc_hook=_plain).encode
